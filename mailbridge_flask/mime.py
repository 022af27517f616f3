"""From a Flask `Message` to the core's, which makes the MIME structure, and to bytes and an envelope.

What Flask-Mail has and the core's message does not (other charsets and alternatives, further fields of an
attachment) is added to that structure here. Delivery options come from `envelope_options` and from
Flask-Mail's `mail_options` and `rcpt_options`, which are ESMTP parameters as they are written; the core
checks what the server offers and writes them itself. Nothing here sends, and no message is changed.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage, MIMEPart
from email.message import Message as AnyMessage
from typing import Any, Protocol
from urllib.parse import unquote

import mailbridge
from mailbridge import Envelope, EnvelopeOptions, InvalidMessage, MessageDefaults, Rendered
from mailbridge_flask.addresses import AnyAddress, as_pair, shown, unfolded

__all__ = ["email_message", "envelope", "rendered"]

# Fields that the core's message has as attributes of its own, and what they are called there.
_FIELDS_OF_CORE = {"message-id": "message_id", "in-reply-to": "in_reply_to", "references": "references"}
_FIXED_IN_PARTS = frozenset({"content-type", "content-transfer-encoding", "mime-version"})


class AttachmentFields(Protocol):
    """What is read of an attachment, Flask-Mail's own included."""

    filename: str | None
    content_type: str
    data: str | bytes
    disposition: str
    headers: dict[str, str]


class MessageFields(Protocol):
    """What is read of a `Message`."""

    subject: str
    recipients: list[AnyAddress]
    cc: list[AnyAddress]
    body: str | None
    alts: dict[str, str]
    reply_to: AnyAddress | None
    date: float | datetime | None
    charset: str | None
    msgId: str  # noqa: N815  # Flask-Mail's name
    extra_headers: dict[str, str]
    mail_options: list[str]
    rcpt_options: list[str]
    envelope_options: EnvelopeOptions

    @property
    def attachments(self) -> Sequence[AttachmentFields]: ...

    @property
    def send_to(self) -> Iterable[AnyAddress]: ...

    def check_headers(self) -> None: ...


def rendered(
    message: MessageFields,
    *,
    sender: AnyAddress | None,
    ascii_filenames: bool,
    defaults: MessageDefaults | None = None,
    has_priority: bool = False,
) -> Rendered:
    """The whole message as it is sent. Raises InvalidMessage and its kinds InvalidAddress, BadHeaderError.

    With a priority of its own it does not get the fields of the default one.
    """
    structure: AnyMessage = email_message(message, sender=sender, ascii_filenames=ascii_filenames)
    if defaults is not None:
        structure = defaults.completed(structure, has_priority=has_priority)
    return mailbridge.render(structure)


def envelope(
    message: MessageFields,
    *,
    sender: AnyAddress | None,
    envelope_from: AnyAddress | None,
    delivery_options: Mapping[str, Any],
) -> Envelope:
    """Who it goes to, and from whom: `envelope_from`, else `sender`; and the delivery options.

    Raises InvalidMessage.
    """
    source = envelope_from or sender
    recipients = [shown(each) for each in message.send_to]
    return Envelope(
        shown(source) if source else None, recipients, **delivery_options_of(message, delivery_options)
    )


def email_message(
    message: MessageFields, *, sender: AnyAddress | None, ascii_filenames: bool
) -> EmailMessage:
    """The MIME structure. Raises as `rendered` does."""
    message.check_headers()
    core = _core_message(message, sender)
    attachments = _in_order(message)
    for attachment in attachments:
        _attach(core, attachment, ascii_filenames=ascii_filenames)
    structure = core.as_email_message()
    for part, attachment in zip(_file_parts(structure), attachments, strict=True):
        _complete(part, attachment)
    _add_alternatives(structure, message.alts or {})
    if message.charset:
        _recode(structure, message.charset)
    return structure


