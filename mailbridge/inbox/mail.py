"""A received mail as a person reads it: subject, people, text, html, attachments, header fields.

Whatever arrives is shown as well as it can be: nothing here raises on a malformed mail, nothing takes more
than linear time, and nothing is fetched or executed. What is left out is said.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.header import decode_header
from email.utils import parsedate_to_datetime
from typing import TypeVar

from mailbridge.inbox.charsets import to_text
from mailbridge.inbox.parsing import MailPart, parsed
from mailbridge.reply import printable

T = TypeVar("T")

#: Characters that are kept of a mail's text, and of its html.
MOST_CHARACTERS = 10_000_000
_PREVIEW = 140  # characters; two lines of the list
# A header field as long as this is no longer something to read.
_LONGEST_FIELD = 4096
_LONGEST_NAME = 200


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
    """What a mail says. Fields that it lacks are empty; `parts` are all that is neither text nor html.

    `left_out` has a sentence for each kind of thing that the limits of the inbox have left out.
    """

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
    left_out: tuple[str, ...] = ()

    @property
    def preview(self) -> str:
        """The beginning of the text, on one line."""
        return " ".join(self.text[: 100 * _PREVIEW].split())[:_PREVIEW]


def read(content: bytes) -> Reading:
    """Read a whole message. Never raises: what can't be taken apart is shown as its source."""
    try:
        return _read(content)
    except Exception as error:
        return _source(content, f"This mail could not be taken apart ({type(error).__name__}).")


def _read(content: bytes) -> Reading:
    message, left_out = parsed(content)
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
            parts.append(_part(part, kind, len(parts) + 1))
    headers = tuple((printable(name, 200), _decoded(value)) for name, value in message.raw_items())
    return _reading(headers, "\n".join(texts), "\n".join(htmls), tuple(parts), left_out)


def _source(content: bytes, left_out: str) -> Reading:
    """Header fields as they stand, and the rest as text."""
    start = content[:MOST_CHARACTERS].decode("utf-8", "replace").replace("\r\n", "\n")
    head, _, text = start.partition("\n\n")
    lines = head[: 16 * _LONGEST_FIELD].replace("\n ", " ").replace("\n\t", " ").split("\n")
    fields = (line.partition(":") for line in lines if ":" in line)
    headers = tuple(
        (printable(name, 200), printable(value.strip(), _LONGEST_FIELD)) for name, _, value in fields
    )
    return _reading(headers, text, "", (), (left_out,))


def _reading(
    headers: tuple[tuple[str, str], ...],
    text: str,
    html: str,
    parts: tuple[Part, ...],
    left_out: tuple[str, ...],
) -> Reading:
    def first(name: str) -> str:
        return next((value for key, value in headers if key.lower() == name), "")

    if max(len(text), len(html)) > MOST_CHARACTERS:
        left_out += (f"Only the first {MOST_CHARACTERS} characters of the text and of the html are shown.",)
    return Reading(
        subject=first("subject"),
        sender=first("from"),
        to=first("to"),
        cc=first("cc"),
        date=_tried(lambda: parsedate_to_datetime(first("date")).isoformat(), ""),
        message_id=first("message-id"),
        text=text[:MOST_CHARACTERS],
        html=html[:MOST_CHARACTERS],
        headers=headers,
        parts=parts,
        left_out=left_out,
    )


def _tried(action: Callable[[], T], otherwise: T) -> T:
    """What `action` gives, or `otherwise`: the email package fails in many ways on what is malformed."""
    try:
        return action()
    except Exception:
        return otherwise


def _leaves(message: MailPart) -> Iterator[MailPart]:
    payload = message.get_payload() if message.is_multipart() else None
    if not isinstance(payload, list) or message.get_content_maintype() != "multipart":
        yield message
        return
    for part in payload:
        if isinstance(part, MailPart):
            yield from _leaves(part)


def _is_body(part: MailPart) -> bool:
    return _disposition(part) != "attachment" and not _filename(part)


def _disposition(part: MailPart) -> str | None:
    return _tried(part.get_content_disposition, None)


def _filename(part: MailPart) -> str:
    """The name that the part gives itself: no path, and nothing that changes how it looks."""
    name = _decoded(_tried(part.get_filename, None) or "", shown=_as_it_is)
    name = name.replace("\\", "/").rpartition("/")[2][:_LONGEST_NAME]
    name = "".join(character if character.isprintable() else "_" for character in name).strip()
    return name if name.strip(".") else ""


def _as_it_is(text: str, limit: int) -> str:
    return text[:limit]


def _content(part: MailPart) -> bytes:
    if part.is_multipart():  # an attached message
        inner = part.get_payload()
        return b"".join(_tried(each.as_bytes, b"") for each in inner if isinstance(each, MailPart))
    decoded = _tried(lambda: part.get_payload(decode=True), None)
    return decoded if isinstance(decoded, bytes) else b""


def _text(part: MailPart) -> str:
    charset = _tried(part.get_content_charset, None) or "utf-8"
    return to_text(_content(part), charset).replace("\r\n", "\n")


def _part(part: MailPart, kind: str, number: int) -> Part:
    identity = _decoded(part.get("Content-ID", "")).strip().removeprefix("<").removesuffix(">")
    return Part(
        filename=_filename(part) or f"part-{number}{'.eml' if kind == 'message/rfc822' else ''}",
        content_type=printable(kind, 200),
        content=_content(part),
        content_id=identity,
        is_inline=_disposition(part) == "inline" or bool(identity),
    )


def _decoded(value: object, shown: Callable[[str, int], str] = printable) -> str:
    """A field as text: unfolded, encoded words and raw UTF-8 decoded, control characters shown as such."""
    raw = str(value)[:_LONGEST_FIELD]
    text = _tried(lambda: raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), raw)
    text = "".join(text.splitlines())
    if "=?" in text:
        text = _tried(lambda: _words(text), text)
    return shown(" ".join(text.split("\t")).strip(), _LONGEST_FIELD)


def _words(text: str) -> str:
    """A field with encoded words in it (RFC 2047)."""
    pieces: list[tuple[str | bytes, str | None]] = decode_header(text)
    return "".join(
        piece
        if isinstance(piece, str)
        else to_text(piece, charset)
        if charset
        else piece.decode("raw_unicode_escape")
        for piece, charset in pieces
    )
