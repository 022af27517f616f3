"""What an envelope may ask of the server beside the delivery: frozen values, checked when they are built.

Reports (DSN, RFC 3461), delivery by a time (DELIVERBY, RFC 2852) and after one (FUTURERELEASE, RFC 4865),
and the words for the others. Whether a server can do it, and how it is written, is not known here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Literal, TypedDict, TypeGuard

from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.message.addresses import parse_address
from mailbridge.reply import printable
from mailbridge.secret import shown_name

__all__ = ["DSN", "Body", "DeliverBy", "EnvelopeOptions", "Recipient", "SendAt"]

Body = Literal["auto", "7bit", "8bitmime", "binarymime"]
BODIES: tuple[Body, ...] = ("auto", "7bit", "8bitmime", "binarymime")
SendAt = datetime | timedelta | int

#: The extensions that `prefer` and `require` may name. Not SMTPUTF8: an address needs it or does not.
EXTENSIONS = ("8BITMIME", "BINARYMIME", "DELIVERBY", "DSN", "FUTURERELEASE", "MT-PRIORITY", "REQUIRETLS")

#: As `DSN.envid`: the Message-ID of each message, without its brackets.
MESSAGE_ID = "message-id"

# RFC 3461 sections 4.2 and 4.4, for the whole parameter as it is written.
MAX_ENVID = 100 - len("ENVID=")
MAX_ORCPT = 500 - len("ORCPT=")
_REPORTS = ("SUCCESS", "FAILURE", "DELAY")
_MAX_SECONDS = 999_999_999  # nine digits (RFC 2852 section 4, RFC 4865 section 4)

# RFC 3461 sections 4.2 and 4.4: graphic and white space characters of ASCII.
_PRINTABLE = re.compile(r"[ -~]+")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_NOT_XCHAR = re.compile("[ +=]")  # of the printable ones, those that take three characters as xtext

# What Nodemailer calls them.
_DSN_NAMES = {"id": "envid", "return": "ret", "recipient": "orcpt"}
_RET_WORDS = {"HDRS": "HDRS", "HEADERS": "HDRS", "FULL": "FULL", "BODY": "FULL"}


@dataclass(frozen=True, slots=True, init=False)
class DSN:
    """Which delivery reports are wanted (RFC 3461). `DSN()` asks for nothing, whatever the configuration.

    `ret`: what of the message a report of failure brings back, "HDRS" or "FULL". `envid`: an identifier
    that reports repeat, up to 94 characters; "message-id" stands for each message's own Message-ID.
    `notify`: "NEVER", or some of "SUCCESS", "FAILURE", "DELAY" as a list or with commas; for all
    recipients that have none of their own (`Recipient`). `orcpt`: the original address of the only
    recipient, as `rfc822;a@b`, `utf-8;ü@b` or just the address; by default the recipient itself.

    Raises InvalidMessage.
    """

    ret: Literal["HDRS", "FULL"] | None
    envid: str | None
    notify: tuple[str, ...]
    orcpt: str | None = field(repr=False)  # error reports keep the repr of local variables

    def __init__(
        self,
        *,
        ret: str | None = None,
        envid: str | None = None,
        notify: str | Iterable[str] = (),
        orcpt: str | None = None,
    ) -> None:
        values = {
            "ret": _ret(ret),
            "envid": _envid(envid),
            "notify": as_notify(notify),
            "orcpt": as_orcpt(orcpt),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, given: object) -> "DSN":
        """From a mapping; Nodemailer's names (`id`, `return`, `recipient`) are taken too."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise InvalidMessage(f"dsn must be a DSN or a mapping, not {type(given).__name__}")
        options: dict[str, Any] = {}
        for key, value in given.items():
            name = _DSN_NAMES.get(str(key).lower(), str(key).lower())
            if name not in ("ret", "envid", "notify", "orcpt"):
                raise unknown_name(str(key), ("ret", "envid", "notify", "orcpt"), "dsn.")
            if name in options:
                raise InvalidMessage(f"dsn names {name} twice")
            if value is not None:
                options[name] = value
        return cls(**options)

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.ret or self.envid or self.notify or self.orcpt)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Recipient:
    """A recipient with options of its own, in the place of a plain address.

    `notify`: which reports there are to be about this one, as in `DSN`. `orcpt`: its original address,
    where it was another one (for lists and forwarders). Raises InvalidAddress, InvalidMessage.
    """

    address: str
    notify: tuple[str, ...]
    orcpt: str | None

    def __init__(
        self, address: str, *, notify: str | Iterable[str] | None = None, orcpt: str | None = None
    ) -> None:
        if not isinstance(address, str):
            raise InvalidAddress(f"Invalid address: it must be a string, not {type(address).__name__}")
        object.__setattr__(self, "address", parse_address(address)[1].addr_spec)
        object.__setattr__(self, "notify", as_notify(notify or ()))
        object.__setattr__(self, "orcpt", as_orcpt(orcpt))

    def __repr__(self) -> str:
        """No address: error reports keep the repr of local variables."""
        return f"<Recipient{', with options' if self else ''}>"

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.notify or self.orcpt)


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """Within how many `seconds` the message is to be delivered (RFC 2852).

    `mode` "N": then the sender is notified, and the delivery goes on; "R": then the message is
    returned. `trace`: each relay that lacks the extension is reported. Raises InvalidMessage.
    """

    seconds: int
    mode: Literal["N", "R"] = "N"
    trace: bool = False

    def __post_init__(self) -> None:
        if not _is_whole(self.seconds) or abs(self.seconds) > _MAX_SECONDS:
            raise InvalidMessage(
                f"deliver_by is a whole number of seconds, up to {_MAX_SECONDS}, not {self.seconds!r}"
            )
        if self.mode not in ("N", "R"):
            raise InvalidMessage(f"The mode of deliver_by is N (notify) or R (return), not {self.mode!r}")
        if self.mode == "R" and self.seconds <= 0:  # RFC 2852 section 4
            raise InvalidMessage(f"deliver_by with mode R needs more than 0 seconds, not {self.seconds}")
        if not isinstance(self.trace, bool):
            raise InvalidMessage(f"The trace of deliver_by is true or false, not {self.trace!r}")

    @classmethod
    def of(cls, given: object) -> "DeliverBy":
        """From a number of seconds, a timedelta or a mapping."""
        match given:
            case DeliverBy():
                return given
            case timedelta():
                return cls(int(given.total_seconds()))
            case Mapping():
                for name in given:
                    if name not in ("seconds", "mode", "trace"):
                        raise unknown_name(str(name), ("seconds", "mode", "trace"), "deliver_by.")
                if "seconds" not in given:
                    raise InvalidMessage("deliver_by names no seconds")
                return cls(**given)
        return cls(given)  # type: ignore[arg-type]  # it checks that itself


