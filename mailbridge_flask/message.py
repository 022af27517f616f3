"""`Message` and `Attachment`, with the arguments and attributes that Flask-Mail's have.

Plain data: made, changed, copied and pickled anywhere. An application is needed only to send one, and
its context, where there is one, gives `sender` and the spelling of file names their defaults. What
becomes of the data is `mime.py`'s business, sending it `state.py`'s.
"""

from collections.abc import Iterable, KeysView, Mapping
from datetime import datetime
from email.utils import make_msgid
from mimetypes import guess_type
from typing import Any, Protocol

from flask import current_app, has_app_context

from mailbridge import EnvelopeOptions, SendResult, clears_locals
from mailbridge_flask import mime
from mailbridge_flask.addresses import AnyAddress, as_pair, domain_of, shown, unfolded
from mailbridge_flask.errors import BadHeaderError

__all__ = ["Attachment", "Message", "as_message"]

# make_msgid() would ask DNS for this host's name. RFC 2606 section 2: a domain that nobody has.
_NO_DOMAIN = "localhost.invalid"


class Attachment:
    """A file that goes along.

    `data`: bytes, or a str (sent as UTF-8). `content_type` is guessed from `filename` where it is not
    given. With `content_id` (also as a Content-ID in `headers`), the html shows it as
    `<img src="cid:…">`. `headers` are further fields of the part. Raises ValueError without data.
    """

    @clears_locals
    def __init__(
        self,
        filename: str | None = None,
        content_type: str | None = None,
        data: str | bytes | None = None,
        disposition: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        *,
        content_id: str | None = None,
    ) -> None:
        if data is None:
            raise ValueError("An attachment needs data")
        if content_type is None and filename is not None:
            content_type = guess_type(filename)[0]
        default_type = "text/plain" if isinstance(data, str) else "application/octet-stream"
        self.filename = filename
        self.content_type = content_type or default_type
        self.data = data
        self.disposition = disposition or ("inline" if content_id else "attachment")
        self.headers: dict[str, str] = dict(headers or {})
        self.content_id = content_id

    def __repr__(self) -> str:
        return f"<Attachment {self.content_type}>"


