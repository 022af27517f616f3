"""The hash of a body for DKIM (RFC 6376 sections 3.4.3 and 3.4.4), in pieces and in linear time.

dkimpy hashes bodies too, but only whole ones, and its expression for blanks at the end of lines takes
quadratic time: a megabyte of blanks would keep a sender busy for minutes.
"""

import base64
import hashlib

__all__ = ["BodyHash"]

_CRLF = b"\r\n"


class BodyHash:
    """Fed with canonical content (all lines end in CRLF), cut anywhere."""

    __slots__ = ("_empty_lines", "_hash", "_is_empty", "_is_relaxed", "_line")

    def __init__(self, *, relaxed: bool) -> None:
        self._is_relaxed = relaxed
        self._hash = hashlib.sha256()
        self._line = b""  # the beginning of one that goes on in the next piece
        self._empty_lines = (
            0  # held back, since those at the end do not count; the first ends the line before
        )
        self._is_empty = True

    def feed(self, piece: bytes) -> None:
        data = self._line + piece
        end = data.rfind(_CRLF) + len(_CRLF)
        if end < len(_CRLF):
            self._line = data
            return
        self._line = data[end:]
        self._feed_lines(data[:end])

    def _feed_lines(self, lines: bytes) -> None:
        if self._is_relaxed:
            lines = lines.replace(b"\t", b" ")
            while b"  " in lines:  # halves the longest run each time
                lines = lines.replace(b"  ", b" ")
            lines = lines.replace(b" \r\n", _CRLF)
        content = lines.rstrip(_CRLF)
        if content:
            self._hash.update(_CRLF * self._empty_lines)
            self._hash.update(content)
            self._empty_lines = 0
            self._is_empty = False
        self._empty_lines += (len(lines) - len(content)) // 2

    def value(self) -> bytes:
        """The value of the tag bh=. To be asked for once, at the end."""
        # An empty body is one empty line to "simple", and nothing at all to "relaxed".
        if not (self._is_empty and self._is_relaxed):
            self._hash.update(_CRLF)
        return base64.b64encode(self._hash.digest())
