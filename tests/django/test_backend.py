"""mailbridge_django.backend: what becomes of messages, and what callers are told."""

import copy
import email
import email.policy
import logging
import pickle
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail, send_mass_mail
from django.core.mail.backends.locmem import EmailBackend as Locmem

import mailbridge
from mailbridge import (
    ConfigurationError,
    ConnectFailed,
    InvalidAddress,
    InvalidMessage,
    MailbridgeError,
    MessageRefused,
    RecipientsRefused,
    SenderRefused,
    SendResult,
    SMTPConfig,
)
from mailbridge.testing import Fault, ScriptedServer
from mailbridge_django import EmailBackend
from tests.django.conftest import Use


def message(subject: str = "s", to: str = "b@y.example", **options: Any) -> EmailMessage:
    return EmailMessage(subject, "text", "a@x.example", [to], **options)


def backend_for(server: ScriptedServer, **options: Any) -> EmailBackend:
    return EmailBackend(host=server.host, port=server.port, timeout=5, **options)


def parsed(content: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)


class TestSending:
    def test_send_mail(self, use: Use, server: ScriptedServer) -> None:
        use(server)
        assert send_mail("Grüße", "Hallo", "Ann <a@x.example>", ["Bob <b@y.example>", "c@y.example"]) == 1
        [received] = server.messages
        assert (received.sender, received.recipients) == ("a@x.example", ("b@y.example", "c@y.example"))
        assert parsed(received.content)["Subject"] == "Grüße"

    def test_mass_mail_goes_over_one_connection(self, use: Use, server: ScriptedServer) -> None:
        use(server)
        assert send_mass_mail([(f"{n}", "text", "a@x.example", ["b@y.example"]) for n in range(20)]) == 20
        assert len(server.connections) == 1
        assert [parsed(one.content)["Subject"] for one in server.messages] == [f"{n}" for n in range(20)]

    def test_credentials_from_the_settings_log_in(self, use: Use) -> None:
        with ScriptedServer(users={"u": "p"}) as server:
            use(server, username="u", password="p")
            send_mail("s", "text", "a@x.example", ["b@y.example"])
            assert server.connections[0].user == "u"

    def test_every_part_of_a_message_arrives(self, use: Use, server: ScriptedServer) -> None:
        use(server)
        sent = EmailMultiAlternatives(
            "s",
            "text\n.\nFrom the start\n",
            "a@x.example",
            ["b@y.example"],
            cc=["c@y.example"],
            bcc=["d@y.example"],
            reply_to=["r@x.example"],
            headers={"X-Shop": "corner"},
        )
        sent.attach_alternative("<p>text</p>", "text/html")
        sent.attach("data.bin", bytes(range(256)) * 40, "application/octet-stream")
        assert sent.send() == 1
        [received] = server.messages
        assert received.recipients == ("b@y.example", "c@y.example", "d@y.example")
        arrived = parsed(received.content)
        assert (arrived["Cc"], arrived["Reply-To"], arrived["X-Shop"]) == (
            "c@y.example",
            "r@x.example",
            "corner",
        )
        assert arrived["Bcc"] is None
        assert b"d@y.example" not in received.content
        body, attachment = arrived.get_body(("html",)), next(arrived.iter_attachments())
        assert body is not None
        assert body.get_content().strip() == "<p>text</p>"
        assert attachment.get_content() == bytes(range(256)) * 40
        plain = arrived.get_body(("plain",))
        assert plain is not None
        assert plain.get_content().replace("\r\n", "\n") == "text\n.\nFrom the start\n"

    @pytest.mark.parametrize("text", ["short\n", "ü" * 5000, "x" * 5000, "a\rb\nc\r\nd"])
    def test_lines_are_canonical_and_short(self, use: Use, server: ScriptedServer, text: str) -> None:
        use(server)
        send_mail("word " * 300, text, "a@x.example", ["b@y.example"])
        content = server.messages[0].content
        assert b"\r" not in content.replace(b"\r\n", b"")
        assert b"\n" not in content.replace(b"\r\n", b"")
        assert max(map(len, content.split(b"\r\n"))) <= 998

    def test_a_name_beyond_ascii_in_the_envelope(self, use: Use, server: ScriptedServer) -> None:
        use(server)
        send_mail("s", "text", "a@bücher.example", ["b@exämple.example"])
        [received] = server.messages
        assert received.sender == "a@xn--bcher-kva.example"
        assert received.recipients == ("b@xn--exmple-cua.example",)


