"""`Mailer`: the front door. One configuration, one pool for each of its servers.

What becomes of each message is the affair of `session`.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Unpack

from mailbridge.config.options import Options
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock, Deadline
from mailbridge.delivery.router import Router
from mailbridge.delivery.session import Session
from mailbridge.delivery.stats import ServerStats
from mailbridge.delivery.upstream import Upstream
from mailbridge.errors import MailbridgeError
from mailbridge.logs import Log
from mailbridge.message.envelope import Envelope
from mailbridge.message.priority import Priority
from mailbridge.pool import PoolStats
from mailbridge.pool.stats import sum_of_pools
from mailbridge.process import register
from mailbridge.rendering.prepare import Sendable
from mailbridge.results import SendResult
from mailbridge.verify import VerifyReport, verify


class Mailer:
    """Sends messages over pools of sessions, one for each server. Safe for all threads of the process.

    With several servers a message goes to the first that can take it, by priority; see docs/servers.md.
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
        self._is_retired = False
        self._router = Router(self._upstreams(), random=random)
        self._log = Log.of(config)

    @classmethod
    def from_url(cls, url: str, /, **options: Unpack[Options]) -> "Mailer":
        """A mailer for `smtp://user:password@host:port/?option=value`; options beside the URL win."""
        try:
            return cls(SMTPConfig.from_url(url, **options))
        finally:
            del url, options  # an error page would show them, with the password

    def __repr__(self) -> str:
        return f"<Mailer {', '.join(repr(upstream.pool) for upstream in self._router.upstreams)}>"

    def __enter__(self) -> "Mailer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self,
        message: Sendable,
        *,
        envelope: Envelope | None = None,
        deadline: float | None = None,
        priority: Priority | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SendResult:
        """Send one message; the result says who has it.

        `envelope` is read from the message's header fields if not given; with bytes it must be.
        `deadline` in seconds bounds everything: the queue, dialing, login, content and retries.
        `priority` is "high", "normal" or "low" where messages wait for the rate or a connection; that of
        a `Message` if not given. `progress(sent, size)` is told how many bytes of the content have been
        written, for large ones: see `SMTPConnection.send`; in each attempt it starts at 0.

        Raises a `MailbridgeError`: with `outcome_unknown` false the server does not have the
        message; with it true nobody can tell, and nothing is ever sent again by itself.
        """
        session = self._new_session()
        try:
            return session.send(
                message, envelope=envelope, deadline=deadline, priority=priority, progress=progress
            )
        finally:
            del message  # an error's frames outlive it, and reporters show what they hold
            self._end(session)

    def send_many(
        self,
        messages: Iterable[Sendable | tuple[Sendable, Envelope]],
        *,
        on_error: Literal["continue", "stop"] = "continue",
        deadline: float | None = None,
        priority: Priority | None = None,
    ) -> list[SendResult | MailbridgeError]:
        """Send messages one after the other; each has its own outcome, in order.

        A message that is refused or invalid does not stop the others. If no session can be had
        at all, the rest is not tried, and that error stands for each of them. With
        `on_error="stop"` the list ends with the first error. `deadline` and `priority` are those of each
        message. While the next message is made, by the iterator or its rendering, the connection is free for
        others; without a pool all messages go over one.
        """
        outcomes: list[SendResult | MailbridgeError] = []
        item: Any = None
        message: Any = None
        try:
            with _doubt_if_lost(outcomes), self.session() as session:
                for item in messages:
                    message, envelope = item if isinstance(item, tuple) else (item, None)
                    if session.failure is not None:
                        outcomes.append(session.failure)
                        continue
                    try:
                        outcomes.append(
                            session.send(message, envelope=envelope, deadline=deadline, priority=priority)
                        )
                    except MailbridgeError as error:
                        outcomes.append(error)
                        if on_error == "stop":
                            break
                    session.rest()
        finally:
            del (
                item,
                message,
                messages,
            )  # the frames of an error outlive it, and reporters show what they hold
        return outcomes

    @contextmanager
    def session(self) -> "Iterator[Session]":
        """One leased session for several messages; taken at the first send, given back at the end."""
        session = self._new_session()
        try:
            yield session
        finally:
            self._end(session)

    def _new_session(self) -> Session:
        return Session(
            self.config, self._router, self._log, clock=self._clock, sleep=self._sleep, random=self._random
        )

    def _end(self, session: Session) -> None:
        try:
            session.release()
            if self._is_retired:
                self._discard_idle()
        except BaseException as interrupt:
            if session.is_sent:  # its result is lost on the way, the message is not
                interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
            raise

    def connect(self, *, deadline: float | None = None) -> bool:
        """Make sure that a live session waits in the pool; true if it had to be opened.

        With several servers it is one with the server that a message would go to. Raises what keeps a
        session from being opened.
        """
        with self.session() as session:
            return session.connect(deadline=deadline)

    def verify(self, *, mail_from: str | None = None, rcpt_to: Sequence[str] = ()) -> VerifyReport:
        """Try the configuration stage by stage, on a connection of its own; sends no mail.

        With `mail_from` (and `rcpt_to`) the server is also asked whether it would take mail from
        and to these addresses. Of several servers each is tried, and `servers` has their reports.
        Never raises: what fails is in the report.
        """
        reports = []
        for upstream in self._router.upstreams:
            reports.append(verify(upstream.config, mail_from=mail_from, rcpt_to=rcpt_to))
            if reports[-1].ok:
                upstream.reset()
        return reports[0] if not self.config.servers else VerifyReport.of_several(reports)

    def stats(self) -> PoolStats:
        """The pool's numbers, under stable names; those of several servers together."""
        return sum_of_pools([upstream.pool.stats() for upstream in self._router.upstreams])

    def server_stats(self) -> tuple[ServerStats, ...]:
        """Of each server, in the order of their priorities: its state and its pool's numbers."""
        return tuple(upstream.stats() for upstream in self._router.upstreams)

    def close(self, drain: float = 0.0) -> None:
        """Close the pool; sessions in use finish, for at most `drain` seconds. May be called again."""
        deadline = Deadline.after(drain, self._clock)
        for upstream in self._router.upstreams:
            upstream.pool.close(deadline.remaining or 0.0)

    @property
    def closed(self) -> bool:
        return all(upstream.pool.closed for upstream in self._router.upstreams)

    def retire(self) -> None:
        """Keep no session from now on; who still holds this mailer can go on sending."""
        self._is_retired = True
        self._discard_idle()

    def forget(self) -> None:
        """In a forked child: let go of everything the parent had, without a byte."""
        for upstream in self._router.upstreams:
            upstream.forget()

    def _discard_idle(self) -> None:
        for upstream in self._router.upstreams:
            upstream.pool.discard_idle()

    def _upstreams(self) -> list[Upstream]:
        """One for each server. Where the same one is named more than once, the others have a number."""
        seen: Counter[str] = Counter()
        upstreams = []
        for options in self.config.endpoints:
            name = options.config.server
            seen[name] += 1
            upstreams.append(
                Upstream(
                    options,
                    name=name if seen[name] == 1 else f"{name} #{seen[name]}",
                    is_alone=len(self.config.endpoints) == 1,
                    before_opening=lambda: register(self),
                    clock=self._clock,
                    random=self._random,
                )
            )
        return upstreams


@contextmanager
def _doubt_if_lost(outcomes: Sequence[SendResult | MailbridgeError]) -> Iterator[None]:
    """An interrupt on the way back takes the results along: who gets it can't tell what was sent."""
    try:
        yield
    except BaseException as interrupt:
        if any(isinstance(outcome, SendResult) for outcome in outcomes):
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
        raise
