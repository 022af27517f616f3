"""LMTP to the stores of real servers: over TCP, a UNIX socket and TLS, with an answer for each recipient."""

from __future__ import annotations

import random

import pytest

from mailbridge import (
    GreetingRefused,
    Mailer,
    RecipientsRefused,
    SMTPConfig,
    SMTPConnection,
)
from tests.integration.conftest import Configure, StartMailer
from tests.integration.mails import Mail, new_mail
from tests.servers.dovecot import BROKEN, MAILBOXES, Dovecot
from tests.servers.fixtures import StartSmtpSink
from tests.servers.postfix import Postfix

EVERYONE = tuple(f"{name}@lab.test" for name in MAILBOXES)
NOBODY, FAILING = "nobody-here@lab.test", f"{BROKEN}@lab.test"
DOTS = b".\r\n..\r\n.a\r\n" + "Grüße\r\n".encode() + b"y" * 998 + b"\r\n"


def to_all(body: bytes = DOTS) -> Mail:
    return new_mail(body, to=EVERYONE)


class TestDovecot:
    @pytest.mark.parametrize("options", [{}, {"pipelining": "off"}, {"security": "starttls"}])
    def test_everyone_has_it_byte_by_byte(
        self, dovecot: Dovecot, mailer: StartMailer, options: dict[str, str]
    ) -> None:
        client, mail = mailer(dovecot.lmtp, protocol="lmtp", **options), to_all()
        result = mail.send(client)
        assert (result.accepted, result.rejected) == (EVERYONE, {})
        assert all(dovecot.stored(name, mail.message_id) == [mail.content] for name in MAILBOXES)

    def test_over_a_unix_socket(self, dovecot: Dovecot) -> None:
        mail = to_all()
        with Mailer(SMTPConfig(url="lmtp://", host=f"unix:{dovecot.lmtp_socket}")) as client:
            assert mail.send(client).accepted == EVERYONE
        assert dovecot.stored("bob", mail.message_id) == [mail.content]

    @pytest.mark.parametrize("partial", ["deliver", "all-or-none"])
    def test_a_large_message_and_many_on_one_session(
        self, dovecot: Dovecot, mailer: StartMailer, partial: str
    ) -> None:
        """With all-or-none in chunks, which Dovecot offers."""
        client = mailer(dovecot.lmtp, protocol="lmtp", partial=partial)
        mails = [to_all(random.Random(n).randbytes(n * 10).hex().encode() + b"\r\n.") for n in range(40)]
        mails.append(to_all((b"." * 70 + b"\r\n") * 60_000))
        for mail in mails:
            assert mail.send(client).accepted == EVERYONE
        for mail in mails:
            stored = mail.content if mail.content.endswith(b"\r\n") else mail.content + b"\r\n"
            assert [dovecot.stored(name, mail.message_id) for name in MAILBOXES] == [[stored]] * 3
        assert client.stats().opened_total == 1

    def test_refused_at_rcpt_and_after_the_content(self, dovecot: Dovecot, mailer: StartMailer) -> None:
        client = mailer(dovecot.lmtp, protocol="lmtp")
        mail = new_mail(to=[NOBODY, "alice@lab.test", FAILING, "bob@lab.test"])
        result = mail.send(client)
        assert result.accepted == ("alice@lab.test", "bob@lab.test")
        assert {name: reply.code // 100 for name, reply in result.rejected.items()} == {
            NOBODY: 5,
            FAILING: 4,
        }
        assert len(result.rejected_errors) == 2
        for name in ("alice", "bob"):
            assert dovecot.stored(name, mail.message_id) == [mail.content]
        assert to_all().send(client).accepted == EVERYONE
        assert client.stats().opened_total == 1

    def test_for_nobody(self, dovecot: Dovecot, mailer: StartMailer) -> None:
        client = mailer(dovecot.lmtp, protocol="lmtp")
        for name, stage in ((NOBODY, "rcpt_to"), (FAILING, "final")):
            with pytest.raises(RecipientsRefused) as caught:
                new_mail(to=[name]).send(client)
            assert (caught.value.stage, list(caught.value.rejected)) == (stage, [name])
            assert not caught.value.outcome_unknown
        assert to_all().send(client).accepted == EVERYONE
        assert client.stats().opened_total == 1

    def test_all_or_none_keeps_it_from_the_others(self, dovecot: Dovecot, mailer: StartMailer) -> None:
        mail = new_mail(to=["alice@lab.test", NOBODY])
        with pytest.raises(RecipientsRefused):
            mail.send(mailer(dovecot.lmtp, protocol="lmtp", partial="all-or-none"))
        assert dovecot.stored("alice", mail.message_id) == []

    def test_verify(self, dovecot: Dovecot, mailer: StartMailer) -> None:
        report = mailer(dovecot.lmtp, protocol="lmtp").verify(
            mail_from="a@lab.test", rcpt_to=["alice@lab.test", NOBODY]
        )
        assert report["ehlo"].status == report["mail_from"].status == report["quit"].status == "ok"
        assert report["rcpt_to"].status == "failed"
        assert f"{NOBODY}: 550" in report["rcpt_to"].detail