class TestCounting:
    @pytest.mark.parametrize("nothing", [[], (), None])
    def test_nothing_to_send_connects_to_nothing(self, server: ScriptedServer, nothing: Any) -> None:
        assert backend_for(server).send_messages(nothing) == 0
        assert server.connections == ()

    def test_a_generator(self, server: ScriptedServer) -> None:
        assert backend_for(server).send_messages(message(f"{n}") for n in range(3)) == 3

    def test_messages_without_recipients_are_not_counted(self, server: ScriptedServer) -> None:
        nobody = EmailMessage("s", "text", "a@x.example", [])
        assert backend_for(server).send_messages([nobody, message(), nobody]) == 1
        assert nobody.mailbridge_result is None
        assert nobody.mailbridge_error is None
        assert backend_for(server).send_messages([nobody]) == 0

    def test_a_backend_sends_more_than_once(self, server: ScriptedServer) -> None:
        with backend_for(server) as backend:
            assert [backend.send_messages([message()]) for _ in range(3)] == [1, 1, 1]
        assert len(server.connections) == 1


class TestOutcomes:
    def test_a_refused_message_does_not_stop_the_others(self) -> None:
        with ScriptedServer(rcpt_replies={"bad@y.example": "550 5.1.1 No such user"}) as server:
            messages = [message("1"), message("2", to="bad@y.example"), message("3")]
            with pytest.raises(RecipientsRefused, match="No such user") as caught:
                backend_for(server).send_messages(messages)
            assert [parsed(one.content)["Subject"] for one in server.messages] == ["1", "3"]
        first, second, third = caught.value.results
        assert isinstance(first, SendResult)
        assert isinstance(second, RecipientsRefused)
        assert isinstance(third, SendResult)
        assert [one.mailbridge_result for one in messages] == [first, None, third]

    def test_the_first_error_is_raised(self) -> None:
        replies = {"1@y.example": "550 first", "2@y.example": "551 second"}
        messages = [message(to="1@y.example"), message(to="2@y.example")]
        with ScriptedServer(rcpt_replies=replies) as server, pytest.raises(RecipientsRefused) as caught:
            backend_for(server).send_messages(messages)
        assert "first" in str(caught.value)
        assert [error.smtp_code for error in caught.value.results] == [550, 551]

    def test_no_server_is_tried_once(self, server: ScriptedServer) -> None:
        server.refuse()
        messages = [message(f"{n}") for n in range(3)]
        with pytest.raises(ConnectFailed) as caught:
            backend_for(server).send_messages(messages)
        assert [type(error) for error in caught.value.results] == [type(caught.value)] * 3
        assert all(isinstance(one.mailbridge_error, ConnectFailed) for one in messages)

    def test_partial_refusal_is_in_the_result_and_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        with ScriptedServer(rcpt_replies={"bad@y.example": "550 5.1.1 No such user"}) as server:
            sent = EmailMessage("s", "text", "a@x.example", ["b@y.example", "bad@y.example"])
            assert backend_for(server).send_messages([sent]) == 1
        assert sent.mailbridge_result.accepted == ("b@y.example",)
        assert str(sent.mailbridge_result.rejected["bad@y.example"]) == "550 5.1.1 No such user"
        [record] = [one for one in caplog.records if "bad@y.example" in one.getMessage()]
        assert record.levelno == logging.WARNING

    def test_the_outcome_on_a_message_can_be_copied_and_pickled(self, server: ScriptedServer) -> None:
        good, bad = message(), message()
        backend_for(server).send_messages([good])
        server.refuse()
        mailbridge.close_all()
        with pytest.raises(ConnectFailed) as caught:
            backend_for(server).send_messages([bad])
        for one in (copy.deepcopy(good), pickle.loads(pickle.dumps(good))):
            assert one.mailbridge_result == good.mailbridge_result
        for other in (copy.deepcopy(bad), pickle.loads(pickle.dumps(bad))):
            assert str(other.mailbridge_error) == str(caught.value)
        assert bad.mailbridge_error.__traceback__ is None
        raised = pickle.loads(pickle.dumps(caught.value))
        assert [str(error) for error in raised.results] == [str(caught.value)]

    def test_a_later_send_replaces_the_outcome(self, server: ScriptedServer) -> None:
        sent = message()
        server.refuse()
        with pytest.raises(ConnectFailed):
            backend_for(server).send_messages([sent])
        server.resume()
        backend_for(server).send_messages([sent])
        assert sent.mailbridge_error is None
        assert sent.mailbridge_result.accepted == ("b@y.example",)

    def test_the_errors_of_earlier_attempts_are_kept_without_their_tracebacks(self) -> None:
        busy = Fault("mail", "reply", reply="451 4.3.0 Busy", occurrence=None, connection=None)
        with ScriptedServer(faults=[busy]) as server:
            sent = message()
            with pytest.raises(SenderRefused):
                backend_for(server, retry={"attempts": 2, "first_delay": 0.01}).send_messages([sent])
        [earlier] = sent.mailbridge_error.attempts
        assert isinstance(earlier, SenderRefused)
        assert earlier.__traceback__ is None


