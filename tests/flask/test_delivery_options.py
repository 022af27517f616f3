"""What messages of Flask wish of the server: options of the envelope, and Flask-Mail's ESMTP parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from mailbridge import InvalidMessage, NotSupported
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail, Message
from mailbridge_flask.message import as_message
from mailbridge_flask.mime import delivery_options_of


def message(**options: Any) -> Message:
    return Message("Hello", ["to@example.com"], body="text", sender="me@example.com", **options)


@pytest.mark.parametrize("options", [[], ["BODY=8BITMIME"], ["smtputf8", "SIZE=1000"]])
def test_options_that_are_used_anyhow_may_be_asked_for(options: list[str]) -> None:
    assert delivery_options_of(message(mail_options=options), {}) == {}


@pytest.mark.parametrize(
    ("options", "delivery_options"),
    [
        ({"mail_options": ["RET=HDRS", "envid=a+2Bb%"]}, {"dsn": {"ret": "HDRS", "envid": "a+b%"}}),
        ({"mail_options": ["REQUIRETLS"]}, {"require_tls": True}),
        (
            {"rcpt_options": ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;a+2Bb@x"]},
            {"dsn": {"notify": "SUCCESS,DELAY", "orcpt": "rfc822;a+b@x"}},
        ),
        (
            {"mail_options": ["RET=FULL"], "envelope_options": {"dsn": {"ret": "HDRS"}}},
            {"dsn": {"ret": "HDRS"}},
        ),
    ],
)
def test_parameters_mean_what_they_say(options: dict[str, Any], delivery_options: dict[str, Any]) -> None:
    assert delivery_options_of(message(**options), {}) == delivery_options


@pytest.mark.parametrize(
    "options",
    [
        {"mail_options": ["BODY=BINARYMIME"]},
        {"mail_options": ["BY=120;R"]},
        {"mail_options": ["NOTIFY=SUCCESS"]},
        {"mail_options": ["RET"]},
        {"mail_options": ["SIZE=x"]},
        {"rcpt_options": ["BODY=8BITMIME"]},
        {"rcpt_options": ["RET=HDRS"]},
        {"rcpt_options": ["REQUIRETLS"]},
    ],
)
def test_parameters_that_nobody_would_heed_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match="not said this way"):
        delivery_options_of(message(**options), {})


def test_what_is_given_to_send_wins() -> None:
    made = message(envelope_options={"mt_priority": 1, "send_at": 60})
    assert delivery_options_of(made, {"mt_priority": 2}) == {"mt_priority": 2, "send_at": 60}


def test_other_classes_of_messages_may_have_options_too() -> None:
    class Alike:
        envelope_options = {"mt_priority": 1}  # noqa: RUF012  # as a project's own class may have it
        subject, body, recipients, sender = "s", "b", ("to@example.com",), "me@example.com"
        alts = extra_headers = None
        cc = bcc = attachments = mail_options = rcpt_options = ()
        reply_to = date = charset = None
        msgId = "<1@x>"  # noqa: N815  # Flask-Mail's name

    assert as_message(Alike()).envelope_options == {"mt_priority": 1}
    assert as_message(message()).envelope_options == {}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(keywords=["DSN", "FUTURERELEASE 3600 2030-01-01T00:00:00Z"]) as server:
        yield server


@pytest.fixture
def mail(server: ScriptedServer) -> Iterator[Mail]:
    app = Flask(__name__)
    app.config.update(
        MAILBRIDGE_HOST=server.host,
        MAILBRIDGE_PORT=server.port,
        MAILBRIDGE_SECURITY="none",
        MAILBRIDGE_DSN={"notify": "FAILURE"},
    )
    mail = Mail(app)
    with app.app_context():
        yield mail


def envelopes(server: ScriptedServer) -> list[tuple[bytes, bytes]]:
    commands = server.connections[0].commands
    mails = [line.partition(b">")[2] for line in commands if line.startswith(b"MAIL")]
    rcpts = [line.partition(b">")[2] for line in commands if line.startswith(b"RCPT")]
    return list(zip(mails, rcpts, strict=True))


def test_options_reach_the_server_on_every_way(mail: Mail, server: ScriptedServer) -> None:
    orcpt = b" ORCPT=rfc822;to@example.com"
    mail.send(message())
    mail.send(message(envelope_options={"dsn": {"ret": "HDRS", "notify": "SUCCESS"}}))
    mail.send(message(), dsn={"notify": "NEVER"}, send_at=60)
    mail.send(message(mail_options=["RET=FULL"], rcpt_options=["NOTIFY=DELAY"]))
    with mail.connect() as connection:
        connection.send(message(), dsn={"ret": "FULL"})
    assert envelopes(server) == [
        (b"", b" NOTIFY=FAILURE" + orcpt),  # MAILBRIDGE_DSN
        (b" RET=HDRS", b" NOTIFY=SUCCESS" + orcpt),
        (b" HOLDFOR=60", b" NOTIFY=NEVER"),
        (b" RET=FULL", b" NOTIFY=DELAY" + orcpt),
        (b" RET=FULL", orcpt),
    ]


def test_what_the_server_lacks_is_an_error(mail: Mail, server: ScriptedServer) -> None:
    with pytest.raises(NotSupported, match="deliver_by needs DELIVERBY"):
        mail.send(message(), deliver_by=5)
    with pytest.raises(InvalidMessage, match="Did you mean 'deliver_by'"):
        mail.send(message(), delivr_by=5)  # type: ignore[call-arg]
    assert server.messages == ()
