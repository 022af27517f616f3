"""`Session`: a caller's run of messages, driven with threads.

Performs the steps that `policy` awaits, on pools and connections that block. It decides nothing.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

from mailbridge.client.connection import SMTPConnection
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock, Deadline
from mailbridge.delivery.policy import Flow, Policy
from mailbridge.delivery.router import Router
from mailbridge.delivery.steps import (
    Acquire,
    Answer,
    Outgoing,
    Pause,
    Release,
    Step,
    TakePermit,
    Transact,
    WaitForPermit,
)
from mailbridge.errors import MailbridgeError
from mailbridge.logs import Log
from mailbridge.message.envelope import Envelope
from mailbridge.message.priority import Priority, lane_of
from mailbridge.pool import Lease
from mailbridge.rendering.prepare import Sendable, prepared, priority_of
from mailbridge.results import SendResult
from mailbridge.secret import clear_locals
from mailbridge.smtp.flows.content import Progress

R = TypeVar("R")


class Session:
    """Sends on one leased connection, and takes another when it is lost or worn, or its server fails."""

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
        self._policy = Policy(config, router, log, clock=clock, random=random)
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._lease: Lease[SMTPConnection] | None = None
        #: Whether the last message was accepted, so that an interrupt on the way back leaves doubt.
        self.is_sent = False

    @property
    def failure(self) -> MailbridgeError | None:
        """Why no connection could be had, after a send failed for that."""
        return self._policy.failure

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
        limit = self._limit(deadline)
        lane = lane_of(priority_of(message, priority) or self._config.defaults.priority)
        try:
            outgoing, rendered = prepared(message, envelope, self._config, priority=priority)
            is_mine = rendered is not message
        finally:
            del message  # the frames of an error outlive it, and reporters show what they hold
        outer, self.is_sent = sys.exception(), False
        try:
            return self._run(self._policy.deliver(Outgoing(outgoing, rendered, progress), lane, limit))
        except BaseException as error:
            if self.is_sent:  # the result is lost, the message is not
                error.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
            clear_locals(error, outer=outer)  # some hold what the message says
            raise
        finally:
            if is_mine:
                rendered.close()

    def connect(self, *, deadline: float | None = None) -> bool:
        """As `Mailer.connect`."""
        return self._run(self._policy.connect(self._limit(deadline)))

    def release(self) -> None:
        """Give the connection back to the pool."""
        self._give_back(is_reusable=self._is_open)

    def rest(self) -> None:
        """Keep no connection from others while the next message is made. (Without a pool it stays.)."""
        if self._lease is not None and self._lease.pool.options.enabled:
            self.release()

    def _limit(self, deadline: float | None) -> Deadline:
        return Deadline.after(deadline, self._clock).within(self._config.timeouts.total)

    # ---- the driver

    def _run(self, flow: Flow[R]) -> R:
        """What `flow` returns or raises."""
        try:
            step = flow.send(None)
            while True:
                try:
                    answer = self._perform(step)
                except BaseException as error:  # the policy has to decide what follows
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result
        finally:
            flow.close()

    def _perform(self, step: Step) -> Answer:
        match step:
            case Transact():
                return self._transact(step)
            case Acquire():
                return self._acquire(step)
            case Release():
                return self._give_back(is_reusable=self._is_open and not step.reason, reason=step.reason)
            case WaitForPermit():
                return step.permit.wait(step.limit)
            case TakePermit():
                return step.permit.take(step.limit)
            case Pause():
                return self._sleep(step.seconds)

    def _acquire(self, step: Acquire) -> Lease[SMTPConnection]:
        pool = step.candidate.upstream.pool
        self._lease = self._policy.lease = pool.acquire(step.limit, fresh=step.fresh, lane=step.lane)
        return self._lease

    def _transact(self, step: Transact) -> SendResult:
        assert self._lease is not None  # noqa: S101  # the policy has acquired it
        connection, message = self._lease.connection, step.message
        try:
            result = connection.send(
                message.envelope, message.rendered, step.limit, progress=message.progress, pace=step.permit
            )
            self.is_sent = True
            return result
        finally:
            if not connection.is_open:
                self._give_back(is_reusable=False, reason="lost")

    @property
    def _is_open(self) -> bool:
        return self._lease is not None and self._lease.connection.is_open

    def _give_back(self, *, is_reusable: bool, reason: str = "") -> None:
        lease, self._lease, self._policy.lease = self._lease, None, None
        if lease is not None:
            lease.pool.release(lease, reusable=is_reusable, reason=reason)
