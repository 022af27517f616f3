"""What a mail says is a secret too: no repr, and no error's message or local variables, show it.

Reporters keep the local variables of every frame that an exception came through; Sentry's own code
tells here what it would keep. Django's and Flask's doors: test_content_secrets_of_apps.py.
"""

from __future__ import annotations

from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest

import mailbridge_flask
from mailbridge import (
    Attachment,
    Envelope,
    MailbridgeError,
    Mailer,
    Message,
    Recipient,
    SMTPConfig,
    SMTPConnection,
    render,
)
from mailbridge.testing import ScriptedServer
from tests.acceptance.content_sentinels import (
    CONTENT,
    FAULTS,
    FIELD,
    FILENAME,
    HTML,
    MARK,
    RECIPIENT,
    SENDER,
    SUBJECT,
    TEXT,
    leaks,
)


def mail() -> Message:
    message = Message(SUBJECT, SENDER, RECIPIENT, text=TEXT, html=HTML, headers={"X-Own": FIELD})
    message.attach(CONTENT, filename=FILENAME)
    return message


def email_message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, RECIPIENT, SUBJECT
    message.set_content(TEXT)
    return message


ENVELOPE = Envelope(SENDER, RECIPIENT)


def by_mailer(content: Callable[[], object]) -> Callable[[SMTPConfig], MailbridgeError]:
    def send(config: SMTPConfig) -> MailbridgeError:
        with Mailer(config) as mailer, pytest.raises(MailbridgeError) as caught:
            mailer.send(content(), envelope=ENVELOPE)  # type: ignore[arg-type]
        return caught.value

    return send


def by_connection(config: SMTPConfig) -> MailbridgeError:
    with pytest.raises(MailbridgeError) as caught, SMTPConnection(config) as connection:
        connection.send(ENVELOPE, bytes(render(mail()).content))
    return caught.value


def in_a_batch(config: SMTPConfig) -> MailbridgeError:
    with Mailer(config) as mailer:
        (outcome,) = mailer.send_many([mail()])
    assert isinstance(outcome, MailbridgeError)
    return outcome


WAYS: dict[str, Callable[[SMTPConfig], MailbridgeError]] = {
    "Message": by_mailer(mail),
    "EmailMessage": by_mailer(email_message),
    "bytes": by_mailer(lambda: bytes(render(mail()).content)),
    "iterator": by_mailer(lambda: iter([bytes(render(mail()).content)])),
    "connection": by_connection,
    "batch": in_a_batch,
}


def test_a_variable_that_shows_it_is_found() -> None:
    scope: dict[str, Any] = {"__name__": "mailbridge.made_up"}
    exec("def fail(nested): raise ValueError('no')", scope)
    try:
        scope["fail"]({"deep": [({TEXT},)]})
    except ValueError as error:
        (leak,) = leaks(error)
    assert leak.startswith("mailbridge.made_up.fail:1 nested = ")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_shows_nothing_of_the_mail(way: str, fault: str) -> None:
    behaviour, options = FAULTS[fault]
    with ScriptedServer(**behaviour) as server:
        given = {"security": "none", "timeout": 10, **options}
        error = WAYS[way](SMTPConfig(host=server.host, port=server.port, **given))
    assert leaks(error) == []


def with_bad_name() -> Message:
    message = mail()
    message.headers = {"X-Own": FIELD, "Bad name": FIELD}
    return message


def with_bad_field() -> EmailMessage:
    message = email_message()
    message.add_attachment(CONTENT, maintype="application", subtype="pdf", filename=FILENAME)
    message["Bad name"] = FIELD
    return message


def with_changes(**changes: Any) -> Callable[[], Message]:
    def changed() -> Message:
        message = mail()
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    return changed


