"""The option `defaults`: what messages have that do not say it themselves."""

from __future__ import annotations

import email
from email import policy
from email.message import EmailMessage
from email.mime.text import MIMEText
from typing import Any

import pytest

from mailbridge import ConfigurationError, Envelope, InvalidMessage, Mailer, Message, SMTPConfig, render
from mailbridge.rendering.prepare import Sendable, prepared
from mailbridge.testing import ScriptedServer

ALL: dict[str, Any] = {
    "sender": ("Jörg, Ä", "site@x.example"),
    "reply_to": ["r@x.example", "Ü <s@x.example>"],
    "headers": {"X-Site": "ü", "List-Id": "<l.x.example>"},
    "list_unsubscribe": ["https://x.example/u", "mailto:u@x.example"],
    "one_click_unsubscribe": True,
    "priority": "low",
}


def sent(message: Sendable, *, envelope: Envelope | None = None, **defaults: Any) -> tuple[Envelope, bytes]:
    used, rendered = prepared(message, envelope, SMTPConfig(defaults=defaults))
    assert isinstance(rendered.content, bytes)
    return used, rendered.content


def fields(content: bytes) -> dict[str, str]:
    """By lower-case name; each is there once."""
    parsed = email.message_from_bytes(content, policy=policy.default)
    names = [name.lower() for name in parsed]
    assert len(set(names)) == len(names)
    return {name: str(parsed[name]) for name in names}


def email_message(kind: type = EmailMessage, **more: str) -> Any:
    message = kind() if kind is EmailMessage else MIMEText("t")
    for name, value in {"To": "b@y.example", **more}.items():
        message[name.replace("_", "-")] = value
    return message


