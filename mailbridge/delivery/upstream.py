"""One server behind a mailer: its pool of sessions, and what is known against it and its credentials."""

import random as _random
import time
from collections.abc import Callable

from mailbridge.client.connection import SMTPConnection
from mailbridge.config.smtp_config import ServerOptions
from mailbridge.deadline import Clock, Deadline
from mailbridge.delivery.breakers import LoginBreaker, ServerBreaker
from mailbridge.delivery.stats import ServerStats
from mailbridge.delivery.verdicts import is_throttling
from mailbridge.errors import MailbridgeError
from mailbridge.logs import Log
from mailbridge.pool import Pool
from mailbridge.ratelimit.shared import limiter_for


class Upstream:
    """Opens sessions with one server. `before_opening` is called ahead of each new one."""

    def __init__(
        self,
        options: ServerOptions,
        *,
        name: str,
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
        self.breaker = ServerBreaker(clock=clock, random=random)
        self.pool = Pool(self._open, self.config.pool, name=name, log=self.log, clock=clock, random=random)
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
        began = self._clock()
        try:
            return self._opened(deadline)
        except MailbridgeError as error:
            self.note_throttling(error, began)
            raise

    def _opened(self, deadline: Deadline) -> SMTPConnection:
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
