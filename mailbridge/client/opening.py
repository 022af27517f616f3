"""How a connection is opened: dial, PROXY header, TLS as `security` says, greeting, EHLO, STARTTLS.

Neither logs in nor sends. Each finding is kept as it is made, so that a check of the configuration can tell
how far it got.
"""

import socket
from collections.abc import Mapping

from mailbridge.client.driver import Conversation
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock, Deadline
from mailbridge.errors import (
    ConfigurationError,
    ConnectionLost,
    ConnectTimeout,
    NotSupported,
    ProxyFailed,
    ReplyTimeout,
)
from mailbridge.logs import Log
from mailbridge.net.dialer import Target
from mailbridge.net.ehlo_name import ehlo_name
from mailbridge.net.proxy.route import Reached, reach
from mailbridge.net.resolver import Address
from mailbridge.net.stream import Stream
from mailbridge.proxy_protocol import header as proxy_header
from mailbridge.reply import Reply
from mailbridge.smtp.capabilities import EMPTY, Capabilities
from mailbridge.smtp.flows import opening
from mailbridge.smtp.wire import WINDOW_BYTES


class Connecting:
    """The opening of one session, and what it found out."""

    def __init__(
        self,
        config: SMTPConfig,
        log: Log,
        *,
        sock: socket.socket | None,
        secured: bool,
        connection_id: str,
        clock: Clock,
    ) -> None:
        self.conversation: Conversation | None = None
        self.reached: Reached | None = None
        self.greeting: Reply | None = None
        self.capabilities: Capabilities = EMPTY
        self.is_loopback = False
        if sock is not None:
            _require_usable(config, sock, secured=secured)
        self._config = config
        self._log = log
        self._given = (sock, secured)
        self._connection_id = connection_id
        self._clock = clock

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent so far, by stage."""
        spent = self.reached.seconds if self.reached is not None else {}
        return spent | (self.conversation.driver.seconds if self.conversation is not None else {})

    def perform(self, deadline: Deadline) -> None:
        """Raises as `SMTPConnection.connect`; closing what was opened is then the caller's business."""
        dialing = deadline.within(self._config.timeouts.connect)
        talk = self.conversation = self._open(dialing)
        self._announce(talk, dialing)
        if self._config.security == "tls" and not talk.stream.secure:
            talk.start_tls(dialing)
        self.greeting = self._greet(talk, deadline)
        self._introduce(talk, deadline)
        if self._wants_starttls(talk):
            talk.run(opening.start_tls(talk.wire), deadline)
            self.capabilities = EMPTY
            self._introduce(talk, deadline)

    def _open(self, deadline: Deadline) -> Conversation:
        config = self._config
        sock, secured = self._given
        if sock is None or _is_unused(sock):
            self.reached = reach(
                self._target(),
                config.proxy,
                dns_timeout=config.timeouts.dns,
                deadline=deadline,
                given=sock,
            )
            stream, self.is_loopback = self.reached.stream, self.reached.is_loopback
        else:
            stream = Stream(sock, secured=secured)
            self.is_loopback = _leads_to_loopback(sock)
        talk = Conversation(stream, config, self._log, connection_id=self._connection_id, clock=self._clock)
        talk.driver.round_trips += 1 + len(config.proxy)  # the TCP handshake, and each proxy's answer
        return talk

    def _target(self) -> Target:
        config = self._config
        return Target(
            host=config.host,
            port=config.port,
            family=config.family,
            source_address=config.source_address,
            allow_internal_networks=config.allow_internal_networks,
            guard_names=config.guard_names,
            unix_path=config.unix_path,
        )

    def _announce(self, talk: Conversation, deadline: Deadline) -> None:
        """The PROXY header, which goes before everything else."""
        if self._config.proxy_protocol is None:
            return
        # Behind a proxy our own ends are those of another connection, and mean nothing to the server.
        ends = (None, None) if self._config.proxy else talk.stream.ends
        header = proxy_header.encode(proxy_header.for_socket(self._config.proxy_protocol, *ends))
        try:
            talk.stream.send(header, deadline)
        except ConnectionError:
            pass  # what the server said before it hung up is read with the greeting
        except TimeoutError:
            message = "The time limit ran out before the PROXY header was sent"
            raise ConnectTimeout(message, stage="tcp", hint="The option is timeouts.connect.") from None

    def _greet(self, talk: Conversation, deadline: Deadline) -> Reply:
        """The greeting. If none comes through proxies, no session came to be, whoever is to blame."""
        try:
            return talk.run(opening.greeting(talk.wire), deadline)
        except ConnectionLost as error:
            if not self._config.proxy:
                raise
            is_late = isinstance(error, ReplyTimeout)
        way = ", ".join(map(str, self._config.proxy))
        if is_late:
            raise ConnectTimeout(f"No greeting came through {way} within the time limit", stage="greeting")
        hint = "Either the proxy or the server hung up; the proxy's log tells which."
        raise ProxyFailed(
            f"The connection through {way} ended before the greeting", stage="greeting", hint=hint
        )

    def _introduce(self, talk: Conversation, deadline: Deadline) -> None:
        config = self._config
        name = config.local_hostname or ehlo_name(talk.stream.sockname)
        needs_extensions = config.security in ("starttls", "tls") or config.has_credentials
        flow = opening.introduction(
            talk.wire, name, may_be_helo=not needs_extensions, lmtp=config.protocol == "lmtp"
        )
        self.capabilities = talk.run(flow, deadline).without(config.disable)
        pipelines = config.pipelining == "auto" and "PIPELINING" in self.capabilities
        talk.wire.window = WINDOW_BYTES if pipelines else 0

    def _wants_starttls(self, talk: Conversation) -> bool:
        if talk.stream.secure or self._config.security == "none":
            return False
        if "STARTTLS" in self.capabilities:
            return True
        if self._config.security == "opportunistic":
            return False
        raise NotSupported(
            "STARTTLS extension not supported by server",
            extension="STARTTLS",
            stage="tls",
            hint="Nothing was sent in clear text. Use security='tls' if the port speaks TLS from the start.",
        )


def _require_usable(config: SMTPConfig, sock: socket.socket, *, secured: bool) -> None:
    """A socket that was never connected is ours to connect, as the configuration says."""
    if sock.type != socket.SOCK_STREAM:
        raise ConfigurationError("The given socket is no stream", stage="config")
    if not _is_unused(sock):
        return
    if secured:
        raise ConfigurationError("A socket that is not connected can't be secured yet", stage="config")
    if config.proxy:
        raise ConfigurationError(
            "A socket that is not connected can't be given where option 'proxy' is set", stage="config"
        )
    if (config.unix_path is not None) != (sock.family == getattr(socket, "AF_UNIX", None)):
        raise ConfigurationError(
            f"The given socket has another family than {config.server} needs", stage="config"
        )


def _is_unused(sock: socket.socket) -> bool:
    """Whether it was never connected. One that has lost its peer still has a port of its own.

    To connect that one anew would lead past whatever it was a way through.
    """
    try:
        sock.getpeername()
    except OSError:
        name = sock.getsockname()
        return not name[1] if isinstance(name, tuple) else not name
    return False


def _leads_to_loopback(sock: socket.socket) -> bool:
    """Whether the peer of a given socket has a loopback address.

    Not one that is still connecting, nor one of another kind: what listens on a UNIX socket that the
    caller has connected may well be a tunnel, and nothing is known of the other side of AF_VSOCK.
    """
    try:
        peer = sock.getpeername()
    except OSError:
        return False
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return Address(sock.family, peer).is_loopback
