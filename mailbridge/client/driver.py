"""Runs flows on one blocking stream, and ends the connection when the two sides may be out of step.

A driver performs each step that a flow awaits, under its time limit. It knows bytes, time limits and
end-of-file; what the bytes mean is the flows' business, and when something is said that of `connection`.
"""

import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from mailbridge.client.hints import hint_for
from mailbridge.client.transcript import DialogueLog
from mailbridge.config.groups import Timeouts
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import NEVER, Clock, Deadline
from mailbridge.errors import (
    DeadlineExceeded,
    InvalidMessage,
    MailbridgeError,
    ProtocolViolation,
    ReplyTimeout,
)
from mailbridge.logs import Log
from mailbridge.net.stream import Stream
from mailbridge.net.tls.errors import tls_error
from mailbridge.net.tls.handshake import Handshake
from mailbridge.reply import printable
from mailbridge.secret import clear_locals
from mailbridge.smtp import commands
from mailbridge.smtp.flows.steps import Limit, Look, ReadPiece, Step, Transfer, WriteContent, is_empty_line
from mailbridge.smtp.wire import Spent, Wire

R = TypeVar("R")

# An idle session has room for six bytes; this only bounds the time if something else is wrong.
_GOODBYE_SECONDS = 0.1
# What a peer sends in one piece arrives within moments, in however many segments.
_REST_SECONDS = 1.0


class Conversation:
    """One open stream to the server of `config`."""

    def __init__(
        self,
        stream: Stream,
        config: SMTPConfig,
        log: Log,
        *,
        connection_id: str,
        clock: Clock = time.monotonic,
    ) -> None:
        self.stream = stream
        self.wire = Wire()
        self.config = config
        self._log = log
        self._clock = clock
        self._handshake: Handshake | None = None
        self._connection_id = connection_id
        self._began = clock()
        masked = self.wire.redactor.masked
        dialogue = DialogueLog(connection_id, is_on=config.debug, log=log, mask=masked)
        self.driver = Driver(stream, config.timeouts, dialogue, server=config.server, clock=clock)

    @property
    def is_open(self) -> bool:
        return self.stream.is_open

    def run(self, flow: Coroutine[Step, Any, R], deadline: Deadline) -> R:
        """The flow's result, or what it raises, with server, hint and `outcome_unknown` on it.

        The session is closed unless the two sides are in step afterwards.
        """
        outer = sys.exception()
        try:
            result = self.driver.run(flow, deadline, start_tls=lambda: self.start_tls(deadline))
        except BaseException as error:
            if self.wire.in_doubt and not isinstance(error, MailbridgeError):  # an interrupt between steps
                error.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
            is_in_step = isinstance(error, MailbridgeError) and not isinstance(error, ProtocolViolation)
            if not (is_in_step and self.wire.is_quiet):
                self.hang_up()
            complete(error, self.config)
            clear_locals(error, outer=outer)  # they hold what was on the line: content, and secrets
            raise
        if not self.wire.is_quiet:
            self.hang_up()
        return result

    def start_tls(self, deadline: Deadline) -> None:
        """The handshake, within the time limit `connect`."""
        began, config = self._clock(), self.config
        self._handshake = Handshake(self.stream, config.tls, host=config.host, server=config.server)
        self._handshake.perform(mode=config.security, deadline=deadline.within(config.timeouts.connect))
        self.driver.round_trips += self._handshake.round_trips
        self.driver.seconds["tls"] += self._clock() - began

    def unusable_reason(self) -> str | None:
        """Why the session can't be used again; None if it can. A look that costs no round trip."""
        if not self.is_open:
            return "closed"
        if not self.wire.is_quiet:
            return "out of step"
        said = self.stream.receive_now()
        if said is None or is_empty_line(said):
            return None
        self.wire.is_over = True  # no QUIT to a server that has said good-bye itself
        text = printable(self.wire.redactor.masked(said.decode("utf-8", "replace").strip()), 200)
        return f"the server said {text!r}" if said else "closed by the server"

    def close(self) -> None:
        """Say QUIT if that costs no wait, and hang up. Never raises, never awaits the answer."""
        if self.is_open and self.wire.is_quiet:
            with suppress(OSError):
                self.stream.send(bytes(commands.QUIT), Deadline.after(_GOODBYE_SECONDS))
        self.hang_up()

    def hang_up(self) -> None:
        """Close without a word; a TLS session is kept for the next connection."""
        if self._handshake is not None:
            self._handshake.remember_session()
        was_open = self.is_open
        self.stream.close()
        if was_open:
            self._log.closed(self._connection_id, seconds=self._clock() - self._began)

    def abandon(self) -> None:
        """Let go of the socket without a byte: it belongs to the process this one was forked from."""
        self.stream.abandon()


def complete(error: BaseException, config: SMTPConfig) -> None:
    """Put the server's name and a hint on an error that does not have them yet."""
    if isinstance(error, MailbridgeError):
        error.server = error.server or config.server
        # After STARTTLS was agreed the server has understood all that came before.
        is_new = config.security == "tls" or error.stage != "tls"
        has_sent_header = config.proxy_protocol is not None and is_new
        login_hint = config.service.hint if config.service is not None else ""
        error.hint = hint_for(error, config.port, has_sent_header=has_sent_header, login_hint=login_hint)


