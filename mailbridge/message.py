"""A message as a program thinks of it, and the MIME structure that makes it one on the wire.

A `Message` is plain data until `as_email_message()`; it may be changed, copied and pickled freely.
Files are read when they are attached, and only if they come as a path object or an open file: a
string never names one, and nothing is ever fetched that the text, the html or a header names.
Sending, signing and the bytes themselves belong elsewhere.
"""

import base64
import mimetypes
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage, MIMEPart
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mailbridge.addresses import Mailbox, parse_address, parse_address_list, to_ascii_domain
from mailbridge.envelope import Envelope
from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.results import printable

__all__ = ["Attachment", "Message"]

#: `a@b`, `Name <a@b>`, (name, address) or the email package's Address.
AnyAddress = str | tuple[str, str] | Address
Addresses = str | Address | Iterable[AnyAddress]
Disposition = Literal["attachment", "inline"]

# Not only 8-bit text is encoded right away: then no server needs to be asked for 8BITMIME.
_POLICY = policy.SMTP.clone(cte_type="7bit")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 section 2.2
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+>")  # RFC 5322 section 3.6.4, without blanks and comments
_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)  # RFC 6838 section 4.2
_CALENDAR_METHOD = re.compile(r"^METHOD:([A-Za-z-]+)[ \t]*$", re.IGNORECASE | re.MULTILINE)
# What a Message says itself; a second one, or a Bcc that reaches nobody, is never meant.
_OWN_FIELDS = frozenset(
    {"from", "to", "cc", "bcc", "resent-bcc", "reply-to", "subject", "date", "message-id", "in-reply-to"}
    | {"references", "mime-version"}
)


_BASE64_PIECE = 57 * 1024  # bytes; 57 make one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file that goes along. With `content_id` (no brackets) the html can show it: `<img src="cid:…">`."""

    content: bytes = field(repr=False)
    filename: str | None = None
    content_type: str = "application/octet-stream"
    disposition: Disposition = "attachment"
    content_id: str | None = None

    def __post_init__(self) -> None:
        if not _CONTENT_TYPE.fullmatch(self.content_type) or self.content_type.lower().startswith(
            "multipart/"
        ):
            raise InvalidMessage(f"{self.content_type!r} can't be the content type of an attachment")
        if self.disposition not in ("attachment", "inline"):
            raise InvalidMessage(
                f"An attachment's disposition is attachment or inline, not {self.disposition!r}"
            )
        _checked("filename", self.filename or "")
        if self.content_id is not None and not _MESSAGE_ID.fullmatch(f"<{self.content_id}>"):
            raise InvalidMessage(f"{printable(self.content_id)!r} can't be a Content-ID")


