"""One SMTP connection: open it, log in, send, and say whether it may be used again.

Ties the flows to a stream. It neither retries nor waits for others: that is the pool's and the
mailer's business. Not for several threads at once.
"""

import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from mailbridge.client.driver import Driver, Performers
from mailbridge.client.hints import complete
from mailbridge.client.login import log_in, with_login
from mailbridge.client.opening import Way, dial, open_connection, require_usable
from mailbridge.client.sender import Pace, plan, result_of, tell_all
from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock, Deadline
from mailbridge.errors import ConfigurationError, ConnectionLost, MailbridgeError
from mailbridge.logs import Log
from mailbridge.message.envelope import Envelope
from mailbridge.net.proxy.route import Reached
from mailbridge.net.tls.facts import TLSFacts
from mailbridge.rendering.prepare import Sendable, as_bytes, prepared
from mailbridge.rendering.render import Rendered
from mailbridge.reply import Reply
from mailbridge.results import SendResult
from mailbridge.secret import Secret, clear_locals
from mailbridge.smtp import commands
from mailbridge.smtp.capabilities import Capabilities
from mailbridge.smtp.flows.answers import single
from mailbridge.smtp.flows.connection import ConnectionState
from mailbridge.smtp.flows.content import Progress
from mailbridge.smtp.flows.steps import AskPermit
from mailbridge.smtp.flows.submission import Submission
from mailbridge.smtp.wire import Spent

#: A time limit: seconds from now, None for none. (A pool gives a point in time.)
Seconds = float | Deadline | None


