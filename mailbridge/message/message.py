"""A message as a program thinks of it.

A `Message` is plain data until `as_email_message()`; it may be changed, copied and pickled freely.
Nothing is ever fetched that the text, the html, a header or a string names. The MIME structure is
made in `mime`; sending, signing and the bytes themselves belong elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage

from mailbridge.errors import InvalidMessage
from mailbridge.message.attachment import Attachment, AttachmentSource, Disposition, read_attachment
from mailbridge.message.delivery_options import EnvelopeOptions
from mailbridge.message.envelope import Envelope
from mailbridge.message.headers import (
    Addresses,
    AnyAddress,
    as_address,
    as_addresses,
    as_authors,
    message_ids,
    set_field,
    unsubscribe_fields,
)
from mailbridge.message.mime import POLICY, body_part
from mailbridge.message.priority import Priority
from mailbridge.secret import clears_locals

__all__ = ["Attachment", "Message"]

# What a Message says itself; a second one, or a Bcc that reaches nobody, is never meant.
_OWN_FIELDS = frozenset(
    {"from", "to", "cc", "bcc", "resent-bcc", "reply-to", "subject", "date", "message-id", "in-reply-to"}
    | {"references", "mime-version"}
)
# What mail readers look at: two that RFC 4021 section 2.1 registers, and the number that most of them read.
_PRIORITY_FIELDS: Mapping[str, Mapping[str, str]] = {
    "high": {"Importance": "high", "Priority": "urgent", "X-Priority": "1"},
    "normal": {},
    "low": {"Importance": "low", "Priority": "non-urgent", "X-Priority": "5"},
}


@dataclass(slots=True, repr=False)
class Message:
    """A mail to be: `Message("Subject", "a@x.example", ["b@y.example"], text="…")`.

    `sender` is who it is from: one address, or a list of authors, who need `sent_by`: who really
    sends it (RFC 5322 section 3.6.2), whose is the envelope then. The others are one or several:
    `a@b`, `Name <a@b>`, (name, address) pairs in a list, `email.headerregistry.Address`. Bcc goes to
    the envelope only. `calendar` is an invitation (iCalendar, RFC 5545) whose own METHOD counts,
    else REQUEST. `alternatives` are further forms of the text, between it and the html: pairs of
    content type (text/…) and content. `headers` are further fields. `list_unsubscribe` are URIs to
    leave a list (https, http, mailto); `one_click_unsubscribe` promises that a POST to an https one
    is enough (RFC 8058). `priority` "high" or "low" is told the reader, and the mailer, which sends
    urgent mail first. `envelope_options` are the delivery options, those of `Envelope`: reports, a
    time to send at, … `date` and `message_id` are added when the message is sent, where they are
    missing.
    """

    subject: str = ""
    sender: AnyAddress | list[AnyAddress] | None = None
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
    sent_by: AnyAddress | None = None
    alternatives: Iterable[tuple[str, str]] = ()
    list_unsubscribe: str | Iterable[str] = ()
    one_click_unsubscribe: bool = False
    priority: Priority | None = None
    envelope_options: EnvelopeOptions = field(default_factory=EnvelopeOptions)

    def __repr__(self) -> str:
        """Sizes and counts, nothing that the mail says: error reports keep the repr of local variables."""
        bodies = sum(len(body) for body in (self.text, self.html, self.calendar) if isinstance(body, str))
        return f"<Message: {bodies} characters of text, {len(self.attachments)} attachment(s)>"

    @clears_locals
    def attach(
        self,
        source: AttachmentSource,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        disposition: Disposition = "attachment",
        content_id: str | None = None,
        charset: str | None = None,
    ) -> Attachment:
        """Add a file: its bytes, its path as a path object, or an open binary file; read at once.

        The name is the path's, the type is guessed from the name, unless given. What has a
        `content_id` is shown by the html that names it. `charset` is that of a file of type text/….
        Raises InvalidMessage; OSError of reading.
        """
        attachment = read_attachment(
            source,
            filename=filename,
            content_type=content_type,
            disposition=disposition,
            content_id=content_id,
            charset=charset,
        )
        self.attachments.append(attachment)
        return attachment

    @clears_locals
    def envelope(self) -> Envelope:
        """The envelope: who sends it, and To, Cc and Bcc in this order. Raises InvalidMessage."""
        recipients = [a.addr_spec for kind in (self.to, self.cc, self.bcc) for a in as_addresses(kind)]
        authors = as_authors(self.sender) if self.sender else []
        senders = [as_address(self.sent_by)] if self.sent_by else authors
        return Envelope(senders[0].addr_spec if senders else None, recipients, **self.envelope_options)

    @clears_locals
    def as_email_message(self) -> EmailMessage:
        """The message in MIME, as Python's email package has it. Raises InvalidMessage, InvalidAddress."""
        if not self.sender:
            raise InvalidMessage("The message has no sender")
        message = EmailMessage(policy=POLICY)
        self._say_who(message)
        set_field(message, "Subject", str(self.subject), is_text=True)
        if self.date is not None:
            message["Date"] = self.date
        self._say_more(message)
        message["MIME-Version"] = "1.0"
        body = body_part(
            text=self.text,
            html=self.html,
            calendar=self.calendar,
            alternatives=self.alternatives,
            attachments=self.attachments,
        )
        for name, value in body.items():
            message[name] = value
        message.set_payload(body.get_payload())
        return message

    def _say_who(self, message: EmailMessage) -> None:
        authors = as_authors(self.sender) if self.sender else []
        if len(authors) > 1 and not self.sent_by:
            raise InvalidMessage("A message of several authors needs sent_by (RFC 5322 section 3.6.2)")
        sender = [as_address(self.sent_by)] if self.sent_by else []
        for name, addresses in (
            ("From", authors),
            ("Sender", sender),
            ("To", as_addresses(self.to)),
            ("Cc", as_addresses(self.cc)),
            ("Reply-To", as_addresses(self.reply_to)),
        ):
            if addresses:
                message[name] = addresses

    def _say_more(self, message: EmailMessage) -> None:
        """The fields that are text: ids, the list's, the priority's, and those in `headers`."""
        if (self.priority or "normal") not in _PRIORITY_FIELDS:
            raise InvalidMessage(f"A priority is high, normal or low, not {self.priority!r}")
        own = {
            "Message-ID": message_ids("Message-ID", self.message_id),
            "In-Reply-To": message_ids("In-Reply-To", self.in_reply_to),
            "References": message_ids("References", self.references),
            **unsubscribe_fields(self.list_unsubscribe, one_click=self.one_click_unsubscribe),
            **_PRIORITY_FIELDS[self.priority or "normal"],
        }
        for name, value in own.items():
            if value:
                set_field(message, name, value)
        taken = {name.lower() for name in message} | _OWN_FIELDS
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        for name, value in pairs:
            if name.lower() in taken or name.lower().startswith("content-"):
                raise InvalidMessage(f"The header field {name} is not set through headers")
            set_field(message, name, str(value), is_text=True)