@dataclass(slots=True)
class Message:
    """A mail to be: `Message("Subject", "a@x.example", ["b@y.example"], text="…")`.

    `sender` is one address, the others are one or several: `a@b`, `Name <a@b>`, (name, address)
    pairs in a list, `email.headerregistry.Address`. Bcc goes to the envelope only. `calendar` is an
    invitation (iCalendar, RFC 5545) whose own METHOD counts, else REQUEST. `headers` are further
    fields. `date` and `message_id` are added when the message is sent, where they are missing.
    """

    subject: str = ""
    sender: AnyAddress | None = None
    to: Addresses = ()
    text: str | None = None
    html: str | None = None
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    attachments: list[Attachment] = field(default_factory=list)
    calendar: str | None = None
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = field(default_factory=dict)
    date: datetime | None = None
    message_id: str | None = None
    in_reply_to: str | None = None
    references: str | Iterable[str] = ()

    def attach(
        self,
        source: bytes | os.PathLike[str] | BinaryIO,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        disposition: Disposition = "attachment",
        content_id: str | None = None,
    ) -> Attachment:
        """Add a file: its bytes, its path as a path object, or an open binary file; read at once.

        The name is the path's, the type is guessed from the name, unless given. What has a
        `content_id` is shown by the html that names it. Raises InvalidMessage; OSError of reading.
        """
        name = filename or _name_of(source)
        attachment = Attachment(
            content=_content_of(source),
            filename=name,
            content_type=content_type or _guessed_type(name),
            disposition="inline" if content_id else disposition,
            content_id=content_id.removeprefix("<").removesuffix(">") if content_id else None,
        )
        self.attachments.append(attachment)
        return attachment

    def envelope(self) -> Envelope:
        """The envelope: the sender, and To, Cc and Bcc in this order. Raises InvalidMessage."""
        recipients = [a.addr_spec for kind in (self.to, self.cc, self.bcc) for a in _addresses(kind)]
        return Envelope(_address(self.sender).addr_spec if self.sender else None, recipients)

    def as_email_message(self) -> EmailMessage:
        """The message in MIME, as Python's email package has it. Raises InvalidMessage, InvalidAddress."""
        if self.sender is None:
            raise InvalidMessage("The message has no sender")
        message = EmailMessage(policy=_POLICY)
        message["From"] = _address(self.sender)
        for name, kind in (("To", self.to), ("Cc", self.cc), ("Reply-To", self.reply_to)):
            if addresses := _addresses(kind):
                message[name] = addresses
        _set(message, "Subject", str(self.subject))
        if self.date is not None:
            message["Date"] = self.date
        self._identify(message)
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        for name, value in pairs:
            if name.lower() in _OWN_FIELDS or name.lower().startswith("content-"):
                raise InvalidMessage(f"The header field {name} is not set through headers")
            _set(message, name, str(value))
        message["MIME-Version"] = "1.0"
        body = self._body()
        for name, value in body.items():
            message[name] = value
        message.set_payload(body.get_payload())
        return message

    def _identify(self, message: EmailMessage) -> None:
        references = self.references.split() if isinstance(self.references, str) else list(self.references)
        for name, ids in (
            ("Message-ID", [self.message_id] if self.message_id else []),
            ("In-Reply-To", self.in_reply_to.split() if self.in_reply_to else []),
            ("References", references),
        ):
            for each in ids:
                if not _MESSAGE_ID.fullmatch(each):
                    raise InvalidMessage(f"{printable(each)!r} can't stand in {name}; <left@right> is needed")
            if ids:
                _set(message, name, " ".join(ids))

    def _body(self) -> MIMEPart:
        """mixed(alternative(text, related(html, images), calendar), attachments), without empty layers."""
        shown = [a for a in self.attachments if a.content_id is not None and self.html is not None]
        others = [_file_part(a) for a in self.attachments if a not in shown]
        alternatives: list[MIMEPart] = []
        if self.text is not None or (self.html is None and self.calendar is None):
            alternatives.append(_text_part(self.text or "", "plain"))
        if self.html is not None:
            html = _text_part(self.html, "html")
            # RFC 2387 section 3.1: the type of the part that the others belong to.
            related = [html, *map(_file_part, shown)]
            alternatives.append(_container("related", related, type="text/html"))
        if self.calendar is not None:
            alternatives.append(_calendar_part(self.calendar))
        return _container("mixed", [_container("alternative", alternatives), *others])


def _container(kind: str, parts: list[MIMEPart], **parameters: str) -> MIMEPart:
    if len(parts) == 1:
        return parts[0]
    container = MIMEPart(policy=_POLICY)
    container["Content-Type"] = f"multipart/{kind}"
    for name, value in parameters.items():
        container.set_param(name, value)
    for part in parts:
        container.attach(part)
    return container


def _text_part(text: str, subtype: str, **parameters: str) -> MIMEPart:
    part = MIMEPart(policy=_POLICY)
    try:
        # A NUL is not allowed in 7-bit text (RFC 2045 section 2.7), but may be encoded.
        encoding = "quoted-printable" if "\0" in text else None
        part.set_content(text, subtype=subtype, cte=encoding, params=parameters)
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"The {subtype} text holds a lone surrogate, which UTF-8 can't say") from error
    return part


