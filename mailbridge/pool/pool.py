"""A bounded pool that lends connections to threads and takes them back. It knows no SMTP.

`ledger` decides who gets what, under its lock; this module waits, opens, closes and looks, always outside
that lock. There is no background thread and no finalizer: what is overdue is closed by the next caller. A
forked child drops what it inherited without a byte on it.

No comprehension stands directly in a `with ledger.lock`: CPython 3.13 leaves the lock held if a signal's
exception comes at the jump back of one that filters.

It has fewer connections for a while when its owner says that the server asked for that (`reduce`), or lets
no more in (`on_failure`): then a caller waits for one that is open. It does not retry or count logins. When
opening fails, the caller gets the error and the next waiter the place.
"""

import random as _random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from mailbridge.config.groups import PoolOptions
from mailbridge.config.values import ROOT
from mailbridge.deadline import NEVER, Clock, Deadline
from mailbridge.logs import Log
from mailbridge.message.priority import NORMAL_LANE
from mailbridge.pool import failures
from mailbridge.pool.ledger import Claim, Ending, Lease, Ledger, Place, T
from mailbridge.pool.stats import PoolStats
from mailbridge.process import PerProcess

R = TypeVar("R")

# Things opened together must not all expire together, or the server sees a storm of reconnects.
LIFETIME_JITTER = 0.1


