"""What the server can do, as its answer to EHLO says (RFC 5321 section 4.1.1.1).

Reading never fails: what is unknown is kept, what is odd is left out. Nothing here says what to do
with a capability. Values are frozen: after STARTTLS there is a new one, or none.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from mailbridge.results import Reply, printable

# RFC 5321 section 4.1.1.1, ehlo-keyword. re.ASCII: without it, a long s (U+017F) stands for S.
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*", re.IGNORECASE | re.ASCII)
# RFC 4422 section 3.1, sasl-mech, without its limit of 20 characters, which some names exceed.
_MECHANISM = re.compile(r"[A-Z0-9_-]+", re.IGNORECASE | re.ASCII)
# "AUTH=LOGIN PLAIN" is how the drafts of RFC 2554 wrote it, and some servers still do.
_OLD_AUTH = re.compile(r"^\s*AUTH=", re.IGNORECASE | re.ASCII)
# RFC 1870 section 4: up to 20 digits. More (and Python refuses beyond 4 300) is no limit at all.
_SIZE = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Keywords in upper case with their parameters as sent, in the order of the offer.

    `keyword in capabilities` ignores case. `Capabilities()` is that of a server without
    extensions, as after HELO.
    """

    offers: tuple[tuple[str, tuple[str, ...]], ...] = ()

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
        return dict(self.offers)

    def has(self, keyword: str) -> bool:
        """Whether the server offers this extension."""
        return keyword.upper() in self.keywords

    def __contains__(self, keyword: str) -> bool:
        return self.has(keyword)

    @property
    def size_limit(self) -> int | None:
        """The largest message in bytes (RFC 1870); None where none is named, or none that makes sense."""
        parameters = self.keywords.get("SIZE", ())
        if not parameters or not _SIZE.fullmatch(parameters[0]):
            return None
        return int(parameters[0]) or None  # RFC 1870 section 4: 0 says that there is no fixed limit

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms, in upper case, in the order of the offer (RFC 4954 section 3)."""
        return self.keywords.get("AUTH", ())

    def without(self, names: Iterable[str]) -> Self:
        """The same without these keywords: the option `disable`. Nothing can be added."""
        unwanted = {name.upper() for name in names}
        return type(self)(tuple(offer for offer in self.offers if offer[0] not in unwanted))

    def __str__(self) -> str:
        return printable(", ".join(" ".join((keyword, *parameters)) for keyword, parameters in self.offers))


def _mechanisms(words: Iterable[str]) -> Iterable[str]:
    return (word.upper() for word in words if _MECHANISM.fullmatch(word))


#: A server that offers nothing: what is known before EHLO, and after HELO.
EMPTY = Capabilities()
