"""Messages for real servers: each has a Message-ID of its own, by which it is found again."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mailbridge import Envelope, Mailer, SendResult

SENDER = "sender@example.test"
INBOX = "inbox@lab.test"  # where Postfix stores what it gets; other domains it throws away


@dataclass(frozen=True, slots=True)
class Mail:
    """Canonical content and an envelope for it: what `send` takes."""

    message_id: str
    content: bytes
    envelope: Envelope

    def send(self, mailer: Mailer, **options: Any) -> SendResult:
        return mailer.send(self.content, envelope=self.envelope, **options)


def new_mail(
    body: bytes = b"hello\r\n", *, to: Iterable[str] = (INBOX,), sender: str = SENDER, fields: bytes = b""
) -> Mail:
    """A mail with the fields that a server would else add, and with `fields`, which end in CRLF."""
    message_id = f"<{uuid.uuid4().hex}@example.test>"
    head = f"Message-ID: {message_id}\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nSubject: x\r\n"
    return Mail(message_id, head.encode() + fields + b"\r\n" + body, Envelope(sender, to))


def addresses(count: int, domain: str = "elsewhere.test") -> list[str]:
    return [f"r{number}@{domain}" for number in range(count)]
