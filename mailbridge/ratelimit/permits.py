"""Permits to send at a rate: a message waits without a connection, and takes its permit at the last moment.

    with limiter.permit(lane) as permit:
        while True:
            permit.wait(deadline)         # without a connection; returns when it is worth finding one
            ...                           # find a connection
            if permit.take(deadline):             # for the transaction that begins now
                break
            ...                           # another was faster: give the connection back
        ...                               # `permit.begin()` before each transaction, `permit.departed()`
                                          # after its last byte

Decisions are made under the queue's lock, a shared limiter is asked outside it, and nothing sleeps for a
fixed time: a waiter is woken, or is told when to look again. A forked child begins with an empty queue and
nothing under way. Which message it is, and what becomes of it, is not known here.
"""

import threading
import time
from collections.abc import Callable
from math import inf, isfinite
from typing import Protocol

from mailbridge.config.groups import RateLimiter, RateOptions
from mailbridge.deadline import Clock, Deadline
from mailbridge.errors import DeadlineExceeded, MailbridgeError, RateUnavailable
from mailbridge.net import aside
from mailbridge.process import PerProcess
from mailbridge.ratelimit.queue import Waiter, WaitQueue
from mailbridge.ratelimit.window import LimiterAnswer, Window

# A limiter that answers with less is asked again after this, lest two processes ask without pause.
LEAST_WAIT = 0.001

#: Waits until the lock can be had or the seconds are over.
Pause = Callable[[threading.Lock, float], object]


def pause(gate: threading.Lock, seconds: float) -> bool:
    return gate.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class Permit(Protocol):
    """The permit of one message. Leaving the `with` ends it, whatever state it is in."""

    def __enter__(self) -> "Permit": ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def is_near(self) -> bool:
        """Whether `wait` would return at once."""

    @property
    def waited(self) -> float:
        """The seconds spent in `wait` so far."""

    def wait(self, deadline: Deadline) -> None:
        """Returns when permission is near. Raises `DeadlineExceeded`, which names the rate."""

    def take(self, deadline: Deadline) -> bool:
        """Permission, if there still is one. Raises `RateUnavailable` if the limiter fails, and
        `DeadlineExceeded` if it takes too long.
        """

    def begin(self, deadline: Deadline) -> None:
        """Uses the permission. If it is used already, by a transaction before this one of the same
        message, waits for another as `wait` and `take` do, which happens while a connection is held.
        """

    def departed(self) -> None:
        """All of it is on its way; without this it counts as long as the permit lasts."""


