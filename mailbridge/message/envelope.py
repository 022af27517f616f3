"""The envelope: who sends and who receives, apart from what the header fields say.

Addresses are parsed once, here; everything later writes them from their parts. Nothing here asks
what the server supports: whether SMTPUTF8 is needed is told, the sender of the message decides.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.errors import InvalidHeaderDefect
from email.headerregistry import BaseHeader
from email.message import Message
from typing import Any, Unpack

from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.message.addresses import Mailbox, parse_address, parse_address_list
from mailbridge.message.delivery_options import (
    BODIES,
    DSN,
    Body,
    DeliverBy,
    EnvelopeOptions,
    Recipient,
    as_extensions,
    as_priority,
    as_send_at,
    unknown_name,
)
from mailbridge.reply import printable
from mailbridge.secret import clears_locals

__all__ = ["Envelope"]

_RECIPIENT_FIELDS = ("to", "cc", "bcc")
# RFC 5322 section 3.6.6; any of these says that the message was resent.
_RESENT_FIELDS = tuple(f"resent-{name}" for name in ("date", "from", "sender", *_RECIPIENT_FIELDS))


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Envelope:
    """Sender and recipients of one transaction (RFC 5321 section 2.3.1), in normal form, with
    delivery options.

    `sender` is an address, or "" (given as None or "") for the null reverse-path of bounces.
    `recipients` keep their order; one that is given twice is kept once (domains compare without
    case, local parts with it). Each may be given as `a@b`, `Name <a@b>` or as a `Recipient`.

    The delivery options, all by keyword (see docs/extensions.md):
    `dsn`: delivery reports (RFC 3461), a `DSN` or a mapping with its names or Nodemailer's.
    `require_tls`: TLS on all of the way to the recipient (RFC 8689).
    `deliver_by`: within so many seconds (RFC 2852); a number, a timedelta, or a `DeliverBy`.
    `send_at`: not before an aware datetime, or a number of seconds from now (RFC 4865): the server holds it.
    `mt_priority`: -9 to 9 (RFC 6710). `body`: "7bit", "8bitmime" or "binarymime" instead of "auto", which
    is 8BITMIME where the message needs it and the server offers it.
    `recipient_options`: `Recipient`s, or a mapping from addresses of `recipients` to notify and orcpt.

    An option that the server can't meet makes the send raise NotSupported before anything is sent, unless
    `prefer` names the extension: ("DSN", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY",
    "8BITMIME", "BINARYMIME"); then it is left out. MT-PRIORITY is preferred unless `require` names it.

    Raises InvalidAddress; InvalidMessage if there is no recipient, or an option makes no sense.
    """

    sender: str
    recipients: tuple[str, ...]
    sender_mailbox: Mailbox | None = field(init=False, compare=False)
    mailboxes: tuple[Mailbox, ...] = field(init=False, compare=False)
    #: Whether an address in it can only be sent with SMTPUTF8 (RFC 6531).
    needs_smtputf8: bool = field(init=False, compare=False)
    dsn: DSN | None
    require_tls: bool
    deliver_by: DeliverBy | None
    send_at: datetime | int | None
    mt_priority: int | None
    body: Body
    prefer: tuple[str, ...]
    require: tuple[str, ...]
    recipient_options: tuple[Recipient, ...]

    @clears_locals
    def __init__(
        self,
        sender: str | None,
        recipients: str | Recipient | Iterable[str | Recipient],
        **options: Unpack[EnvelopeOptions],
    ) -> None:
        given = [recipients] if isinstance(recipients, str | Recipient) else list(recipients)
        self._fill(
            _parse(sender) if sender not in (None, "", "<>") else None,
            [_parse(each.address if isinstance(each, Recipient) else each) for each in given],
            [each for each in given if isinstance(each, Recipient)],
            options,
        )

    def _fill(
        self,
        sender: Mailbox | None,
        recipients: Iterable[Mailbox],
        own: Sequence[Recipient],
        options: EnvelopeOptions,
    ) -> None:
        unique: dict[tuple[str, str], Mailbox] = {}
        for mailbox in recipients:
            unique.setdefault((mailbox.local, mailbox.domain.lower()), mailbox)
        if not unique:
            raise InvalidMessage("The message has no recipient")
        mailboxes = tuple(unique.values())
        everybody = [sender, *mailboxes] if sender else mailboxes
        values = {
            "sender": sender.addr_spec if sender else "",
            "recipients": tuple([mailbox.addr_spec for mailbox in mailboxes]),
            "sender_mailbox": sender,
            "mailboxes": mailboxes,
            "needs_smtputf8": any(mailbox.needs_smtputf8 for mailbox in everybody),
            **(_checked(options) if options else _DEFAULTS),
        }
        if further := options.get("recipient_options"):
            own = [*own, *_as_recipients(further)]
        values["recipient_options"] = _own_wishes(unique, own) if own else ()
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.dsn and self.dsn.orcpt and len(mailboxes) > 1:
            raise InvalidMessage(
                "dsn.orcpt names one original address for several recipients",
                hint="Give each its own: Recipient(address, orcpt=...).",
            )

    def __repr__(self) -> str:
        """Counts and names of options, no address: error reports keep the repr of local variables."""
        names = [name for name, default in _DEFAULTS.items() if getattr(self, name) != default]
        options = f", with {', '.join(names)}" if names else ""
        return f"<Envelope for {len(self.recipients)} recipient(s){options}>"

    @classmethod
    @clears_locals
    def from_message(cls, message: Message, **options: Unpack[EnvelopeOptions]) -> "Envelope":
        """The envelope that the header fields of `message` tell, with the options that are given beside it.

        The sender is Sender, else the first address of From; the recipients are To, Cc and Bcc.
        Where the message was resent (Resent-To and its like), the Resent fields take their place.
        Raises InvalidMessage if sender or recipients are missing, or if it was resent twice: then
        only the caller knows which block counts.
        """
        fields = _address_fields(message)
        prefix = "resent-" if any(name in fields for name in _RESENT_FIELDS) else ""
        if len(fields.get("resent-date", ())) > 1 or len(fields.get("resent-from", ())) > 1:
            raise InvalidMessage("The message was resent more than once", hint="Give an envelope with it.")
        senders = _mailboxes(fields, f"{prefix}sender") or _mailboxes(fields, f"{prefix}from")
        if not senders:
            raise InvalidMessage("The message has neither a From nor a Sender field")
        envelope = object.__new__(cls)
        names = (f"{prefix}{name}" for name in _RECIPIENT_FIELDS)
        recipients = [mailbox for name in names for mailbox in _mailboxes(fields, name)]
        envelope._fill(senders[0], recipients, (), options)
        return envelope

    def with_default_dsn(self, dsn: DSN | None) -> "Envelope":
        """The same with the reports of a configuration, unless it has its own, or nobody would get them.

        They are preferred: a server without DSN gets the message without them.
        """
        if not dsn or self.dsn is not None or not self.sender:
            return self
        is_soft = "DSN" not in self.require and not self.recipient_options
        return replace(self, dsn=dsn, prefer=(*self.prefer, "DSN") if is_soft else self.prefer)


_DEFAULTS: dict[str, Any] = {
    "dsn": None,
    "require_tls": False,
    "deliver_by": None,
    "send_at": None,
    "mt_priority": None,
    "body": "auto",
    "prefer": (),
    "require": (),
    "recipient_options": (),
}


def _checked(options: EnvelopeOptions) -> dict[str, Any]:
    """All options but those for single recipients, checked."""
    for name in options:
        if name not in _DEFAULTS:
            raise unknown_name(name, _DEFAULTS)
    given: dict[str, Any] = {
        **_DEFAULTS,
        **{name: value for name, value in options.items() if value is not None},
    }
    if not isinstance(given["require_tls"], bool):
        raise InvalidMessage(f"require_tls is true or false, not {given['require_tls']!r}")
    if given["body"] not in BODIES:
        raise InvalidMessage(f"body is one of {', '.join(BODIES)}, not {given['body']!r}")
    checked: dict[str, Any] = {
        "dsn": None if given["dsn"] is None else DSN.of(given["dsn"]),
        "require_tls": given["require_tls"],
        "deliver_by": None if given["deliver_by"] is None else DeliverBy.of(given["deliver_by"]),
        "send_at": as_send_at(given["send_at"]),
        "mt_priority": as_priority(given["mt_priority"]),
        "body": given["body"],
        "prefer": as_extensions("prefer", given["prefer"]),
        "require": as_extensions("require", given["require"]),
    }
    if both := set(checked["prefer"]) & set(checked["require"]):
        raise InvalidMessage(f"{', '.join(sorted(both))} can't be both preferred and required")
    return checked


def _as_recipients(given: Iterable[Recipient] | Mapping[str, Mapping[str, Any]]) -> list[Recipient]:
    if isinstance(given, Mapping):
        for address, options in given.items():
            for name in options:
                if name not in ("notify", "orcpt"):
                    raise unknown_name(name, ("notify", "orcpt"), f"recipient_options[{address!r}].")
        return [Recipient(address, **options) for address, options in given.items()]
    recipients = list(given)
    for each in recipients:
        if not isinstance(each, Recipient):
            raise InvalidMessage(f"recipient_options holds Recipients, not {type(each).__name__}")
    return recipients


def _own_wishes(
    unique: Mapping[tuple[str, str], Mailbox], given: Iterable[Recipient]
) -> tuple[Recipient, ...]:
    """Those with options of their own, in the order of the recipients; of two for the same, the first."""
    found: dict[tuple[str, str], Recipient] = {}
    for recipient in given:
        mailbox = _parse(recipient.address)
        key = (mailbox.local, mailbox.domain.lower())
        if key not in unique:
            raise InvalidMessage(f"recipient_options names {recipient.address}, who is no recipient")
        if recipient:
            address = unique[key].addr_spec
            found.setdefault(key, Recipient(address, notify=recipient.notify, orcpt=recipient.orcpt))
    return tuple(found[key] for key in unique if key in found)


def _parse(address: str) -> Mailbox:
    if not isinstance(address, str):
        raise InvalidAddress(f"Invalid address: it must be a string, not {type(address).__name__}")
    return parse_address(address)[1]


def _address_fields(message: Message) -> dict[str, list[str]]:
    """The values of all fields by lower-case name, as they were written.

    Not through `message[name]`: there the email package has already decoded encoded words, those in
    the address itself too, so that they could name another mailbox.
    """
    fields: dict[str, list[str]] = {}
    wanted = {"from", "sender", *_RECIPIENT_FIELDS, *_RESENT_FIELDS}
    for name, value in message.raw_items():
        if name.lower() in wanted:
            fields.setdefault(name.lower(), []).append(_as_text(value))
    return fields


def _as_text(value: object) -> str:
    """A field's value, be it parsed from bytes, set by a program, or an `email.header.Header`."""
    text = str(value)
    if isinstance(value, BaseHeader) and any(isinstance(d, InvalidHeaderDefect) for d in value.defects):
        # The email package has repaired it, and what was written is gone.
        raise InvalidAddress(f'Invalid address "{printable(text)}": the {value.name} field is malformed')
    try:  # parsers keep bytes beyond ASCII as surrogates; in mail with SMTPUTF8 they are UTF-8
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # other surrogates: refused if they stand in an address
        return text


def _mailboxes(fields: dict[str, list[str]], name: str) -> list[Mailbox]:
    return [mailbox for value in fields.get(name, ()) for _, mailbox in parse_address_list(value)]