def _core_message(message: MessageFields, sender: AnyAddress | None) -> mailbridge.Message:
    alts = message.alts or {}
    core = mailbridge.Message(
        subject=unfolded("Subject", str(message.subject or "")),
        sender=_pair_or_text(sender) if sender else None,
        to=_unique(message.recipients),
        cc=_unique(message.cc),
        text=None if message.body is None else str(message.body),
        html=_text(alts, "html"),
        calendar=_text(alts, "calendar"),
        reply_to=[_pair_or_text(message.reply_to)] if message.reply_to else [],
        date=_as_datetime(message.date),
        message_id=message.msgId,
    )
    headers: dict[str, str] = {}
    for name, value in (message.extra_headers or {}).items():
        text = unfolded(name, str(value)).strip()
        if name.lower() == "reply-to":
            core.reply_to = text
        elif name.lower() in _FIELDS_OF_CORE:
            setattr(core, _FIELDS_OF_CORE[name.lower()], text)
        else:
            headers[name] = text
    core.headers = headers
    return core


def _pair_or_text(given: AnyAddress) -> AnyAddress:
    return given if isinstance(given, str) else as_pair(given)


def _unique(given: list[AnyAddress] | None) -> list[AnyAddress]:
    return list(dict.fromkeys(map(_pair_or_text, given or ())))


def _text(alts: dict[str, str], subtype: str) -> str | None:
    return str(alts[subtype]) if alts.get(subtype) is not None else None


def _as_datetime(date: float | datetime | None) -> datetime | None:
    # With its zone, as people read it: that of this host.
    return datetime.fromtimestamp(date).astimezone() if isinstance(date, int | float) else date


def _in_order(message: MessageFields) -> list[AttachmentFields]:
    """The attachments in the order of their parts: those that the html shows stand with it, in front."""
    has_html = (message.alts or {}).get("html") is not None
    return sorted(message.attachments or (), key=lambda each: not (has_html and _content_id(each)))


def _content_id(attachment: AttachmentFields) -> str | None:
    # Flask-Mail's own Attachment has no such attribute, and the field under headers.
    in_headers = {name.lower(): value for name, value in (attachment.headers or {}).items()}
    found = getattr(attachment, "content_id", None) or in_headers.get("content-id")
    return str(found).strip() if found else None


def _attach(core: mailbridge.Message, attachment: AttachmentFields, *, ascii_filenames: bool) -> None:
    filename = attachment.filename
    if filename is not None and ascii_filenames:
        plain = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
        filename = " ".join(plain.split())
    data = attachment.data
    disposition = attachment.disposition.lower()
    core.attach(
        data.encode() if isinstance(data, str) else data,
        filename=filename or None,
        content_type=attachment.content_type.partition(";")[0].strip(),
        disposition="inline" if disposition == "inline" else "attachment",
        content_id=_content_id(attachment),
    )
    if disposition not in ("inline", "attachment"):
        raise InvalidMessage(f"An attachment is to be inline or attachment, not {attachment.disposition!r}")


def _file_parts(part: MIMEPart) -> Iterator[MIMEPart]:
    """The parts that are files, in their order; not those within an attached message."""
    if part.get_content_maintype() == "multipart":
        for child in part.iter_parts():
            yield from _file_parts(child)
    elif part.get_content_disposition() is not None:
        yield part


def _complete(part: MIMEPart, attachment: AttachmentFields) -> None:
    """Give `part` what the core does not know of: parameters of its type, and further fields."""
    try:
        wanted = MIMEPart(policy=part.policy)
        wanted["Content-Type"] = attachment.content_type
        parameters = dict(wanted["Content-Type"].params)
        if isinstance(attachment.data, str) and part.get_content_maintype() == "text":
            parameters["charset"] = "utf-8"
        for name, value in parameters.items():
            part.set_param(name, value)
        for name, value in (attachment.headers or {}).items():
            if name.lower() in _FIXED_IN_PARTS:
                raise InvalidMessage(f"The field {name} of an attachment is not set through its headers")
            if name.lower() != "content-id":
                del part[name]
                part[name] = unfolded(name, str(value))
    except ValueError as error:
        if isinstance(error, InvalidMessage):
            raise
        raise InvalidMessage(f"The fields of an attachment can't be set: {error}") from error


