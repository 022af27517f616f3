"""The envelope: who sends and who receives, apart from what the header fields say.

Addresses are parsed once, here; everything later writes them from their parts. Nothing here asks
what the server supports: whether SMTPUTF8 is needed is told, the sender of the message decides.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.errors import InvalidHeaderDefect
from email.headerregistry import BaseHeader
from email.message import Message

from mailbridge.addresses import Mailbox, parse_address, parse_address_list
from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.results import printable

__all__ = ["Envelope"]

_RECIPIENT_FIELDS = ("to", "cc", "bcc")
# RFC 5322 section 3.6.6; any of these says that the message was resent.
_RESENT_FIELDS = tuple(f"resent-{name}" for name in ("date", "from", "sender", *_RECIPIENT_FIELDS))


@dataclass(frozen=True, slots=True, init=False)
class Envelope:
    """Sender and recipients of one transaction (RFC 5321 section 2.3.1), in normal form.

    `sender` is an address, or "" (given as None or "") for the null reverse-path of bounces.
    `recipients` keep their order; one that is given twice is kept once (domains compare without
    case, local parts with it). Each may be given as `a@b` or `Name <a@b>`.

    Raises InvalidAddress, and InvalidMessage if there is no recipient.
    """

    sender: str
    recipients: tuple[str, ...]
    sender_mailbox: Mailbox | None = field(init=False, repr=False, compare=False)
    mailboxes: tuple[Mailbox, ...] = field(init=False, repr=False, compare=False)

    def __init__(self, sender: str | None, recipients: str | Iterable[str]) -> None:
        self._fill(
            _parse(sender) if sender not in (None, "", "<>") else None,
            map(_parse, [recipients] if isinstance(recipients, str) else recipients),
        )

    def _fill(self, sender: Mailbox | None, recipients: Iterable[Mailbox]) -> None:
        unique: dict[tuple[str, str], Mailbox] = {}
        for mailbox in recipients:
            unique.setdefault((mailbox.local, mailbox.domain.lower()), mailbox)
        if not unique:
            raise InvalidMessage("The message has no recipient")
        mailboxes = tuple(unique.values())
        values = {
            "sender": sender.addr_spec if sender else "",
            "recipients": tuple(mailbox.addr_spec for mailbox in mailboxes),
            "sender_mailbox": sender,
            "mailboxes": mailboxes,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_message(cls, message: Message) -> "Envelope":
        """The envelope that the header fields of `message` tell.

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
        envelope._fill(senders[0], (mailbox for name in names for mailbox in _mailboxes(fields, name)))
        return envelope

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address in it can only be sent with SMTPUTF8 (RFC 6531)."""
        return any(mailbox.needs_smtputf8 for mailbox in self._all_mailboxes())

    def _all_mailboxes(self) -> Iterator[Mailbox]:
        if self.sender_mailbox is not None:
            yield self.sender_mailbox
        yield from self.mailboxes


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
