"""One SMTP session: connect, log in, send, and say whether it may be used again.

Ties the flows to a stream. It neither retries nor waits for others: that is the pool's and the
mailer's business. Not for several threads at once.
"""

import secrets
import socket
import sys
import time
from collections.abc import Mapping

from mailbridge.config import SMTPConfig
from mailbridge.connecting import Connecting
from mailbridge.conversation import Conversation, complete
from mailbridge.credentials import require_safe_channel
from mailbridge.envelope import Envelope
from mailbridge.errors import ConnectionLost, MailbridgeError
from mailbridge.flows.closing import single
from mailbridge.login import Login
from mailbridge.net.deadline import NEVER, Clock, Deadline
from mailbridge.net.reaching import Reached
from mailbridge.net.tls_facts import TLSFacts
from mailbridge.protocol import commands
from mailbridge.protocol.capabilities import Capabilities
from mailbridge.protocol.queue_id import queue_id
from mailbridge.rendering import Rendered, render
from mailbridge.results import Reply, SendResult
from mailbridge.secret import clear_locals
from mailbridge.sending import Pace, Sending
from mailbridge.transactions import sending_seconds


class SMTPConnection:
    """A session with one server.

    `sock`: a connected socket to use instead of dialing; `secured`: its bytes are encrypted
    already, so neither TLS nor STARTTLS is spoken on it.
    """

    def __init__(
        self,
        config: SMTPConfig,
        *,
        sock: socket.socket | None = None,
        secured: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self.config = config
        self.id = secrets.token_hex(4)
        self._opening = Connecting(config, sock=sock, secured=secured, connection_id=self.id, clock=clock)
        self._login: Login | None = None
        self._clock = clock
        self._sending: Sending | None = None

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<SMTPConnection {self.id} to {self.config.server}, {state}>"

    # ---- what it is like

    @property
    def capabilities(self) -> Capabilities:
        """What the server offers; nothing before `connect`."""
        return self._opening.capabilities

    @property
    def greeting(self) -> Reply | None:
        return self._opening.greeting

    @property
    def reached(self) -> Reached | None:
        """How the server was reached; None for a given socket, and before that is known."""
        return self._opening.reached

    @property
    def _conversation(self) -> Conversation | None:
        return self._opening.conversation

    @property
    def is_open(self) -> bool:
        return self._conversation is not None and self._conversation.is_open

    @property
    def secure(self) -> bool:
        """Whether the bytes are encrypted."""
        return self._conversation is not None and self._conversation.stream.secure

    @property
    def tls(self) -> TLSFacts | None:
        return self._conversation.stream.tls if self._conversation is not None else None

    @property
    def mechanism(self) -> str | None:
        """The SASL mechanism that was accepted."""
        return self._login.mechanism if self._login is not None else None

    @property
    def token_facts(self) -> str:
        """Where the access token came from, and how long it is good; never the token."""
        return self._login.token_facts if self._login is not None else ""

    @property
    def authenticated(self) -> bool:
        return self.mechanism is not None

    @property
    def allows_auth(self) -> bool:
        return bool(self.capabilities.auth_mechanisms)

    @property
    def last_reply(self) -> Reply | None:
        return self._conversation.wire.last_reply if self._conversation is not None else None

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far, by stage."""
        return self._opening.seconds

    @property
    def round_trips(self) -> int:
        """Waits for the server so far, connecting and TLS included."""
        return self._conversation.driver.round_trips if self._conversation is not None else 0

    # ---- opening

    def connect(self, deadline: Deadline = NEVER) -> None:
        """Dial, TLS as `security` says, greeting, EHLO. Closes everything if that fails.

        Raises `ConnectFailed` and its kinds, `ConnectionLost`, `ReplyTimeout`,
        `ProtocolViolation`, `NotSupported` (STARTTLS is required and not offered).
        """
        began = self._clock()
        try:
            self._opening.perform(deadline)
        except BaseException as error:
            self._fail(error, began)
            raise
        address = self._conversation.stream.peername if self._conversation is not None else ""
        version = self.tls.version if self.tls is not None else None
        self.config.log.opened(self.id, address=address, tls=version, seconds=self._clock() - began)

    def login(self, deadline: Deadline = NEVER) -> None:
        """AUTH with the configured credentials; nothing where there are none.

        Raises `AuthenticationFailed`, `NotSupported` (AUTH is not offered), `ConfigurationError`
        (the password would travel in clear text), and closes the session then.
        """
        if not self.config.has_credentials or self.authenticated:
            return
        outer, began = sys.exception(), self._clock()
        try:
            may_be_clear = self._opening.is_loopback or self.config.allow_insecure_auth
            require_safe_channel(is_safe=self.secure or may_be_clear)
            self._login = Login(self._opened(), self.config, self.capabilities)
            self._login.perform(deadline)
        except BaseException as error:
            self._fail(error, began)
            clear_locals(error, outer=outer)
            raise
        self.config.log.logged_in(self.id, mechanism=self.mechanism or "", seconds=self._clock() - began)

    # ---- sending

    def send(
        self,
        envelope: Envelope,
        content: Rendered | bytes,
        deadline: Deadline = NEVER,
        *,
        pace: Pace | None = None,
    ) -> SendResult:
        """Send one message; `bytes` are a whole message, made canonical first.

        Recipients beyond the server's limit (452 4.5.3, RFC 5321 section 4.5.3.1.10) go in further
        transactions. Raises `Refused` and its kinds, `NotSupported`, `InvalidMessage` with the
        session still usable, `ConnectionLost`, `ProtocolViolation`, `DeadlineExceeded` with it
        closed. `outcome_unknown` on the error says if the server may have taken the message. `pace`
        says when each transaction may begin.
        """
        sending = self._transactions()
        rendered = content if isinstance(content, Rendered) else render(content)
        began, spent, trips = self._clock(), dict(self.seconds), self.round_trips
        delivered, rendered = sending.send(envelope, rendered, deadline, pace=pace)
        return SendResult(
            accepted=delivered.accepted,
            rejected=delivered.rejected,
            response=delivered.response,
            envelope=envelope,
            message_size=rendered.size,
            queue_id=queue_id(delivered.response.text),
            message_id=rendered.message_id,
            connection_id=self.id,
            server=self.config.server,
            timings=sending_seconds(spent, self.seconds) | {"total": self._clock() - began},
            round_trips=self.round_trips - trips,
        )

    def _transactions(self) -> Sending:
        talk = self._opened()
        if self._sending is None:
            self._sending = Sending(talk, self.config, self.capabilities)
        return self._sending

    # ---- small commands, closing

    def probe(self, mail_from: str, rcpt_to: tuple[str, ...], deadline: Deadline = NEVER) -> dict[str, Reply]:
        """Ask MAIL and RCPT and take it back with RSET: what would be accepted. Sends no mail."""
        replies: dict[str, Reply] = {}
        envelope = Envelope(mail_from, rcpt_to or (mail_from,))
        replies["mail_from"] = self._single(commands.mail_from(envelope.sender), deadline)
        if replies["mail_from"].is_positive and rcpt_to:
            for address in envelope.recipients:
                replies[address] = self._single(commands.rcpt_to(address), deadline)
        self.reset(deadline)
        return replies

    def reset(self, deadline: Deadline = NEVER) -> Reply:
        """RSET; whatever the server answers, the next transaction starts clean."""
        reply = self._single(commands.RSET, deadline)
        self._transactions().needs_reset = not reply.is_positive
        return reply

    def noop(self, deadline: Deadline = NEVER) -> Reply:
        return self._single(commands.NOOP, deadline)

    def quit(self, deadline: Deadline = NEVER) -> Reply:
        """QUIT, its answer, and the end of the connection."""
        talk = self._opened()
        try:
            return talk.run(single(talk.wire, commands.QUIT), deadline)
        finally:
            talk.hang_up()

    def _single(self, command: commands.Command, deadline: Deadline) -> Reply:
        talk = self._opened()
        return talk.run(single(talk.wire, command), deadline)

    def close(self) -> None:
        """Say QUIT if that costs no wait, and hang up. Never raises, never awaits the answer."""
        if self._conversation is not None:
            self._conversation.close()

    def abandon(self) -> None:
        """Let go of the socket without a byte: it belongs to the process this one was forked from."""
        if self._conversation is not None:
            self._conversation.abandon()

    def unusable_reason(self) -> str | None:
        """Why this session can't be used again; None if it can. A look that costs no round trip."""
        if self._sending is not None and self._sending.is_worn:
            return "worn: the server takes no further message on it"
        return self._conversation.unusable_reason() if self._conversation is not None else "closed"

    def _opened(self) -> Conversation:
        if self._conversation is None or not self._conversation.is_open:
            raise ConnectionLost("The session is closed", stage="connection", server=self.config.server)
        return self._conversation

    def _fail(self, error: BaseException, began: float) -> None:
        """A session that could not be opened or logged in is no session."""
        if self._conversation is not None:
            self._conversation.hang_up()
        complete(error, self.config)
        if isinstance(error, MailbridgeError):
            self.config.log.not_opened(self.id, error, seconds=self._clock() - began)
