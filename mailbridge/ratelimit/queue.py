"""The queue of messages that wait for the rate: which goes next. Pure, with the time given, under `lock`.

The order is by lane, and within a lane by arrival. A waiter that is let through does not have a permit yet:
a connection has to be found first, and the permit is taken directly before the message goes out. So it
counts as one that is about to take, but only for a while, lest one that is stuck (its server does not answer,
no connection comes free) holds up the others.

There is one rule, at both gates: a waiter may go where more permits are free than there are others before it
in the order that are about to take.
"""

import threading
from bisect import insort
from itertools import count
from math import inf
from typing import Protocol

# How long who was sent ahead is taken to be about to go. Finding an idle connection takes microseconds,
# opening one mostly less than this.
AHEAD_SECONDS = 1.0


class Limit(Protocol):
    """See `window`."""

    def free(self, now: float) -> int: ...

    def free_at(self, count: int, now: float) -> float: ...


class Waiter:
    """One message's place in the line. Its `gate`, a plain lock, opens when it is worth looking again."""

    __slots__ = ("gate", "lane", "number", "sent_ahead_at")

    def __init__(self, lane: int, number: int) -> None:
        self.lane = lane
        self.number = number
        self.sent_ahead_at: float | None = None  # None: waits
        self.gate = threading.Lock()
        self.gate.acquire()

    @property
    def place(self) -> tuple[int, int]:
        return self.lane, self.number

    def wake(self) -> None:
        if self.gate.locked():
            self.gate.release()

    def will_take(self, now: float) -> bool:
        return self.sent_ahead_at is None or now < self.sent_ahead_at + AHEAD_SECONDS


class WaitQueue:
    """The waiters, in their order. The lock is reentrant: a signal handler may send mail in a thread that
    is inside.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.lock = threading.RLock()
        self.waiters: list[Waiter] = []
        self._numbers = count(1)

    def waiter(self, lane: int) -> Waiter:
        """A new one, which is to join: its holder must have it first, lest an interrupt leave it behind."""
        return Waiter(lane, next(self._numbers))

    def join(self, waiter: Waiter) -> None:
        """It waits behind all of its lane and of those before it."""
        insort(self.waiters, waiter, key=lambda each: each.place)

    def may_go(self, waiter: Waiter, now: float) -> bool:
        """The rule."""
        before = self.waiters[: self.waiters.index(waiter)]
        return self.limit.free(now) > sum(other.will_take(now) for other in before)

    def send_ahead(self, waiter: Waiter, now: float) -> bool:
        """Whether the waiter may soon go. Then the next one may be near too."""
        if not self.may_go(waiter, now):
            return False
        waiter.sent_ahead_at = now
        self.wake_first()
        return True

    def look_again_at(self, waiter: Waiter, now: float) -> float:
        """When a waiter that may not go should look again if nobody wakes it.

        Never, if others wait before it: the first that waits is woken by whoever goes or gives up.
        """
        before = self.waiters[: self.waiters.index(waiter)]
        ahead = [other.sent_ahead_at for other in before if other.will_take(now)]
        moments = [at + AHEAD_SECONDS for at in ahead if at is not None]
        if len(moments) < len(ahead):
            return inf
        return min([self.limit.free_at(len(ahead) + 1, now), *moments])

    def send_back(self, waiter: Waiter) -> None:
        """It waits again, in its old place."""
        waiter.sent_ahead_at = None
        self.wake_first()

    def leave(self, waiter: Waiter) -> None:
        """It has gone, or given up."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
        self.wake_first()

    def wake_first(self) -> None:
        """The first that waits; all others behind it have nothing to see."""
        for waiter in self.waiters:
            if waiter.sent_ahead_at is None:
                waiter.wake()
                return
