"""`Mailer`: the front door. One configuration, one pool, and what becomes of each message.

Renders, borrows a session, sends, and follows the delivery rules: a stale session is replaced once,
a transient failure is tried again as `retry` says, an unknown outcome never is.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email.message import Message as AnyMessage
from typing import Literal

from mailbridge import logs
from mailbridge.breaker import LoginBreaker
from mailbridge.config import SMTPConfig
from mailbridge.connection import SMTPConnection
from mailbridge.envelope import Envelope
from mailbridge.errors import InvalidMessage, MailbridgeError
from mailbridge.message import Message
from mailbridge.net.deadline import Clock, Deadline
from mailbridge.pool import Lease, Pool, PoolStats
from mailbridge.processes import look_after
from mailbridge.rendering import Rendered, render
from mailbridge.results import SendResult, VerifyReport
from mailbridge.retry import is_stale, pause_before_next
from mailbridge.verification import verify

logger = logging.getLogger("mailbridge")

Sendable = AnyMessage | Message | Rendered | bytes


class Mailer:
    """Sends messages to one server over a pool of sessions. Safe for all threads of the process.

    Nothing connects before the first send. `mailbridge.mailer_for(config)` gives the one of this
    process; a Mailer of your own is closed by you. At exit, both close what is idle.
    """

    def __init__(
        self,
        config: SMTPConfig,
        *,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._breaker = LoginBreaker(clock=clock)
        self._is_retired = False
        self._pool = Pool(self._open, config.pool, name=config.server, clock=clock, random=random)

    @classmethod
    def from_url(cls, url: str) -> "Mailer":
        try:
            return cls(SMTPConfig.from_url(url))
        finally:
            del url  # an error page would show it, with the password

    def __repr__(self) -> str:
        return f"<Mailer {self._pool!r}>"

    def __enter__(self) -> "Mailer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self, message: Sendable, *, envelope: Envelope | None = None, deadline: float | None = None
    ) -> SendResult:
        """Send one message; the result says who has it.

        `envelope` is read from the message's header fields if not given; with bytes it must be.
        `deadline` in seconds bounds everything: the queue, dialing, login, content and retries.

        Raises a `MailbridgeError`: with `outcome_unknown` false the server does not have the
        message; with it true nobody can tell, and nothing is ever sent again by itself.
        """
        results: list[SendResult | MailbridgeError] = []
        with _doubt_if_lost(results), self.session() as session:
            results.append(result := session.send(message, envelope=envelope, deadline=deadline))
        return result

    def send_many(
        self,
        messages: Iterable[Sendable | tuple[Sendable, Envelope]],
        *,
        on_error: Literal["continue", "stop"] = "continue",
        deadline: float | None = None,
    ) -> list[SendResult | MailbridgeError]:
        """Send messages on one session; each has its own outcome, in order.

        A message that is refused or invalid does not stop the others. If no session can be had
        at all, the rest is not tried, and that error stands for each of them. With
        `on_error="stop"` the list ends with the first error. `deadline` is for each message.
        """
        outcomes: list[SendResult | MailbridgeError] = []
        with _doubt_if_lost(outcomes), self.session() as session:
            for item in messages:
                message, envelope = item if isinstance(item, tuple) else (item, None)
                if session.failure is not None:
                    outcomes.append(session.failure)
                    continue
                try:
                    outcomes.append(session.send(message, envelope=envelope, deadline=deadline))
                except MailbridgeError as error:
                    outcomes.append(error)
                    if on_error == "stop":
                        break
        return outcomes

    @contextmanager
    def session(self) -> "Iterator[Session]":
        """One leased session for several messages; taken at the first send, given back at the end."""
        session = Session(self)
        try:
            yield session
        finally:
            session.release()
            if self._is_retired:
                self._pool.discard_idle()

    def connect(self, *, deadline: float | None = None) -> bool:
        """Make sure that a live session waits in the pool; true if it had to be opened.

        Raises what keeps a session from being opened.
        """
        with self._pool.acquire(self._limit(deadline)) as lease:
            return not lease.reused

    def verify(self, *, mail_from: str | None = None, rcpt_to: Sequence[str] = ()) -> VerifyReport:
        """Try the configuration stage by stage, on a connection of its own; sends no mail.

        With `mail_from` (and `rcpt_to`) the server is also asked whether it would take mail from
        and to these addresses. Never raises: what fails is in the report.
        """
        report = verify(self.config, mail_from=mail_from, rcpt_to=rcpt_to)
        if report.ok:
            self._breaker.reset()
        return report

    def stats(self) -> PoolStats:
        """The pool's numbers, under stable names."""
        return self._pool.stats()

    def close(self, drain: float = 0.0) -> None:
        """Close the pool; sessions in use finish, for at most `drain` seconds. May be called again."""
        self._pool.close(drain)

    @property
    def closed(self) -> bool:
        return self._pool.closed

    def retire(self) -> None:
        """Keep no session from now on; who still holds this mailer can go on sending."""
        self._is_retired = True
        self._pool.discard_idle()

    def forget(self) -> None:
        """In a forked child: let go of everything the parent had, without a byte."""
        self._breaker.reset()
        self._pool.forget()

    def _limit(self, deadline: float | None) -> Deadline:
        return Deadline.after(deadline, self._clock).within(self.config.timeouts.total)

    def _open(self, deadline: Deadline) -> SMTPConnection:
        """What the pool calls for a new session."""
        look_after(self)
        if self.config.has_credentials:
            self._breaker.check()
        connection = SMTPConnection(self.config, clock=self._clock)
        connection.connect(deadline)
        if not self.config.has_credentials:
            return connection
        try:
            with self._breaker.attempt(deadline):
                connection.login(deadline)
        except BaseException:
            connection.close()
            raise
        return connection


