"""What the tests look for of a mail, servers that refuse it, and what Sentry would store of the error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sentry_sdk.utils import event_from_exception

from mailbridge.testing import Fault

# In halves, so that only what a variable holds is found, and no line of source.
MARK = "sentinel" + "-"
SUBJECT, TEXT, HTML = f"{MARK}subject", f"https://shop.example/reset?{MARK}text", f"<p>{MARK}html</p>"
CONTENT, FILENAME, FIELD = f"{MARK}attachment".encode(), f"{MARK}name.pdf", f"{MARK}field"
SENDER, RECIPIENT = f"{MARK}sender@a.example", f"{MARK}recipient@b.example"
PASSWORD = f"{MARK}password"

# What SMTP's own diagnostics name, and so the messages of errors.
ADDRESSES = (SENDER, RECIPIENT)

#: What a server does wrong, and the options with which it is met.
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sender": ({"mail_replies": {SENDER: "550 5.7.1 No"}}, {}),
    "recipient": ({"rcpt_replies": {RECIPIENT: "550 5.1.1 No"}}, {}),
    "content": ({"faults": [Fault("final", "reply", reply="554 5.7.1 No")]}, {}),
    "lost": ({"faults": [Fault("final", "close")]}, {}),
    "before": ({"faults": [Fault("ehlo", "close")]}, {}),
    "slow": ({"faults": [Fault("final", "silence")]}, {"timeout": 0.2}),
    "tls": ({}, {"security": "starttls"}),
    "login": (
        {"users": {"user": "other"}, "auth_in_clear": True},
        {"username": "user", "password": PASSWORD, "allow_insecure_auth": True},
    ),
    "after login": (
        {"users": {"user": PASSWORD}, "auth_in_clear": True, "faults": [Fault("final", "close")]},
        {"username": "user", "password": PASSWORD, "allow_insecure_auth": True},
    ),
}


def leaks(error: BaseException, mark: str = MARK) -> list[str]:
    """Where Sentry, with its default settings, shows what bears `mark`.

    In the local variables of our frames, or in the messages; but an address may stand in the message of
    an error, and so in the repr of that error.
    """
    links: list[Any] = event_from_exception(error)[0]["exception"]["values"]
    allowed = [str(link["value"]) for link in links]
    found = [f"message: {text}" for text in allowed if mark in without(text, ADDRESSES)]
    shown = dict(_variables(links))
    assert shown, "no frame of ours"
    for name, value in shown.items():
        if mark in without(unquoted(repr(value)), [unquoted(text) for text in allowed if mark in text]):
            found.append(f"{name} = {value}")
    return found


def unquoted(text: str) -> str:
    """`text` as it is in any depth of quoting."""
    return re.sub(r"[\\'\"]", "", text)


def without(text: str, parts: Any) -> str:
    for part in parts:
        text = text.replace(part, "")
    return text


def _variables(links: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for link in links:
        for frame in (link.get("stacktrace") or {}).get("frames", ()):
            if (frame["module"] or "").startswith("mailbridge"):
                for name, value in (frame.get("vars") or {}).items():
                    yield f"{frame['module']}.{frame['function']}:{frame['lineno']} {name}", value
