"""What becomes of each message: the decisions above one connection, as coroutines that await steps.

A stale connection is replaced once; the next server is asked if there is one and the error allows it; a
transient failure is tried again as `retry` says; what may have been accepted never is. Nothing here blocks,
sleeps, or knows a socket: `delivery.steps` says what is awaited, and a driver performs it.
"""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock, Deadline
from mailbridge.delivery.router import AttemptLog, Candidate, Router
from mailbridge.delivery.steps import (
    Acquire,
    Connected,
    Held,
    Outgoing,
    Pause,
    Release,
    Step,
    TakePermit,
    Transact,
    WaitForPermit,
)
from mailbridge.delivery.upstream import Upstream
from mailbridge.delivery.verdicts import is_stale, judge, pause_before_next
from mailbridge.errors import ConnectTimeout, DeadlineExceeded, MailbridgeError
from mailbridge.logs import Log
from mailbridge.message.priority import NORMAL_LANE
from mailbridge.ratelimit.permits import Permit
from mailbridge.results import SendResult

R = TypeVar("R")
#: A coroutine that awaits only the steps of `delivery.steps`.
Flow = Coroutine[Step, Any, R]


class Policy:
    """The decisions about one caller's run of messages.

    `lease` is the connection that is held between them. `failure` says why none could be had, after a message
    failed for that.
    """

    def __init__(
        self,
        config: SMTPConfig,
        router: Router,
        log: Log,
        *,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.lease: Held | None = None
        self.failure: MailbridgeError | None = None
        self._config = config
        self._router = router
        self._log = log
        self._clock = clock
        self._random = random
        self._upstream: Upstream | None = None  # the server of this message, or of the last one
        self._message: Outgoing  # the one under way, …
        self._lane = NORMAL_LANE  # … its lane, …
        self._attempts = AttemptLog()  # … what failed so far, …
        self._attempt = 1  # … and how often it was offered to all
        self._used: Held | None = None  # by the last transaction
        self._failed_on: dict[MailbridgeError, str] = {}  # the ids of the connections that it failed on

    async def deliver(self, message: Outgoing, lane: int, limit: Deadline) -> SendResult:
        """Send one message to the first server that takes it, in as many attempts as `retry` allows."""
        self._lane, self._message = lane, message
        self._failed_on.clear()
        self._attempts, self._attempt, began = AttemptLog(), 1, self._clock()
        while True:
            try:
                if self._config.retry.attempts > 1:
                    await self._until_a_server_may_be_asked(limit)
                result = await self._at_first(self._at_one, limit)
            except MailbridgeError as error:
                error.attempts = self._attempts.others_than(error)
                pause = self._pause_before_next(error, limit)
                if pause is None:
                    self._log_failure(error, began)
                    raise
                await Release()
                self._log.attempt_failed(error, self._attempt, pause)
                await Pause(pause)
                self._attempt += 1
            else:
                self._log.sent(result, seconds=self._clock() - began)
                return result

    async def connect(self, limit: Deadline) -> bool:
        """See that a connection is held; whether it had to be opened."""
        self._attempts = AttemptLog()
        try:
            held = await self._at_first(self._borrow, limit)
        except MailbridgeError as error:
            error.attempts = self._attempts.others_than(error)
            raise
        return held.uses == 1

    # ---- which server

    async def _at_first(self, act: Callable[[Deadline, Candidate], Flow[R]], limit: Deadline) -> R:
        """What `act` gives at the first server where it works.

        Raises the error that ended it. If every server failed, that is the last error that may not come
        again later, since this is what the caller wants to know.
        """
        failed: list[MailbridgeError] = []
        is_any_reached = False
        for candidate in self._router.candidates(self._attempts, limit, preferred=self._upstream):
            upstream = candidate.upstream
            if failed:
                self._log.failed_over(failed[-1], upstream.name)
            if self._upstream is not upstream:
                if self.lease is not None:
                    await Release()
                self._upstream = upstream
            try:
                result = await act(limit, candidate)
            except MailbridgeError as error:
                if self.failure is not error:  # failures to open have been noted
                    upstream.note(error)
                    is_any_reached = True
                self._attempts.note(upstream, error)
                failed.append(error)
                if limit.is_over or not judge(error).may_go_elsewhere:
                    final = error
                    break
            else:
                self.failure = None
                upstream.note(None)
                return result
        else:
            final = next((error for error in reversed(failed) if error.is_transient), failed[-1])
        self.failure = None if is_any_reached else final
        raise final

    async def _until_a_server_may_be_asked(self, limit: Deadline) -> None:
        """With `retry`, each attempt waits for the time at which one of the servers may be tried again."""
        seconds, left = self._router.seconds_held, limit.remaining
        if seconds and (left is None or seconds < left):
            await Pause(seconds)

    def _pause_before_next(self, error: MailbridgeError, limit: Deadline) -> float | None:
        """Seconds before the next attempt; None if there is none."""
        pause = pause_before_next(error, self._attempt, self._config.retry, self._random)
        left = limit.remaining
        return None if pause is None or (left is not None and pause >= left) else pause

    # ---- at one server

    async def _at_one(self, limit: Deadline, candidate: Candidate) -> SendResult:
        """Once, and once more on a fresh connection if a used one turns out to be dead."""
        limit = limit.within(candidate.upstream.config.timeouts.total)
        try:
            return await self._once(limit, candidate, fresh=False)
        except MailbridgeError as error:
            used = self._used
            if used is None or used.uses == 1 or not is_stale(error):
                raise
            self._log.session_replaced(error, used.connection.id)
        await Release("stale")
        return await self._once(limit, candidate, fresh=True)

    async def _once(self, limit: Deadline, candidate: Candidate, *, fresh: bool) -> SendResult:
        self._used = None
        limiter = candidate.upstream.limiter
        if limiter is None:
            held = await self._borrow(limit, candidate, fresh=fresh)
            return await self._transact(held, None, candidate.sending_limit(limit))
        with limiter.permit(self._lane) as permit:
            held = await self._borrow_in_turn(permit, limit, candidate, fresh=fresh)
            return await self._transact(held, permit, candidate.sending_limit(limit))

    async def _borrow_in_turn(
        self, permit: Permit, limit: Deadline, candidate: Candidate, *, fresh: bool
    ) -> Held:
        """A connection, and permission to send on it now. None is held while waiting for permission."""
        while True:
            if not permit.is_near:
                await Release()
                await WaitForPermit(permit, limit)
            held = await self._borrow(limit, candidate, fresh=fresh)
            if await TakePermit(permit, limit):
                return held

    async def _borrow(self, limit: Deadline, candidate: Candidate, *, fresh: bool = False) -> Held:
        held = self.lease
        if held is not None:
            # The look that the pool takes; what lies there was not said to this message.
            is_good = held.connection.unusable_reason() is None
            if is_good and not held.is_wanted_before(self._lane) and held.use_again():
                return held
            await Release()
        try:
            return await Acquire(candidate, candidate.opening_limit(limit), self._lane, fresh)
        except MailbridgeError as error:
            self.failure = failure = _of_one_server(error, limit, candidate)
            if failure is error:
                raise
            candidate.upstream.note(failure)
            raise failure from None

    async def _transact(self, held: Held, permit: Permit | None, limit: Deadline) -> SendResult:
        self._used, began, is_first = held, self._clock(), held.uses == 1
        try:
            result = await Transact(self._message, permit, limit)
        except MailbridgeError as error:
            self._failed_on[error] = held.connection.id
            if self._upstream is not None:
                self._upstream.note_throttling(error, began, on_reused=not is_first)
            raise
        waited = held.waited + (permit.waited if permit is not None else 0.0)
        timings = {
            "queue": waited,
            **(_opening_timings(held.connection) if is_first else {}),
            **result.timings,
        }
        trips = held.connection.round_trips if is_first else result.round_trips
        return replace(
            result,
            connection_reused=not is_first,
            timings=timings,
            round_trips=trips,
            attempts=self._attempt,
            failed_servers=self._attempts.of_others(self._upstream),
        )

    def _log_failure(self, error: MailbridgeError, began: float) -> None:
        message = self._message
        self._log.not_sent(
            error,
            connection_id=self._failed_on.get(error),
            message_id=message.rendered.message_id,
            size=message.rendered.size,
            recipients=len(message.envelope.recipients),
            seconds=self._clock() - began,
        )


def _of_one_server(error: MailbridgeError, limit: Deadline, candidate: Candidate) -> MailbridgeError:
    """A server that took longer than it may while others are left: the send's own time is not over."""
    if not isinstance(error, DeadlineExceeded) or error.stage is None or limit.is_over:
        return error
    return ConnectTimeout(
        "No connection within the time allowed for one server while others remain",
        stage=error.stage,
        server=candidate.upstream.config.server,
    )


def _opening_timings(connection: Connected) -> dict[str, float]:
    seconds = connection.seconds
    connect = sum(seconds.get(stage, 0.0) for stage in ("tcp", "proxy", "greeting", "ehlo"))
    return {
        "dns": seconds.get("dns", 0.0),
        "connect": connect,
        "tls": seconds.get("tls", 0.0),
        "auth": seconds.get("auth", 0.0),
    }
