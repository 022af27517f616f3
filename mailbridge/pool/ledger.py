"""The books of a pool: which places there are, who holds each, who waits, and how it went.

It decides and never acts: nothing here opens, closes or looks at a connection, and nothing blocks. Its
methods are called with `lock` held. `pool` does the rest.

One fact is kept, once: `Place.holder`. What is idle, who is served and what a claim has yet to close are
derived from it. So an exception between any two lines (a KeyboardInterrupt, a killed greenlet) leaves nothing
half done that the next `assign` would not finish.

`Lease` is a connection on loan.
"""

import threading
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable
from copy import copy
from enum import StrEnum
from itertools import count
from math import inf
from operator import attrgetter
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from mailbridge.config.groups import PoolOptions
from mailbridge.message.priority import NORMAL_LANE
from mailbridge.pool.sizing import Size
from mailbridge.pool.stats import PoolStats


class Poolable(Protocol):
    """What can be pooled. `close` and `abandon` may come twice, and one after the other."""

    def unusable_reason(self) -> str | None:
        """A look that costs no round trip and doesn't block; None if the thing may be lent."""

    def close(self) -> None:
        """Ends it politely and quickly: says goodbye, doesn't wait for the answer, never raises."""

    def abandon(self) -> None:
        """Lets go of the descriptor without a byte (in a forked child it isn't ours); never raises."""


T = TypeVar("T", bound=Poolable)


class Ending(StrEnum):
    """Why a thing was closed: the keys of `PoolStats.closed_total`."""

    NOT_REUSABLE = "not_reusable"  # the borrower said so
    UNUSABLE = "unusable"  # unusable_reason() gave one
    WORN = "worn"  # lent max_messages times
    TOO_OLD = "too_old"
    TOO_IDLE = "too_idle"
    EVICTED = "evicted"  # made room for a fresh one
    DISCARDED = "discarded"  # discard_idle()
    TOO_MANY = "too_many"  # the server asked for less: reduce()
    POOL_CLOSED = "pool_closed"
    POOL_OFF = "pool_off"  # pool.enabled is false: nothing is kept
    INTERRUPTED = "interrupted"  # an exception on its way to the borrower, or back


# What the other side may have ended, so that nobody knows whether it would let another one in.
_LOST = frozenset({Ending.NOT_REUSABLE, Ending.UNUSABLE})


_LANE, _TURN = attrgetter("lane"), attrgetter("turn")


class Claim(Generic[T]):
    """One caller's turn, from asking for a place to giving it back. The lowest `lane` is served first.

    `gate` opens when the claim is served or turned away. It is a plain lock: an Event or Condition
    runs Python code around its inner lock, and an interrupt there can leave that lock held for ever.
    """

    __slots__ = ("fresh", "gate", "lane", "place", "refusal", "returned")

    def __init__(self, *, fresh: bool = False, lane: int = NORMAL_LANE) -> None:
        self.fresh = fresh
        self.lane = lane
        self.place: Place[T] | None = None
        self.refusal: Exception | None = None  # why it was turned away
        self.returned = False
        self.gate = threading.Lock()
        self.gate.acquire()

    @property
    def granted(self) -> "Place[T] | None":
        """The place that is this claim's own, if it has one."""
        place = self.place
        return place if place is not None and place.holder is self else None

    def wake(self) -> None:
        if self.gate.locked():
            self.gate.release()


