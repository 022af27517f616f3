"""`Mailer`: the front door. One configuration, one pool; opens its connections and closes them.

What becomes of each message is the affair of `session`.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from mailbridge.breaker import LoginBreaker
from mailbridge.config import SMTPConfig
from mailbridge.connection import SMTPConnection
from mailbridge.envelope import Envelope
from mailbridge.errors import MailbridgeError
from mailbridge.net.deadline import Clock, Deadline
from mailbridge.pool import Pool, PoolStats
from mailbridge.preparing import Sendable
from mailbridge.processes import look_after
from mailbridge.results import SendResult, VerifyReport
from mailbridge.session import Session
from mailbridge.verification import verify


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
        session = Session(self.config, self._pool, clock=self._clock, sleep=self._sleep, random=self._random)
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


@contextmanager
def _doubt_if_lost(outcomes: Sequence[SendResult | MailbridgeError]) -> Iterator[None]:
    """An interrupt on the way back takes the results along: who gets it can't tell what was sent."""
    try:
        yield
    except BaseException as interrupt:
        if any(isinstance(outcome, SendResult) for outcome in outcomes):
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
        raise