class Pool(Generic[T]):
    """Lends what `open_thing` opens, at most `options.max_size` at a time, the warmest first.

    Callers that have to wait are served by lane, and within one in their order: what is urgent overtakes
    what waits, never what is under way. `name` is shown in errors, logs and repr. `open_thing` gets the
    deadline of the caller that it opens for, and runs in that caller's thread; until one is open, and after
    one was lost or could not be opened, one at a time. While `hold` gives an error (it is asked under the
    lock), nothing is opened, and a caller that no other thing can serve gets a copy of it. `on_failure` is
    told what `open_thing` raised and how many others there are; true: the other side lets no more in.
    """

    def __init__(
        self,
        open_thing: Callable[[Deadline], T],
        options: PoolOptions,
        *,
        name: str = "",
        log: Log | None = None,
        hold: Callable[[], Exception | None] = lambda: None,
        on_failure: Callable[[Exception, int], bool] = lambda error, others: False,
        clock: Clock = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self.options = options
        self.name = name
        self._log = log or Log(ROOT, name)
        self._open_connection = open_thing
        self._hold = hold
        self._on_failure = on_failure
        self._clock = clock
        self._random = random
        self._closed = False
        self._ledgers = PerProcess(self._new_ledger, let_go=Ledger.abandon)

    def acquire(
        self, deadline: Deadline = NEVER, *, fresh: bool = False, lane: int = NORMAL_LANE
    ) -> Lease[T]:
        """Lends an idle thing that is still good, or a new one.

        With `fresh` it is always a new one; if the pool is full, the coldest idle one makes room. In the
        queue the lowest `lane` goes first; there is no other right of way, so `acquire_timeout` is also
        how long a low one lets others go first.

        Raises `PoolTimeout` after `options.acquire_timeout` seconds in the queue, `DeadlineExceeded`
        if `deadline` came before that, `PoolClosed`, and whatever `open_thing` raises.
        """
        ledger = self.here()
        claim: Claim[T] = Claim(fresh=fresh, lane=lane)
        return self._wholly(ledger, claim, partial(self._lend, ledger, claim, deadline))

    def is_wanted_before(self, lane: int) -> bool:
        """Whether somebody of an earlier lane waits: who has a thing between two uses may step back."""
        ledger = self.here()
        with ledger.lock:
            return bool(ledger.queue) and ledger.queue[0].lane < lane

    def release(self, lease: Lease[T], *, reusable: bool, reason: str = "") -> None:
        """Takes a thing back: to lend it again if it is `reusable` and still good, else to close it.

        `reason` says in the log why it is not reusable. A second release of the same lease does
        nothing. A lease of another pool is a ValueError.
        """
        if lease.pool is not self:
            raise ValueError(f"This lease was taken from {lease.pool!r}, not from {self!r}")
        ledger = self.here()
        if lease.ledger is not ledger:
            lease.place.abandon()  # lent before a fork: the session belongs to the parent
            return
        self._wholly(ledger, lease.claim, partial(self._take_back, ledger, lease, reusable, reason))

    def close(self, drain: float = 0.0) -> None:
        """Closes the pool: idle things at once, lent ones when they come back; may be called again.

        Callers in the queue get `PoolClosed`, and so do all that come later. Those that have their
        place already are under way: they get their lease. Waits at most `drain` seconds for these.
        """
        ledger = self.here()
        closer: Claim[T] = Claim()
        self._wholly(ledger, closer, partial(self._shut, ledger, closer, drain))

    def discard_idle(self) -> None:
        """Closes all idle things; those lent may still come back."""
        ledger = self.here()
        claim: Claim[T] = Claim()
        self._wholly(ledger, claim, partial(self._close_idle, ledger, claim, Ending.DISCARDED))

    def reduce(self, since: float) -> bool:
        """Has half as many things as are in use now, at least one, because the other side asked for less.

        One more comes back for each `sizing.GROW_SECONDS` without another call. `since`, by the pool's
        clock, is when the work began that was answered so: if that was before the last reduction,
        nothing changes. Idle things that are too many are closed here, lent ones when they come back.
        Whether it made a difference; never where the pool is off.
        """
        ledger = self.here()
        claim: Claim[T] = Claim()
        return self._wholly(ledger, claim, partial(self._shrink, ledger, claim, since))

    def forget(self) -> None:
        """For a child after fork: abandons all things, without a byte, and starts with empty books.

        Acquire, release, close and stats notice a fork by themselves; this is for a hook that runs in
        the child before them. Only there: whatever this process has opened is abandoned too.
        """
        self._ledgers.reset()

    def stats(self) -> PoolStats:
        """The numbers of this moment, in this process."""
        with (ledger := self.here()).lock:
            ledger.size.recover(self._clock())
            return ledger.stats(self.name)

    @property
    def closed(self) -> bool:
        return self.here().closed

    def __repr__(self) -> str:
        now = self.stats()
        bound = "none" if now.max_size is None else now.max_size
        reduced = "" if now.effective_size == now.max_size else f" reduced to {now.effective_size}"
        return (
            f"<Pool {self.name} lent={now.lent} idle={now.idle} opening={now.opening}"
            f" waiting={now.waiting} max={bound}{reduced}{' closed' if self.closed else ''}>"
        )

    # Fork

    def here(self) -> Ledger[T]:
        """The books of this process; in a child that was just forked, empty ones."""
        return self._ledgers.get()

    def _new_ledger(self) -> Ledger[T]:
        return Ledger(self.options, hold=self._hold, closed=self._closed)

    # Acquire

    def _queue_up(self, ledger: Ledger[T], claim: Claim[T], limit: Deadline, again: bool) -> Place[T] | None:
        """A place, with a thing or for a new one; None if the time is up."""
        with ledger.lock:
            if ledger.closed:
                raise failures.closed(self.name)
            now = self._clock()
            ledger.size.recover(now)
            ledger.take_overdue(claim, now)
            ledger.enqueue(claim, again=again)
            ledger.assign()
            if place := claim.granted:
                return place
            if claim.refusal is not None:
                raise claim.refusal
            ledger.waits += 1
        self._close_leftovers(ledger, claim)  # its former place is for others
        return self._wait(ledger, claim, limit)

    def _wait(self, ledger: Ledger[T], claim: Claim[T], limit: Deadline) -> Place[T] | None:
        started = self._clock()
        claim.gate.acquire(timeout=min(limit.remaining or 0.0, threading.TIMEOUT_MAX))
        with ledger.lock:
            ledger.wait_seconds += max(0.0, self._clock() - started)
            # Only now, under the lock, is it settled: a place may have come just after the time was up.
            if place := claim.granted:
                return place
            ledger.cancel(claim)
            if ledger.closed:
                raise failures.closed(self.name)
            if claim.refusal is not None:
                raise claim.refusal
            ledger.timeouts += 1
        return None

    def _lend(self, ledger: Ledger[T], claim: Claim[T], deadline: Deadline) -> Lease[T]:
        limit = deadline.within(self.options.acquire_timeout)
        waited, again = 0.0, False
        while True:
            asked = self._clock()
            place = self._queue_up(ledger, claim, limit, again)
            if place is None:
                raise failures.timed_out(self.name, ledger, is_deadline=limit.at == deadline.at)
            waited += max(0.0, self._clock() - asked)
            self._close_leftovers(ledger, claim)
            connection = self._filled(ledger, claim, place, deadline)
            if connection is not None:
                with ledger.lock:
                    ledger.count_loan(place)
                return Lease(self, ledger, claim, place, connection, waited)
            again = True

    def _filled(self, ledger: Ledger[T], claim: Claim[T], place: Place[T], deadline: Deadline) -> T | None:
        """The place's connection if it may be lent, or a new one; None if the claim has to queue up again."""
        if place.connection is not None:
            flaw = place.ending or (Ending.EVICTED if claim.fresh else self._flaw(place, place.connection))
            if flaw is None:
                return place.connection
            self._close_connection(ledger, place, flaw)
            return None
        try:
            # In one line: nothing can come between the connection's birth and its place in the books.
            connection = place.connection = self._open_connection(deadline)
        except Exception as error:
            if not self._makes_do(ledger, claim, error):
                raise
            return None
        spread = 1 + LIFETIME_JITTER * (2 * self._random() - 1)
        place.expires_at = self._clock() + self.options.max_lifetime * spread
        return connection

    def _makes_do(self, ledger: Ledger[T], claim: Claim[T], error: Exception) -> bool:
        """Whether the claim waits for what others have, since the other side lets no more in."""
        with ledger.lock:
            others = ledger.note_failure(claim)
        if not self._on_failure(error, others):
            return False
        with ledger.lock:
            is_less = ledger.size.settle(others, now=self._clock())
        self._close_leftovers(ledger, claim)  # its place is one too many
        if is_less:
            self._log.shrunk(others)
        return True

    # Release

    def _take_back(self, ledger: Ledger[T], lease: Lease[T], reusable: bool, reason: str) -> None:
        claim, place = lease.claim, lease.place
        with ledger.lock:
            if claim.returned:
                return
            claim.returned = True
        flaw = self._flaw(place, lease.connection) if reusable else Ending.NOT_REUSABLE
        if reason and not reusable:
            self._log.pooled("connection_not_reusable", "not reusable", lease.connection, reason)
        with ledger.lock:
            now = self._clock()
            ledger.size.recover(now)
            ledger.take_overdue(claim, now)
            flaw = flaw or (Ending.POOL_CLOSED if ledger.closed else None)
            if flaw is None and ledger.has_too_many:
                flaw = Ending.TOO_MANY
            if flaw is None:
                ledger.make_idle(place, now)
            else:
                place.ending = flaw
                claim.place = None
        self._close_leftovers(ledger, claim)

    # Closing

    def _shut(self, ledger: Ledger[T], closer: Claim[T], drain: float) -> None:
        with ledger.lock:
            self._closed = ledger.closed = True
            ledger.closers.append(closer)
            ledger.assign()
        self._close_idle(ledger, closer, Ending.POOL_CLOSED)
        if drain > 0 and ledger.places:
            closer.gate.acquire(timeout=min(drain, threading.TIMEOUT_MAX))
        with ledger.lock:
            ledger.cancel(closer)

    def _close_idle(self, ledger: Ledger[T], claim: Claim[T], why: Ending) -> None:
        with ledger.lock:
            ledger.take_idle(claim, why)
        self._close_leftovers(ledger, claim)

    def _shrink(self, ledger: Ledger[T], claim: Claim[T], since: float) -> bool:
        with ledger.lock:
            now = self._clock()
            ledger.size.recover(now)
            is_reduced = ledger.size.reduce(len(ledger.places), since=since, now=now)
            ledger.take_surplus(claim)
            size = ledger.size.now
        self._close_leftovers(ledger, claim)
        if is_reduced:
            self._log.shrunk(size)
        return is_reduced

    def _wholly(self, ledger: Ledger[T], claim: Claim[T], act: Callable[[], R]) -> R:
        """Runs `act`. If anything is raised in it, nothing of the claim stays behind.

        The clean-up can be repeated, and is if it is interrupted: after a failure to open, say, a
        KeyboardInterrupt may come that late.
        """
        try:
            return act()
        except BaseException:
            try:
                self._give_up(ledger, claim)
            except BaseException:
                self._give_up(ledger, claim)
                raise
            raise

    def _give_up(self, ledger: Ledger[T], claim: Claim[T]) -> None:
        """Frees all that a claim holds, wherever it was; mends what an interrupt left half done."""
        with ledger.lock:
            ledger.cancel(claim)
            claim.place = None
            ledger.assign()
        self._close_leftovers(ledger, claim)

    def _close_leftovers(self, ledger: Ledger[T], claim: Claim[T]) -> None:
        """Closes what the claim holds beside its own place, and gives up those places."""
        with ledger.lock:
            doomed = ledger.leftovers_of(claim)
        interrupt: BaseException | None = None
        for place in doomed:
            try:
                self._close_connection(ledger, place, place.ending or Ending.INTERRUPTED)
            except BaseException as error:  # the others are to be closed all the same
                interrupt = error
            # The place is given up only now: the server never sees more than max_size sessions.
            with ledger.lock:
                if place.connection is None:
                    ledger.remove(place)
        if interrupt is not None:
            raise interrupt

    def _close_connection(self, ledger: Ledger[T], place: Place[T], why: Ending) -> None:
        connection = place.connection
        if connection is None:
            return
        place.ending = why
        self._log.pooled("connection_retired", "closing a connection", connection, why.value)
        try:
            connection.close()
        except BaseException as error:
            connection.abandon()
            if not isinstance(error, Exception):
                raise
            self._log.pooled("connection_close_failed", "closing failed", connection, repr(error))
        finally:
            with ledger.lock:
                ledger.emptied(place, why)

    def _flaw(self, place: Place[T], connection: T) -> Ending | None:
        """Why this thing must not be lent (again); None if it may."""
        if not self.options.enabled:
            return Ending.POOL_OFF
        if why := place.overdue(self.options, self._clock()):
            return why
        try:
            reason = connection.unusable_reason()
        except Exception as error:
            reason = repr(error)
        if reason is None:
            return None
        self._log.pooled("connection_unusable", "unusable", connection, reason)
        return Ending.UNUSABLE
