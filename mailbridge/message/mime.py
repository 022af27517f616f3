"""The MIME structure of a message: texts and files to a tree of parts, without needless layers.

Nothing is changed, read or fetched here; header fields of the message itself belong to `message`.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from email import message_from_bytes, policy
from email.message import MIMEPart
from typing import Any

from mailbridge.errors import InvalidMessage
from mailbridge.message.attachment import Attachment, is_content_type

__all__ = ["POLICY", "body_part"]

# Not only 8-bit text is encoded right away: then no server needs to be asked for 8BITMIME.
POLICY = policy.SMTP.clone(cte_type="7bit")
_CALENDAR_METHOD = re.compile(r"^METHOD:([A-Za-z-]+)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_OWN_ALTERNATIVES = {"plain": "text", "html": "html", "calendar": "calendar"}
_BASE64_PIECE = 57 * 1024  # bytes; 57 make one line


def body_part(
    *,
    text: str | None,
    html: str | None,
    calendar: str | None,
    alternatives: Iterable[tuple[str, str]],
    attachments: Sequence[Attachment],
) -> MIMEPart:
    """mixed(alternative(text, …, related(html, images), calendar), attachments). Raises InvalidMessage."""
    is_shown = [html is not None and each.content_id is not None for each in attachments]
    files = [_file_part(each) for each, shown in zip(attachments, is_shown, strict=True) if not shown]
    images = [_file_part(each) for each, shown in zip(attachments, is_shown, strict=True) if shown]
    # RFC 2046 section 5.1.4: the plainest first.
    parts = [_alternative_part(*each) for each in alternatives]
    if text is not None or (html is None and calendar is None):
        parts.insert(0, _text_part(text or "", "plain"))
    if html is not None:
        # RFC 2387 section 3.1: the type of the part that the others belong to.
        parts.append(_container("related", [_text_part(html, "html"), *images], type="text/html"))
    if calendar is not None:
        parts.append(_calendar_part(calendar))
    return _container("mixed", [_container("alternative", parts), *files])


def _container(kind: str, parts: list[MIMEPart], **parameters: str) -> MIMEPart:
    if len(parts) == 1:
        return parts[0]
    container = MIMEPart(policy=POLICY)
    container["Content-Type"] = f"multipart/{kind}"
    for name, value in parameters.items():
        container.set_param(name, value)
    for part in parts:
        container.attach(part)
    return container


def _text_part(text: str, subtype: str, **parameters: str) -> MIMEPart:
    part = MIMEPart(policy=POLICY)
    try:
        # A NUL is not allowed in 7-bit text (RFC 2045 section 2.7), but may be encoded.
        encoding = "quoted-printable" if "\0" in text else None
        part.set_content(text, subtype=subtype, cte=encoding, params=parameters)
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"The {subtype} text holds a lone surrogate, which UTF-8 can't say") from error
    return part


def _alternative_part(content_type: str, text: str) -> MIMEPart:
    kind, _, subtype = content_type.lower().partition("/")
    if kind != "text" or not is_content_type(content_type):
        raise InvalidMessage(f"An alternative is of a type text/…, not {content_type!r}")
    if subtype in _OWN_ALTERNATIVES:
        raise InvalidMessage(f"The alternative {content_type} is given as {_OWN_ALTERNATIVES[subtype]}")
    return _text_part(text, subtype)


def _calendar_part(calendar: str) -> MIMEPart:
    method = _CALENDAR_METHOD.search(calendar.replace("\r", ""))
    # RFC 6047 section 2.4: the parameter equals the METHOD property.
    return _text_part(calendar, "calendar", method=method[1].upper() if method else "REQUEST")


def _file_part(attachment: Attachment) -> MIMEPart:
    part = MIMEPart(policy=POLICY)
    details: dict[str, Any] = {
        "disposition": attachment.disposition,
        "filename": attachment.filename,
        "cid": f"<{attachment.content_id}>" if attachment.content_id is not None else None,
        "params": {"charset": attachment.charset} if attachment.charset is not None else None,
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
