"""The turns of messages to leave: waits without a connection, and gives permission at the last moment.

    with turns.turn(lane) as turn:
        while True:
            turn.wait(deadline)           # without a connection; returns when one is worth finding
            ...                           # find a connection
            if turn.take():               # permission, for the transaction that begins now
                break
            ...                           # somebody was faster: give the connection back
        ...                               # `turn.begin()` before each transaction, `turn.left()` after its
                                          # last byte

Decisions are made under the line's lock, a shared limiter is asked outside it, and nothing sleeps for a
fixed time: who waits is woken, or has been told when to look again. A forked child begins with nobody in
line and nothing on its way. Which message it is, and what becomes of it, is not known here.
"""

import os
import threading
import time
from collections.abc import Callable
from math import inf, isfinite
from typing import Protocol

from mailbridge.config.groups import RateLimiter, RateOptions
from mailbridge.deadline import Clock, Deadline
from mailbridge.errors import DeadlineExceeded, MailbridgeError, RateUnavailable
from mailbridge.ratelimit.queue import Line, Ticket
from mailbridge.ratelimit.window import Told, Window

# A limiter that answers with less is asked again after this, lest two processes ask without pause.
LEAST_WAIT = 0.001

#: Waits until the lock can be had or the seconds are over.
Pause = Callable[[threading.Lock, float], object]


def pause(gate: threading.Lock, seconds: float) -> bool:
    return gate.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class Turn(Protocol):
    """One message's turn. Leaving the `with` ends it, whatever state it is in."""

    def __enter__(self) -> "Turn": ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def is_near(self) -> bool:
        """Whether `wait` would return at once."""

    @property
    def waited(self) -> float:
        """The seconds spent in `wait` so far."""

    def wait(self, deadline: Deadline) -> None:
        """Returns when permission is near. Raises `DeadlineExceeded`, which names the rate."""

    def take(self) -> bool:
        """Permission, if there still is one. Raises `RateUnavailable` if the limiter fails."""

    def begin(self, deadline: Deadline) -> None:
        """Uses the permission. If it is used already, by a transaction before this one of the same
        message, waits for another as `wait` and `take` do, which happens while a connection is held.
        """

    def left(self) -> None:
        """All of it is on its way; without this it counts as long as the turn lasts."""


class Turns(Protocol):
    def turn(self, lane: int) -> Turn: ...


class FreeTurn:
    """Where there is no rate."""

    is_near = True
    waited = 0.0

    def __enter__(self) -> "FreeTurn":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, deadline: Deadline) -> None:
        pass

    def take(self) -> bool:
        return True

    def begin(self, deadline: Deadline) -> None:
        pass

    def left(self) -> None:
        pass


class FreeTurns:
    """No limit."""

    def turn(self, lane: int) -> FreeTurn:
        return FreeTurn()


class LimitedTurns:
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
        self._lines: dict[int, Line] = {os.getpid(): self._new_line()}

    def turn(self, lane: int) -> "LimitedTurn":
        return LimitedTurn(self, self.line, lane)

    @property
    def line(self) -> Line:
        # `setdefault` is atomic: of several threads that are the first in a child, all get the same.
        pid = os.getpid()
        found = self._lines.get(pid)
        return found if found is not None else self._lines.setdefault(pid, self._new_line())

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing here bears on messages to come."""
        line = self.line
        with line.lock:
            window = line.limit
            is_idle = not isinstance(window, Window) or window.free(self.clock()) == window.limit
            return is_idle and not line.tickets

    def _new_line(self) -> Line:
        if isinstance(self.rate, RateOptions):
            return Line(Window(self.rate.limit, self.rate.per))
        return Line(Told())


class LimitedTurn:
    """See `Turn`. What it changes are its ticket and its place in the window, which the end of the `with`
    puts in order.
    """

    __slots__ = ("_is_granted", "_lane", "_line", "_ticket", "_turns", "waited")

    def __init__(self, turns: LimitedTurns, line: Line, lane: int) -> None:
        self._turns = turns
        self._line = line
        self._lane = lane
        self._ticket: Ticket | None = None
        self._is_granted = False  # and not used
        self.waited = 0.0

    def __enter__(self) -> "LimitedTurn":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end()
        except BaseException:  # an interrupt; it can be repeated
            self._end()
            raise

    @property
    def is_near(self) -> bool:
        line = self._line
        with line.lock:
            ticket = self._queued()
            return ticket.sent_ahead_at is not None or line.send_ahead(ticket, self._turns.clock())

    def wait(self, deadline: Deadline) -> None:
        began = self._turns.clock()
        try:
            self._wait(deadline)
        finally:
            self.waited += self._turns.clock() - began

    def _wait(self, deadline: Deadline) -> None:
        line = self._line
        while True:
            with line.lock:
                ticket, now = self._queued(), self._turns.clock()
                if ticket.sent_ahead_at is not None or line.send_ahead(ticket, now):
                    return
                seconds = line.look_again_at(ticket, now) - now
            if deadline.is_over:
                raise self._too_late()
            left = deadline.remaining
            self._turns.pause(ticket.gate, max(LEAST_WAIT, min(seconds, inf if left is None else left)))

    def take(self) -> bool:
        line, limit = self._line, self._line.limit
        with line.lock:
            ticket = self._queued()
            if not line.may_go(ticket, self._turns.clock()):
                line.send_back(ticket)
                return False
            if isinstance(limit, Window):
                limit.take(self)
                self._is_granted = True
                self._leave()
                return True
        return self._ask(ticket)

    def left(self) -> None:
        line = self._line
        with line.lock:
            if isinstance(line.limit, Window):
                line.limit.left(self, self._turns.clock())
                line.wake_first()

    def begin(self, deadline: Deadline) -> None:
        while not self._is_granted:
            self.left()
            self.wait(deadline)
            self.take()
        self._is_granted = False

    def _ask(self, ticket: Ticket) -> bool:
        """The shared limiter, which may take a while: not under the lock."""
        assert callable(self._turns.rate)  # noqa: S101  # else the limit is a Window
        seconds = _asked(self._turns.rate, self._turns.server)
        line = self._line
        with line.lock:
            if seconds <= 0:
                self._is_granted = True
                self._leave()
                return True
            if isinstance(line.limit, Told):
                line.limit.not_before = self._turns.clock() + max(LEAST_WAIT, seconds)
            line.send_back(ticket)
        return False

    def _queued(self) -> Ticket:
        if self._ticket is None:
            self._ticket = self._line.ticket(self._lane)
            self._line.join(self._ticket)
        return self._ticket

    def _leave(self) -> None:
        if self._ticket is not None:
            self._line.leave(self._ticket)
            self._ticket = None

    def _end(self) -> None:
        with self._line.lock:
            self._leave()
        self.left()

    def _too_late(self) -> DeadlineExceeded:
        rate = self._turns.rate
        named = f"rate {rate}" if isinstance(rate, RateOptions) else "rate limiter"
        return DeadlineExceeded(
            f"The send's time limit ran out before the {named} let it go",
            server=self._turns.server,
            hint="Nothing was sent. Raise the limit as far as the server allows, or give the send more time.",
        )


def _asked(limiter: RateLimiter, server: str | None) -> float:
    try:
        seconds = limiter()
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
