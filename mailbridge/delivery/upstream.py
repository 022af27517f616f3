"""One server behind a mailer: its pool of sessions, and what is known against it and its credentials."""

import random as _random
import time
from collections.abc import Callable

from mailbridge.client.connection import SMTPConnection
from mailbridge.config.smtp_config import ServerOptions
from mailbridge.deadline import Clock, Deadline
from mailbridge.delivery.breakers import (
    LONGEST_COOLDOWN,
    LONGEST_COOLDOWN_ALONE,
    LoginBreaker,
    ServerBreaker,
)
from mailbridge.delivery.stats import ServerStats
from mailbridge.delivery.verdicts import is_connection_limit, is_throttling
from mailbridge.errors import MailbridgeError
from mailbridge.logs import Log
from mailbridge.pool import Pool
from mailbridge.ratelimit.shared import limiter_for


class Upstream:
    """Opens sessions with one server. `before_opening` is called ahead of each new one.

    `is_alone`: there is no other server for its messages.
    """

    def __init__(
        self,
        options: ServerOptions,
        *,
        name: str,
        is_alone: bool,
        before_opening: Callable[[], None],
        clock: Clock = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self.config = options.config
        self.priority = options.priority
        self.weight = options.weight
        self.name = name
        self.log = Log.of(self.config)
        self.login_breaker = LoginBreaker(clock=clock)
        longest = LONGEST_COOLDOWN_ALONE if is_alone else LONGEST_COOLDOWN
        self.breaker = ServerBreaker(longest_cooldown=longest, clock=clock, random=random)
        self.pool = Pool(
            self._open,
            self.config.pool,
            name=name,
            log=self.log,
            hold=self.breaker.hold,
            on_failure=self._note_failure,
            clock=clock,
            random=random,
        )
        self.limiter = limiter_for(self.config, clock)
        self._before_opening = before_opening
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Upstream {self.name}, {self.pool!r}>"

    def reset(self) -> None:
        """It works: forget what was against it."""
        self.breaker.reset()
        self.login_breaker.reset()

    def forget(self) -> None:
        """In a forked child: let go of everything the parent had, without a byte."""
        self.reset()
        self.pool.forget()

    def note_throttling(self, error: MailbridgeError, since: float, *, on_reused: bool = False) -> None:
        """Fewer sessions, if the server asks for that. `since`: when the work began that it answered so."""
        if is_throttling(error, on_reused=on_reused):
            self.pool.reduce(since)

    def note(self, outcome: MailbridgeError | None) -> None:
        """What came of a message, or of opening a session; None: it went well."""
        was_open = self.breaker.is_open
        self.breaker.note(outcome)
        if self.breaker.is_open == was_open:
            return
        if was_open:
            self.log.works_again()
        elif outcome is not None:
            self.log.left_alone(outcome, self.breaker.seconds_left)

    @property
    def seconds_held(self) -> float:
        """How long no message can be sent, since there is no session, and none may be opened."""
        seconds = self.breaker.seconds_held
        return seconds if seconds and not self.pool.stats().size else 0.0

    def stats(self) -> ServerStats:
        breaker, error = self.breaker, self.breaker.error
        return ServerStats(
            server=self.name,
            priority=self.priority,
            weight=self.weight,
            is_open=breaker.is_open,
            failures=breaker.failures,
            seconds_left=breaker.seconds_left,
            error=str(error) if error is not None else "",
            pool=self.pool.stats(),
        )

    def _open(self, deadline: Deadline) -> SMTPConnection:
        """What the pool calls for a new session."""
        self._before_opening()
        if self.config.has_credentials:
            self.login_breaker.check()
        connection = SMTPConnection(self.config, log=self.log, clock=self._clock)
        connection.connect(deadline)
        if not self.config.has_credentials:
            return connection
        try:
            with self.login_breaker.attempt(deadline):
                connection.login(deadline)
        except BaseException:
            connection.close()
            raise
        return connection

    def _note_failure(self, error: Exception, others: int) -> bool:
        """A connection could not be opened. True if the server lets no more in than `others`; anything else
        counts against it.
        """
        if not isinstance(error, MailbridgeError):
            return False
        if others and is_connection_limit(error):
            return True
        self.note(error)
        return False