def _add_alternatives(structure: EmailMessage, alts: dict[str, str]) -> None:
    """Further alternatives, all in the order of `alts`; the text comes first and an invitation last."""
    further = [subtype for subtype in alts if subtype not in ("html", "calendar")]
    if not further:
        return
    is_mixed = structure.get_content_subtype() == "mixed"
    holder = next(structure.iter_parts()) if is_mixed else structure
    if holder.get_content_type() != "multipart/alternative":
        holder.make_alternative()
    for subtype in further:
        part = MIMEPart(policy=structure.policy)
        part.set_content(str(alts[subtype]), subtype=subtype)
        holder.attach(part)
    order = ["plain", *(subtype for subtype in alts if subtype != "calendar"), "calendar"]
    parts: list[Any] = sorted(holder.iter_parts(), key=lambda part: order.index(_subtype(part)))
    holder.set_payload(parts)


def _subtype(alternative: MIMEPart) -> str:
    """What it is an alternative as; the images of an html stand with it."""
    subtype = alternative.get_content_subtype()
    return "html" if subtype == "related" else subtype


def _recode(part: MIMEPart, charset: str) -> None:
    """Write the texts in another charset than UTF-8, which is the only one that an invitation may have."""
    if part.get_content_maintype() == "multipart":
        for child in part.iter_parts():
            _recode(child, charset)
    elif part.get_content_maintype() == "text" and part.get_content_disposition() is None:
        if part.get_content_subtype() == "calendar":
            return
        try:
            part.set_content(part.get_content(), subtype=part.get_content_subtype(), charset=charset)
        except (LookupError, UnicodeEncodeError) as error:
            raise InvalidMessage(f"The text can't be written in {charset}: {error}") from error


__all__ = ["delivery_options_of"]

# What the core says by itself where it is due, so that asking for it is no harm.
_SAID_ANYHOW = {"BODY=8BITMIME", "SMTPUTF8"}
_OF_DSN = {"mail_options": ("RET", "ENVID"), "rcpt_options": ("NOTIFY", "ORCPT")}


def delivery_options_of(message: MessageFields, further: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the envelope; `further` win over the message's own.

    Raises InvalidMessage for a parameter that would have no effect.
    """
    own = message.envelope_options
    if not isinstance(own, Mapping):
        raise InvalidMessage(f"envelope_options must be a dict, not {type(own).__name__}")
    return {**_from_parameters(message), **own, **further}


def _from_parameters(message: MessageFields) -> dict[str, Any]:
    dsn: dict[str, Any] = {}
    delivery_options: dict[str, Any] = {}
    for kind, names in _OF_DSN.items():
        for option in map(str, getattr(message, kind) or ()):
            name, _, value = option.partition("=")
            if name.upper() in names and value:
                dsn[name.lower()] = _decoded(value)
            elif kind == "mail_options" and option.upper() == "REQUIRETLS":
                delivery_options["require_tls"] = True
            elif kind == "rcpt_options" or not _is_said_anyhow(name, option):
                raise InvalidMessage(
                    f"{kind} asks for {option!r}, which is not said this way",
                    hint="Message(envelope_options={...}) has what there is: docs/extensions.md.",
                )
    return delivery_options | ({"dsn": dsn} if dsn else {})


def _decoded(value: str) -> str:
    """From xtext (RFC 3461 section 4), as it would stand in the command."""
    return unquote(value.replace("%", "%25").replace("+", "%"))


def _is_said_anyhow(name: str, option: str) -> bool:
    return option.upper() in _SAID_ANYHOW or (name.upper() == "SIZE" and option[5:].isdigit())
