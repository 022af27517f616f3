"""How many messages may leave now: pure, with the time given.

`Window` is strict: no half-open window of `per` seconds ever sees more than `limit` messages leave. A
message counts from its permission (a) until `per` seconds after it has left (b): the moment w at which
it really went lies somewhere between, and how long that takes is the machine's and the network's affair.

Why that is enough: among any limit + 1 messages take the one whose permission came last, at a. All the
others had theirs before. At a, at most limit - 1 of them counted, so that at least one did not: it had
left by b <= a - per. Its w is not after its b, and the last one's w not before a, so that they lie `per`
apart, and not all limit + 1 are within `per` seconds. A bucket of tokens can't say that: it lets the
burst of a full bucket go together with all that has been refilled since.
"""

from collections import deque
from collections.abc import Hashable
from math import inf, nextafter


class Window:
    """The last times at which messages left, and how many are on their way out."""

    __slots__ = ("departures", "limit", "per", "under_way")

    def __init__(self, limit: int, per: float) -> None:
        self.limit = limit
        self.per = per
        self.under_way: set[Hashable] = set()
        self.departures: deque[float] = deque()  # in their order; those that still count

    def free(self, now: float) -> int:
        """How many may go at this moment."""
        while self.departures and now - self.departures[0] >= self.per:
            self.departures.popleft()
        return self.limit - len(self.under_way) - len(self.departures)

    def free_at(self, count: int, now: float) -> float:
        """When so many may go at once, as far as that can be known: infinity where it depends on those
        that are on their way out.
        """
        lacking = count - self.free(now)
        if lacking <= 0:
            return now
        return self._counts_until(self.departures[lacking - 1]) if lacking <= len(self.departures) else inf

    def _counts_until(self, departure: float) -> float:
        """The first moment at which `free` no longer counts it: a sum of floats may be short of that."""
        moment = departure + self.per
        return moment if moment - departure >= self.per else nextafter(moment, inf)

    def take(self, one: Hashable) -> None:
        """One goes."""
        self.under_way.add(one)

    def departed(self, one: Hashable, now: float) -> None:
        """One that went has left; if it went. An interrupt between the lines makes it count twice."""
        if one in self.under_way:
            self.departures.append(now)
            self.under_way.discard(one)


class LimiterAnswer:
    """What a shared limiter said last. How many it will let go is not known before it is asked, so that it
    is asked for one at a time.
    """

    __slots__ = ("not_before",)

    def __init__(self) -> None:
        self.not_before = -inf

    def free(self, now: float) -> int:
        return int(now >= self.not_before)

    def free_at(self, count: int, now: float) -> float:
        return inf if count > 1 else max(now, self.not_before)
