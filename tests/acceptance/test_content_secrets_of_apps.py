"""Django's and Flask's doors: when a send has failed, Sentry finds nothing of the mail in our frames.

The frames of the project, of Django (`send_mail`'s arguments) and of Flask are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django
import pytest
from django.core import mail

from mailbridge import close_all
from mailbridge.testing import ScriptedServer
from mailbridge_django import mailers
from mailbridge_flask import Attachment, Mail, Message
from tests.acceptance.content_sentinels import (
    CONTENT,
    FAULTS,
    FIELD,
    FILENAME,
    HTML,
    RECIPIENT,
    SENDER,
    SUBJECT,
    TEXT,
    leaks,
)
from tests.django.conftest import MODES, overridden, settings_for
from tests.flask.apps import app_for

pytestmark = pytest.mark.matrix

BREAK = "\r\nX: y"
LONE = "\udcff"  # a surrogate: UTF-8 can't say it
Action = Callable[[], object]


def django_message(**changes: Any) -> mail.EmailMultiAlternatives:
    message = mail.EmailMultiAlternatives(SUBJECT, TEXT, SENDER, [RECIPIENT], headers={"X-Own": FIELD})
    message.attach_alternative(HTML, "text/html")
    message.attach(FILENAME, CONTENT, "application/pdf")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def flask_message(**changes: Any) -> Message:
    message = Message(
        SUBJECT, [RECIPIENT], body=TEXT, html=HTML, sender=SENDER, extra_headers={"X-Own": FIELD}
    )
    message.attach(FILENAME, "application/pdf", CONTENT)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


DJANGO: dict[str, Action] = {
    "EmailMessage": lambda: mail.EmailMessage(SUBJECT, TEXT, SENDER, [RECIPIENT]).send(),
    "EmailMultiAlternatives": lambda: django_message().send(),
    "send_mail": lambda: mail.send_mail(SUBJECT, TEXT, SENDER, [RECIPIENT], html_message=HTML),
    "mail_admins": lambda: mail.mail_admins(SUBJECT, TEXT, html_message=HTML),
    "two": lambda: mailers["default"].send_messages([django_message(), django_message()]),
}
BAD_IN_DJANGO: dict[str, dict[str, Any]] = {
    "address": {"to": [RECIPIENT, "a b"]},
    "sender": {"from_email": SENDER + BREAK},
    "field": {"extra_headers": {"Bad name": FIELD}},
    "text": {"body": TEXT + LONE},
    "charset": {"encoding": "nonsense"},
    "delivery_options": {"mailbridge_envelope_options": {"orcpt": RECIPIENT}},
}


def raised_in_django(mode: str, server: ScriptedServer, action: Action, **options: Any) -> Exception:
    known: Any = [RECIPIENT] if django.VERSION >= (6, 0) else [("Root", RECIPIENT)]
    admins = {"ADMINS": known, "SERVER_EMAIL": SENDER}
    with overridden(**settings_for(mode, server, **options), **admins), pytest.raises(Exception) as caught:  # noqa: PT011
        action()
    close_all()
    return caught.value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", DJANGO)
@pytest.mark.parametrize("fault", FAULTS)
def test_django(fault: str, way: str, mode: str) -> None:
    behaviour, options = FAULTS[fault]
    with ScriptedServer(**behaviour) as server:
        error = raised_in_django(mode, server, DJANGO[way], **{"security": "none", **options})
    assert leaks(error) == []


@pytest.mark.parametrize("kind", BAD_IN_DJANGO)
def test_django_with_a_message_that_can_not_be_sent(kind: str, smtp_server: ScriptedServer) -> None:
    message = django_message(**BAD_IN_DJANGO[kind])
    error = raised_in_django("EMAIL_*", smtp_server, message.send, security="none")
    assert leaks(error) == []


Send = Callable[[Mail], object]


def over_a_connection(mail: Mail, *arguments: Any, **keywords: Any) -> None:
    with mail.connect() as connection:
        connection.send_message(*arguments, **keywords)


MADE = {"body": TEXT, "html": HTML, "sender": SENDER}
FLASK: dict[str, Send] = {
    "send": lambda mail: mail.send(flask_message()),
    "send_message": lambda mail: mail.send_message(SUBJECT, [RECIPIENT], **MADE),
    "state": lambda mail: mail.state.send_message(SUBJECT, [RECIPIENT], **MADE),
    "connection": lambda mail: over_a_connection(mail, SUBJECT, [RECIPIENT], **MADE),
}
BAD_IN_FLASK: dict[str, Callable[[], Message]] = {
    "subject": lambda: flask_message(subject=SUBJECT + BREAK),
    "address": lambda: flask_message(recipients=[RECIPIENT, "a b"]),
    "address's line": lambda: flask_message(recipients=[RECIPIENT, RECIPIENT + BREAK]),
    "field": lambda: flask_message(extra_headers={"Bad name": FIELD}),
    "field's value": lambda: flask_message(extra_headers={"X-Own": FIELD + BREAK}),
    "text": lambda: flask_message(body=TEXT + LONE),
    "charset": lambda: flask_message(body=f"{TEXT}ä", charset="ascii"),
    "alternative": lambda: flask_message(alts={"bad\r\n": TEXT}),
    "parameter": lambda: flask_message(rcpt_options=["NOTIFY=NONSENSE"]),
    "delivery_options": lambda: flask_message(envelope_options={"orcpt": RECIPIENT}),
    "file name": lambda: flask_message(attachments=[Attachment(FILENAME + BREAK, "text/plain", CONTENT)]),
    "file type": lambda: flask_message(attachments=[Attachment(FILENAME, "nonsense", CONTENT)]),
    "disposition": lambda: flask_message(attachments=[Attachment(FILENAME, None, CONTENT, "nowhere")]),
    "file's field": lambda: flask_message(
        attachments=[Attachment(FILENAME, None, CONTENT, None, {"a b": FIELD})]
    ),
    "no data": lambda: Message(SUBJECT, attachments=[Attachment(FILENAME)]),
    "no list": lambda: Message(SUBJECT, body=TEXT, sender=SENDER, mail_options=7),  # type: ignore[arg-type]
}


def raised_in_flask(server: ScriptedServer, send: Send, **options: Any) -> Exception:
    app = app_for(server, **{f"MAILBRIDGE_{name.upper()}": value for name, value in options.items()})
    with app.app_context(), pytest.raises(Exception) as caught:  # noqa: PT011
        send(Mail(app))
    close_all()
    return caught.value


@pytest.mark.parametrize("way", FLASK)
@pytest.mark.parametrize("fault", FAULTS)
def test_flask(fault: str, way: str) -> None:
    behaviour, options = FAULTS[fault]
    with ScriptedServer(**behaviour) as server:
        error = raised_in_flask(server, FLASK[way], **options)
    assert leaks(error) == []


@pytest.mark.parametrize("kind", BAD_IN_FLASK)
def test_flask_with_a_message_that_can_not_be_sent(kind: str, smtp_server: ScriptedServer) -> None:
    assert leaks(raised_in_flask(smtp_server, lambda mail: mail.send(BAD_IN_FLASK[kind]()))) == []
