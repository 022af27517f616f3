"""What a parser reads in a message, as a value that does not depend on whose parser it is."""

from __future__ import annotations

import email
from dataclasses import dataclass, field
from email import policy
from email.header import decode_header, make_header
from email.message import MIMEPart
from email.utils import getaddresses

Mailboxes = tuple[tuple[str, str], ...]  # (name, address)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """An attachment, or an image that the html shows."""

    filename: str | None
    content_type: str
    disposition: str
    content_id: str | None
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedMail:
    """`mailboxes` by lower-case name of the field; `files` in the order of their names and contents."""

    subject: str
    mailboxes: dict[str, Mailboxes]
    message_id: str
    in_reply_to: str
    text: str | None
    html: str | None
    calendar: str | None
    files: tuple[ParsedFile, ...]
    custom: str | None = field(default=None)  # the field X-Custom


MAILBOX_FIELDS = ("from", "sender", "to", "cc", "reply-to")


def in_one_form(
    *,
    subject: str,
    custom: str | None,
    text: str | None,
    html: str | None,
    calendar: str | None,
    files: list[ParsedFile],
    **same: object,
) -> ParsedMail:
    """Without what is not the same everywhere by nature: line ends, the last of them, the order of files."""
    return ParsedMail(
        subject=subject.strip(),
        custom=None if custom is None else custom.strip(),
        text=plain_lines(text),
        html=plain_lines(html),
        calendar=plain_lines(calendar),
        files=tuple(sorted(files, key=lambda each: (each.filename or "", each.content))),
        **same,  # type: ignore[arg-type]  # the other fields
    )


def plain_lines(text: str | None) -> str | None:
    """With LF; None where there is nothing but line ends, which is no text to some."""
    return (text or "").replace("\r\n", "\n").rstrip("\n") or None


def parse_by_python(content: bytes) -> ParsedMail:
    message, older = (
        email.message_from_bytes(content, policy=policy.default),
        email.message_from_bytes(content),
    )
    files, texts = [], {}
    for part in message.walk():
        kind = part.get_content_type()
        if part.get_content_disposition() is not None:
            files.append(_file(part))
        elif kind in ("text/plain", "text/html", "text/calendar"):
            texts[kind] = part.get_content()
    return in_one_form(
        subject=str(message["Subject"]),
        mailboxes={name: _mailboxes(older[name]) for name in MAILBOX_FIELDS if name in older},
        message_id=str(message["Message-ID"]),
        in_reply_to=str(message["In-Reply-To"] or ""),
        custom=message["X-Custom"],
        text=texts.get("text/plain"),
        html=texts.get("text/html"),
        calendar=texts.get("text/calendar"),
        files=files,
    )


def _mailboxes(value: str) -> Mailboxes:
    """By the older functions: the newer parser leaves a blank between the encoded words of a name, in all
    Pythons to 3.13 at least, which RFC 2047 section 6.2 forbids."""
    return tuple((str(make_header(decode_header(name))), address) for name, address in getaddresses([value]))


def _file(part: MIMEPart) -> ParsedFile:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return ParsedFile(
        # get_filename() would take quotes off that belong to the name.
        filename=part["Content-Disposition"].params.get("filename"),
        content_type=part.get_content_type(),
        disposition=str(part.get_content_disposition()),
        content_id=part["Content-ID"],
        content=content,
    )
