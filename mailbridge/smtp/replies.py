"""Replies of the server, from bytes (RFC 5321 section 4.2), with hard limits.

What a reply means, and which command it belongs to, is not decided here. Parsing takes linear time however
the bytes are cut, and never holds more than MAX_REPLY plus what was fed last.

`queue_id` finds the server's own name for a message. No standard says where it stands; the forms known here
are those of the servers in wide use. Another form gives None: a wrong name would be worse than none.
"""

import re

from mailbridge.errors import ProtocolViolation
from mailbridge.reply import Reply, printable

# RFC 5321 section 4.5.3.1.5 says 512; servers with long policy texts go beyond it.
MAX_LINE = 8192  # bytes, line end included
MAX_REPLY = 65536  # bytes, over all lines of one reply
MAX_LINES = 128
# The answer to EHLO has one line per keyword, after the one with the server's name.
MAX_EHLO_LINES = 257
# Lines without a character ahead of a reply. They answer nothing, so nobody gets out of step by them.
MAX_EMPTY_LINES = 8
# As much of a bad line as a person needs to recognise what speaks there.
_SHOWN_CHARACTERS = 200

# RFC 2034 section 4: the status comes first, then a space. RFC 3463 section 2: class, subject, detail.
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: |$)")


class ReplyParser:
    """Takes bytes as they arrive and gives whole replies, in their order.

    Feed only when `next_reply` has answered None: that is what bounds the memory. After a
    `ProtocolViolation` the parser stays where it is and raises it again: there is no way back
    into step.
    """

    __slots__ = ("_buffer", "_code", "_empty", "_lines", "_searched", "_size")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.clear()

    def clear(self) -> None:
        """Forget everything, as after STARTTLS: what came in clear text counts for nothing."""
        self._buffer.clear()
        self._searched = 0  # no line end stands before this place of the buffer
        self._lines: list[str] = []  # of the reply that has begun
        self._code = 0  # of these lines
        self._size = 0  # bytes of these lines
        self._empty = 0  # lines without a character, since the last reply

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._buffer += data

    @property
    def is_empty(self) -> bool:
        """Whether there is no unread byte and no half reply: nothing was said unasked."""
        return not self._buffer and not self._lines

    @property
    def is_idle(self) -> bool:
        """Whether nothing was said: there is at most the beginning of an empty line."""
        return not self._lines and (not self._buffer or self._buffer == b"\r")

    def skip_empty_lines(self) -> None:
        """Drop what some servers send between replies. Raises `ProtocolViolation` for more than a few."""
        while not self._lines and self._buffer.startswith((b"\r\n", b"\n")):
            if self._empty == MAX_EMPTY_LINES:
                raise _violation(f"The server sent more than {MAX_EMPTY_LINES} empty lines", b"")
            del self._buffer[: self._buffer.index(b"\n") + 1]
            self._searched = 0
            self._empty += 1

    def next_reply(self, max_lines: int = MAX_LINES) -> Reply | None:
        """The next whole reply, or None: more data is needed.

        `max_lines` bounds this one reply; for EHLO that is MAX_EHLO_LINES. Raises
        `ProtocolViolation` for what is no reply, or too long to be one.
        """
        self.skip_empty_lines()
        while (end := self._line_end()) is not None:
            line = bytes(self._buffer[:end])
            code, is_last, text = _parse_line(line)
            if self._lines and code != self._code:
                raise _violation(f"The server mixed code {self._code} with others in one reply", line)
            if len(self._lines) >= max_lines:
                raise _violation(f"The server sent a reply of more than {max_lines} lines", line)
            del self._buffer[:end]  # CPython moves the start, not the rest
            self._searched = 0
            self._lines.append(text)
            self._code = code
            self._size += end
            if is_last:
                reply = Reply(code, tuple(self._lines), _enhanced(code, self._lines[0]))
                self._lines = []
                self._size = self._empty = 0
                return reply
        return None

    def _line_end(self) -> int | None:
        """Where the first line of the buffer ends, line end included; None while it has no end.

        The limits count from the start of the line, so the same bytes give the same error
        however they were cut.
        """
        limit = min(MAX_LINE, MAX_REPLY - self._size)
        end = self._buffer.find(b"\n", self._searched, limit)
        if end >= 0:
            return end + 1
        if len(self._buffer) < limit:
            self._searched = len(self._buffer)
            return None
        what, most = ("line", MAX_LINE) if limit == MAX_LINE else ("reply", MAX_REPLY)
        raise _violation(
            f"The server sent a {what} of more than {most} bytes", bytes(self._buffer[:MAX_LINE])
        )


def _parse_line(line: bytes) -> tuple[int, bool, str]:
    """Code, whether it is the reply's last line, text. A bare LF ends a line as well as CRLF does."""
    body = line.removesuffix(b"\n").removesuffix(b"\r")
    code, separator = body[:3], body[3:4]
    if len(code) < 3 or not code.isdigit() or separator not in (b"", b" ", b"-"):
        raise _violation("The server sent a line that is no SMTP reply", line)
    if not b"200" <= code <= b"599":
        raise _violation("The server sent a reply with a code outside 200 to 599", line)
    return int(code), separator != b"-", body[4:].decode(errors="backslashreplace")


def _enhanced(code: int, text: str) -> tuple[int, int, int] | None:
    """The status at the start of `text`; one whose class contradicts the code counts for nothing."""
    found = _ENHANCED.match(text)
    if found is None or int(found[1]) != code // 100:
        return None
    return int(found[1]), int(found[2]), int(found[3])


def _violation(problem: str, line: bytes) -> ProtocolViolation:
    text = line.rstrip(b"\r\n").decode(errors="backslashreplace")
    return ProtocolViolation(f"{problem}: {printable(text, _SHOWN_CHARACTERS)!r}")


_FORMS = (
    re.compile(r"queued as ([\w.-]+)"),  # Postfix, Haraka, Stalwart
    re.compile(r"\bid=([\w.-]+)"),  # Exim
    re.compile(r"(?<![\w.-])([\w.-]++) Message accepted for delivery"),  # Sendmail, OpenSMTPD
    re.compile(r"\[InternalId=(\d+)"),  # Exchange
    re.compile(r"\bOK\s+\d{10}\s+([\w.-]+) - gsmtp"),  # Gmail
    re.compile(r"\bOk ([0-9a-f]{16}-[0-9a-f-]+)"),  # Amazon SES
)


def queue_id(text: str) -> str | None:
    """The id in the text of the final reply, or None."""
    for form in _FORMS:
        if found := form.search(text):
            return found[1].rstrip(".")
    return None
