"""How a connection is opened: dial, PROXY header, and then what `smtp.flows.connection` says.

Neither logs in nor sends. What is dialed, and what a given socket is good for, is decided here.
"""

import socket
from dataclasses import dataclass

from mailbridge.client.driver import Driver
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError, ConnectTimeout
from mailbridge.net.dialer import Target
from mailbridge.net.ehlo_name import ehlo_name
from mailbridge.net.proxy.route import Reached, reach
from mailbridge.net.resolver import Address
from mailbridge.net.stream import Stream
from mailbridge.proxy_protocol import header as proxy_header
from mailbridge.smtp.flows.connection import ConnectionState, Opening, opening


@dataclass(frozen=True, slots=True)
class Way:
    """The way to the server. `reached` is None if the caller has opened it; `is_loopback`: it ends here."""

    stream: Stream
    reached: Reached | None
    is_loopback: bool


def dial(config: SMTPConfig, sock: socket.socket | None, *, secured: bool, deadline: Deadline) -> Way:
    """The way to the server of `config`: that which `sock` is, or another one.

    Raises `ConnectFailed` and its kinds.
    """
    if sock is not None and not _is_unused(sock):
        return Way(Stream(sock, secured=secured), None, _leads_to_loopback(sock))
    target = Target(
        host=config.host,
        port=config.port,
        family=config.family,
        source_address=config.source_address,
        allow_internal_networks=config.allow_internal_networks,
        guard_names=config.guard_names,
        unix_path=config.unix_path,
    )
    dns_timeout = config.timeouts.dns
    reached = reach(target, config.proxy, dns_timeout=dns_timeout, deadline=deadline, given=sock)
    return Way(reached.stream, reached, reached.is_loopback)


def open_connection(
    driver: Driver, state: ConnectionState, config: SMTPConfig, *, dialing: Deadline, deadline: Deadline
) -> None:
    """PROXY header, TLS, greeting and EHLO, on what was dialed; `state` tells what was found.

    Raises as `SMTPConnection.connect`.
    """
    driver.round_trips += 1 + len(config.proxy)  # the TCP handshake, and each proxy's answer
    _send_header(driver.stream, config, dialing)
    state.is_encrypted = driver.stream.secure
    driver.run(opening(driver.wire, state, wanted_opening(config, driver.stream.sockname)), deadline)


def wanted_opening(config: SMTPConfig, own_address: str) -> Opening:
    """What the options say of it; `own_address` is this end of the connection."""
    return Opening(
        name=config.local_hostname or ehlo_name(own_address),
        security=config.security,
        proxies=", ".join(map(str, config.proxy)),
        lmtp=config.protocol == "lmtp",
        disable=config.disable,
        may_pipeline=config.pipelining == "auto",
        may_be_helo=config.security not in ("starttls", "tls") and not config.has_credentials,
    )


def _send_header(stream: Stream, config: SMTPConfig, deadline: Deadline) -> None:
    """The PROXY header, which goes before everything else."""
    if config.proxy_protocol is None:
        return
    # Behind a proxy our own ends are those of another connection, and mean nothing to the server.
    ends = (None, None) if config.proxy else stream.ends
    header = proxy_header.encode(proxy_header.for_socket(config.proxy_protocol, *ends))
    try:
        stream.send(header, deadline)
    except ConnectionError:
        pass  # what the server said before it hung up is read with the greeting
    except TimeoutError:
        message = "The time limit ran out before the PROXY header was sent"
        raise ConnectTimeout(message, stage="tcp", hint="The option is timeouts.connect.") from None


def require_usable(config: SMTPConfig, sock: socket.socket, *, secured: bool) -> None:
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
