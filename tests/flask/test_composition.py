"""MAILBRIDGE_DEFAULTS and MAILBRIDGE_DKIM."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from mailbridge import ConfigurationError
from mailbridge import Message as CoreMessage
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail, Message
from tests.flask.apps import RECIPIENT, SENDER, app_for, parsed
from tests.unit.rendering.dkim_keys import ed25519_key, judgements, rsa_key

DOMAIN = SENDER.partition("@")[2]
DEFAULTS: dict[str, Any] = {
    "reply_to": "r@x.example",
    "headers": {"X-Site": "ü"},
    "list_unsubscribe": "https://x.example/u",
    "priority": "high",
}


def message(**more: Any) -> Message:
    return Message("Hi", [RECIPIENT], body="grüße", **more)


def send(app: Flask, made: Message) -> None:
    mail = Mail(app)
    with app.app_context():
        mail.send(made)


def test_messages_have_the_defaults(server: ScriptedServer) -> None:
    send(app_for(server, MAILBRIDGE_DEFAULTS=DEFAULTS), message())
    found = parsed(server.messages[0])
    assert (found["From"], found["Reply-To"], found["X-Site"]) == (SENDER, "r@x.example", "ü")
    assert (found["List-Unsubscribe"], found["Importance"]) == ("<https://x.example/u>", "high")


def test_what_a_message_says_itself_stays(server: ScriptedServer) -> None:
    made = message(reply_to="me@x.example", extra_headers={"x-site": "me", "Importance": "normal"})
    send(app_for(server, MAILBRIDGE_DEFAULTS=DEFAULTS), made)
    found = parsed(server.messages[0])
    assert [found.get_all(name) for name in ("Reply-To", "X-Site")] == [["me@x.example"], ["me"]]
    assert (found["Importance"], found["X-Priority"]) == ("normal", None)


def test_a_priority_to_send_with_is_one_of_its_own(server: ScriptedServer) -> None:
    app = app_for(server, MAILBRIDGE_DEFAULTS=DEFAULTS)
    mail = Mail(app)
    with app.app_context():
        mail.send(message(), priority="low")
        with mail.connect() as connection:
            connection.send(message(), priority="low")
    assert [parsed(each)["Importance"] for each in server.messages] == [None, None]


@pytest.mark.parametrize(
    ("configured", "expected"),
    [({}, "site@x.example"), ({"MAILBRIDGE_DEFAULT_SENDER": "flask@x.example"}, "flask@x.example")],
)
def test_the_default_sender_of_flask_comes_first(
    server: ScriptedServer, configured: dict[str, str], expected: str
) -> None:
    app = app_for(server, MAILBRIDGE_DEFAULTS={"sender": "site@x.example"})
    app.config["MAILBRIDGE_DEFAULT_SENDER"] = configured.get("MAILBRIDGE_DEFAULT_SENDER")
    send(app, message())
    assert server.messages[0].sender == expected
    assert parsed(server.messages[0])["From"] == expected


def test_each_mailer_has_its_own(server: ScriptedServer) -> None:
    own = {
        "host": server.host,
        "port": server.port,
        "security": "none",
        "defaults": {"headers": {"X-A": "1"}},
    }
    app = app_for(server, MAILBRIDGE_DEFAULTS=DEFAULTS, MAILBRIDGE_MAILERS={"bulk": own})
    mail = Mail(app, name="bulk")
    with app.app_context():
        mail.send(message())
    found = parsed(server.messages[0])
    assert (found["X-A"], found["X-Site"]) == ("1", None)


@pytest.mark.needs("dkim", "nacl")
def test_messages_are_signed(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(rsa_key().pem)
    keys = [
        {"domain": DOMAIN, "selector": "rsa", "key_file": str(path)},
        {**ed25519_key().options, "domain": DOMAIN},
    ]
    made = message(html="<p>grüße")
    made.attach("räpört.pdf", "application/pdf", b"\0\xff")
    app = app_for(server, MAILBRIDGE_DKIM=keys, MAILBRIDGE_DEFAULTS=DEFAULTS)
    send(app, made)
    with app.app_context():
        Mail(app).state_of().mailer().send(CoreMessage("Hi", SENDER, RECIPIENT, text="x"))
    assert len(server.messages) == 2
    for received in server.messages:
        assert judgements(received.content, rsa_key(), ed25519_key(), domain=DOMAIN) == [True, True]


@pytest.mark.needs("dkim", "nacl")
def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, server: ScriptedServer) -> None:
    """JSON, or a variable for each option, in capitals; the line ends of PEM are two characters there."""
    key = ed25519_key()
    monkeypatch.setenv("FLASK_MAILBRIDGE_DEFAULTS", json.dumps({"HEADERS": {"X-Site": "y"}}))
    monkeypatch.setenv("FLASK_MAILBRIDGE_DKIM__DOMAIN", DOMAIN)
    monkeypatch.setenv("FLASK_MAILBRIDGE_DKIM__SELECTOR", key.selector)
    monkeypatch.setenv("FLASK_MAILBRIDGE_DKIM__PRIVATE_KEY", key.pem.replace("\n", "\\n"))
    app = app_for(server)
    app.config.from_prefixed_env()
    send(app, message())
    assert parsed(server.messages[0])["X-Site"] == "y"
    assert judgements(server.messages[0].content, key, domain=DOMAIN) == [True]


@pytest.mark.needs("dkim", "nacl")
@pytest.mark.parametrize("several", [False, True])
def test_no_traceback_of_a_bad_configuration_shows_a_key(several: bool) -> None:
    options = {**rsa_key().options, "selector": "a b"}
    app = app_for(MAILBRIDGE_DKIM=[options] if several else options)
    with pytest.raises(ConfigurationError, match=r"dkim\.selector") as caught:
        Mail(app)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame.locals for frame in shown.stack if "/mailbridge" in frame.filename]
    assert rsa_key().pem.split("\n")[5] not in repr(frames)
