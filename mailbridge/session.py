"""`Session`: what becomes of each message on a leased connection.

A stale connection is replaced once, a transient failure is tried again as `retry` says, an unknown
outcome never is.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from mailbridge import logs
from mailbridge.config import SMTPConfig
from mailbridge.connection import SMTPConnection
from mailbridge.envelope import Envelope
from mailbridge.errors import MailbridgeError
from mailbridge.net.deadline import Clock, Deadline
from mailbridge.pool import Lease, Pool
from mailbridge.preparing import Sendable, prepared
from mailbridge.rendering import Rendered
from mailbridge.results import SendResult
from mailbridge.retry import is_stale, pause_before_next

logger = logging.getLogger("mailbridge")


class Session:
    """Sends on one leased session, and takes another when it is lost or worn."""

    def __init__(
        self,
        config: SMTPConfig,
        pool: Pool[SMTPConnection],
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        random: Callable[[], float],
    ) -> None:
        self._config = config
        self._pool = pool
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._lease: Lease[SMTPConnection] | None = None
        #: Why no session could be had, after a send failed for that.
        self.failure: MailbridgeError | None = None

    def send(
        self, message: Sendable, *, envelope: Envelope | None = None, deadline: float | None = None
    ) -> SendResult:
        """As `Mailer.send`."""
        limit = Deadline.after(deadline, self._clock).within(self._config.timeouts.total)
        outgoing, rendered = prepared(message, envelope)
        earlier: list[MailbridgeError] = []
        while True:
            try:
                result = self._attempt(outgoing, rendered, limit)
            except MailbridgeError as error:
                error.attempts = tuple(earlier)
                self._pause(error, len(earlier) + 1, limit)
                earlier.append(error)
            else:
                _warn_of_refusals(result)
                return replace(result, attempts=len(earlier) + 1)

    def _pause(self, error: MailbridgeError, attempt: int, limit: Deadline) -> None:
        """Wait before the next attempt, or raise the error if there is none."""
        pause = pause_before_next(error, attempt, self._config.retry, self._random)
        left = limit.remaining
        if pause is None or (left is not None and pause >= left):
            raise error
        self.release()
        self.failure = None
        logs.write(
            logger, logging.WARNING, "Attempt %d failed, the next one is in %.1f s: %s", attempt, pause, error
        )
        self._sleep(pause)

    def _attempt(self, envelope: Envelope, rendered: Rendered, limit: Deadline) -> SendResult:
        """Once, and once more on a fresh session if a reused one turns out to be dead."""
        lease = self._borrow(limit)
        try:
            return self._send_on(lease, envelope, rendered, limit)
        except MailbridgeError as error:
            if not (lease.reused or lease.uses > 1) or not is_stale(error):
                raise
            logs.write(
                logger, logging.DEBUG, "A reused session was dead, the message goes on a fresh one: %s", error
            )
        self._give_back(reusable=False, reason="stale")
        return self._send_on(self._borrow(limit, fresh=True), envelope, rendered, limit)

    def _borrow(self, limit: Deadline, *, fresh: bool = False) -> Lease[SMTPConnection]:
        if self._lease is not None:
            # The look that the pool takes; what lies there was not said to this message.
            if self._lease.thing.unusable_reason() is None and self._lease.use_again():
                return self._lease
            self.release()
        try:
            self._lease = self._pool.acquire(limit, fresh=fresh)
        except MailbridgeError as error:
            self.failure = error
            raise
        return self._lease

    def _send_on(
        self, lease: Lease[SMTPConnection], envelope: Envelope, rendered: Rendered, limit: Deadline
    ) -> SendResult:
        connection = lease.thing
        is_first = lease.uses == 1
        try:
            result = connection.send(envelope, rendered, limit)
        finally:
            if not connection.is_open:
                self._give_back(reusable=False, reason="lost")
        timings = {
            "queue": lease.waited,
            **(_opening_timings(connection) if is_first else {}),
            **result.timings,
        }
        trips = connection.round_trips if is_first else result.round_trips
        return replace(result, connection_reused=not is_first, timings=timings, round_trips=trips)

    def _give_back(self, *, reusable: bool, reason: str = "") -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._pool.release(lease, reusable=reusable, reason=reason)

    def release(self) -> None:
        """Give the session back to the pool."""
        self._give_back(reusable=self._lease is not None and self._lease.thing.is_open)


def _warn_of_refusals(result: SendResult) -> None:
    if result.rejected:
        refused = ", ".join(f"{address}: {reply}" for address, reply in result.rejected.items())
        text = "%s accepted a message but refused some recipients: %s"
        logs.write(logger, logging.WARNING, text, result.server, refused)


def _opening_timings(connection: SMTPConnection) -> dict[str, float]:
    seconds = connection.seconds
    connect = sum(seconds.get(stage, 0.0) for stage in ("tcp", "proxy", "greeting", "ehlo"))
    return {
        "dns": seconds.get("dns", 0.0),
        "connect": connect,
        "tls": seconds.get("tls", 0.0),
        "auth": seconds.get("auth", 0.0),
    }