class Place(Generic[T]):
    """One of `max_size` places. No holder: its thing is idle. A holder and no thing: it is being opened."""

    __slots__ = ("connection", "ending", "expires_at", "holder", "idle_since", "turn", "uses")

    def __init__(self, holder: Claim[T]) -> None:
        self.holder: Claim[T] | None = holder
        self.connection: T | None = None
        self.ending: Ending | None = None  # set while the thing is being closed
        self.expires_at = inf
        self.idle_since = inf
        self.uses = 0
        self.turn = 0  # the higher, the later it became idle

    def overdue(self, options: PoolOptions, now: float) -> Ending | None:
        """Why its thing has to go, as far as age and wear tell."""
        if self.uses >= options.max_messages:
            return Ending.WORN
        if now >= self.expires_at:
            return Ending.TOO_OLD
        return Ending.TOO_IDLE if now >= self.idle_since + options.max_idle else None

    def abandon(self) -> None:
        """For things of another process: no byte, no lock."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()


class Ledger(Generic[T]):
    """The books of one pool in one process; a forked child opens new ones, with a new lock.

    Things are opened one at a time while the books are in doubt: until the first one is open, and again
    after one was lost or could not be opened, until the next one is. `hold` says why nothing may be opened
    at the moment; None if it may.

    The lock is reentrant: a signal handler that closes the pool, or a finalizer that gives a lease
    back, may run in a thread that is inside already.
    """

    def __init__(
        self, options: PoolOptions, *, hold: Callable[[], Exception | None], closed: bool = False
    ) -> None:
        self.options = options
        self.hold = hold
        self.in_doubt = True
        self.size = Size(options.max_size if options.enabled else inf)
        self.closed = closed
        self.lock = threading.RLock()
        self.places: set[Place[T]] = set()
        self.queue: list[Claim[T]] = []  # by lane, and in each in the order of coming
        self.closers: list[Claim[T]] = []  # wait in close() for the last place to be given up
        self.turns = count(1)
        self.opened = 0
        self.reused = 0
        self.ended: Counter[str] = Counter()
        self.waits = 0
        self.wait_seconds = 0.0
        self.timeouts = 0

    def enqueue(self, claim: Claim[T], *, again: bool) -> None:
        """Behind all of its lane and of those before it; as the first of its lane if it was served before."""
        claim.place = None
        if again and not claim.gate.locked():
            claim.gate.acquire()
        self.queue.insert((bisect_left if again else bisect_right)(self.queue, claim.lane, key=_LANE), claim)

    def assign(self) -> None:
        """Serves the queue in its order for as long as there are places. All changes end with it."""
        if self.closed:
            for claim in list(self.queue):
                claim.wake()
            self.queue.clear()
            if not self.places:
                for closer in self.closers:
                    closer.wake()
            return
        position = 0
        while position < len(self.queue):
            claim = self.queue[position]
            if claim.granted is None and self.find_place(claim) is None:
                if not claim.fresh:
                    break
                position += 1  # what comes back idle is not for this one, but for those behind it
                continue
            claim.wake()
            if position < len(self.queue) and self.queue[position] is claim:
                del self.queue[position]
        if self.queue and (why := self.hold()) is not None:
            self._turn_away(why)

    def _turn_away(self, why: Exception) -> None:
        """Those for whom nothing can come back, since there is nothing, or they want a new one."""
        for claim in list(self.queue):
            if claim.fresh or not self.places:
                claim.refusal = copy(why)  # a traceback for each
                claim.wake()
                self.cancel(claim)

    def find_place(self, claim: Claim[T]) -> Place[T] | None:
        """Gives `claim` a place, with an idle thing if it wants one; None if all are taken."""
        idle = self._idle()
        if idle and not claim.fresh:
            place = idle[-1]  # last in, first out: cold ones age out
        elif not self._may_open(claim):
            return None
        elif held := self.held_by(claim):
            place = held[0]
        elif len(self.places) < self.size.now:
            place = Place(claim)
            self.places.add(place)
        elif idle:
            place = idle[0]
        else:
            return None
        claim.place = place
        place.holder = claim
        return place

    def _may_open(self, claim: Claim[T]) -> bool:
        is_opening = any(place.connection is None and place.holder is not claim for place in self.places)
        return not (self.in_doubt and is_opening) and self.hold() is None

    def note_failure(self, claim: Claim[T]) -> int:
        """Nothing could be opened for `claim`. How many there are, or may be soon, that it can wait for."""
        self.in_doubt = True
        claim.place = None
        if not self.options.enabled:
            return 0  # none is lent twice
        return sum(
            place.ending is None and (place.holder is None or place.holder.granted is place)
            for place in self.places
        )

    def held_by(self, claim: Claim[T]) -> list[Place[T]]:
        return [place for place in self.places if place.holder is claim]

    def leftovers_of(self, claim: Claim[T]) -> list[Place[T]]:
        """What the claim holds beside its own place: things that it has to close."""
        return [place for place in self.places if place.holder is claim and place is not claim.place]

    def take_overdue(self, claim: Claim[T], now: float) -> None:
        """Leaves to `claim` the closing of all idle things that are too old or too long idle."""
        for place in self._idle():
            if why := place.overdue(self.options, now):
                place.holder = claim
                place.ending = why

    def take_idle(self, claim: Claim[T], why: Ending) -> None:
        """Leaves to `claim` the closing of all idle things."""
        for place in self._idle():
            place.holder = claim
            place.ending = why

    def take_surplus(self, claim: Claim[T]) -> None:
        """Leaves to `claim` the closing of idle things, the coldest first, while there are too many."""
        surplus = len(self.places) - self.size.now
        for number, place in enumerate(self._idle()):
            if number >= surplus:
                return
            place.holder = claim
            place.ending = Ending.TOO_MANY

    @property
    def has_too_many(self) -> bool:
        """Whether a thing that comes back is one more than there may be now, without those being closed."""
        return sum(place.ending is None for place in self.places) > self.size.now

    def make_idle(self, place: Place[T], now: float) -> None:
        place.idle_since = now
        place.turn = next(self.turns)
        place.holder = None
        self.assign()

    def remove(self, place: Place[T]) -> None:
        self.places.discard(place)
        self.assign()

    def cancel(self, claim: Claim[T]) -> None:
        """The claim waits no longer."""
        for line in (self.queue, self.closers):
            if claim in line:
                line.remove(claim)

    def count_loan(self, place: Place[T]) -> None:
        place.uses += 1
        place.idle_since = inf
        if place.uses > 1:
            self.reused += 1
            return
        self.opened += 1
        self.in_doubt = False
        self.assign()

    def emptied(self, place: Place[T], why: Ending) -> None:
        """The place's thing is closed."""
        self.ended[why.value] += 1
        self.in_doubt |= why in _LOST
        place.connection = None
        place.ending = None
        place.expires_at = place.idle_since = inf
        place.uses = 0

    def abandon(self) -> None:
        """For the books of another process."""
        for place in list(self.places):
            place.abandon()

    def stats(self, name: str) -> PoolStats:
        held = [place for place in self.places if place.holder is not None]
        opening = sum(place.connection is None for place in held)
        closing = sum(place.connection is not None and place.ending is not None for place in held)
        return PoolStats(
            name=name,
            max_size=self.options.max_size if self.options.enabled else None,
            effective_size=None if self.size.now == inf else int(self.size.now),
            size=len(self.places),
            lent=len(held) - opening - closing,
            idle=len(self.places) - len(held),
            opening=opening,
            closing=closing,
            waiting=len(self.queue),
            opened_total=self.opened,
            reused_total=self.reused,
            closed_total=dict(self.ended),
            waits_total=self.waits,
            wait_seconds_total=self.wait_seconds,
            timeouts_total=self.timeouts,
            reductions_total=self.size.reductions,
        )

    def _idle(self) -> list[Place[T]]:
        """The places with an idle thing, the coldest first."""
        return sorted([place for place in self.places if place.holder is None], key=_TURN)


