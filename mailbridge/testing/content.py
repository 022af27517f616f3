"""Message content as it stands on the wire after 354: where it ends, what it says, what is wrong with it."""

from __future__ import annotations

import re

__all__ = ["ContentReader", "content_violations", "unstuffed"]

_UNSTUFFED = re.compile(rb"\r\n\.(?!\.|\r\n)")


class ContentReader:
    """Finds the end of the content in pieces of any size. Only CRLF dot CRLF ends it (RFC 5321 section
    4.1.1.4).
    """

    def __init__(self) -> None:
        self.raw = bytearray()

    def feed(self, piece: bytes) -> bytes | None:
        """Add a piece. None: not over yet; bytes: it is over, and these came behind it."""
        start = max(0, len(self.raw) - 4)  # the longest beginning of CRLF dot CRLF that may lie there already
        self.raw += piece
        if self.raw.startswith(b".\r\n"):
            end = 3
        elif (found := self.raw.find(b"\r\n.\r\n", start)) >= 0:
            end = found + 5
        else:
            return None
        rest = bytes(self.raw[end:])
        del self.raw[end:]
        return rest


def unstuffed(raw: bytes) -> bytes:
    """The message: without the final dot line, and without the first dot of lines that begin with one."""
    content = b"\r\n" + raw[: -len(b".\r\n")]
    return content.replace(b"\r\n.", b"\r\n")[2:]


def content_violations(raw: bytes, *, may_be_8bit: bool, is_stuffed: bool = True) -> list[str]:
    """What a client must not do in content (RFC 5321 sections 2.3.8, 4.5.2; RFC 6152)."""
    found = []
    # Counted and not searched for: large content takes a tenth of the time.
    if not raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n"):
        found.append("the content has a bare CR or LF")
    if is_stuffed and _UNSTUFFED.search(b"\r\n" + raw):
        found.append("a line of the content begins with a dot that is not doubled")
    if not may_be_8bit and not raw.isascii():
        found.append("the content has 8-bit bytes without BODY=8BITMIME")
    return found