class Session:
    """Sends on one leased session, and takes another when it is lost or worn."""

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer
        self._lease: Lease[SMTPConnection] | None = None
        #: Why no session could be had, after a send failed for that.
        self.failure: MailbridgeError | None = None

    def send(
        self, message: Sendable, *, envelope: Envelope | None = None, deadline: float | None = None
    ) -> SendResult:
        """As `Mailer.send`."""
        limit = self._mailer._limit(deadline)
        outgoing, rendered = _prepared(message, envelope)
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
        mailer = self._mailer
        pause = pause_before_next(error, attempt, mailer.config.retry, mailer._random)
        left = limit.remaining
        if pause is None or (left is not None and pause >= left):
            raise error
        self.release()
        self.failure = None
        logs.write(
            logger, logging.WARNING, "Attempt %d failed, the next one is in %.1f s: %s", attempt, pause, error
        )
        mailer._sleep(pause)

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
            self._lease = self._mailer._pool.acquire(limit, fresh=fresh)
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
            self._mailer._pool.release(lease, reusable=reusable, reason=reason)

    def release(self) -> None:
        """Give the session back to the pool."""
        self._give_back(reusable=self._lease is not None and self._lease.thing.is_open)


@contextmanager
def _doubt_if_lost(outcomes: Sequence[SendResult | MailbridgeError]) -> Iterator[None]:
    """An interrupt on the way back takes the results along: who gets it can't tell what was sent."""
    try:
        yield
    except BaseException as interrupt:
        if any(isinstance(outcome, SendResult) for outcome in outcomes):
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
        raise


def _prepared(message: Sendable, envelope: Envelope | None) -> tuple[Envelope, Rendered]:
    if isinstance(message, Message):
        # Asked for before it becomes MIME, where Bcc is not.
        envelope, message = envelope or message.envelope(), message.as_email_message()
    if envelope is None:
        if not isinstance(message, AnyMessage):
            raise InvalidMessage("A message of bytes needs envelope=Envelope(sender, recipients)")
        envelope = Envelope.from_message(message)
    return envelope, message if isinstance(message, Rendered) else render(message)


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