def test_a_message_without_them_has_them_all() -> None:
    for message in (Message("s", to="b@y.example"), email_message(), email_message(MIMEText)):
        envelope, content = sent(message, **ALL)
        found = fields(content)
        assert envelope.sender == "site@x.example"
        assert found["from"] == '"Jörg, Ä" <site@x.example>'
        assert found["reply-to"] == "r@x.example, Ü <s@x.example>"
        assert (found["x-site"], found["list-id"]) == ("ü", "<l.x.example>")
        assert found["list-unsubscribe"] == "<https://x.example/u>, <mailto:u@x.example>"
        assert found["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
        assert (found["importance"], found["x-priority"]) == ("low", "5")


OWN: dict[str, str] = {
    "From": "me@y.example",
    "Reply-To": "me@z.example",
    "x-SITE": "mine",
    "List-Unsubscribe": "<https://mine.example/>",
    "Importance": "high",
}


def test_what_a_message_says_itself_stays() -> None:
    message = email_message(**OWN)
    envelope, content = sent(message, **ALL)
    found = fields(content)
    assert envelope.sender == "me@y.example"
    assert {name: found[name.lower()] for name in OWN} == OWN
    assert found["list-id"] == "<l.x.example>"
    # These say one thing together with those that it has.
    assert "list-unsubscribe-post" not in found
    assert "x-priority" not in found


def test_what_our_message_says_itself_stays() -> None:
    message = Message(
        "s",
        "me@y.example",
        "b@y.example",
        reply_to="me@z.example",
        headers={"x-site": "mine"},
        list_unsubscribe="https://mine.example/",
        priority="high",
    )
    found = fields(sent(message, **ALL)[1])
    assert (found["from"], found["reply-to"], found["x-site"]) == ("me@y.example", "me@z.example", "mine")
    assert (found["list-unsubscribe"], found["importance"]) == ("<https://mine.example/>", "high")
    assert "list-unsubscribe-post" not in found


def test_one_that_is_normal_on_purpose() -> None:
    """Says so in a field of its own, since "normal" writes none."""
    found = fields(sent(email_message(From="a@x.example", Importance="normal"), priority="low")[1])
    assert (found["importance"], "x-priority" in found) == ("normal", False)


def test_a_priority_to_send_with_is_one_of_its_own() -> None:
    """No password reset goes first here and is called unimportant there."""
    config = SMTPConfig(defaults={"sender": "a@x.example", "priority": "low", "headers": {"X-Site": "x"}})
    ours = Message("s", to="b@y.example", priority="normal")
    for message, priority in (
        (email_message(), "high"),
        (Message("s", to="b@y.example"), "high"),
        (ours, None),
    ):
        _, rendered = prepared(message, None, config, priority=priority)  # type: ignore[arg-type]
        assert isinstance(rendered.content, bytes)
        found = fields(rendered.content)
        assert found["x-site"] == "x"
        assert {"importance", "priority", "x-priority"}.isdisjoint(found)


def test_the_mailer_heeds_the_priority_to_send_with() -> None:
    with ScriptedServer() as server:
        with Mailer.from_url(server.url, defaults={"priority": "low"}) as mailer:
            mailer.send(email_message(From="a@x.example"), priority="high")
            mailer.send(email_message(From="a@x.example"))
        first, second = (fields(received.content) for received in server.messages)
    assert ("importance" in first, second["importance"]) == (False, "low")


def test_nothing_of_the_callers_is_changed() -> None:
    for message in (Message("s", to="b@y.example"), email_message()):
        before = repr(message) if isinstance(message, Message) else message.items()
        sent(message, **ALL)
        assert (repr(message) if isinstance(message, Message) else message.items()) == before


def test_bytes_and_what_is_signed_stay_as_they_are() -> None:
    envelope = Envelope("a@x", ["b@y"])
    raw = b"Subject: x\r\n\r\nbody\r\n"
    for message in (raw, render(raw)):
        assert sent(message, envelope=envelope, **ALL) == (envelope, raw)
    signed = email_message(From="a@x.example", DKIM_Signature="v=1")
    assert "x-site" not in fields(sent(signed, **ALL)[1])


def test_without_a_default_sender_one_is_needed_still() -> None:
    for message in (Message("s", to="b@y.example"), email_message()):
        with pytest.raises(InvalidMessage):
            sent(message, priority="low")


def test_equal_defaults_are_equal_and_hash_alike() -> None:
    one, other = SMTPConfig(defaults=ALL), SMTPConfig(defaults=dict(reversed(ALL.items())))
    assert (one, hash(one)) == (other, hash(other))
    assert one != SMTPConfig()
    assert SMTPConfig().defaults == SMTPConfig(defaults={}).defaults


def test_from_a_url() -> None:
    config = SMTPConfig.from_url("smtp://x.example/?defaults.sender=a@x.example&defaults.priority=high")
    assert (config.defaults.sender, config.defaults.priority) == ("a@x.example", "high")


def test_a_sender_as_json_has_it() -> None:
    assert SMTPConfig(defaults={"sender": ["A", "a@x.example"]}).defaults.sender == "A <a@x.example>"


@pytest.mark.parametrize(
    ("defaults", "told"),
    [
        ({"sender": "nobody"}, "nobody"),
        ({"sender": "A\r\nB <a@x>"}, "control"),
        ({"sender": ["a@x", "b@x", "c@x"]}, "neither"),
        ({"reply_to": "x"}, "x"),
        ({"reply_to": 3}, "neither"),
        ({"headers": {"X-A": "a\nb"}}, "control"),
        ({"headers": {"From": "a@x"}}, "From"),
        ({"headers": {"Bcc": "a@x"}}, "Bcc"),
        ({"headers": {"To": "a@x"}}, "To"),
        ({"headers": {"X A": "b"}}, "X A"),
        ({"headers": ["X-A"]}, "defaults.headers"),
        ({"list_unsubscribe": "javascript:x"}, "list_unsubscribe holds another URI"),
        ({"list_unsubscribe": 3}, "list_unsubscribe"),
        ({"one_click_unsubscribe": True}, "https"),
        ({"one_click_unsubscribe": "perhaps"}, "one_click_unsubscribe"),
        ({"priority": "urgent"}, "urgent"),
        ({"subject": "x"}, "defaults.subject"),
        ({"_fields": ()}, "defaults._fields"),
        ("x", "mapping"),
    ],
)
def test_what_can_not_be_is_refused_when_it_is_built(defaults: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        SMTPConfig(defaults=defaults)