BREAK = "\r\nX: y"
INVALID: dict[str, Callable[[], object]] = {
    "field": with_bad_name,
    "field's value": with_changes(headers={"X-Own": FIELD + BREAK}),
    "subject": with_changes(subject=SUBJECT + BREAK),
    "text": with_changes(text=f"{TEXT}\udcff"),
    "address": with_changes(to=[RECIPIENT, f"{RECIPIENT} {RECIPIENT}"]),
    "alternative": with_changes(alternatives=[("bad type", TEXT)]),
    "id": with_changes(message_id=FIELD),
    "list": with_changes(list_unsubscribe=FIELD),
    "EmailMessage": with_bad_field,
    "bytes": lambda: bytes(render(mail()).content) + b"\0",
    "iterator": lambda: iter([bytes(render(mail()).content), b"\0"]),
}


@pytest.mark.parametrize("door", ["mailer", "batch", "connection"])
@pytest.mark.parametrize("kind", INVALID)
def test_a_message_that_is_refused_beforehand_is_not_shown_either(
    kind: str, door: str, smtp_server: ScriptedServer
) -> None:
    config = SMTPConfig(host=smtp_server.host, port=smtp_server.port, security="none", timeout=10)
    content: Any = INVALID[kind]()
    caught: Exception | None = None
    try:
        if door == "connection":
            with SMTPConnection(config) as connection:
                connection.send(ENVELOPE, content)
        else:
            with Mailer(config) as mailer:
                if door == "mailer":
                    mailer.send(content, envelope=ENVELOPE)
                else:
                    (outcome,) = mailer.send_many([(content, ENVELOPE)])
                    assert isinstance(outcome, MailbridgeError)
                    raise outcome
    except MailbridgeError as error:
        caught = error
    assert caught is not None
    assert leaks(caught) == []


MADE: dict[str, Callable[[], object]] = {
    "rendering": lambda: render(with_bad_name()),
    "structure": lambda: with_bad_name().as_email_message(),
    "envelope of a message": lambda: with_changes(to=[RECIPIENT, "a b"])().envelope(),
    "envelope": lambda: Envelope(SENDER, [RECIPIENT, "a b"]),
    "delivery_options": lambda: Envelope(SENDER, [Recipient(RECIPIENT, notify="never")], nonsense=True),  # type: ignore[call-arg]
    "attached": lambda: mail().attach(CONTENT, filename=FILENAME, content_type="nonsense"),
    "attached name": lambda: mail().attach(CONTENT, filename=FILENAME + BREAK),
    "attached string": lambda: mail().attach(CONTENT.decode(), filename=FILENAME),  # type: ignore[arg-type]
    "attachment": lambda: Attachment(content=CONTENT, filename=FILENAME, content_type="nonsense"),
}


@pytest.mark.parametrize("kind", MADE)
def test_what_can_not_be_made_is_not_shown(kind: str) -> None:
    with pytest.raises(MailbridgeError) as caught:
        MADE[kind]()
    assert leaks(caught.value) == []


def test_no_repr_shows_a_mail_or_an_address() -> None:
    message = mail()
    rendered = render(message)
    flask = mailbridge_flask.Message(SUBJECT, [RECIPIENT], body=TEXT, sender=SENDER)
    flask.attach(FILENAME, "application/pdf", CONTENT)
    with ScriptedServer() as server:
        config = SMTPConfig(host=server.host, port=server.port, security="none", timeout=10)
        with Mailer(config) as mailer:
            result = mailer.send(message)
    attachment = Attachment(content=CONTENT, filename=FILENAME)
    recipient = Recipient(RECIPIENT, orcpt=SENDER)
    holders = [message, rendered, ENVELOPE, recipient, attachment, result, flask, flask.attachments[0]]
    for holder in holders:
        assert MARK not in repr(holder), type(holder)
        assert len(repr(holder)) < 250, type(holder)
    assert str(rendered.size) in repr(rendered)
    assert "1 recipient" in repr(ENVELOPE)
    assert "19 bytes" in repr(attachment)
