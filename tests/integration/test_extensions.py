"""8BITMIME, SMTPUTF8, SIZE, DSN: used where a real server offers them, done without or refused elsewhere."""

from __future__ import annotations

import email
import re
import uuid
from dataclasses import replace
from email import policy
from email.message import EmailMessage

import pytest

from mailbridge import (
    Envelope,
    Mailer,
    Message,
    MessageRefused,
    MessageTooLarge,
    NotSupported,
    Recipient,
    SMTPConnection,
    render,
)
from mailbridge.smtp import xtext
from tests.integration.conftest import Configure, StartMailer
from tests.integration.mails import INBOX, SENDER, Mail, new_mail
from tests.servers.exim import Exim
from tests.servers.fixtures import StartSmtpSink
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import SMALL_LIMIT, Postfix
from tests.servers.process import wait_until

TEXT = "Grüße aus Köln\n.\nмир 世界\n"
UMLAUTS = "grüße@lab.test"


def eight_bit_message(text: str = TEXT) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, INBOX, "Grüße"
    message.set_content(text, cte="8bit")
    return message


def next_one_arrives(mailer: Mailer, postfix: Postfix) -> bool:
    mail = new_mail()
    result = mail.send(mailer)
    return (
        mailer.stats().opened_total == 1
        and bool(result.queue_id)
        and len(postfix.copies(mail.message_id)) == 1
    )


