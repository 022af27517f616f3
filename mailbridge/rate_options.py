"""The option `rate`: how many messages may leave in a time, or who is asked for permission."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from mailbridge.config.groups import as_count, as_seconds, build_group, imported, invalid

#: Asked at each dispatch: the seconds to wait before asking again, or 0.0 for "go", which it has counted.
RateLimiter = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOptions:
    """At most `limit` messages in any `per` seconds (1.0), in this process."""

    limit: int
    per: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", as_count("rate.limit", self.limit))
        object.__setattr__(self, "per", as_seconds("rate.per", self.per))

    def __str__(self) -> str:
        return f"{self.limit} per {self.per:g} s"


def parse_rate(value: object) -> RateOptions | RateLimiter | None:
    """The option's value: a group, a callable, the dotted path of one (or of its class), or None."""
    if value is None or isinstance(value, RateOptions):
        return value
    if isinstance(value, Mapping):
        if "limit" not in value:
            raise invalid("rate", "needs limit: how many messages may leave in per seconds")
        return build_group(RateOptions, "rate", value)
    found = _made(value) if isinstance(value, str) else value
    if not callable(found) or isinstance(found, type):
        raise invalid("rate", "must be a mapping with limit and per, or a callable, or its dotted path")
    try:
        hash(found)
    except TypeError:
        raise invalid("rate", "must be a callable that can be hashed, as part of the configuration") from None
    return found


@cache
def _made(path: str) -> object:
    """One limiter for each dotted path: equal options must give equal values."""
    found = imported("rate", path)
    return found() if isinstance(found, type) else found
