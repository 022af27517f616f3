"""Runs flows on one blocking stream, and ends the connection when the two sides may be out of step.

A driver performs each step that a flow awaits, under its time limit. It knows bytes, time limits and
end-of-file; what the bytes mean, and what follows from them, is the flows' business.
"""

import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from inspect import CORO_SUSPENDED, getcoroutinestate
from types import MappingProxyType
from typing import Any, TypeVar

from mailbridge.client.hints import complete
from mailbridge.client.transcript import DialogueLog
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import NEVER, Clock, Deadline
from mailbridge.errors import (
    DeadlineExceeded,
    InvalidMessage,
    MailbridgeError,
    ReplyTimeout,
)
from mailbridge.logs import Log
from mailbridge.net.stream import Stream
from mailbridge.net.tls.errors import tls_error
from mailbridge.net.tls.handshake import Handshake
from mailbridge.reply import printable
from mailbridge.secret import clear_locals
from mailbridge.smtp import commands
from mailbridge.smtp.flows.answers import is_out_of_step
from mailbridge.smtp.flows.steps import (
    Limit,
    Look,
    ReadPiece,
    SayGoodbye,
    StartTls,
    Step,
    Transfer,
    WriteContent,
)
from mailbridge.smtp.wire import Spent, Wire

R = TypeVar("R")

#: Who performs which kind of step; each gives what the flow gets for it.
Performers = Mapping[type[Any], Callable[[Any], object]]

# An idle connection has room for six bytes; this only bounds the time if something else is wrong.
_GOODBYE_SECONDS = 0.1
# What a peer sends in one piece arrives within moments, in however many segments.
_REST_SECONDS = 1.0
_NO_OTHERS: Performers = MappingProxyType({})


