"""`Session`: what becomes of each message on a leased connection.

A stale connection is replaced once, the next server is asked if there is one and `failover` allows it, a
transient failure is tried again as `retry` says, an unknown outcome never is.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from mailbridge.client.connection import SMTPConnection
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock, Deadline
from mailbridge.delivery.router import AttemptLog, Candidate, Router
from mailbridge.delivery.upstream import Upstream
from mailbridge.delivery.verdicts import is_stale, judge, pause_before_next
from mailbridge.errors import ConnectTimeout, DeadlineExceeded, MailbridgeError
from mailbridge.logs import Log
from mailbridge.message.envelope import Envelope
from mailbridge.message.priority import NORMAL_LANE, Priority, lane_of
from mailbridge.pool import Lease
from mailbridge.ratelimit.permits import Permit
from mailbridge.rendering.prepare import Sendable, prepared, priority_of
from mailbridge.rendering.render import Rendered
from mailbridge.results import SendResult
from mailbridge.secret import clear_locals
from mailbridge.smtp.flows.content import Progress

R = TypeVar("R")


class Session:
    """Sends on one leased session, and takes another when it is lost or worn, or its server fails."""

    def __init__(
        self,
        config: SMTPConfig,
        router: Router,
        log: Log,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        random: Callable[[], float],
    ) -> None:
        self._config = config
        self._router = router
        self._log = log
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._lease: Lease[SMTPConnection] | None = None
        self._upstream: Upstream | None = None  # where the lease is from
        self._lane = NORMAL_LANE  # of this message
        self._progress: Progress | None = None
        self._failed_on: dict[MailbridgeError, str] = {}  # the ids of the sessions that it failed on
        #: Why no session could be had, after a send failed for that.
        self.failure: MailbridgeError | None = None

    def send(
        self,
        message: Sendable,
        *,
        envelope: Envelope | None = None,
        deadline: float | None = None,
        priority: Priority | None = None,
        progress: Progress | None = None,
    ) -> SendResult:
        """As `Mailer.send`."""
        self._progress = progress
        limit = Deadline.after(deadline, self._clock).within(self._config.timeouts.total)
        self._lane = lane_of(priority_of(message, priority) or self._config.defaults.priority)
        try:
            outgoing, rendered = prepared(message, envelope, self._config, priority=priority)
            is_mine = rendered is not message
        finally:
            del message  # the frames of an error outlive it, and reporters show what they hold
        outer, began = sys.exception(), self._clock()
        try:
            result = self._deliver(outgoing, rendered, limit)
        except MailbridgeError as error:
            clear_locals(error, outer=outer)  # some hold what the message says
            self._log.not_sent(
                error,
                connection_id=self._failed_on.get(error),
                message_id=rendered.message_id,
                size=rendered.size,
                recipients=len(outgoing.recipients),
                seconds=self._clock() - began,
            )
            raise
        finally:
            self._failed_on.clear()
            if is_mine:
                rendered.close()
        try:
            self._log.sent(result, seconds=self._clock() - began)
        except BaseException as interrupt:  # while a handler works: the result is lost, the message is not
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
            raise
        return result

    def _deliver(self, outgoing: Envelope, rendered: Rendered, limit: Deadline) -> SendResult:
        """To the first server that takes it, in as many attempts as `retry` allows."""
        attempt_log, attempt = AttemptLog(), 1
        while True:
            self._await_probe(limit)
            try:
                result = self._offer(
                    lambda candidate: self._attempt(outgoing, rendered, limit, candidate), limit, attempt_log
                )
            except MailbridgeError as error:
                error.attempts = attempt_log.others_than(error)
                self._pause(error, attempt, limit)
                attempt += 1
            else:
                return replace(result, attempts=attempt, failed_servers=attempt_log.of_others(self._upstream))

    def connect(self, *, deadline: float | None = None) -> bool:
        """As `Mailer.connect`."""
        limit = Deadline.after(deadline, self._clock).within(self._config.timeouts.total)
        attempt_log = AttemptLog()
        try:
            return self._offer(
                lambda candidate: not self._borrow(limit, candidate).reused, limit, attempt_log
            )
        except MailbridgeError as error:
            error.attempts = attempt_log.others_than(error)
            raise

    def _offer(self, act: Callable[[Candidate], R], limit: Deadline, attempt_log: AttemptLog) -> R:
        """What `act` gives at the first server where it works.

        Raises the error that ended the tour. If every server failed: the last that may not fail again later,
        since that is what the caller wants to know.
        """
        failed: list[MailbridgeError] = []
        is_any_reached = False
        preferred = self._upstream if self._lease is not None else None
        for candidate in self._router.candidates(attempt_log, limit, preferred=preferred):
            if failed:
                self._log.failed_over(failed[-1], candidate.upstream.name)
            self._go_to(candidate.upstream)
            try:
                result = act(candidate)
            except MailbridgeError as error:
                if self.failure is not error:  # the pool has told that of openings
                    candidate.upstream.note(error)
                attempt_log.note(candidate.upstream, error)
                failed.append(error)
                is_any_reached |= self.failure is not error
                if limit.is_over or not judge(error).may_go_elsewhere:
                    final = error
                    break
            else:
                self._note_success(candidate.upstream)
                return result
        else:
            final = next((error for error in reversed(failed) if error.is_transient), failed[-1])
        self.failure = None if is_any_reached else final
        raise final

    def _note_success(self, upstream: Upstream) -> None:
        self.failure = None
        try:
            upstream.note(None)
        except BaseException as interrupt:  # while that is logged: the result is lost, the message is not
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
            raise

    def _go_to(self, upstream: Upstream) -> None:
        if self._upstream is not upstream:
            self.release()
            self._upstream = upstream

    def _await_probe(self, limit: Deadline) -> None:
        """With `retry`, each attempt waits for the time at which one of the servers may be tried again."""
        if self._config.retry.attempts == 1:
            return
        seconds, left = self._router.seconds_held, limit.remaining
        if seconds and (left is None or seconds < left):
            self._sleep(seconds)

    def _pause(self, error: MailbridgeError, attempt: int, limit: Deadline) -> None:
        """Wait before the next attempt, or raise the error if there is none."""
        pause = pause_before_next(error, attempt, self._config.retry, self._random)
        left = limit.remaining
        if pause is None or (left is not None and pause >= left):
            raise error
        self.release()
        self.failure = None
        self._log.attempt_failed(error, attempt, pause)
        self._sleep(pause)

    def _attempt(
        self, envelope: Envelope, rendered: Rendered, limit: Deadline, candidate: Candidate
    ) -> SendResult:
        """Once, and once more on a fresh session if a reused one turns out to be dead."""
        limit = limit.within(candidate.upstream.config.timeouts.total)
        with candidate.upstream.limiter.permit(self._lane) as permit:
            lease = self._borrow_in_turn(permit, limit, candidate)
            try:
                return self._send_on(lease, permit, envelope, rendered, candidate.sending_limit(limit))
            except MailbridgeError as error:
                if not (lease.reused or lease.uses > 1) or not is_stale(error):
                    raise
                self._log.session_replaced(error, lease.connection.id)
        self._give_back(reusable=False, reason="stale")
        with candidate.upstream.limiter.permit(self._lane) as permit:
            lease = self._borrow_in_turn(permit, limit, candidate, fresh=True)
            return self._send_on(lease, permit, envelope, rendered, candidate.sending_limit(limit))

    def _borrow_in_turn(
        self, permit: Permit, limit: Deadline, candidate: Candidate, *, fresh: bool = False
    ) -> Lease[SMTPConnection]:
        """A session, and permission to send on it now. Nobody holds a session while waiting for that."""
        while True:
            if not permit.is_near:
                self.release()
                permit.wait(limit)
            lease = self._borrow(limit, candidate, fresh=fresh)
            if permit.take(limit):
                return lease
            self.release()

    def _borrow(self, limit: Deadline, candidate: Candidate, *, fresh: bool = False) -> Lease[SMTPConnection]:
        if self._lease is not None:
            # The look that the pool takes; what lies there was not said to this message.
            is_good = self._lease.connection.unusable_reason() is None
            if is_good and not self._lease.pool.is_wanted_before(self._lane) and self._lease.use_again():
                return self._lease
            self.release()
        try:
            self._lease = candidate.upstream.pool.acquire(
                candidate.opening_limit(limit), fresh=fresh, lane=self._lane
            )
        except MailbridgeError as error:
            self.failure = failure = _of_one_server(error, limit, candidate)
            if failure is error:
                raise
            candidate.upstream.note(failure)
            raise failure from None
        return self._lease

    def _send_on(
        self,
        lease: Lease[SMTPConnection],
        permit: Permit,
        envelope: Envelope,
        rendered: Rendered,
        limit: Deadline,
    ) -> SendResult:
        connection, began = lease.connection, self._clock()
        is_first = lease.uses == 1
        try:
            result = connection.send(envelope, rendered, limit, progress=self._progress, pace=permit)
        except MailbridgeError as error:
            self._failed_on[error] = connection.id
            if self._upstream is not None:
                self._upstream.note_throttling(error, began, on_reused=not is_first)
            raise
        finally:
            if not connection.is_open:
                self._give_back(reusable=False, reason="lost")
        timings = {
            "queue": lease.waited + permit.waited,
            **(_opening_timings(connection) if is_first else {}),
            **result.timings,
        }
        trips = connection.round_trips if is_first else result.round_trips
        return replace(result, connection_reused=not is_first, timings=timings, round_trips=trips)

    def _give_back(self, *, reusable: bool, reason: str = "") -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.pool.release(lease, reusable=reusable, reason=reason)

    def release(self) -> None:
        """Give the session back to the pool."""
        self._give_back(reusable=self._lease is not None and self._lease.connection.is_open)


def _of_one_server(error: MailbridgeError, limit: Deadline, candidate: Candidate) -> MailbridgeError:
    """A server that took longer than it may while others are left: the send's own time is not over."""
    if not isinstance(error, DeadlineExceeded) or error.stage is None or limit.is_over:
        return error
    return ConnectTimeout(
        "No session came to be in the time that a server has while others are left to try",
        stage=error.stage,
        server=candidate.upstream.config.server,
    )


def _opening_timings(connection: SMTPConnection) -> dict[str, float]:
    seconds = connection.seconds
    connect = sum(seconds.get(stage, 0.0) for stage in ("tcp", "proxy", "greeting", "ehlo"))
    return {
        "dns": seconds.get("dns", 0.0),
        "connect": connect,
        "tls": seconds.get("tls", 0.0),
        "auth": seconds.get("auth", 0.0),
    }
