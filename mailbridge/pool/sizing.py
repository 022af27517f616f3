"""How many things a pool may have at this moment: its maximum, or less after the other side asked for less.

Halved at once, or set to what the other side was seen to allow; given back one by one, as TCP does with its
window: what is too much is unlearnt quickly and tried again slowly. Pure: the time is given, and it is the
ledger's lock that guards it.
"""

from math import inf

# One more after so many quiet seconds. Servers count over a minute, mostly: faster would ask again before
# they have forgotten, slower would hold mail back long after.
GROW_SECONDS = 30.0


class Size:
    """`now` is what the pool may have, between 1 and `maximum` (infinity: no bound, which never shrinks)."""

    __slots__ = ("grows_at", "maximum", "now", "reduced_at", "reductions")

    def __init__(self, maximum: float) -> None:
        self.maximum = maximum
        self.now = maximum
        self.reduced_at = -inf
        self.grows_at = inf
        self.reductions = 0

    def reduce(self, in_use: int, *, since: float, now: float) -> bool:
        """Half of what was in use; whether that counted.

        `since` is when the work began that was answered so: what began before the last reduction tells
        nothing about the size since then. All sessions of a pool are refused at once, mostly.
        """
        if self.maximum == inf or since <= self.reduced_at:
            return False
        self.reduced_at = now
        self.grows_at = now + GROW_SECONDS
        self.reductions += 1
        self.now = max(1, min(self.now, in_use) // 2)
        return True

    def settle(self, others: int, *, now: float) -> bool:
        """No more than `others`, since the other side let none in beside them; whether that is less."""
        self.grows_at = now + GROW_SECONDS
        if others >= self.now:
            return False
        self.now = max(1, others)
        self.reductions += 1
        return True

    def recover(self, now: float) -> None:
        """One more for each `GROW_SECONDS` without a reduction."""
        while self.now < self.maximum and now >= self.grows_at:
            self.now += 1
            self.grows_at += GROW_SECONDS
