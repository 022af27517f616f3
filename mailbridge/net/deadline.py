"""A point in time that work must end by. The clock is given; nothing here waits.

Deadlines are absolute: a peer that sends a byte now and then can't stretch them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at` is in seconds of `clock`; infinity means no limit."""

    at: float = inf
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float | None, clock: Clock = time.monotonic) -> "Deadline":
        """The deadline `seconds` from now; None for no limit."""
        return cls(inf if seconds is None else clock() + seconds, clock)

    def within(self, seconds: float | None) -> "Deadline":
        """The earlier of this deadline and `seconds` from now."""
        return self if seconds is None else Deadline(min(self.at, self.clock() + seconds), self.clock)

    @property
    def remaining(self) -> float | None:
        """Seconds left, never below 0; None if there is no limit (what sockets and locks want)."""
        return None if self.at == inf else max(0.0, self.at - self.clock())

    @property
    def is_over(self) -> bool:
        return self.at != inf and self.clock() >= self.at


NEVER = Deadline()