def test_smtp_to_a_server_of_lmtp_and_the_reverse(
    dovecot: Dovecot, postfix: Postfix, configure: Configure
) -> None:
    """Each is told in a sentence what to change."""
    with pytest.raises(GreetingRefused, match="protocol='lmtp'"):
        SMTPConnection(configure(dovecot.lmtp)).connect()
    with pytest.raises(GreetingRefused, match="may speak SMTP"):
        SMTPConnection(configure(postfix.plain, protocol="lmtp")).connect()


def test_a_sink(smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
    sink = smtp_sink("-L")
    client = mailer(sink, protocol="lmtp")
    recipients = [f"r{n}@lab.test" for n in range(50)]
    mail = new_mail(DOTS.replace(b"\xc3", b"").replace(b"\xbc", b"").replace(b"\x9f", b""), to=recipients)
    assert mail.send(client).accepted == tuple(recipients)
    assert mail.send(client).round_trips == 2
    assert [m.content for m in sink.messages(at_least=2)] == [mail.content] * 2


class TestChunks:
    """BDAT to Postfix and Exim: the very bytes, in one chunk and in many."""

    @pytest.mark.parametrize("server", ["postfix", "exim"])
    @pytest.mark.parametrize("pipelining", ["auto", "off"])
    @pytest.mark.parametrize("size", [0, 70, 15_000, 70_000, 3_000_000])
    def test_byte_by_byte(
        self, request: pytest.FixtureRequest, mailer: StartMailer, server: str, pipelining: str, size: int
    ) -> None:
        running = request.getfixturevalue(server)
        client = mailer(running.plain, partial="all-or-none", pipelining=pipelining)
        mail = new_mail(DOTS + b"." * 60 + b"\r\n" + (b"x" * 70 + b"\r\n.") * (size // 73) + b"\r\n")
        result = mail.send(client)
        if pipelining == "auto" and size <= 15_000:
            assert mail.send(client).round_trips == 2
            assert running.delivered(mail.message_id) == [mail.content] * 2
        else:
            assert result.accepted == mail.envelope.recipients
            assert running.delivered(mail.message_id) == [mail.content]

    @pytest.mark.parametrize("server", ["postfix", "exim"])
    def test_refused_and_then_accepted_on_the_same_session(
        self, request: pytest.FixtureRequest, mailer: StartMailer, server: str
    ) -> None:
        running = request.getfixturevalue(server)
        client = mailer(running.plain, partial="all-or-none")
        mail, refused = new_mail(), new_mail(to=["inbox@lab.test", "gone@lab.test"])
        with pytest.raises(RecipientsRefused):
            refused.send(client)
        mail.send(client)
        assert running.delivered(mail.message_id) == [mail.content]
        assert running.delivered(refused.message_id) == []
        assert client.stats().opened_total == 1

    def test_too_large_for_postfix_in_the_middle_of_its_chunks(
        self, postfix: Postfix, mailer: StartMailer
    ) -> None:
        client = mailer(postfix.small, partial="all-or-none", disable=["size"])
        mail = new_mail((b"x" * 70 + b"\r\n") * 50_000)
        with pytest.raises(Exception, match="552") as caught:
            mail.send(client)
        assert caught.value.stage == "content"  # type: ignore[attr-defined]
        assert mail.message_id not in postfix.accepted_message_ids()
        after = new_mail()
        after.send(client)
        assert postfix.delivered(after.message_id) == [after.content]
