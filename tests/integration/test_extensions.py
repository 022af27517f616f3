"""8BITMIME, SMTPUTF8 and SIZE: used where a real server offers them, done without or refused elsewhere."""

from __future__ import annotations

import email
from email import policy
from email.message import EmailMessage

import pytest

from mailbridge import Envelope, Mailer, Message, NotSupported, Refused, SMTPConnection, render
from tests.integration.conftest import Configure, StartMailer
from tests.integration.mails import INBOX, SENDER, new_mail
from tests.servers.exim import Exim
from tests.servers.fixtures import StartSmtpSink
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import SMALL_LIMIT, Postfix

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


@pytest.mark.parametrize(("beyond", "stage"), [(0, "final"), (1, "mail_from")])
def test_the_size_is_told_exactly(postfix: Postfix, mailer: StartMailer, beyond: int, stage: str) -> None:
    """By SIZE Postfix lets its limit pass and not a byte more; what it adds itself shows at the end."""
    lines = b"x\r\n" + b"y" * (SMALL_LIMIT + beyond - len(new_mail(b"").content) - 5) + b"\r\n"
    assert len(new_mail(lines).content) == SMALL_LIMIT + beyond
    with pytest.raises(Refused, match=r"552 5\.3\.4") as raised:
        new_mail(lines).send(mailer(postfix.small))
    assert raised.value.stage == stage