class TestPreparing:
    def test_a_bad_address_stops_neither_the_others_nor_is_it_sent(self, server: ScriptedServer) -> None:
        bad = message(to="b@y.example>\r\nRCPT TO:<evil@z.example")
        with pytest.raises(ValueError, match="Invalid address") as caught:
            backend_for(server).send_messages([message("1"), bad, message("2")])
        assert isinstance(caught.value, InvalidAddress)
        assert isinstance(bad.mailbridge_error, InvalidAddress)
        assert [one.recipients for one in server.messages] == [("b@y.example",)] * 2

    def test_what_message_raises_is_told(self, server: ScriptedServer) -> None:
        class Broken(EmailMessage):
            def message(self, **_: Any) -> Any:
                raise LookupError("no template")

        broken = Broken("s", "text", "a@x.example", ["b@y.example"])
        with pytest.raises(LookupError, match="no template") as caught:
            backend_for(server, fail_silently=True).send_messages([broken, message()])
        assert len(server.messages) == 1
        assert isinstance(caught.value.results[1], SendResult)

    def test_an_error_that_cannot_be_copied_is_told_all_the_same(self, server: ScriptedServer) -> None:
        class TemplateError(Exception):
            def __init__(self, template: str, line: int) -> None:
                super().__init__(f"{template}:{line}")

        class Broken(EmailMessage):
            def message(self, **_: Any) -> Any:
                raise TemplateError("letter.txt", 3)

        broken = Broken("s", "text", "a@x.example", ["b@y.example"])
        with pytest.raises(TemplateError) as caught:
            backend_for(server).send_messages([broken, message()])
        assert broken.mailbridge_error is caught.value
        assert len(server.messages) == 1

    @pytest.mark.parametrize("subject", ["s\nBcc: evil@z.example", "s\r\n\r\nbody"])
    def test_a_line_break_in_a_header_field_is_refused(self, server: ScriptedServer, subject: str) -> None:
        with pytest.raises(ValueError, match=r"[Hh]eader"):
            backend_for(server).send_messages([message(subject)])
        assert server.connections == ()

    @pytest.mark.parametrize(
        "hidden", ["=?utf-8?q?s=0ABcc=3A_evil=40z=2Eexample?=", "=?utf-8?q?s=0D=0A=0D=0Ab?="]
    )
    def test_a_line_break_that_hides_in_an_encoded_word(self, server: ScriptedServer, hidden: str) -> None:
        """CVE-2024-6923: refused, or one field, whatever the email package of this Python makes of it."""
        sent = message(hidden, headers={"X-Topic": hidden})
        try:
            backend_for(server).send_messages([sent])
        except InvalidMessage:
            assert server.messages == ()
        for received in server.messages:
            assert parsed(received.content)["Bcc"] is None
            assert parsed(received.content).get_content().strip() == "text"

    def test_a_subclass_may_replace_a_step(self, server: ScriptedServer) -> None:
        class Stamping(EmailBackend):
            def prepare(self, message: EmailMessage, config: SMTPConfig) -> Any:
                message.extra_headers["X-Stamp"] = "stamped"
                return super().prepare(message, config)

        Stamping(host=server.host, port=server.port).send_messages([message()])
        assert parsed(server.messages[0].content)["X-Stamp"] == "stamped"