class SMTPConnection:
    """A connection with one server: the low-level client, which a mailer's pool is made of.

    `sock`: a socket to use instead of one of its own; it is closed with the connection. A connected one
    is taken as the way to the server, with nothing dialed; one that was never connected is connected
    as `config` says. `secured`: the bytes of a connected one are encrypted already, so neither TLS
    nor STARTTLS is spoken on it.

    As a context manager it connects and logs in, and says goodbye at the end. Every method that
    waits takes a `deadline`, in seconds from now, beside the time limits of `config`; the error is
    then `DeadlineExceeded`. Once closed it stays closed: `is_open` tells.
    """

    def __init__(
        self,
        config: SMTPConfig,
        *,
        sock: socket.socket | None = None,
        secured: bool = False,
        log: Log | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.config = config
        self.id = secrets.token_hex(4)
        self._log = log or Log.of(config)
        self._clock = clock
        if sock is not None:
            require_usable(config, sock, secured=secured)
        self._given = (sock, secured)
        self._state = ConnectionState()
        self._way: Way | None = None
        self._driver: Driver | None = None

    def __enter__(self) -> Self:
        if not self.is_open:
            self.connect()
            self.login()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<SMTPConnection {self.id} to {self.config.server}, {state}>"

    # ---- what it is like

    @property
    def capabilities(self) -> Capabilities:
        """What the server offers; nothing before `connect`."""
        return self._state.capabilities

    @property
    def greeting(self) -> Reply | None:
        return self._state.greeting

    @property
    def reached(self) -> Reached | None:
        """How the server was reached; None for a given socket, and before that is known."""
        return self._way.reached if self._way is not None else None

    @property
    def is_open(self) -> bool:
        return self._driver is not None and self._driver.stream.is_open

    @property
    def secure(self) -> bool:
        """Whether the bytes are encrypted."""
        return self._driver is not None and self._driver.stream.secure

    @property
    def tls(self) -> TLSFacts | None:
        return self._driver.stream.tls if self._driver is not None else None

    @property
    def mechanism(self) -> str | None:
        """The SASL mechanism that was accepted."""
        return self._state.mechanism

    @property
    def token_facts(self) -> str:
        """Where the access token came from, and how long it is good; never the token."""
        return self._state.token_facts

    @property
    def authenticated(self) -> bool:
        """Whether a login was accepted."""
        return self.mechanism is not None

    @property
    def allows_auth(self) -> bool:
        """Whether the server offers AUTH, with a mechanism that has a name."""
        return bool(self.capabilities.auth_mechanisms)

    @property
    def last_reply(self) -> Reply | None:
        """What the server said last, to whichever command."""
        return self._driver.wire.last_reply if self._driver is not None else None

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far, by stage."""
        reached, driver = self.reached, self._driver
        spent = reached.seconds if reached is not None else {}
        return spent | driver.seconds if driver is not None else spent

    @property
    def round_trips(self) -> int:
        """Waits for the server so far, connecting and TLS included."""
        return self._driver.round_trips if self._driver is not None else 0

    # ---- opening

    def connect(self, deadline: Seconds = None) -> None:
        """Dial, TLS as `security` says, greeting, EHLO (LHLO). Closes everything if that fails.

        Raises `ConnectFailed` and its kinds, `ConnectionLost`, `ReplyTimeout`,
        `ProtocolViolation`, `NotSupported` (STARTTLS is required and not offered).
        """
        if self._driver is not None:
            raise ConfigurationError("A connection is opened once", hint="Make another SMTPConnection.")
        began = self._clock()
        try:
            driver = self._opened_driver(self._limit(deadline))
        except BaseException as error:
            self._fail(error, began)
            raise
        stream, seconds = driver.stream, self._clock() - began
        version = stream.tls.version if stream.tls is not None else None
        self._log.opened(self.id, address=stream.peername, tls=version, seconds=seconds)

    def _opened_driver(self, limit: Deadline) -> Driver:
        config, (sock, secured) = self.config, self._given
        dialing = limit.within(config.timeouts.connect)
        self._way = dial(config, sock, secured=secured, deadline=dialing)
        self._driver = driver = Driver(
            self._way.stream,
            config,
            self._log,
            connection_id=self.id,
            dialing=dialing,
            clock=self._clock,
        )
        open_connection(driver, self._state, config, dialing=dialing, deadline=limit)
        return driver

    def login(
        self,
        deadline: Seconds = None,
        *,
        username: str | Callable[[], str] | None = None,
        password: str | Secret | Callable[[], str] | None = None,
        auth: str | Sequence[str] | None = None,
        oauth2: OAuth2Options | Mapping[str, Any] | Callable[[], Any] | None = None,
    ) -> None:
        """AUTH with the configured credentials, or with those given here, which mean what the options do.

        Without any it does nothing, nor if the connection is logged in. To give credentials then is a
        `ConfigurationError`: a connection has one login (RFC 4954 section 4).

        Raises `AuthenticationFailed`, `NotSupported` (AUTH is not offered), `ConfigurationError`
        (the password would travel in clear text), and closes the connection then.
        """
        is_given = any(each is not None for each in (username, password, auth, oauth2))
        if self.authenticated and is_given:
            hint = "Make another SMTPConnection for another user."
            raise ConfigurationError("This connection is logged in already", stage="auth", hint=hint)
        outer, began = sys.exception(), self._clock()
        try:
            config = self.config
            if is_given:
                config = with_login(config, username=username, password=password, auth=auth, oauth2=oauth2)
            if not config.has_credentials or self.authenticated:
                return
            is_loopback = self._way is not None and self._way.is_loopback
            driver = self._opened()
            log_in(driver, self._state, config, self._limit(deadline), is_loopback=is_loopback)
        except BaseException as error:
            self._fail(error, began)
            del username, password, oauth2
            clear_locals(error, outer=outer)
            raise
        self._log.logged_in(self.id, mechanism=self.mechanism or "", seconds=self._clock() - began)

    # ---- sending

    def send(
        self,
        envelope: Envelope | None,
        content: Sendable | str,
        deadline: Seconds = None,
        *,
        progress: Progress | None = None,
        pace: Pace | None = None,
    ) -> SendResult:
        """Send one message: a `Message` or `EmailMessage`, whose header tells an envelope that is None;
        bytes, or text that becomes UTF-8; a path, an open binary file, an iterator of bytes. What is
        `Rendered` goes as it is, all else with the `defaults` and signed by the `dkim` of `config`.

        `progress(sent, size)` is told how many bytes of the content have been written: 0 at first, and
        `size` when the server has accepted it. What it raises before that ends the connection, and the
        message is not sent. It starts anew where recipients need a further transaction.

        Recipients beyond the server's limit (452 4.5.3, RFC 5321 section 4.5.3.1.10) go in further
        transactions. Raises `Refused` and its kinds, `NotSupported`, `InvalidMessage` with the
        connection still usable, `ConnectionLost`, `ProtocolViolation`, `DeadlineExceeded` with it
        closed. `outcome_unknown` on the error says if the server may have taken the message. `pace`
        says when each transaction may begin.
        """
        limit = self._limit(deadline)
        if envelope is not None and isinstance(content, Rendered):  # its owner closes it
            return self._send(envelope, content, limit, progress, pace)
        try:
            self._opened()
            envelope, rendered = prepared(
                as_bytes(content) if isinstance(content, str) else content, envelope, self.config
            )
        finally:
            del content  # the frames of an error outlive it, and reporters show what they hold
        try:
            return self._send(envelope, rendered, limit, progress, pace)
        finally:
            rendered.close()

    def _send(
        self,
        envelope: Envelope,
        rendered: Rendered,
        limit: Deadline,
        progress: Progress | None,
        pace: Pace | None,
    ) -> SendResult:
        driver, spent = self._opened(), Spent()
        began, outer = self._clock(), sys.exception()
        tls = driver.stream.tls
        try:
            planned = plan(
                envelope,
                rendered,
                self.config,
                self._state.capabilities,
                is_verified=tls is not None and tls.verified,
                progress=progress,
                pace=pace,
            )
            submission = Submission(driver.wire, self._state, pace is not None, spent)
            others: Performers = {} if pace is None else {AskPermit: lambda _: pace.begin(limit)}
            outcome = driver.run(submission.run(planned.transaction, planned.groups), limit, others)
        except MailbridgeError as error:
            complete(error, self.config)  # what can't be planned is this server's, too
            clear_locals(error, outer=outer)  # some hold the recipients
            raise
        if progress is not None:
            tell_all(progress, planned.rendered.size, self._log)
        seconds, server = self._clock() - began, self.config.server
        return result_of(
            outcome, envelope, planned.rendered, spent, seconds=seconds, connection_id=self.id, server=server
        )

    # ---- small commands, closing

    def probe(self, mail_from: str, rcpt_to: tuple[str, ...], deadline: Seconds = None) -> dict[str, Reply]:
        """Ask MAIL and RCPT and take it back with RSET: what would be accepted. Sends no mail."""
        deadline = self._limit(deadline)
        replies: dict[str, Reply] = {}
        self._state.needs_reset = True
        envelope = Envelope(mail_from, rcpt_to or (mail_from,))
        replies["mail_from"] = self._single(commands.mail_from(envelope.sender), deadline)
        if replies["mail_from"].is_positive and rcpt_to:
            for address in envelope.recipients:
                replies[address] = self._single(commands.rcpt_to(address), deadline)
        self.reset(deadline)
        return replies

    def reset(self, deadline: Seconds = None) -> Reply:
        """RSET. If the server refuses it, and a transaction was left open, the next one begins with it."""
        reply = self._single(commands.RSET, deadline)
        if reply.is_positive:
            self._state.needs_reset = False
        return reply

    def noop(self, deadline: Seconds = None) -> Reply:
        """NOOP and its answer."""
        return self._single(commands.NOOP, deadline)

    def quit(self, deadline: Seconds = None) -> Reply:
        """QUIT, its answer, and the end of the connection."""
        driver = self._opened()
        try:
            return driver.run(single(driver.wire, commands.QUIT), self._limit(deadline))
        finally:
            driver.hang_up()

    def _single(self, command: commands.Command, deadline: Seconds) -> Reply:
        driver = self._opened()
        return driver.run(single(driver.wire, command), self._limit(deadline))

    def close(self) -> None:
        """Hang up at once, with a QUIT ahead of it where the connection is in step and that costs no wait.

        Never raises, and never awaits the answer; `quit` does.
        """
        if self._driver is not None:
            self._driver.close()

    def abort(self) -> None:
        """Hang up at once, without a word. Never raises."""
        if self._driver is not None:
            self._driver.hang_up()

    def abandon(self) -> None:
        """Let go of the socket without a byte: it belongs to the process this one was forked from."""
        if self._driver is not None:
            self._driver.abandon()

    def unusable_reason(self) -> str | None:
        """Why this connection can't be used again; None if it can. A look that costs no round trip."""
        if self._state.is_worn:
            return "worn: the server takes no further message on it"
        return self._driver.unusable_reason() if self._driver is not None else "closed"

    def _limit(self, deadline: Seconds) -> Deadline:
        return deadline if isinstance(deadline, Deadline) else Deadline.after(deadline, self._clock)

    def _opened(self) -> Driver:
        if self._driver is None or not self._driver.stream.is_open:
            raise ConnectionLost("The connection is closed", stage="connection", server=self.config.server)
        return self._driver

    def _fail(self, error: BaseException, began: float) -> None:
        """What could not be opened or logged in is no connection."""
        if self._driver is not None:
            self._driver.hang_up()
        complete(error, self.config)
        if isinstance(error, MailbridgeError):
            self._log.not_opened(self.id, error, seconds=self._clock() - began)
