"""What a server has stored, as values that a test can compare with what was sent.

The lines that servers put in front of a message are taken off, and line ends become CRLF again: every store
here writes LF, whatever came over the wire. That also means: a bare LF on the wire is not seen here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Header fields, possibly folded, that Postfix, Exim, OpenSMTPD, Dovecot and smtp-sink put in front.
TRACE = re.compile(
    rb"(?i)(?:return-path|x-original-to|delivered-to|envelope-to|delivery-date|received"
    rb"|x-client-addr|x-client-proto|x-helo-args|x-mail-args|x-rcpt-args):[^\n]*\n(?:[ \t][^\n]*\n)*"
)
SENDER = re.compile(rb"(?im)^(?:return-path|x-mail-args): *<([^>\n]*)>([^\n]*)")
RECIPIENT = re.compile(rb"(?im)^(?:x-original-to|envelope-to|x-rcpt-args): *<?([^>\n]*)>?")
MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*(<[^>\n]*>)")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """One stored copy; `content` is what the client sent, with CRLF, without the trace of servers."""

    sender: str
    recipients: tuple[str, ...]
    mail_parameters: str  # what stood behind MAIL FROM:<...>, where the store keeps it (smtp-sink only)
    content: bytes

    @property
    def message_id(self) -> str:
        found = MESSAGE_ID.search(self.content.partition(b"\r\n\r\n")[0])
        return found.group(1).decode() if found else ""


def parse_stored(raw: bytes) -> StoredMessage:
    position = 0
    while match := TRACE.match(raw, position):
        position = match.end()
    trace, content = raw[:position], raw[position:]
    sender = SENDER.search(trace)
    return StoredMessage(
        sender=sender.group(1).decode() if sender else "",
        recipients=tuple(found.decode() for found in RECIPIENT.findall(trace)),
        mail_parameters=sender.group(2).decode().strip() if sender else "",
        content=content.replace(b"\n", b"\r\n"),
    )


class Maildir:
    """A maildir, in the order of arrival; files in `new` are complete, as maildir promises."""

    def __init__(self, folder: Path) -> None:
        self._new = folder / "new"
        self._message_ids: dict[Path, str] = {}

    def messages(self) -> list[StoredMessage]:
        return [parse_stored(path.read_bytes()) for path in self._files()]

    def with_message_id(self, message_id: str) -> list[StoredMessage]:
        """Only these are kept in memory: the others may be large and many."""
        return [
            parse_stored(path.read_bytes())
            for path in self._files()
            if self._message_id_of(path) == message_id
        ]

    def _message_id_of(self, path: Path) -> str:
        if path not in self._message_ids:
            self._message_ids[path] = parse_stored(path.read_bytes()).message_id
        return self._message_ids[path]

    def _files(self) -> Iterable[Path]:
        if not self._new.is_dir():
            return []
        return sorted(self._new.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
