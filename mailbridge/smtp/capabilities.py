"""What the server can do, as its answer to EHLO says (RFC 5321 section 4.1.1.1).

Reading never fails: what is unknown is kept, what is odd is left out. Nothing here says what to do
with a capability. Values are frozen: after STARTTLS there is a new one, or none.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from mailbridge.reply import Reply, printable

# RFC 5321 section 4.1.1.1, ehlo-keyword. re.ASCII: without it, a long s (U+017F) stands for S.
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*", re.IGNORECASE | re.ASCII)
# RFC 4422 section 3.1, sasl-mech, without its limit of 20 characters, which some names exceed.
_MECHANISM = re.compile(r"[A-Z0-9_-]+", re.IGNORECASE | re.ASCII)
# "AUTH=LOGIN PLAIN" is how the drafts of RFC 2554 wrote it, and some servers still do.
_OLD_AUTH = re.compile(r"^\s*AUTH=", re.IGNORECASE | re.ASCII)
# RFC 1870 section 4: up to 20 digits. More (and Python refuses beyond 4 300) is no limit at all.
_SIZE = re.compile(r"[0-9]{1,20}")
# RFC 9422 section 3: six digits at most, and no zero in front.
_LIMIT = re.compile(r"([A-Z0-9][A-Z0-9_-]*)=([1-9][0-9]{0,5})", re.IGNORECASE | re.ASCII)
# RFC 2852 section 3 and RFC 4865 section 4: numbers of seconds.
_SECONDS = re.compile(r"[0-9]{1,9}")
# RFC 4865 section 4: a date-time of RFC 3339 in UTC.
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Keywords in upper case with their parameters as sent, in the order of the offer.

    `keyword in capabilities` ignores case. `Capabilities()` is that of a server without
    extensions, as after HELO.
    """

    offers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: What the server announces (RFC 9422): MAILMAX transactions of a connection, RCPTMAX recipients of a
    #: transaction, RCPTDOMAINMAX domains of these. What is malformed is left out.
    limits: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _parameters: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)  # by keyword

    def __post_init__(self) -> None:
        parameters = dict(self.offers)
        limits = map(_LIMIT.fullmatch, parameters.get("LIMITS", ()))
        object.__setattr__(self, "_parameters", parameters)
        object.__setattr__(self, "limits", {each[1].upper(): int(each[2]) for each in limits if each})

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read the answer to EHLO. Its first line is the server's name and greeting, no keyword.

        Of a keyword given twice the first counts; the mechanisms of all AUTH lines are joined.
        """
        found: dict[str, tuple[str, ...]] = {}
        for line in reply.lines[1:]:
            words = _OLD_AUTH.sub("AUTH ", line).split()
            if not words or not _KEYWORD.fullmatch(words[0]):
                continue
            keyword, parameters = words[0].upper(), tuple(words[1:])
            if keyword == "AUTH":
                found[keyword] = tuple(dict.fromkeys((*found.get(keyword, ()), *_mechanisms(parameters))))
            else:
                found.setdefault(keyword, parameters)
        return cls(tuple(found.items()))

    @property
    def keywords(self) -> Mapping[str, tuple[str, ...]]:
        """Keyword to parameters; a copy."""
        return dict(self._parameters)

    def has(self, keyword: str) -> bool:
        """Whether the server offers this extension."""
        return keyword.upper() in self._parameters

    __contains__ = has

    @property
    def size_limit(self) -> int | None:
        """The largest message in bytes (RFC 1870); None where none is named, or none that makes sense."""
        parameters = self._parameters.get("SIZE", ())
        if not parameters or not _SIZE.fullmatch(parameters[0]):
            return None
        return int(parameters[0]) or None  # RFC 1870 section 4: 0 says that there is no fixed limit

    @property
    def least_deliver_by(self) -> int | None:
        """The fewest seconds that may be asked for in mode R (RFC 2852 section 3); None if none is named."""
        return _seconds(self._parameters.get("DELIVERBY", ()))

    @property
    def longest_hold(self) -> int | None:
        """For how many seconds the server holds a message at most (RFC 4865); None if it does not say."""
        return _seconds(self._parameters.get("FUTURERELEASE", ()))

    @property
    def latest_release(self) -> datetime | None:
        """Until when the server holds a message at most (RFC 4865), in UTC; None if it does not say."""
        for text in self._parameters.get("FUTURERELEASE", ())[1:2]:
            if _MOMENT.fullmatch(text):
                try:
                    return datetime.fromisoformat(text[:19].upper()).replace(tzinfo=UTC)
                except ValueError:  # the 30th of February
                    return None
        return None

    @property
    def priority_profile(self) -> str | None:
        """The priorities that the server tells apart (RFC 6710 section 3), as "NSEP"; None if unsaid."""
        return next(iter(self._parameters.get("MT-PRIORITY", ())), None)

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms, in upper case, in the order of the offer (RFC 4954 section 3)."""
        return self._parameters.get("AUTH", ())

    def without(self, names: Iterable[str]) -> Self:
        """The same without these keywords: the option `disable`. Nothing can be added."""
        unwanted = {name.upper() for name in names}
        return type(self)(tuple(offer for offer in self.offers if offer[0] not in unwanted))

    def __str__(self) -> str:
        return printable(", ".join(" ".join((keyword, *parameters)) for keyword, parameters in self.offers))


def _mechanisms(words: Iterable[str]) -> Iterable[str]:
    return (word.upper() for word in words if _MECHANISM.fullmatch(word))


def _seconds(parameters: tuple[str, ...]) -> int | None:
    if not parameters or not _SECONDS.fullmatch(parameters[0]):
        return None
    return int(parameters[0])


#: A server that offers nothing: what is known before EHLO, and after HELO.
EMPTY = Capabilities()