class Driver:
    """One open stream to the server of `config`.

    `seconds` adds up time by stage; `round_trips` counts the waits for the other side. `dialing` is when
    the connection must be there, TLS from the start included.
    """

    def __init__(
        self,
        stream: Stream,
        config: SMTPConfig,
        log: Log,
        *,
        connection_id: str,
        dialing: Deadline = NEVER,
        clock: Clock = time.monotonic,
    ) -> None:
        self.stream = stream
        self.wire = Wire()
        self.seconds: dict[str, float] = defaultdict(float)
        self.round_trips = 0
        self._config = config
        self._log = log
        self._connection_id = connection_id
        self._dialing = dialing
        self._clock = clock
        self._began = clock()
        self._dialogue: DialogueLog | None = None
        if config.debug:
            self._dialogue = DialogueLog(connection_id, log=log, mask=self.wire.redactor.masked)
        self._handshake: Handshake | None = None
        self._whole = self._period = NEVER
        self._is_waited_for = True
        self._has_written_content = False

    def run(self, flow: Coroutine[Step, Any, R], deadline: Deadline, others: Performers = _NO_OTHERS) -> R:
        """The flow's result, or what it raises, with server and hint on it.

        `deadline` bounds all of it, beside each step's own time limit; `others` perform the kinds of steps
        that are not about the stream. The connection is closed unless the two sides are in step
        afterwards. Raises `ReplyTimeout` when a step's time limit is over, `DeadlineExceeded` when
        `deadline` is, and what the flow and the steps raise.
        """
        outer = sys.exception()
        self._whole, self._has_written_content = deadline, False
        try:
            step = flow.send(None)
            while True:
                try:
                    result = self._perform(step, others)
                except BaseException as error:  # the flow may have to clean up, whatever it is
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            if not self.wire.is_quiet:
                self.hang_up()
            result_of_flow: R = end.value
            return result_of_flow
        except BaseException as error:
            self._end(flow, error)
            clear_locals(error, outer=outer)  # they hold what was on the line: content, and secrets
            raise
        finally:
            flow.close()
            if self._dialogue is not None:
                self._dialogue.interrupted()

    def _perform(self, step: Step, others: Performers) -> object:
        began = self._clock() if step.stage else 0.0
        try:
            match step:
                case Transfer():
                    return self._transfer(step)
                case WriteContent():
                    return self._write_content(step)
                case Look():
                    return self._look()
                case ReadPiece():
                    return _read(step)
                case StartTls():
                    self._start_tls(step)
                case SayGoodbye():
                    self.close()
                case _:
                    return others[type(step)](step)
            return None
        finally:
            if step.stage:
                took = self._clock() - began
                self.seconds[step.stage] += took
                if isinstance(step, (Transfer, WriteContent)) and step.spent is not None:
                    step.spent.seconds[step.stage] += took

    def _end(self, flow: Coroutine[Step, Any, R], error: BaseException) -> None:
        """The flow has failed, or was interrupted between two steps; then it is told now."""
        if getcoroutinestate(flow) == CORO_SUSPENDED:
            with suppress(BaseException):
                flow.throw(error)
        if is_out_of_step(error) or not self.wire.is_quiet:
            self.hang_up()
        complete(error, self._config)

    # ---- steps

    def _limit(self, limit: Limit) -> Deadline:
        seconds: float | None = _REST_SECONDS if limit == "rest" else getattr(self._config.timeouts, limit)
        whole = self._whole
        at = whole.at if self._has_written_content else min(whole.at, whole.of_commands)
        return Deadline(at if seconds is None else min(at, whole.clock() + seconds), whole.clock)

    def _transfer(self, step: Transfer) -> bytes:
        if step.is_new:
            self._period = self._limit(step.limit)
        if step.data:
            if self._dialogue is not None:
                self._dialogue.sent([command.shown for command in step.commands])
            if not self._send(step.data, step.stage):
                # What the server said before it hung up is worth more than the broken pipe.
                return self._received(self._look() or b"", step.spent)
        try:
            data = self.stream.receive(self._period)
        except OSError as error:
            self._raise_unless_lost(error, step.stage)
            data = b""
        return self._received(data, step.spent)

    def _received(self, data: bytes, spent: Spent | None) -> bytes:
        if data and self._is_waited_for:
            self._is_waited_for = False
            self.round_trips += 1
            if spent is not None:
                spent.round_trips += 1
        if self._dialogue is not None:
            self._dialogue.received(data)
        return data

    def _look(self) -> bytes | None:
        data = self.stream.receive_now()
        problem = self.stream.broken_by
        if data == b"" and isinstance(problem, ssl.SSLError):
            raise self._tls_error(problem) from problem
        return data

    def _write_content(self, step: WriteContent) -> int:
        self._has_written_content = True
        if step.is_new:
            self._period = self._limit("data")
        if self._dialogue is not None:
            if step.command is not None and step.command.line:
                self._dialogue.sent([step.command.shown])
            self._dialogue.content(len(step.content))
        if not step.stops_early:
            return len(step.content) if self._send(bytes(step.content), step.stage) else 0
        self._is_waited_for = True
        try:
            return self.stream.send(step.content, self._period, stop_when_readable=True)
        except OSError as error:
            self._raise_unless_lost(error, step.stage)
            return 0

    def _send(self, data: bytes, stage: str) -> bool:
        """Write all of `data`; false if the connection is gone."""
        self._is_waited_for = True
        try:
            self.stream.send(data, self._period)
        except OSError as error:
            self._raise_unless_lost(error, stage)
            return False
        return True

    def _raise_unless_lost(self, error: OSError, stage: str) -> None:
        """Raise what is more than the end of the connection: a time limit that is over, a TLS alert.

        Under TLS 1.3 an alert may come after the handshake (a client certificate is missing).
        """
        if isinstance(error, TimeoutError):
            if self._whole.is_over:
                raise DeadlineExceeded("The time for this send ran out", stage=stage) from None
            raise ReplyTimeout("The server did not answer in time", stage=stage) from None
        if isinstance(error, ssl.SSLError):
            raise self._tls_error(error) from error

    def _tls_error(self, problem: ssl.SSLError) -> MailbridgeError:
        server = self._config.server
        return tls_error(problem, server=server, host=server)

    def _start_tls(self, step: StartTls) -> None:
        config = self._config
        limit = self._dialing if step.is_first else self._whole.within(config.timeouts.connect)
        self._handshake = Handshake(self.stream, config.tls, host=config.host, server=config.server)
        self._handshake.perform(mode=config.security, deadline=limit)
        self.round_trips += self._handshake.round_trips

    # ---- between flows, and the end

    def unusable_reason(self) -> str | None:
        """Why the connection can't be used again; None if it can. A look that costs no round trip."""
        if not self.stream.is_open:
            return "closed"
        return self.wire.unusable_reason(self.stream.receive_now())

    def close(self) -> None:
        """Say QUIT if that costs no wait, and hang up. Never raises, never awaits the answer."""
        if self.stream.is_open and self.wire.is_quiet:
            with suppress(OSError):
                self.stream.send(bytes(commands.QUIT), Deadline.after(_GOODBYE_SECONDS))
        self.hang_up()

    def hang_up(self) -> None:
        """Close without a word; a TLS session is kept for the next connection."""
        if self._handshake is not None:
            self._handshake.remember_session()
        was_open = self.stream.is_open
        self.stream.close()
        if was_open:
            self._log.closed(self._connection_id, seconds=self._clock() - self._began)

    def abandon(self) -> None:
        """Let go of the socket without a byte: it belongs to the process this one was forked from."""
        self.stream.abandon()


def _read(step: ReadPiece) -> bytes | None:
    """A file that can't be read is no fault of the server's, whatever kind of error it is."""
    try:
        return next(step.pieces, None)
    except MailbridgeError:
        raise
    except Exception as error:
        what = printable(f"{type(error).__name__}: {error}", 200)
        raise InvalidMessage(f"The content could not be read: {what}", stage="content") from error
