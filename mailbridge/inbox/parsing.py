"""A mail taken apart by Python's parser, within limits that hold for whatever arrives.

The parser itself has none: it takes any number of parts, nests them until Python's stack ends, and lets
through what its own functions for header fields raise.
"""

from email import policy
from email.message import Message
from email.parser import BytesParser
from typing import Any, cast

from mailbridge.inbox.charsets import to_text

#: What is read of a mail. An attachment of so many bytes has less than half as many lines as are read.
MOST_BYTES = 64 * 1024 * 1024
MOST_LINES = 2_000_000
MOST_PARTS = 1000
#: Header fields, of all parts together.
MOST_FIELDS = 10_000
#: Multiparts within one another; the parser asks each of them for each line whether it ends there.
DEEPEST = 20
# Of a field that describes content (Content-Type: …), characters and parameters: the parser takes quadratic
# time for them.
_LONGEST_DESCRIPTION = 2048
_MOST_PARAMETERS = 32


class _LimitReached(Exception):
    def __init__(self, root: "MailPart", left_out: str) -> None:
        super().__init__(left_out)
        self.root = root
        self.left_out = left_out


class _Fields(policy.Compat32):
    """Fields stay as they came; of those that describe content, so much as is to be understood."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if name.lower().startswith("content-"):
            value = ";".join(value[:_LONGEST_DESCRIPTION].split(";", _MOST_PARAMETERS)[:_MOST_PARAMETERS])
        return name, value

    def header_fetch_parse(self, name: str, value: str) -> str:
        """With raw bytes read as UTF-8, which the library would not do."""
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def fold_binary(self, name: str, value: str) -> bytes:
        """Not folded anew, which takes quadratic time."""
        lines = "\n".join(value.split("\r\n"))
        return f"{name}: {lines}\n".encode("utf-8", "surrogateescape")


_FIELDS = _Fields()


class MailPart(Message):
    """A part, or the whole. It counts what comes in, and raises nothing where the library does."""

    def __init__(self, policy: Any = _FIELDS) -> None:
        super().__init__(policy)
        self._root: MailPart = self
        self._depth = 0
        self._parts = self._fields = 1

    def attach(self, payload: Any) -> None:
        """The parser has found a part of this one."""
        super().attach(payload)
        root = self._root
        payload._root, payload._depth = root, self._depth + 1
        root._parts += 1
        if root._parts > MOST_PARTS:
            raise _LimitReached(root, f"Only the first {MOST_PARTS} parts are shown.")
        if payload._depth > DEEPEST:
            raise _LimitReached(
                root, f"Parts nested more than {DEEPEST} deep, and all after them, are not shown."
            )

    def set_raw(self, name: str, value: str) -> None:
        """The parser has found a header field of this part."""
        super().set_raw(name, value)
        self._root._fields += 1
        if self._root._fields > MOST_FIELDS:
            raise _LimitReached(
                self._root, f"Only the first {MOST_FIELDS} header fields are shown, and nothing after them."
            )

    def get_content_type(self) -> str:
        try:
            return super().get_content_type()
        except Exception:
            return "text/plain"

    def get_param(
        self, param: str, failobj: Any = None, header: str = "content-type", unquote: bool = True
    ) -> Any:
        """A parameter as text; one with a charset of its own (RFC 2231) in the charsets of mail only."""
        try:
            value = super().get_param(param, failobj, header, unquote)
        except Exception:
            return failobj
        if isinstance(value, tuple):
            return to_text(value[2].encode("raw_unicode_escape"), value[0] or "utf-8")
        return value


def parsed(content: bytes) -> tuple[MailPart, tuple[str, ...]]:
    """The mail, and sentences that say what was left out of it."""
    left_out = []
    if len(content) > MOST_BYTES:
        content = content[:MOST_BYTES]
        left_out.append(f"Only the first {MOST_BYTES >> 20} MB of this mail are shown.")
    if content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n") > MOST_LINES:
        content = content[:MOST_LINES]  # no more lines than bytes
        left_out.append(f"This mail has more than {MOST_LINES} lines; only its beginning is shown.")
    try:
        root = cast(MailPart, BytesParser(MailPart, policy=_FIELDS).parsebytes(content))
    except _LimitReached as limit:
        root = limit.root
        left_out.append(limit.left_out)
    return root, tuple(left_out)
