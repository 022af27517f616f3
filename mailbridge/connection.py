"""One SMTP session: connect, log in, send, and say whether it may be used again.

Ties the flows to a stream. It neither retries nor waits for others: that is the pool's and the
mailer's business. Not for several threads at once.
"""

import secrets
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from mailbridge.config import SMTPConfig
from mailbridge.conversation import Conversation, complete
from mailbridge.credentials import require_safe_channel
from mailbridge.envelope import Envelope
from mailbridge.errors import (
    ConnectionLost,
    ConnectTimeout,
    MailbridgeError,
    NotSupported,
    ProxyFailed,
    Refused,
    ReplyTimeout,
)
from mailbridge.flows import opening
from mailbridge.flows.closing import single
from mailbridge.flows.delivery import Delivered, Transaction, delivery
from mailbridge.login import Login
from mailbridge.net.deadline import NEVER, Clock, Deadline
from mailbridge.net.dialing import Target
from mailbridge.net.own_name import ehlo_name
from mailbridge.net.reaching import Reached, reach
from mailbridge.net.resolving import literal
from mailbridge.net.streams import Stream
from mailbridge.net.tls_facts import TLSFacts
from mailbridge.protocol import commands, proxy_header
from mailbridge.protocol.capabilities import EMPTY, Capabilities
from mailbridge.protocol.content import dot_stuffed
from mailbridge.protocol.queue_id import queue_id
from mailbridge.protocol.wire import WINDOW_BYTES
from mailbridge.rendering import Rendered, render
from mailbridge.results import Reply, SendResult
from mailbridge.secret import clear_locals
from mailbridge.transactions import is_one_too_many, mail_parameters, sending_seconds


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
        self.capabilities: Capabilities = EMPTY
        self.greeting: Reply | None = None
        self.reached: Reached | None = None
        self._login: Login | None = None
        self._given = (sock, secured)
        self._clock = clock
        self._conversation: Conversation | None = None
        self._is_loopback = False
        self._needs_reset = False

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<SMTPConnection {self.id} to {self.config.server}, {state}>"

    # ---- what it is like

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
        spent = self.reached.seconds if self.reached is not None else {}
        return spent | (self._conversation.driver.seconds if self._conversation is not None else {})

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
        try:
            dialing = deadline.within(self.config.timeouts.connect)
            talk = self._conversation = self._open(dialing)
            self._announce(talk, dialing)
            if self.config.security == "tls" and not self.secure:
                talk.start_tls(dialing)
            self.greeting = self._greet(talk, deadline)
            self._introduce(talk, deadline)
            if self._wants_starttls():
                talk.run(opening.start_tls(talk.wire), deadline)
                self.capabilities = EMPTY
                self._introduce(talk, deadline)
        except BaseException as error:
            self._fail(error)
            raise

    def _greet(self, talk: Conversation, deadline: Deadline) -> Reply:
        """The greeting. If none comes through proxies, no session came to be, whoever is to blame."""
        try:
            return talk.run(opening.greeting(talk.wire), deadline)
        except ConnectionLost as error:
            if not self.config.proxy:
                raise
            is_late = isinstance(error, ReplyTimeout)
        way = ", ".join(map(str, self.config.proxy))
        if is_late:
            raise ConnectTimeout(f"No greeting came through {way} within the time limit", stage="greeting")
        hint = "Either the proxy or the server hung up; the proxy's log tells which."
        raise ProxyFailed(
            f"The connection through {way} ended before the greeting", stage="greeting", hint=hint
        )

    def _open(self, deadline: Deadline) -> Conversation:
        sock, secured = self._given
        if sock is None:
            timeouts, proxies = self.config.timeouts, self.config.proxy
            self.reached = reach(self._target(), proxies, dns_timeout=timeouts.dns, deadline=deadline)
            stream, self._is_loopback = self.reached.stream, self.reached.is_loopback
        else:
            stream = Stream(sock, secured=secured)
            self._is_loopback = _is_loopback(stream.peername)
        talk = Conversation(stream, self.config, connection_id=self.id, clock=self._clock)
        talk.driver.round_trips += 1 + len(self.config.proxy)  # the TCP handshake, and each proxy's answer
        return talk

    def _announce(self, talk: Conversation, deadline: Deadline) -> None:
        """The PROXY header, which goes before everything else."""
        if self.config.proxy_protocol is None:
            return
        # Behind a proxy our own ends are those of another connection, and mean nothing to the server.
        ends = (None, None) if self.config.proxy else talk.stream.ends
        header = proxy_header.encode(proxy_header.for_socket(self.config.proxy_protocol, *ends))
        try:
            talk.stream.send(header, deadline)
        except ConnectionError:
            pass  # what the server said before it hung up is read with the greeting
        except TimeoutError:
            message = "The time limit ran out before the PROXY header was sent"
            raise ConnectTimeout(message, stage="tcp", hint="The option is timeouts.connect.") from None

    def _target(self) -> Target:
        config = self.config
        return Target(
            host=config.host,
            port=config.port,
            family=config.family,
            source_address=config.source_address,
            allow_internal_networks=config.allow_internal_networks,
            unix_path=config.unix_path,
        )

    def _introduce(self, talk: Conversation, deadline: Deadline) -> None:
        name = self.config.local_hostname or ehlo_name(talk.stream.sockname)
        needs_extensions = self.config.security in ("starttls", "tls") or self.config.has_credentials
        flow = opening.introduction(talk.wire, name, may_be_helo=not needs_extensions)
        self.capabilities = talk.run(flow, deadline).without(self.config.disable)
        pipelines = self.config.pipelining == "auto" and "PIPELINING" in self.capabilities
        talk.wire.window = WINDOW_BYTES if pipelines else 0

    def _wants_starttls(self) -> bool:
        if self.secure or self.config.security == "none":
            return False
        if "STARTTLS" in self.capabilities:
            return True
        if self.config.security == "opportunistic":
            return False
        raise NotSupported(
            "STARTTLS extension not supported by server",
            extension="STARTTLS",
            stage="tls",
            hint="Nothing was sent in clear text. Use security='tls' if the port speaks TLS from the start.",
        )

    def login(self, deadline: Deadline = NEVER) -> None:
        """AUTH with the configured credentials; nothing where there are none.

        Raises `AuthenticationFailed`, `NotSupported` (AUTH is not offered), `ConfigurationError`
        (the password would travel in clear text), and closes the session then.
        """
        if not self.config.has_credentials or self.authenticated:
            return
        outer = sys.exception()
        try:
            may_be_clear = self._is_loopback or self.config.allow_insecure_auth
            require_safe_channel(is_safe=self.secure or may_be_clear)
            self._login = Login(self._opened(), self.config, self.capabilities)
            self._login.perform(deadline)
        except BaseException as error:
            self._fail(error)
            clear_locals(error, outer=outer)
            raise

    # ---- sending

    def send(self, envelope: Envelope, content: Rendered | bytes, deadline: Deadline = NEVER) -> SendResult:
        """Send one message; `bytes` are a whole message, made canonical first.

        Recipients beyond the server's limit (452 4.5.3, RFC 5321 section 4.5.3.1.10) go in further
        transactions. Raises `Refused` and its kinds, `NotSupported`, `InvalidMessage` with the
        session still usable, `ConnectionLost`, `ProtocolViolation`, `DeadlineExceeded` with it
        closed. `outcome_unknown` on the error says if the server may have taken the message.
        """
        self._opened()
        rendered = content if isinstance(content, Rendered) else render(content)
        began, spent, trips = self._clock(), dict(self.seconds), self.round_trips
        rendered, parameters = mail_parameters(envelope, rendered, self.capabilities)
        delivered = self._deliver_all(envelope, parameters, dot_stuffed(rendered.content), deadline)
        return SendResult(
            accepted=delivered.accepted,
            rejected=delivered.rejected,
            response=delivered.response,
            envelope=envelope,
            message_size=len(rendered.content),
            queue_id=queue_id(delivered.response.text),
            message_id=rendered.message_id,
            connection_id=self.id,
            server=self.config.server,
            timings=sending_seconds(spent, self.seconds) | {"total": self._clock() - began},
            round_trips=self.round_trips - trips,
        )

    def _deliver_all(
        self, envelope: Envelope, parameters: list[str], content: bytes, deadline: Deadline
    ) -> Delivered:
        transaction = Transaction(
            sender=envelope.sender,
            recipients=envelope.recipients,
            mail_parameters=parameters,
            content=content,
            all_or_none=self.config.partial == "all-or-none",
            resets_first=self._needs_reset,
        )
        done = self._deliver(transaction, deadline)
        taken = len(done.accepted)
        while rest := [a for a, reply in done.rejected.items() if is_one_too_many(reply, taken)]:
            more = self._deliver_rest(
                replace(transaction, recipients=rest, resets_first=False), done, deadline
            )
            if more is None:
                break
            rejected = {a: r for a, r in done.rejected.items() if a not in rest} | dict(more.rejected)
            done = Delivered(done.accepted + more.accepted, rejected, done.response)
        return done

    def _deliver_rest(
        self, transaction: Transaction, done: Delivered, deadline: Deadline
    ) -> Delivered | None:
        """The recipients above the limit; None if they do not get it, so that their reply stands.

        The first ones have it: an error would have the whole message sent to them again.
        """
        try:
            return self._deliver(transaction, deadline)
        except MailbridgeError as error:
            if not error.outcome_unknown:
                return None
            error.reword(f"{error.message}; {', '.join(done.accepted)} had already been accepted")
            raise
        except BaseException as interrupt:
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise

    def _deliver(self, transaction: Transaction, deadline: Deadline) -> Delivered:
        talk = self._opened()
        try:
            delivered = talk.run(delivery(talk.wire, transaction), deadline)
        except Refused:
            self._needs_reset = True
            raise
        self._needs_reset = False
        return delivered

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
        self._needs_reset = not reply.is_positive
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
        return self._conversation.unusable_reason() if self._conversation is not None else "closed"

    def _opened(self) -> Conversation:
        if self._conversation is None or not self._conversation.is_open:
            raise ConnectionLost("The session is closed", stage="connection", server=self.config.server)
        return self._conversation

    def _fail(self, error: BaseException) -> None:
        """A session that could not be opened or logged in is no session."""
        if self._conversation is not None:
            self._conversation.hang_up()
        complete(error, self.config)


def _is_loopback(peername: str) -> bool:
    """Whether a given socket leads to this very machine; one without an address is a UNIX socket."""
    address = literal(peername.rpartition(":")[0].strip("[]"))
    return address is None or address.is_loopback