class TestFailSilently:
    def test_errors_of_sending_are_silent_and_recorded(
        self, server: ScriptedServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.refuse()
        sent = message()
        assert backend_for(server, fail_silently=True).send_messages([sent]) == 0
        assert isinstance(sent.mailbridge_error, ConnectFailed)
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_the_others_are_counted(self) -> None:
        with ScriptedServer(rcpt_replies={"bad@y.example": "550 No"}) as server:
            backend = backend_for(server, fail_silently=True)
            assert backend.send_messages([message(), message(to="bad@y.example"), message()]) == 2

    def test_mistakes_of_the_program_are_not_silent(self, server: ScriptedServer) -> None:
        with pytest.raises(InvalidAddress):
            backend_for(server, fail_silently=True).send_messages([message(to="nobody")])

    def test_a_configuration_that_cannot_work_is_not_silent(self, server: ScriptedServer) -> None:
        backend = backend_for(server, fail_silently=True)
        backend.timeout = -1
        with pytest.raises(ConfigurationError):
            backend.send_messages([message()])

    def test_a_configuration_that_shows_its_fault_in_the_send_is_not_silent(
        self, server: ScriptedServer, tmp_path: Path
    ) -> None:
        tls = {"ca_file": str(tmp_path / "missing.pem")}
        backend = backend_for(server, security="tls", tls=tls, fail_silently=True)
        with pytest.raises(ConfigurationError, match=r"missing\.pem"):
            backend.send_messages([message()])


class TestResolver:
    @pytest.fixture
    def other(self) -> Iterator[ScriptedServer]:
        with ScriptedServer() as running:
            yield running

    def test_each_message_goes_to_its_server(self, server: ScriptedServer, other: ScriptedServer) -> None:
        seen: list[str] = []

        def resolve(sent: EmailMessage, alias: str) -> Any:
            seen.append(alias)
            return {
                "0": None,
                "1": SMTPConfig(host=other.host, port=other.port, security="none"),
                "2": {"host": other.host, "port": other.port, "security": "none"},
            }[str(sent.subject)]

        backend = backend_for(server, config_resolver=resolve)
        assert backend.send_messages(message(subject) for subject in "012") == 3
        assert [parsed(one.content)["Subject"] for one in server.messages] == ["0"]
        assert [parsed(one.content)["Subject"] for one in other.messages] == ["1", "2"]
        assert len(other.connections) == 1
        assert seen == ["default"] * 3

    def test_a_url_that_a_resolver_returns_leads_to_no_internal_network(self, server: ScriptedServer) -> None:
        url = f"smtp://{server.host}:{server.port}/?security=none"
        backend = backend_for(server, config_resolver=lambda message, alias: url)
        with pytest.raises(ConnectFailed, match="is internal"):
            backend.send_messages([message("x")])
        assert not server.connections

    def test_a_resolver_that_fails_stops_its_message_alone(self, server: ScriptedServer) -> None:
        def resolve(sent: EmailMessage, alias: str) -> Any:
            if sent.subject == "bad":
                raise LookupError("no such tenant")

        backend = backend_for(server, config_resolver=resolve, fail_silently=True)
        with pytest.raises(LookupError, match="no such tenant"):
            backend.send_messages([message("bad"), message("good")])
        assert len(server.messages) == 1


@pytest.mark.parametrize(
    ("fault", "caught_as"),
    [
        (None, [ConnectionError, OSError, smtplib.SMTPException]),
        (Fault("greeting", "reply", reply="554 5.3.2 No"), [smtplib.SMTPConnectError, ConnectionError]),
        (Fault("mail", "reply", reply="550 5.7.1 No"), [smtplib.SMTPSenderRefused]),
        (Fault("rcpt", "reply", reply="550 5.1.1 No"), [smtplib.SMTPRecipientsRefused, OSError]),
        (Fault("final", "reply", reply="554 5.6.0 No"), [smtplib.SMTPDataError, OSError]),
        (Fault("final", "close"), [smtplib.SMTPServerDisconnected, ConnectionError]),
        (Fault("mail", "silence"), [TimeoutError, smtplib.SMTPServerDisconnected]),
    ],
)
def test_code_written_for_django_s_backend_goes_on_catching(
    use: Use, fault: Fault | None, caught_as: list[type[Exception]]
) -> None:
    with ScriptedServer(faults=[fault] if fault else []) as server:
        if fault is None:
            server.refuse()
        use(server, timeout=0.3)
        with pytest.raises(smtplib.SMTPException) as caught:
            send_mail("s", "text", "a@x.example", ["b@y.example"])
    for kind in caught_as:
        assert isinstance(caught.value, kind)


def test_a_lost_answer_is_told_as_unknown(server: ScriptedServer) -> None:
    with ScriptedServer(faults=[Fault("final", "close")]) as losing:
        sent = message()
        with pytest.raises(MailbridgeError) as caught:
            backend_for(losing).send_messages([sent])
    assert caught.value.outcome_unknown
    assert sent.mailbridge_error.outcome_unknown


def test_a_refused_content_leaves_the_session_good(server: ScriptedServer) -> None:
    with ScriptedServer(faults=[Fault("final", "reply", reply="554 5.6.0 No")]) as refusing:
        with pytest.raises(MessageRefused):
            backend_for(refusing).send_messages([message()])
        assert backend_for(refusing).send_messages([message()]) == 1
        assert len(refusing.connections) == 1


def test_a_sent_message_can_be_copied_and_pickled_as_a_whole(use: Use, server: ScriptedServer) -> None:
    """Before Django 6.1 it holds the backend that it was sent by."""
    use(server, username="", password="")
    sent = message()
    sent.send()
    for again in (copy.deepcopy(sent), pickle.loads(pickle.dumps(sent))):
        assert again.mailbridge_result == sent.mailbridge_result
        assert again.send() == 1
    assert len(server.connections) == 1


def test_a_backend_that_was_given_a_password_is_not_pickled(server: ScriptedServer) -> None:
    backend = backend_for(server, username="u", password="hunter2")
    with pytest.raises(TypeError, match="credentials"):
        pickle.dumps(backend)
    assert copy.deepcopy(backend).config == backend.config


def test_locmem_copies_what_was_sent(use: Use, server: ScriptedServer) -> None:
    use(server)
    sent = message()
    sent.send()
    locmem = Locmem()
    mail.outbox = []
    try:
        locmem.send_messages([sent])
        assert mail.outbox[0].mailbridge_result == sent.mailbridge_result
    finally:
        del mail.outbox
