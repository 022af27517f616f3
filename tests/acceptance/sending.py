"""What the acceptance tests send, with which mailer, and what the scripted server has of it.

Messages carry a number, so that what was accepted can be compared with what the caller was told.
Expectations belong to the tests and stand there.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mailbridge import Envelope, Mailer, SMTPConfig
from mailbridge.testing import ScriptedServer

USER, PASSWORD = "user@example.com", "correct horse"
SENDER, RECIPIENT = "from@a.example", "to@b.example"

# Wall time is an upper bound only: what a busy machine may add to a time limit, in seconds. Less than the
# limits that must not be what ends a case.
MARGIN = 5.0


class ShiftedClock:
    """The real clock, set forward by the test where hours have to pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def config_for(server: ScriptedServer, **options: Any) -> SMTPConfig:
    """Clear text and no login unless the options say so."""
    options = {"host": server.host, "port": server.port, "security": "none"} | options
    return SMTPConfig.from_mapping(options)


def mailer_for(server: ScriptedServer, *, clock: ShiftedClock | None = None, **options: Any) -> Mailer:
    return Mailer(config_for(server, **options), clock=clock or ShiftedClock())


def envelope(*recipients: str, sender: str = SENDER) -> Envelope:
    return Envelope(sender, recipients or (RECIPIENT,))


def message(number: int, *, size: int = 0) -> bytes:
    """A message with its number in it, of about `size` bytes."""
    head = (
        f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: Number {number}\r\n"
        f"Message-ID: <number-{number}@a.example>\r\nX-Number: {number}\r\n\r\n"
    )
    line = b"0123456789 . the quick brown fox jumps over the lazy dog . 9876543210\r\n"
    return head.encode() + line * max(1, size // len(line))


def number_of(content: bytes) -> int:
    found = re.search(rb"^X-Number: (\d+)", content, re.MULTILINE)
    assert found is not None, f"not one of our messages: {content[:200]!r}"
    return int(found[1])


def committed(server: ScriptedServer) -> Counter[int]:
    """How often the server took each message."""
    return Counter(number_of(received.content) for received in server.messages)


def connection_of(server: ScriptedServer, number: int) -> int:
    """The number of the connection on which the server took this message."""
    return next(m.connection for m in server.messages if number_of(m.content) == number)


def clear_lines(server: ScriptedServer) -> Iterable[bytes]:
    """Every line that came in clear text, on whatever connection."""
    return [line for connection in server.connections for line in bytes(connection.clear_text).splitlines()]