class EnvelopeOptions(TypedDict, total=False):
    """What an `Envelope` takes beside sender and recipients; its docstring says what each means."""

    dsn: DSN | Mapping[str, Any] | None
    require_tls: bool
    deliver_by: DeliverBy | Mapping[str, Any] | timedelta | int | None
    send_at: SendAt | None
    mt_priority: int | None
    body: Body
    prefer: str | Iterable[str]
    require: str | Iterable[str]
    recipient_options: Iterable[Recipient] | Mapping[str, Mapping[str, Any]]


def unknown_name(name: str, known: Iterable[str], group: str = "") -> InvalidMessage:
    """The error for an unknown option; it names the nearest one."""
    names = list(known)
    nearest = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"Did you mean {group + nearest[0]!r}?" if nearest else f"Known are: {', '.join(names)}."
    return InvalidMessage(f"Unknown envelope option {group + shown_name(name)!r}", hint=hint)


def as_notify(given: str | Iterable[str]) -> tuple[str, ...]:
    """In the order of RFC 3461, or empty if nothing is said."""
    items = given.split(",") if isinstance(given, str) else given
    try:
        words = {str(item).strip().upper() for item in items}
    except TypeError:
        raise InvalidMessage(f"notify is a list of words, not {type(given).__name__}") from None
    if words == {"NEVER"}:
        return ("NEVER",)
    if not words <= set(_REPORTS):  # with others beside it, NEVER is refused here (RFC 3461 section 4.1)
        shown = printable(", ".join(sorted(words)))
        raise InvalidMessage(f"notify is NEVER alone, or some of {', '.join(_REPORTS)}, not {shown}")
    return tuple(word for word in _REPORTS if word in words)