class QueueingLimiter:
    """The line before one limit, in each process. `server` is named in errors."""

    def __init__(
        self,
        rate: RateOptions | RateLimiter,
        *,
        server: str | None = None,
        clock: Clock = time.monotonic,
        pause: Pause = pause,
    ) -> None:
        self.rate = rate
        self.server = server
        self.clock = clock
        self.pause = pause
        self._queues = PerProcess(self._new_queue)

    def permit(self, lane: int) -> "QueuedPermit":
        return QueuedPermit(self, self.queue, lane)

    @property
    def queue(self) -> WaitQueue:
        return self._queues.get()

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing here bears on messages to come."""
        queue = self.queue
        with queue.lock:
            window = queue.limit
            is_idle = not isinstance(window, Window) or window.free(self.clock()) == window.limit
            return is_idle and not queue.waiters

    def _new_queue(self) -> WaitQueue:
        if isinstance(self.rate, RateOptions):
            return WaitQueue(Window(self.rate.limit, self.rate.per))
        return WaitQueue(LimiterAnswer())


class QueuedPermit:
    """See `Permit`. What it changes are its waiter and its place in the window, which the end of the `with`
    puts in order.
    """

    __slots__ = ("_is_granted", "_lane", "_limiter", "_queue", "_waiter", "waited")

    def __init__(self, limiter: QueueingLimiter, queue: WaitQueue, lane: int) -> None:
        self._limiter = limiter
        self._queue = queue
        self._lane = lane
        self._waiter: Waiter | None = None
        self._is_granted = False  # and not used
        self.waited = 0.0

    def __enter__(self) -> "QueuedPermit":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end()
        except BaseException:  # an interrupt; it can be repeated
            self._end()
            raise

    @property
    def is_near(self) -> bool:
        queue = self._queue
        with queue.lock:
            waiter = self._queued()
            return waiter.sent_ahead_at is not None or queue.send_ahead(waiter, self._limiter.clock())

    def wait(self, deadline: Deadline) -> None:
        began = self._limiter.clock()
        try:
            self._wait(deadline)
        finally:
            self.waited += self._limiter.clock() - began

    def _wait(self, deadline: Deadline) -> None:
        queue = self._queue
        while True:
            with queue.lock:
                waiter, now = self._queued(), self._limiter.clock()
                if waiter.sent_ahead_at is not None or queue.send_ahead(waiter, now):
                    return
                seconds = queue.look_again_at(waiter, now) - now
            if deadline.is_over:
                raise self._too_late()
            left = deadline.remaining
            self._limiter.pause(waiter.gate, max(LEAST_WAIT, min(seconds, inf if left is None else left)))

    def take(self, deadline: Deadline) -> bool:
        queue, limit = self._queue, self._queue.limit
        with queue.lock:
            waiter = self._queued()
            if not queue.may_go(waiter, self._limiter.clock()):
                queue.send_back(waiter)
                return False
            if isinstance(limit, Window):
                limit.take(self)
                self._is_granted = True
                self._leave()
                return True
        return self._ask(waiter, deadline)

    def departed(self) -> None:
        queue = self._queue
        with queue.lock:
            if isinstance(queue.limit, Window):
                queue.limit.departed(self, self._limiter.clock())
                queue.wake_first()

    def begin(self, deadline: Deadline) -> None:
        while not self._is_granted:
            self.departed()
            self.wait(deadline)
            self.take(deadline)
        self._is_granted = False

    def _ask(self, waiter: Waiter, deadline: Deadline) -> bool:
        """The shared limiter, which may take a while: not under the lock."""
        assert callable(self._limiter.rate)  # noqa: S101  # else the limit is a Window
        seconds = _asked(self._limiter.rate, self._limiter.server, deadline)
        queue = self._queue
        with queue.lock:
            if seconds <= 0:
                self._is_granted = True
                self._leave()
                return True
            if isinstance(queue.limit, LimiterAnswer):
                queue.limit.not_before = self._limiter.clock() + max(LEAST_WAIT, seconds)
            queue.send_back(waiter)
        return False

    def _queued(self) -> Waiter:
        if self._waiter is None:
            self._waiter = self._queue.waiter(self._lane)
            self._queue.join(self._waiter)
        return self._waiter

    def _leave(self) -> None:
        if self._waiter is not None:
            self._queue.leave(self._waiter)
            self._waiter = None

    def _end(self) -> None:
        with self._queue.lock:
            self._leave()
        self.departed()

    def _too_late(self) -> DeadlineExceeded:
        rate = self._limiter.rate
        named = f"rate {rate}" if isinstance(rate, RateOptions) else "rate limiter"
        return DeadlineExceeded(
            f"The send's time limit ran out before the {named} let it go",
            server=self._limiter.server,
            hint="Nothing was sent. Raise the limit as far as the server allows, or give the send more time.",
        )


def _asked(limiter: RateLimiter, server: str | None, deadline: Deadline) -> float:
    try:
        # A permission that came too late counted for a moment that is over: it is not kept.
        seconds = aside.within(limiter, deadline, what="the rate limiter", stage=None, heritage="call")
    except MailbridgeError:
        raise
    except Exception as error:
        raise RateUnavailable(
            f"The rate limiter failed: {type(error).__name__}: {error}",
            server=server,
            hint="Nothing was sent: without its permission a message may be one too many.",
        ) from error
    if not _is_number(seconds):
        raise RateUnavailable(
            f"The rate limiter gave {seconds!r}, not the seconds to wait", server=server, is_transient=False
        )
    return seconds


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
