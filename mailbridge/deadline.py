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
    """`at` is in seconds of `clock`; infinity means no limit.

    `of_commands`, where it is earlier, holds as long as no content was written: until then a server that
    falls silent can be left for another one.
    """

    at: float = inf
    clock: Clock = time.monotonic
    of_commands: float = inf

    @classmethod
    def after(cls, seconds: float | None, clock: Clock = time.monotonic) -> "Deadline":
        """The deadline `seconds` from now; None for no limit."""
        return cls(inf if seconds is None else clock() + seconds, clock)

    def within(self, seconds: float | None) -> "Deadline":
        """The earlier of this deadline and `seconds` from now."""
        if seconds is None:
            return self
        return Deadline(min(self.at, self.clock() + seconds), self.clock, self.of_commands)

    def share(self, parts: int) -> "Deadline":
        """The deadline of the next one of `parts` attempts that have what is left between them."""
        left = self.remaining
        return self if left is None else self.within(left / parts)

    def with_commands_within(self, seconds: float) -> "Deadline":
        """This deadline, with less time for what comes before the content."""
        return Deadline(self.at, self.clock, self.clock() + seconds)

    @property
    def before_content(self) -> "Deadline":
        """What holds until content is written."""
        return self if self.of_commands >= self.at else Deadline(self.of_commands, self.clock)

    @property
    def remaining(self) -> float | None:
        """Seconds left, never below 0; None if there is no limit (what sockets and locks want)."""
        return None if self.at == inf else max(0.0, self.at - self.clock())

    @property
    def is_over(self) -> bool:
        return self.at != inf and self.clock() >= self.at


NEVER = Deadline()
