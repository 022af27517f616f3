"""Signals: who hears what and when, and that no receiver changes what has become of a message."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask

from mailbridge import ConnectFailed, SendResult
from mailbridge.testing import ScriptedServer
from mailbridge_flask import (
    IncompleteMessage,
    Mail,
    Message,
    email_dispatched,
    message_failed,
    message_sending,
    message_sent,
)
from tests.flask.apps import RECIPIENT, app_for, parsed

pytestmark = pytest.mark.usefixtures("context")

SIGNALS = (message_sending, message_sent, message_failed, email_dispatched)


def message(**changes: Any) -> Message:
    return Message(**{"subject": "testing", "recipients": [RECIPIENT], "body": "test", **changes})


@pytest.fixture
def heard() -> Iterator[list[tuple[str, object, dict[str, Any]]]]:
    """Every signal of every application: its name, sender and facts."""
    calls: list[tuple[str, object, dict[str, Any]]] = []

    def receiver_of(name: str) -> Any:
        return lambda sender, **facts: calls.append((name, sender, facts))

    with ExitStack() as stack:
        for signal in SIGNALS:
            stack.enter_context(signal.connected_to(receiver_of(signal.name)))
        yield calls


Heard = list[tuple[str, object, dict[str, Any]]]


def test_what_a_sent_message_tells(app: Flask, mail: Mail, heard: Heard) -> None:
    made = message()
    result = mail.send(made)
    assert isinstance(result, SendResult)
    assert heard == [
        ("message-sending", app, {"message": made, "mailer": "default"}),
        ("message-sent", app, {"message": made, "mailer": "default", "result": result}),
        ("email-dispatched", app, {"message": made}),
    ]
    assert all(sender is app for _, sender, _ in heard)


def test_what_a_suppressed_message_tells(app: Flask, mail: Mail, heard: Heard) -> None:
    app.config["TESTING"] = True
    mail.send(message())
    assert [name for name, _, _ in heard] == ["message-sending", "email-dispatched"]


def test_what_a_failure_tells(heard: Heard) -> None:
    app = app_for()
    mail = Mail(app)
    made = message()
    with app.app_context(), pytest.raises(ConnectFailed) as caught:
        mail.send(made)
    assert heard == [
        ("message-sending", app, {"message": made, "mailer": "default"}),
        ("message-failed", app, {"message": made, "mailer": "default", "error": caught.value}),
    ]


def test_a_message_that_can_not_be_sent_has_failed(mail: Mail, heard: Heard) -> None:
    with pytest.raises(IncompleteMessage):
        mail.send(message(recipients=[]))
    assert [name for name, _, _ in heard] == ["message-sending", "message-failed"]


def test_the_name_of_the_mailer_is_told(app: Flask, mail: Mail, server: ScriptedServer, heard: Heard) -> None:
    app.config["MAILBRIDGE_MAILERS"] = {"bulk": f"smtp://127.0.0.1:{server.port}/?security=none"}
    mail.init_app(app)
    with mail.connect(using="bulk") as connection:
        connection.send(message())
    assert [facts["mailer"] for _, _, facts in heard if "mailer" in facts] == ["bulk", "bulk"]


def test_a_receiver_hears_of_its_application_only(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    other = app_for(server)
    mail.init_app(other)
    calls: list[str] = []

    def receiver(sender: Flask, message: Message) -> None:
        calls.append(str(message.subject))

    with email_dispatched.connected_to(receiver, sender=app):
        mail.send(message(subject="one"))
        mail.send(message(subject="other"), app=other)
    assert calls == ["one"]


def test_message_sending_may_change_the_message(mail: Mail, server: ScriptedServer) -> None:
    def receiver(sender: Flask, message: Message, **_: Any) -> None:
        message.extra_headers["X-Stamp"] = "1"
        message.bcc.append("archive@example.com")

    with message_sending.connected_to(receiver):
        mail.send(message())
    assert parsed(server.messages[0])["X-Stamp"] == "1"
    assert server.messages[0].recipients == (RECIPIENT, "archive@example.com")


def test_message_sending_may_stop_the_message(mail: Mail, server: ScriptedServer) -> None:
    def receiver(*_: Any, **__: Any) -> None:
        raise PermissionError("not this one")

    with message_sending.connected_to(receiver), pytest.raises(PermissionError):
        mail.send(message())
    assert server.messages == ()


def broken(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("a broken receiver")


@pytest.mark.parametrize("signal", [message_sent, email_dispatched])
def test_what_was_sent_stays_sent_whatever_a_receiver_does(
    signal: Any, mail: Mail, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    with signal.connected_to(broken), mail.record_messages() as outbox:
        assert mail.send(message()) is not None
    assert (len(server.messages), len(outbox)) == (1, 1)
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("mailbridge.flask", logging.WARNING)
    ]
    assert signal.name in caplog.text
    assert "a broken receiver" in caplog.text


def test_a_failure_stays_the_failure_it_is(caplog: pytest.LogCaptureFixture) -> None:
    app = app_for()
    with message_failed.connected_to(broken), app.app_context(), pytest.raises(ConnectFailed):
        Mail(app).send(message())
    assert "message-failed" in caplog.text


def test_what_a_receiver_asserts_in_a_test_counts(app: Flask, mail: Mail) -> None:
    app.config["TESTING"] = True
    with email_dispatched.connected_to(broken), pytest.raises(ZeroDivisionError):
        mail.send(message())


def test_a_failure_that_is_reported_by_mail_ends() -> None:
    app = app_for()
    mail = Mail(app)
    reports: list[str] = []

    def report(sender: Flask, error: Exception, **_: Any) -> None:
        reports.append(str(error))
        mail.send(message(subject="A mail has failed"))

    with app.app_context(), message_failed.connected_to(report):
        for _ in range(2):
            with pytest.raises(ConnectFailed):
                mail.send(message())
    assert len(reports) == 2


class MailHandler(logging.Handler):
    """Mails log records, as people do with errors."""

    def __init__(self, mail: Mail) -> None:
        super().__init__()
        self.mail = mail

    def emit(self, record: logging.LogRecord) -> None:
        self.mail.send(message(subject=record.getMessage()))


def test_a_broken_receiver_that_is_logged_by_mail_ends(mail: Mail, server: ScriptedServer) -> None:
    logger = logging.getLogger("mailbridge.flask")
    handler = MailHandler(mail)
    logger.addHandler(handler)
    try:
        with message_sent.connected_to(broken):
            mail.send(message())
    finally:
        logger.removeHandler(handler)
    assert [parsed(each)["Subject"] for each in server.messages] == [
        "testing",
        "A receiver of the signal 'message-sent' failed",
    ]
