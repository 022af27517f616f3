"""A stream with its wire and driver: runs flows, and knows whether the session may be used again.

What is said belongs to the flows, when it is said to `connection`. Any failure that may have left
the two sides out of step ends the connection here, at once and for all.
"""

import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from mailbridge.client.hints import hint_for
from mailbridge.client.transcript import DialogueLog
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock, Deadline
from mailbridge.errors import MailbridgeError, ProtocolViolation
from mailbridge.net.driver import Driver
from mailbridge.net.stream import Stream
from mailbridge.net.tls.handshake import Handshake
from mailbridge.results import printable
from mailbridge.secret import clear_locals
from mailbridge.smtp import commands
from mailbridge.smtp.flows.steps import Step, is_empty_line
from mailbridge.smtp.wire import Wire

R = TypeVar("R")

# An idle session has room for six bytes; this only bounds the time if something else is wrong.
_GOODBYE_SECONDS = 0.1


class Conversation:
    """One open stream to the server of `config`."""

    def __init__(
        self, stream: Stream, config: SMTPConfig, *, connection_id: str, clock: Clock = time.monotonic
    ) -> None:
        self.stream = stream
        self.wire = Wire()
        self.config = config
        self._clock = clock
        self._handshake: Handshake | None = None
        self._connection_id = connection_id
        self._began = clock()
        masked = self.wire.quotations.masked
        dialogue = DialogueLog(connection_id, is_on=config.debug, log=config.log, mask=masked)
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
            if self.wire.is_in_doubt:
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
        text = printable(self.wire.quotations.masked(said.decode("utf-8", "replace").strip()), 200)
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
            self.config.log.closed(self._connection_id, seconds=self._clock() - self._began)

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