@pytest.mark.parametrize(
    ("server", "service", "offered", "missing"),
    [
        ("postfix", "plain", {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN"}, set()),
        ("postfix", "minimal", {"SIZE", "STARTTLS"}, {"PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING"}),
        ("exim", "plain", {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING"}, set()),
        ("opensmtpd", "plain", {"SIZE", "8BITMIME"}, {"PIPELINING", "SMTPUTF8", "CHUNKING"}),
        ("dovecot", "submission", {"PIPELINING", "SIZE", "8BITMIME", "AUTH", "STARTTLS"}, {"SMTPUTF8"}),
    ],
)
def test_what_each_server_offers(
    request: pytest.FixtureRequest,
    configure: Configure,
    server: str,
    service: str,
    offered: set[str],
    missing: set[str],
) -> None:
    connection = SMTPConnection(configure(getattr(request.getfixturevalue(server), service)))
    connection.connect()
    assert {name for name in offered | missing if name in connection.capabilities} == offered
    connection.quit()


class TestEightBit:
    def test_said_where_it_is_offered(self, smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
        sink = smtp_sink()
        client = mailer(sink)
        for body in ("grüße\r\n".encode(), b"hello\r\n"):
            new_mail(body).send(client)
        parameters = {message.content[-7:]: message.mail_parameters for message in sink.messages(at_least=2)}
        assert parameters == {"üße\r\n".encode(): "BODY=8BITMIME", b"hello\r\n": ""}

    @pytest.mark.parametrize(("server", "service"), [("postfix", "plain"), ("exim", "plain")])
    def test_goes_as_it_is(
        self, request: pytest.FixtureRequest, mailer: StartMailer, server: str, service: str
    ) -> None:
        running = request.getfixturevalue(server)
        rendered = render(eight_bit_message())
        assert rendered.is_eight_bit
        mailer(getattr(running, service)).send(rendered, envelope=Envelope(SENDER, INBOX))
        assert running.delivered(rendered.message_id) == [rendered.content]

    @pytest.mark.parametrize(
        "text", [TEXT, "世界\n" * 50, "é" * 2000 + "\n"], ids=["mixed", "base64", "long"]
    )
    def test_is_made_seven_bit_for_a_server_without(
        self, postfix: Postfix, mailer: StartMailer, text: str
    ) -> None:
        client, message = mailer(postfix.minimal), eight_bit_message(text)
        result = client.send(message)
        assert result.message_id is not None
        [stored] = postfix.delivered(result.message_id)
        assert stored.isascii()
        assert result.message_size == len(stored)
        read = email.message_from_bytes(stored, policy=policy.SMTP)
        assert isinstance(read, EmailMessage)
        assert read.get_content().replace("\r\n", "\n") == text
        assert (read["Subject"], read["From"]) == ("Grüße", SENDER)
        assert message["Content-Transfer-Encoding"] == "8bit"  # the caller's own is as it was

    def test_each_part_is_made_seven_bit(self, postfix: Postfix, mailer: StartMailer) -> None:
        message = eight_bit_message()
        message.add_alternative("<p>Grüße</p>\n", subtype="html", cte="8bit")
        message.add_attachment("Köln\n", filename="stadt.txt", cte="8bit")
        message.add_attachment(bytes(range(256)), maintype="image", subtype="png", filename="x.png")
        result = mailer(postfix.minimal).send(message)
        assert result.message_id is not None
        [stored] = postfix.delivered(result.message_id)
        assert stored.isascii()
        read = email.message_from_bytes(stored, policy=policy.SMTP)
        parts = [part.get_content() for part in read.walk() if not part.is_multipart()]
        texts = [part.replace("\r\n", "\n") for part in parts[:3]]
        assert [*texts, parts[3]] == [TEXT, "<p>Grüße</p>\n", "Köln\n", bytes(range(256))]

    def test_signed_mail_is_refused_rather_than_changed(self, postfix: Postfix, mailer: StartMailer) -> None:
        client = mailer(postfix.minimal)
        signed = new_mail("grüße\r\n".encode(), fields=b"DKIM-Signature: v=1; a=rsa-sha256; b=x\r\n")
        with pytest.raises(NotSupported, match="signed and must not be encoded anew") as raised:
            signed.send(client)
        assert (raised.value.extension, raised.value.outcome_unknown) == ("8BITMIME", False)
        assert signed.message_id not in postfix.accepted_message_ids()
        assert next_one_arrives(client, postfix)
        assert signed.send(mailer(postfix.plain)).accepted
        assert postfix.delivered(signed.message_id) == [signed.content]


class TestUtf8:
    def test_a_local_part(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail = new_mail(to=[UMLAUTS], sender="absender-ß@example.test")
        assert mail.send(mailer(postfix.plain)).accepted == (UMLAUTS,)
        [copy] = postfix.copies(mail.message_id)
        assert (copy.recipients, copy.sender) == ((UMLAUTS,), "absender-ß@example.test")

    def test_exim_is_told(self, exim: Exim, mailer: StartMailer) -> None:
        mail = new_mail(to=[UMLAUTS])
        result = mail.send(mailer(exim.plain))
        [line] = [line for line in exim.log().splitlines() if f" id={mail.message_id[1:-1]}" in line]
        assert "P=utf8esmtp" in line
        assert result.accepted == (UMLAUTS,)

    def test_an_address_in_the_header(self, postfix: Postfix, mailer: StartMailer) -> None:
        message = Message(
            sender=SENDER, to=[f"Grüße <{UMLAUTS}>"], subject="Grüße", text="hello\n"
        ).as_email_message()
        result = mailer(postfix.plain).send(message)
        assert result.message_id is not None
        [stored] = postfix.delivered(result.message_id)
        assert UMLAUTS.encode() in stored

    def test_a_server_without_gets_nothing(self, postfix: Postfix, mailer: StartMailer) -> None:
        client = mailer(postfix.minimal)
        for mail in (new_mail(to=[INBOX, UMLAUTS]), new_mail(sender="ß@example.test")):
            with pytest.raises(NotSupported, match="SMTPUTF8, which the server does not offer") as raised:
                mail.send(client)
            assert (raised.value.extension, raised.value.outcome_unknown) == ("SMTPUTF8", False)
            assert mail.message_id not in postfix.accepted_message_ids()
        assert next_one_arrives(client, postfix)

    def test_opensmtpd_gets_nothing(self, opensmtpd: OpenSmtpd, mailer: StartMailer) -> None:
        with pytest.raises(NotSupported):
            new_mail(to=[UMLAUTS]).send(mailer(opensmtpd.plain))

    @pytest.mark.parametrize("service", ["plain", "minimal"])
    def test_a_domain_needs_no_extension(self, postfix: Postfix, mailer: StartMailer, service: str) -> None:
        pytest.importorskip("idna")
        mail = new_mail(to=["user@bücher.test", "user@faß.test"])
        result = mail.send(mailer(getattr(postfix, service)))
        assert result.accepted == ("user@xn--bcher-kva.test", "user@xn--fa-hia.test")
        assert mail.message_id in postfix.accepted_message_ids()
        assert "<user@xn--fa-hia.test>" in postfix.log()


class TestSize:
    """Postfix's limit is in its EHLO; it lets that pass, and by SIZE not a byte more."""

    @staticmethod
    def mail_of(size: int) -> Mail:
        rest = size - len(new_mail(b"").content)
        body = (b"y" * 98 + b"\r\n") * (rest // 100 - 1)
        return new_mail(body + b"y" * (rest - len(body) - 2) + b"\r\n")

    def test_the_limit_is_known_before_anything_is_sent(self, postfix: Postfix, mailer: StartMailer) -> None:
        client, mail = mailer(postfix.small), self.mail_of(SMALL_LIMIT + 1)
        assert len(mail.content) == SMALL_LIMIT + 1
        with pytest.raises(MessageTooLarge) as raised:
            mail.send(client)
        assert (raised.value.size, raised.value.limit) == (SMALL_LIMIT + 1, SMALL_LIMIT)
        small = new_mail()
        assert small.send(client).connection_reused
        assert postfix.delivered(small.message_id) == [small.content]

    def test_the_limit_itself_passes(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail = self.mail_of(SMALL_LIMIT)
        assert mail.send(mailer(postfix.small)).message_size == SMALL_LIMIT
        assert postfix.delivered(mail.message_id) == [mail.content]

    def test_switched_off_the_server_is_left_to_say_so(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail = self.mail_of(2 * SMALL_LIMIT)
        with pytest.raises(MessageRefused, match=r"552 5\.3\.4"):
            mail.send(mailer(postfix.small, disable=["size"]))
        assert mail.message_id not in postfix.accepted_message_ids()


class TestReports:
    """Delivery reports (RFC 3461): what was asked for comes back in them."""

    @staticmethod
    def report_on(server: Postfix | Exim, envid: str) -> dict[str, str]:
        """The fields of the report about this envelope, from the sender's mailbox."""
        marker = f"Original-Envelope-Id: {envid}\r\n".lower().encode()

        def found() -> list[bytes]:
            return [each.content for each in server.messages() if marker in each.content.lower()]

        assert wait_until(lambda: len(found()) == 1, 10.0, every=0.05), server.log()
        [content] = found()
        report = email.message_from_bytes(content, policy=policy.default)
        assert report.get_content_type() == "multipart/report"
        status = next(part for part in report.walk() if part.get_content_type().endswith("delivery-status"))
        payload = status.get_payload()
        blocks = payload if isinstance(payload, list) else [email.message_from_bytes(status.get_content())]
        return {name.lower(): value for block in blocks for name, value in block.items()}

    # RFC 3464 section 2.2.1 has the identifier decoded; Exim 4.96 leaves it as it stood in the command.
    @pytest.mark.parametrize(("server", "special"), [("postfix", "+= "), ("exim", "")])
    def test_a_report_of_success_comes_back(
        self, request: pytest.FixtureRequest, mailer: StartMailer, server: str, special: str
    ) -> None:
        running = request.getfixturevalue(server)
        mail, envid = new_mail(sender="alice@lab.test"), f"QQ{special}{uuid.uuid4().hex}"
        dsn = {"ret": "HDRS", "envid": envid, "notify": "SUCCESS"}
        mailer(running.plain).send(mail.content, envelope=replace(mail.envelope, dsn=dsn))
        fields = self.report_on(running, envid)
        assert fields["original-envelope-id"] == envid
        assert fields["original-recipient"].replace(" ", "") == f"rfc822;{INBOX}"
        assert fields["final-recipient"].replace(" ", "") == f"rfc822;{INBOX}"
        assert fields["action"] in ("delivered", "relayed")

    def test_each_recipient_has_options_of_its_own(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail, envid = new_mail(sender="alice@lab.test"), uuid.uuid4().hex
        recipients = [
            Recipient("one+tag@lab.test", notify="SUCCESS", orcpt="rfc822;list+of=all@elsewhere.test"),
            Recipient("two@lab.test", notify="NEVER"),
        ]
        envelope = Envelope("alice@lab.test", recipients, dsn={"envid": envid})
        mailer(postfix.plain).send(mail.content, envelope=envelope)
        fields = self.report_on(postfix, envid)
        assert fields["original-recipient"].replace(" ", "") == "rfc822;list+of=all@elsewhere.test"
        assert fields["final-recipient"].replace(" ", "") == "rfc822;one+tag@lab.test"

    def test_an_address_that_is_not_ascii(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail, envid = new_mail(to=[UMLAUTS], sender="alice@lab.test"), uuid.uuid4().hex
        dsn = {"envid": envid, "notify": "SUCCESS"}
        mailer(postfix.plain).send(mail.content, envelope=replace(mail.envelope, dsn=dsn))
        marker = f"Original-Envelope-Id: {envid}".encode()

        def reports() -> list[bytes]:
            return [each.content for each in postfix.messages() if marker in each.content]

        assert wait_until(lambda: len(reports()) == 1, 10.0, every=0.05), postfix.log()
        original = re.search(rb"Original-Recipient: *utf-8; *(\S+)", reports()[0])
        assert original is not None
        assert xtext.decode_address(original[1].decode()) == UMLAUTS

    @pytest.mark.parametrize("server", ["postfix", "exim"])
    def test_the_message_id_as_envelope_id(
        self, request: pytest.FixtureRequest, mailer: StartMailer, server: str
    ) -> None:
        running = request.getfixturevalue(server)
        mail = new_mail(sender="alice@lab.test")
        client = mailer(running.plain, dsn={"envid": "message-id", "notify": "SUCCESS"})
        mail.send(client)
        assert self.report_on(running, mail.message_id[1:-1])["action"] in ("delivered", "relayed")

    def test_a_server_without_gets_nothing_or_nothing_of_it(
        self, postfix: Postfix, mailer: StartMailer
    ) -> None:
        mail, client = new_mail(), mailer(postfix.minimal)
        wishing = replace(mail.envelope, dsn={"notify": "NEVER"})
        with pytest.raises(NotSupported, match="DSN"):
            client.send(mail.content, envelope=wishing)
        assert mail.message_id not in postfix.accepted_message_ids()
        mail.send(mailer(postfix.minimal, dsn={"notify": "NEVER"}))
        assert postfix.delivered(mail.message_id) == [mail.content]