def as_orcpt(given: object) -> str | None:
    """An original recipient as `type;address`, not encoded (RFC 3461 section 4.2, RFC 6533 section 3)."""
    if given is None:
        return None
    if not isinstance(given, str) or _UNPRINTABLE.search(given):
        raise InvalidMessage("orcpt must be an address without control characters, as rfc822;a@b.example")
    kind, has_type, address = given.partition(";")
    if not has_type or "@" in kind or not _ADDRESS_TYPE.fullmatch(kind):
        kind, address = "rfc822" if given.isascii() else "utf-8", given
    address = address.strip()
    if not address or (not address.isascii() and kind.lower() != "utf-8"):
        raise InvalidMessage(
            f"{printable(given)!r} can't be an orcpt: an address that is not ASCII has the type utf-8"
        )
    if len(kind) + 1 + len(address) + 2 * len(_NOT_XCHAR.findall(address)) > MAX_ORCPT:
        raise InvalidMessage("orcpt is longer than the 500 characters of RFC 3461 section 4.2")
    return f"{kind.lower()};{address}"


def as_send_at(given: object) -> datetime | int | None:
    """A time in UTC, or a number of seconds from the sending on; whole seconds, never earlier than said."""
    if given is None:
        return None
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise InvalidMessage(
                "send_at has no time zone", hint="Give an aware datetime, as datetime.now(UTC) is."
            )
        moment = given.astimezone(UTC)
        return moment.replace(microsecond=0) + timedelta(seconds=bool(moment.microsecond))
    if isinstance(given, timedelta):
        given = -(-given // timedelta(seconds=1))
    if not _is_whole(given) or not 1 <= given <= _MAX_SECONDS:
        raise InvalidMessage(
            f"send_at is an aware datetime or a number of seconds from 1 to {_MAX_SECONDS}, not {given!r}"
        )
    return given


def as_priority(given: object) -> int | None:
    """RFC 6710 section 3: from -9 to 9."""
    if given is None:
        return None
    if not _is_whole(given) or not -9 <= given <= 9:
        raise InvalidMessage(f"mt_priority is a whole number from -9 to 9, not {given!r}")
    return given


def as_extensions(name: str, given: str | Iterable[str]) -> tuple[str, ...]:
    """Names of extensions in upper case, sorted."""
    try:
        names = given.split(",") if isinstance(given, str) else list(given)
    except TypeError:
        raise InvalidMessage(f"{name} is a list of extensions, not {type(given).__name__}") from None
    items = [str(name).strip().upper() for name in names]
    for item in items:
        if item not in EXTENSIONS:
            raise InvalidMessage(
                f"{name} names {printable(item)!r}, which is no extension that can be asked for",
                hint=f"There are: {', '.join(EXTENSIONS)}.",
            )
    return tuple(sorted(set(items)))


def _ret(given: object) -> str | None:
    if given is None:
        return None
    word = _RET_WORDS.get(given.strip().upper()) if isinstance(given, str) else None
    if word is None:
        raise InvalidMessage(f"ret is HDRS or FULL, not {given!r}")
    return word


def _envid(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not _PRINTABLE.fullmatch(given):
        raise InvalidMessage("envid must be a string of printable ASCII characters, and not empty")
    if len(given) + 2 * len(_NOT_XCHAR.findall(given)) > MAX_ENVID:
        raise InvalidMessage(
            f"envid is longer than {MAX_ENVID} characters; '+', '=' and spaces count for three"
        )
    return given


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
