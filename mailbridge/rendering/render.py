"""Messages as bytes: canonical CRLF content, without Bcc, fit for 7-bit header fields.

Takes what a program has: an `EmailMessage`, an older `Message`, a `mailbridge.Message`, bytes, or a
file or iterator of bytes. Nothing of the caller's message is changed. What is signed, and what comes
as bytes, is never encoded anew: only its line ends are made canonical. Dot-stuffing, and what a
server supports, belong elsewhere.
"""

import base64
import binascii
import copy
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import Message as AnyMessage
from email.utils import format_datetime
from typing import Any

from mailbridge.errors import InvalidAddress, InvalidMessage, NotSupported
from mailbridge.message.addresses import parse_address_list
from mailbridge.message.message import Message
from mailbridge.rendering.files import FileContent
from mailbridge.rendering.lines import LINE_LIMIT, Survey, canonical, has_nul, is_eight_bit, longest_line
from mailbridge.rendering.serializer import raw_payload, written
from mailbridge.rendering.sources import ContentSource, is_source, read_content
from mailbridge.secret import clears_locals

__all__ = ["Rendered", "render"]

# Blind copies are in the envelope alone (RFC 5322 section 3.6.3). Those of attached messages are content.
_BLIND_FIELDS = ("bcc", "resent-bcc")
# Tried at the start of lines alone: from each character on it would take a minute for a large text.
_LONG_LINE = re.compile(rf"(?:\A|[\r\n])[^\r\n]{{{LINE_LIMIT + 1}}}")
_SIGNATURE_NAME = re.compile(r"DKIM-Signature|ARC-[A-Za-z-]+", re.IGNORECASE)
_SIGNATURE = re.compile(rb"^(?:DKIM-Signature|ARC-[A-Za-z-]+)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^Message-ID[ \t]*:(?:[ \t]|\r\n[ \t])*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)

# Far more than any mail has, far less than the recursion of Python and of receivers' parsers takes.
_MAX_DEPTH = 50
_IDENTITY_ENCODINGS = ("", "7bit", "8bit", "binary")
_SOURCES = "A file is named by a pathlib.Path; several messages are sent with send_many."
_ENCODED = "Give an EmailMessage (email.message_from_bytes makes one): what is not signed in it is encoded."


def _now() -> datetime:
    return datetime.now(UTC)


def _token() -> str:
    """128 random bits, so that none comes twice or can be guessed; short, so that no boundary is folded."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rendered:
    """Content for the wire, before dot-stuffing, and what a server must be able to do for it.

    `content` ends in CRLF and holds no bare CR or LF; what is large and came from a file or an
    iterator is a `FileContent`. `message_id` is as in the field, brackets included. `is_eight_bit`:
    a byte above 127 somewhere; `needs_smtputf8`: one in the header fields of the message itself.
    `is_signed`: a DKIM or ARC signature forbids any change. `is_binary`: to go as it is, whatever
    bytes it holds, which takes BODY=BINARYMIME and BDAT (RFC 3030).
    """

    content: bytes | FileContent
    message_id: str | None
    is_eight_bit: bool
    needs_smtputf8: bool
    is_signed: bool
    is_binary: bool = False

    def __repr__(self) -> str:
        return f"<Rendered message of {self.size} bytes, {self.message_id or 'without Message-ID'}>"

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return self.content.size if isinstance(self.content, FileContent) else len(self.content)

    def close(self) -> None:
        """Let go of the temporary file that the content may be in. It can't be sent again then."""
        if isinstance(self.content, FileContent):
            self.content.close()

    def seven_bit(self) -> "Rendered":
        """The same message for a server without 8BITMIME (RFC 6152 section 3).

        Raises NotSupported where that is impossible: signed messages, raw UTF-8 in header fields.
        """
        if not self.is_eight_bit:
            return self
        if self.is_signed:
            raise _no_eight_bit("The message is signed and must not be encoded anew")
        if self.needs_smtputf8:
            raise _no_eight_bit("The header fields hold raw UTF-8")
        if isinstance(self.content, FileContent):
            raise _no_eight_bit("The message is too large to be encoded anew")
        try:
            content = _in_seven_bit(self.content)
        except RecursionError:  # in the email package's parser
            raise _no_eight_bit("The parts of the message are nested too deeply") from None
        if is_eight_bit(content):
            raise _no_eight_bit("The message holds 8-bit data outside its parts")
        return replace(self, content=content, is_eight_bit=False)


@clears_locals
def render(
    message: AnyMessage | Message | bytes | ContentSource,
    *,
    smtputf8: bool = False,
    binary: bool = False,
    now: Callable[[], datetime] = _now,
    token: Callable[[], str] = _token,
) -> Rendered:
    """`message` as content for the wire.

    Bytes, and what is read from a path object, a file or an iterator of bytes, go as they are but for
    their line ends (with `binary` those stay too): Bcc fields in them stay. Of a message, Bcc fields
    are left out, Date and a Message-ID under the sender's domain are added where they are missing
    (not to a signed one), and parts with lines over 998 bytes or a NUL are encoded. With `smtputf8`
    header fields are written as UTF-8 instead of encoded words; a local part that is not ASCII
    always is.

    Raises InvalidMessage for what can't be written without changing its meaning; in bytes, files and
    signed messages that is a line over 998 bytes or a NUL, unless `binary` is set.
    """
    if isinstance(message, bytes | bytearray | memoryview):
        content = bytes(message)
        return _rendered(content if binary else canonical(content), is_binary=binary)
    if isinstance(message, Message):
        message = message.as_email_message()
    elif not isinstance(message, AnyMessage) and is_source(message):
        return _described(*read_content(message, None if binary else _require_sendable), is_binary=binary)
    message = _copied(message)
    is_signed = any(map(_SIGNATURE_NAME.fullmatch, message.keys()))
    for name in _BLIND_FIELDS:
        del message[name]
    if not is_signed:
        _complete(message, now, token)
    for part in message.walk():
        if part.get_content_maintype() == "multipart" and not part.get_boundary():
            part.set_boundary(token())
    return _rendered(written(message, smtputf8=smtputf8, as_is=is_signed))


def _rendered(content: bytes, *, is_binary: bool = False) -> Rendered:
    survey = Survey()
    survey.feed(content)
    return _described(content, survey, is_binary=is_binary)


def _described(content: bytes | FileContent, survey: Survey, *, is_binary: bool) -> Rendered:
    head = survey.head
    if not is_binary:
        _require_sendable(survey)
    elif has_nul(head) or canonical(head) != head or longest_line(head) > LINE_LIMIT:
        raise InvalidMessage(  # RFC 3030 section 3: the header is no part of what may be binary
            "The header fields of binary content must end in CRLF, with an empty line behind them,"
            f" and hold neither a NUL nor a line over {LINE_LIMIT} bytes"
        )
    message_id = _MESSAGE_ID.search(head)
    return Rendered(
        content=content,
        message_id=message_id[1].decode("utf-8", "replace").strip() or None if message_id else None,
        is_eight_bit=survey.is_eight_bit,
        needs_smtputf8=is_eight_bit(head),
        is_signed=_SIGNATURE.search(head) is not None,
        is_binary=is_binary,
    )


def _require_sendable(survey: Survey) -> None:
    """Servers differ in what becomes of these: kept, changed, broken in two, refused by the next one."""
    if survey.has_nul:
        what = "a NUL, which mail can't hold (RFC 2045 section 2.7)"
    elif survey.longest_line > LINE_LIMIT:
        what = f"a line of {survey.longest_line} bytes, over the {LINE_LIMIT} of RFC 5322 section 2.1.1"
    else:
        return
    raise InvalidMessage(f"The content holds {what}", hint=_ENCODED)


def _copied(message: Any, depth: int = 0) -> AnyMessage:
    """A copy of the tree of parts that shares the payloads, which are immutable strings."""
    if not isinstance(message, AnyMessage):
        raise InvalidMessage(f"A message or bytes are needed, not {type(message).__name__}", hint=_SOURCES)
    if depth > _MAX_DEPTH:
        raise InvalidMessage(f"The parts of the message are nested more than {_MAX_DEPTH} deep")
    copied = copy.copy(message)
    del copied["\0"]  # no such field, but from here on the copy has a list of fields of its own
    if copied.is_multipart():
        copied.set_payload([_copied(part, depth + 1) for part in message.get_payload()])
    return copied


def _complete(message: AnyMessage, now: Callable[[], datetime], token: Callable[[], str]) -> None:
    if "Date" not in message:
        message["Date"] = format_datetime(now())
    if "Message-ID" not in message:
        # Not this host's name, which is nobody's business, and often is no domain at all.
        message["Message-ID"] = f"<{token()}@{_sender_domain(message)}>"
    for part in _unsigned_parts(message):
        if not part.is_multipart() and _must_be_encoded(part):
            _encode(part)


def _sender_domain(message: AnyMessage) -> str:
    try:
        return parse_address_list(str(message.get("From", "")))[0][1].domain
    except (InvalidAddress, IndexError):
        return "localhost"


def _unsigned_parts(message: AnyMessage) -> Iterator[AnyMessage]:
    """All parts but those that somebody vouches for: in signed multiparts."""
    yield message
    if message.is_multipart() and message.get_content_type() != "multipart/signed":
        for part in message.get_payload():
            yield from _unsigned_parts(part)  # type: ignore[arg-type]  # payloads of multiparts are messages


def _must_be_encoded(part: AnyMessage) -> bool:
    payload = raw_payload(part)
    encoding = _encoding_of(part)
    if not isinstance(payload, str) or encoding not in _IDENTITY_ENCODINGS:
        return False
    # Binary data would be changed by making line ends canonical.
    return encoding == "binary" or "\0" in payload or _LONG_LINE.search(payload) is not None


def _in_seven_bit(content: bytes) -> bytes:
    message = message_from_bytes(content, policy=policy.SMTP)
    for part in message.walk():
        if part.get_content_type() == "multipart/signed":
            raise _no_eight_bit("A part of the message is signed and must not be encoded anew")
        _make_seven_bit(part)
    return written(message, attached=True)


def _make_seven_bit(part: AnyMessage) -> None:
    encoding = _encoding_of(part)
    if encoding not in _IDENTITY_ENCODINGS:
        return
    payload = raw_payload(part)
    if isinstance(payload, str) and not payload.isascii():
        _encode(part)
    elif encoding in ("8bit", "binary"):
        _set_encoding(part, "7bit")


def _encoding_of(part: AnyMessage) -> str:
    return str(part.get("Content-Transfer-Encoding", "")).strip().lower()


def _set_encoding(part: AnyMessage, encoding: str) -> None:
    if "Content-Transfer-Encoding" in part:
        part.replace_header("Content-Transfer-Encoding", encoding)
    else:
        part["Content-Transfer-Encoding"] = encoding


def _encode(part: AnyMessage) -> None:
    """Quoted-printable for text that is mostly ASCII, else base64 (RFC 2045 section 6)."""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        raise InvalidMessage(f"A part of type {part.get_content_type()} has no payload that can be encoded")
    is_text = part.get_content_maintype() == "text"
    beyond_ascii = len(data) - len(data.translate(None, bytes(range(128, 256))))
    if is_text and beyond_ascii * 6 <= len(data) and _encoding_of(part) != "binary":
        encoded = binascii.b2a_qp(
            canonical(data) if data[-1:] in b"\r\n" else canonical(data)[:-2], istext=True
        )
        _set_encoding(part, "quoted-printable")
    else:
        encoded = base64.encodebytes(data)
        _set_encoding(part, "base64")
    part.set_payload(encoded.decode("ascii"))


def _no_eight_bit(why: str) -> NotSupported:
    return NotSupported(f"The server lacks 8BITMIME, which the message needs. {why}", extension="8BITMIME")