def _calendar_part(calendar: str) -> MIMEPart:
    method = _CALENDAR_METHOD.search(calendar.replace("\r", ""))
    # RFC 6047 section 2.4: the parameter equals the METHOD property.
    return _text_part(calendar, "calendar", method=method[1].upper() if method else "REQUEST")


def _file_part(attachment: Attachment) -> MIMEPart:
    part = MIMEPart(policy=_POLICY)
    details: dict[str, Any] = {
        "disposition": attachment.disposition,
        "filename": attachment.filename,
        "cid": f"<{attachment.content_id}>" if attachment.content_id is not None else None,
    }
    kind, _, subtype = attachment.content_type.partition("/")
    if attachment.content_type.lower() == "message/rfc822":  # must not be encoded (RFC 2046 section 5.2.1)
        part.set_content(message_from_bytes(attachment.content, policy=policy.SMTP), **details)
    else:
        part.set_content(b"", kind, subtype, **details)
        part.set_payload(_base64(attachment.content))
    return part


def _base64(data: bytes) -> str:
    """Lines of 76 characters, made in pieces: the email package's list of all lines costs four times more."""
    starts = range(0, len(data), _BASE64_PIECE)
    return "".join(base64.encodebytes(data[i : i + _BASE64_PIECE]).decode("ascii") for i in starts)


def _set(message: EmailMessage, name: str, value: str) -> None:
    if not _FIELD_NAME.fullmatch(name):
        raise InvalidMessage(f"{name!r} can't be the name of a header field")
    try:
        message[name] = _checked(f"header field {name}", value)
    except ValueError as error:
        raise InvalidMessage(f"The header field {name} can't be set: {error}") from error
    # The email package decodes encoded words in what it is given.
    _checked(f"header field {name}", str(message[name]))


def _checked(what: str, text: str) -> str:
    """`text`, if it has neither control characters, which could end a field, nor lone surrogates."""
    if found := _CONTROL.search(text):
        raise InvalidMessage(f"The {what} contains the control character {found[0]!r}")
    return text


def _addresses(given: Addresses) -> list[Address]:
    if isinstance(given, str):
        return [_as_address(*each) for each in parse_address_list(given)]
    return [_address(each) for each in ([given] if isinstance(given, Address) else given)]


def _address(given: object) -> Address:
    if isinstance(given, Address):
        return _as_address(given.display_name, Mailbox(given.username, to_ascii_domain(given.domain)))
    if isinstance(given, str):
        return _as_address(*parse_address(given))
    match given:
        case (str(name), str(address)):
            return _as_address(name, parse_address(address)[1])
    raise InvalidAddress(f"Invalid address: {given!r} is neither a string nor a pair of name and address")


def _as_address(display: str, mailbox: Mailbox) -> Address:
    _checked("display name", display)
    return Address(display, mailbox.local, mailbox.domain)


def _name_of(source: object) -> str | None:
    name = source if isinstance(source, os.PathLike) else getattr(source, "name", None)
    return Path(name).name if isinstance(name, str | os.PathLike) else None


def _content_of(source: Any) -> bytes:
    if isinstance(source, os.PathLike):
        return Path(source).read_bytes()
    content = source.read() if hasattr(source, "read") else source
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    if not isinstance(content, bytes):
        # A string could be a name or the content; a name that came from outside would read any file.
        raise InvalidMessage(
            f"An attachment is given as bytes, a path object or a binary file, not {type(content).__name__}"
        )
    return content


def _guessed_type(filename: str | None) -> str:
    guessed, encoding = mimetypes.guess_type(filename or "")
    # With an encoding (.tar.gz) the type is that of what is inside.
    if (
        guessed is None
        or encoding
        or not _CONTENT_TYPE.fullmatch(guessed)
        or guessed.startswith("multipart/")
    ):
        return "application/octet-stream"
    return guessed
