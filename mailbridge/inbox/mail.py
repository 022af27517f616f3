"""A received mail as a person reads it: subject, people, text, html, attachments, header fields.

Whatever arrives is shown as well as it can be: nothing here raises on a malformed mail, and nothing
is fetched or executed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import TypeVar

from mailbridge.reply import printable

T = TypeVar("T")

# Deeper than any mail that is meant well; Python's own walk would end in a RecursionError.
_DEEPEST = 50
_PREVIEW = 140  # characters; two lines of the list
# A header field as long as this is no longer something to read.
_LONGEST_FIELD = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An attachment, or an image that the html shows by its Content-ID. `size` in bytes."""

    filename: str
    content_type: str
    content: bytes = field(repr=False)
    content_id: str = ""
    is_inline: bool = False

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a mail says. Fields that it lacks are empty; `parts` are all that is neither text nor html."""

    subject: str
    sender: str
    to: str
    cc: str
    date: str
    message_id: str
    text: str
    html: str
    headers: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]

    @property
    def preview(self) -> str:
        """The beginning of the text, on one line."""
        return " ".join(self.text.split())[:_PREVIEW]


def read(content: bytes) -> Reading:
    """Read a whole message. Never raises."""
    message = _tried(lambda: message_from_bytes(content, policy=policy.compat32), Message())
    headers = tuple((printable(name, 200), _decoded(value)) for name, value in message.raw_items())
    texts: list[str] = []
    htmls: list[str] = []
    parts: list[Part] = []
    for part in _leaves(message):
        kind, is_body = part.get_content_type(), _is_body(part)
        if is_body and kind == "text/plain":
            texts.append(_text(part))
        elif is_body and kind == "text/html":
            htmls.append(_text(part))
        else:
            parts.append(_part(part, len(parts) + 1))

    def first(name: str) -> str:
        return next((value for key, value in headers if key.lower() == name), "")

    return Reading(
        subject=first("subject"),
        sender=first("from"),
        to=first("to"),
        cc=first("cc"),
        date=_tried(lambda: parsedate_to_datetime(first("date")).isoformat(), ""),
        message_id=first("message-id"),
        text="\n".join(texts),
        html="\n".join(htmls),
        headers=headers,
        parts=tuple(parts),
    )


def _tried(action: Callable[[], T], otherwise: T) -> T:
    """What `action` gives, or `otherwise`: the email package fails in many ways on what is malformed."""
    try:
        return action()
    except Exception:
        return otherwise


def _leaves(message: "Message[str, str]", depth: int = 0) -> Iterator["Message[str, str]"]:
    payload = message.get_payload()
    is_container = message.get_content_maintype() == "multipart" and isinstance(payload, list)
    if not is_container or depth > _DEEPEST:
        yield message
        return
    for part in payload:
        if isinstance(part, Message):
            yield from _leaves(part, depth + 1)


def _is_body(part: "Message[str, str]") -> bool:
    disposition = _tried(part.get_content_disposition, None)
    return disposition != "attachment" and not _filename(part)


def _filename(part: "Message[str, str]") -> str:
    return _decoded(_tried(part.get_filename, None) or "")


def _content(part: "Message[str, str]") -> bytes:
    payload = part.get_payload()
    if isinstance(payload, list):  # an attached message, or parts that are nested too deeply
        return b"".join(_tried(inner.as_bytes, b"") for inner in payload if isinstance(inner, Message))
    decoded = _tried(lambda: part.get_payload(decode=True), None)
    return decoded if isinstance(decoded, bytes) else str(payload or "").encode("utf-8", "replace")


def _text(part: "Message[str, str]") -> str:
    content = _content(part)
    charset = _tried(part.get_content_charset, None) or "utf-8"
    text = _tried(lambda: content.decode(charset), None)
    if text is None:
        text = content.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _part(part: "Message[str, str]", number: int) -> Part:
    kind = part.get_content_type()
    name = _filename(part) or f"part-{number}{'.eml' if kind == 'message/rfc822' else ''}"
    identity = _decoded(part.get("Content-ID", "")).strip().removeprefix("<").removesuffix(">")
    return Part(
        filename=printable(name.replace("\\", "/").rpartition("/")[2], 200) or f"part-{number}",
        content_type=kind,
        content=_content(part),
        content_id=identity,
        is_inline=_tried(part.get_content_disposition, None) == "inline" or bool(identity),
    )


def _decoded(value: object) -> str:
    """A field as text: unfolded, encoded words and raw UTF-8 decoded, control characters shown as such."""
    text = str(value)[:_LONGEST_FIELD]
    raw = text.encode("utf-8", "surrogateescape") if _has_raw_bytes(text) else None
    if raw is not None:
        text = raw.decode("utf-8", "replace")
    text = "".join(text.splitlines())
    decoded = _tried(lambda: str(make_header(decode_header(text))), text) if "=?" in text else text
    return printable(" ".join(decoded.split("\t")).strip(), _LONGEST_FIELD)


def _has_raw_bytes(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)
