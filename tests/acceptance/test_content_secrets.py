"""What a mail says is a secret too: no repr and no local variable of ours shows it, when a send has failed.

Reporters keep the repr of the local variables of every frame that an exception came through.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
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
    SMTPConfig,
    SMTPConnection,
    render,
)
from mailbridge.testing import Fault, ScriptedServer

SUBJECT, TEXT, HTML = "sentinel-subject", "https://shop.example/reset?sentinel-text", "<p>sentinel-html</p>"
CONTENT, FILENAME, HEADER = b"sentinel-attachment", "sentinel-name.pdf", "sentinel-field"
SENDER, RECIPIENT = "sentinel-sender@a.example", "sentinel-recipient@b.example"
SENTINEL = "sentinel"

FAULTS = {
    "sender": {"mail_replies": {SENDER: "550 5.7.1 No"}},
    "recipient": {"rcpt_replies": {RECIPIENT: "550 5.1.1 No"}},
    "content": {"faults": [Fault("final", "reply", reply="554 5.7.1 No")]},
    "lost": {"faults": [Fault("final", "close")]},
    "before": {"faults": [Fault("ehlo", "close")]},
}


def mail() -> Message:
    message = Message(SUBJECT, SENDER, RECIPIENT, text=TEXT, html=HTML, headers={"X-Own": HEADER})
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


def locals_of_ours(error: BaseException) -> Iterator[tuple[str, str]]:
    """The reprs of all local variables in the frames of this package, causes and contexts included."""
    links: list[BaseException | None] = [error]
    for link in links:
        if link is None:
            continue
        links += [each for each in (link.__cause__, link.__context__) if each not in links]
        for frame, line in traceback.walk_tb(link.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("mailbridge"):
                for name, value in frame.f_locals.items():
                    yield f"{frame.f_code.co_qualname}:{line} {name}", repr(value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_local_variable_shows_what_a_mail_says(way: str, fault: str) -> None:
    with ScriptedServer(**FAULTS[fault]) as server:  # type: ignore[arg-type]
        error = WAYS[way](SMTPConfig(host=server.host, port=server.port, security="none", timeout=10))
    words = (SUBJECT, "sentinel-text", "sentinel-html", CONTENT.decode(), FILENAME, HEADER)
    shown = dict(locals_of_ours(error))
    assert shown
    assert {name: value for name, value in shown.items() if any(word in value for word in words)} == {}


def with_bad_name() -> Message:
    message = mail()
    message.headers = {"X-Own": HEADER, "Bad name": HEADER}
    return message


def with_bad_field() -> EmailMessage:
    message = email_message()
    message.add_attachment(CONTENT, maintype="application", subtype="pdf", filename=FILENAME)
    message["Bad name"] = HEADER
    return message


INVALID: dict[str, Callable[[], object]] = {
    "Message": with_bad_name,
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
    caught: MailbridgeError | None = None
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
    words = (SUBJECT, "sentinel-text", "sentinel-html", CONTENT.decode(), FILENAME, HEADER)
    shown = dict(locals_of_ours(caught))
    assert {name: value for name, value in shown.items() if any(word in value for word in words)} == {}


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
    holders = [message, rendered, ENVELOPE, attachment, result, flask, flask.attachments[0]]
    for holder in holders:
        assert SENTINEL not in repr(holder), type(holder)
        assert len(repr(holder)) < 250, type(holder)
    assert str(rendered.size) in repr(rendered)
    assert "1 recipient" in repr(ENVELOPE)
    assert "19 bytes" in repr(attachment)