class Lender(Protocol[T]):
    """The pool that a lease goes back to."""

    @property
    def options(self) -> PoolOptions: ...

    def here(self) -> "Ledger[T]":
        """The ledger of this process: another one after a fork."""

    def is_wanted_before(self, lane: int) -> bool:
        """Whether a caller of an earlier lane waits."""

    def release(self, lease: "Lease[T]", *, reusable: bool, reason: str) -> None: ...


class Lease(Generic[T]):
    """A thing on loan. `release` it, or use it in a `with`: that releases it as reusable if the block
    ended without an exception and nobody released it inside.

    `reused` tells whether the thing was lent before, `uses` how often by now, this time included;
    `waited` is the time in the queue, in seconds.
    """

    __slots__ = ("claim", "connection", "ledger", "place", "pool", "reused", "uses", "waited")

    def __init__(
        self,
        pool: Lender[T],
        ledger: Ledger[T],
        claim: Claim[T],
        place: Place[T],
        connection: T,
        waited: float,
    ) -> None:
        self.pool = pool
        self.ledger = ledger
        self.claim = claim
        self.place = place
        self.connection = connection
        self.reused = place.uses > 1
        self.uses = place.uses
        self.waited = waited

    def use_again(self) -> bool:
        """Counts one message more on this lease; False if the thing is worn, or was lent before a fork and
        belongs to the parent: it should go back instead.
        """
        if self.ledger is not self.pool.here():
            return False
        if self.claim.granted is not self.place or self.uses >= self.pool.options.max_messages:
            return False
        self.uses += 1
        self.place.uses = self.uses
        return True

    def is_wanted_before(self, lane: int) -> bool:
        """Whether a caller of an earlier lane waits: the holder may step back between two uses."""
        return self.pool.is_wanted_before(lane)

    def __enter__(self) -> "Lease[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.release(self, reusable=error is None, reason=kind.__name__ if kind else "")