class Message:
    """A mail to be: `Message("Hello", ["to@example.com"], body="…")`.

    Addresses are `a@b`, `Name <a@b>` or (name, address). `sender` defaults to the application's
    default sender. `alts` are further alternatives to the text, subtype to content; `html` and
    `calendar` (an invitation: iCalendar, RFC 5545) are those under "html" and "calendar". `date` is in
    seconds since the epoch; the time of sending, where it is not given. `msgId` is made once, so that
    a message that is sent again can be known again.

    `envelope_options` are the delivery options, those of `mailbridge.Envelope`: reports, a time to send
    at, … `mail_options` and `rcpt_options` may say some of it as Flask-Mail has it: RET, ENVID,
    REQUIRETLS; NOTIFY, ORCPT, and what is said anyhow (BODY=8BITMIME, SMTPUTF8, SIZE); anything else
    is refused when the message is sent. `mailbridge_result` is the SendResult of the last send, None
    before and where sending was suppressed.
    """

    @clears_locals
    def __init__(
        self,
        subject: str = "",
        recipients: Iterable[AnyAddress] | None = None,
        body: str | None = None,
        html: str | None = None,
        alts: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        sender: AnyAddress | None = None,
        cc: Iterable[AnyAddress] | None = None,
        bcc: Iterable[AnyAddress] | None = None,
        attachments: Iterable[Attachment] | None = None,
        reply_to: AnyAddress | None = None,
        date: float | datetime | None = None,
        charset: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        mail_options: Iterable[str] | None = None,
        rcpt_options: Iterable[str] | None = None,
        *,
        calendar: str | None = None,
        envelope_options: EnvelopeOptions | None = None,
    ) -> None:
        self.subject = subject
        self.recipients = _as_list(recipients)
        self.body = body
        self.alts: dict[str, str] = dict(alts or {})
        if html is not None:
            self.html = html
        if calendar is not None:
            self.calendar = calendar
        self.sender = sender
        self.cc = _as_list(cc)
        self.bcc = _as_list(bcc)
        self.attachments: list[Attachment] = list(attachments or ())
        self.reply_to = reply_to
        self.date = date
        self.charset = charset
        self.extra_headers: dict[str, str] = dict(extra_headers or {})
        self.mail_options: list[str] = list(mail_options or ())
        self.rcpt_options: list[str] = list(rcpt_options or ())
        self.envelope_options: EnvelopeOptions = {} if envelope_options is None else envelope_options
        self.msgId = make_msgid(domain=domain_of(self.sender) or _NO_DOMAIN)
        self.mailbridge_result: SendResult | None = None

    def __repr__(self) -> str:
        return f"<Message to {len(self.send_to)} recipient(s), {len(self.attachments)} attachment(s)>"

    @property
    def sender(self) -> str | None:
        """Who the message is from; where nobody is named, the default sender of the active application."""
        state = _active_state() if self.own_sender is None else None
        sender = state.default_sender if state is not None else self.own_sender
        return None if sender is None else shown(sender)

    @sender.setter
    def sender(self, sender: AnyAddress | None) -> None:
        #: The sender as it was given, without any default.
        self.own_sender = sender or None

    @property
    def html(self) -> str | None:
        return self.alts.get("html")

    @html.setter
    def html(self, html: str | None) -> None:
        self._set_alternative("html", html)

    @property
    def calendar(self) -> str | None:
        return self.alts.get("calendar")

    @calendar.setter
    def calendar(self, calendar: str | None) -> None:
        self._set_alternative("calendar", calendar)

    def _set_alternative(self, subtype: str, content: str | None) -> None:
        if content is None:
            self.alts.pop(subtype, None)
        else:
            self.alts[subtype] = content

    @property
    def send_to(self) -> KeysView[AnyAddress]:
        """Everybody who gets it, each once, in order: recipients, cc, bcc. Compares like a set."""
        everybody = (*(self.recipients or ()), *(self.cc or ()), *(self.bcc or ()))
        return dict.fromkeys(each if isinstance(each, str) else as_pair(each) for each in everybody).keys()

    def add_recipient(self, recipient: AnyAddress) -> None:
        self.recipients.append(recipient)

    @clears_locals
    def attach(
        self,
        filename: str | None = None,
        content_type: str | None = None,
        data: str | bytes | None = None,
        disposition: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        *,
        content_id: str | None = None,
    ) -> Attachment:
        """Add an `Attachment`, made from these arguments."""
        attachment = Attachment(filename, content_type, data, disposition, headers, content_id=content_id)
        self.attachments.append(attachment)
        return attachment

    def has_bad_headers(self) -> bool:
        """Whether a line break stands where it would begin another header field. Folded lines are none."""
        try:
            self.check_headers()
        except BadHeaderError:
            return True
        return False

    @clears_locals
    def check_headers(self) -> None:
        """Raises BadHeaderError where `has_bad_headers()` is true; it quotes an address, nothing else."""
        for address in map(shown, (self.own_sender or "", self.reply_to or "", *self.send_to)):
            _require_one_line(address, f"the address {address!r}")
        for value in (part for attachment in self.attachments or () for part in _names_of(attachment)):
            _require_one_line(value, "the name, the type or a field of an attachment")
        for name in self.extra_headers or {}:
            _require_one_line(name, "the name of a header field")
        unfolded("Subject", str(self.subject or ""))
        for name, value in (self.extra_headers or {}).items():
            unfolded(name, str(value))

    @clears_locals
    def as_bytes(self) -> bytes:
        """The message as it is sent. Raises InvalidMessage, BadHeaderError."""
        state = _active_state()
        ascii_filenames = state is not None and state.ascii_attachments
        sender = self.own_sender or self.sender
        return bytes(mime.rendered(self, sender=sender, ascii_filenames=ascii_filenames).content)

    def as_string(self) -> str:
        """As `as_bytes()`, in a str."""
        return self.as_bytes().decode("utf-8", "surrogateescape")

    def __bytes__(self) -> bytes:
        return self.as_bytes()

    def __str__(self) -> str:
        return self.as_string()

    def send(self, connection: "Sends") -> SendResult | None:
        """Send it over a connection; the same as `connection.send(message)`."""
        return connection.send(self)


def _as_list(addresses: Iterable[AnyAddress] | None) -> list[AnyAddress]:
    return [addresses] if isinstance(addresses, str) else list(addresses or ())


def _require_one_line(text: str, what: str) -> None:
    if "\r" in text or "\n" in text:
        raise BadHeaderError(f"There is a line break in {what}")


def _names_of(attachment: Any) -> list[str]:
    own = (attachment.filename, attachment.content_type, attachment.disposition)
    headers = attachment.headers or {}
    return [str(each) for each in (*own, *headers, *headers.values()) if each]


def _active_state() -> Any:
    """The `MailState` of the active application, if there is one and it sends mail."""
    return current_app.extensions.get("mailbridge") if has_app_context() else None


class Sends(Protocol):
    """A `Connection`, or what sends as it does."""

    def send(self, message: Message, /) -> SendResult | None: ...


_OF_FLASK_MAIL = (
    *("subject", "recipients", "body", "alts", "sender", "cc", "bcc", "attachments", "reply_to", "date"),
    *("charset", "extra_headers", "mail_options", "rcpt_options"),
)


def as_message(given: Any) -> Message:
    """`given`, if it is a Message; or one like it, for extensions that make Flask-Mail's own.

    Raises TypeError for anything else.
    """
    if isinstance(given, Message):
        return given
    if not all(hasattr(given, name) for name in (*_OF_FLASK_MAIL, "msgId")):
        raise TypeError(f"A mailbridge_flask.Message is needed, not {type(given).__name__}")
    delivery_options = getattr(given, "envelope_options", None)
    message = Message(
        **{name: getattr(given, name) for name in _OF_FLASK_MAIL}, envelope_options=delivery_options
    )
    message.msgId = given.msgId
    return message