class Driver:
    """One stream, its time limits, and what was measured on it.

    `seconds` adds up time by stage; `round_trips` counts the waits for the other side.
    """

    def __init__(
        self,
        stream: Stream,
        timeouts: Timeouts,
        log: DialogueLog,
        *,
        server: str,
        clock: Clock = time.monotonic,
    ) -> None:
        self.stream = stream
        self.seconds: dict[str, float] = defaultdict(float)
        self.round_trips = 0
        self._timeouts = timeouts
        self._log = log
        self._server = server
        self._clock = clock
        self._whole = NEVER
        self._period = NEVER
        self._is_waited_for = True
        self._has_written_content = False

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to `seconds`."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[stage] += self._clock() - began

    def run(
        self,
        flow: Coroutine[Step, Any, R],
        deadline: Deadline,
        *,
        start_tls: Callable[[], None] | None = None,
    ) -> R:
        """The flow's result. `deadline` bounds all of it, beside each step's own time limit.

        Raises what the flow raises; `ReplyTimeout` when a step's time limit is over,
        `DeadlineExceeded` when `deadline` is.
        """
        self._whole, self._has_written_content = deadline, False
        try:
            step = flow.send(None)
            while True:
                try:
                    result = self._timed(step, start_tls)
                except BaseException as error:  # the flow may have to clean up, whatever it is
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            result_of_flow: R = end.value
            return result_of_flow
        finally:
            flow.close()
            self._log.interrupted()

    def _timed(self, step: Step, start_tls: Callable[[], None] | None) -> object:
        stage = step.stage if isinstance(step, (Transfer, WriteContent)) else ""
        began = self._clock()
        try:
            match step:
                case Transfer():
                    return self._transfer(step)
                case Look():
                    return self._look()
                case WriteContent():
                    return self._write_content(step)
                case ReadPiece():
                    return _read(step)
                case _ if start_tls is not None:
                    return start_tls()
                case _:
                    raise TypeError(f"no way to perform {step!r}")
        except TimeoutError as error:
            if isinstance(error, MailbridgeError):
                raise
            raise self._too_late(stage) from None
        finally:
            if stage:
                self._add(stage, self._clock() - began, step)

    def _add(self, stage: str, seconds: float, step: Step) -> None:
        self.seconds[stage] += seconds
        if isinstance(step, (Transfer, WriteContent)) and step.spent is not None:
            step.spent.seconds[stage] += seconds

    def _limit(self, limit: Limit) -> Deadline:
        seconds: float | None = _REST_SECONDS if limit == "rest" else getattr(self._timeouts, limit)
        deadline = self._whole.within(seconds)
        return deadline if self._has_written_content else deadline.before_content

    def _transfer(self, step: Transfer) -> bytes:
        if step.is_new:
            self._period = self._limit(step.limit)
        if step.data:
            self._log.sent(step.shown)
            if not self._send(step.data):
                # What the server said before it hung up is worth more than the broken pipe.
                return self._received(self._look() or b"", step.spent)
        data: bytes | None = self._unless_lost(lambda: self.stream.receive(self._period))
        return self._received(data or b"", step.spent)

    def _look(self) -> bytes | None:
        data = self.stream.receive_now()
        problem = self.stream.broken_by
        if data == b"" and isinstance(problem, ssl.SSLError):
            raise tls_error(problem, server=self._server, host=self._server) from problem
        return data

    def _send(self, data: bytes) -> bool:
        """Write all of `data`; false if the connection is gone."""
        self._is_waited_for = True
        return self._unless_lost(lambda: self.stream.send(data, self._period)) is not None

    def _unless_lost(self, action: Callable[[], R]) -> R | None:
        """What `action` gives, or None if the connection is gone. A TLS alert is an error of its own:

        under TLS 1.3 it may come after the handshake (a client certificate is missing).
        """
        try:
            return action()
        except TimeoutError:
            raise
        except ssl.SSLError as error:
            raise tls_error(error, server=self._server, host=self._server) from error
        except OSError:
            return None

    def _received(self, data: bytes, spent: Spent | None) -> bytes:
        if data and self._is_waited_for:
            self.round_trips += 1
            if spent is not None:
                spent.round_trips += 1
            self._is_waited_for = False
        self._log.received(data)
        return data

    def _write_content(self, step: WriteContent) -> int:
        self._has_written_content = True
        if step.is_new:
            self._period = self._limit("data")
        self._is_waited_for = True
        if step.shown:
            self._log.sent((step.shown,))
        self._log.content(len(step.content))
        if not step.stops_early:
            return len(step.content) if self._send(bytes(step.content)) else 0
        sent = self._unless_lost(
            lambda: self.stream.send(step.content, self._period, stop_when_readable=True)
        )
        return sent or 0

    def _too_late(self, stage: str) -> MailbridgeError:
        if self._whole.is_over:
            return DeadlineExceeded("The time for this send ran out", stage=stage)
        return ReplyTimeout("The server did not answer in time", stage=stage)


def _read(step: ReadPiece) -> bytes | None:
    """A file that can't be read is no fault of the server's, whatever kind of error it is."""
    try:
        return next(step.pieces, None)
    except MailbridgeError:
        raise
    except Exception as error:
        what = printable(f"{type(error).__name__}: {error}", 200)
        raise InvalidMessage(f"The content could not be read: {what}", stage="content") from error
