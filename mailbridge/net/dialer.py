"""From a target to a connected socket: DNS, then all addresses in a race, within one deadline.

The race is RFC 8305 (happy eyeballs): families alternate, an attempt starts a quarter of a second
after the one before it, or at once when one has failed; the first connection wins and the others
are closed. No threads, no byte sent, no proxy, no TLS: those come after.
"""

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import inf
from typing import Literal

from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError, ConnectFailed, ConnectTimeout, NobodyListens
from mailbridge.net import wait
from mailbridge.net.resolver import Address, Family, GetAddrInfo, literal, resolve

# RFC 8305 section 5: the recommended "Connection Attempt Delay".
ATTEMPT_DELAY_SECONDS = 0.25

# A UNIX socket whose queue is full says EAGAIN and can't be waited for; so it is asked again.
UNIX_RETRY_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect to, and under which conditions (design: the options of the same names)."""

    host: str = ""
    port: int = 0
    family: Family = "any"
    source_address: str | None = None
    allow_internal_networks: bool = True
    guard_names: Literal["local", "proxy"] = "local"
    unix_path: str | None = None

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        bare = self.host.strip("[]")
        return f"[{bare}]:{self.port}" if ":" in bare else f"{bare}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialed:
    """A connected, non-blocking socket, and how it came to be. Whoever gets it closes it.

    `address` is the address really connected to; `is_loopback` is true for UNIX sockets too;
    `tried` names the addresses that failed before, and how.
    """

    socket: socket.socket
    address: str
    is_loopback: bool
    tried: tuple[str, ...] = ()
    dns_seconds: float = 0.0
    connect_seconds: float = 0.0


def dial(
    target: Target,
    *,
    dns_timeout: float | None = None,
    deadline: Deadline,
    getaddrinfo: GetAddrInfo | None = None,
    given: socket.socket | None = None,
) -> Dialed:
    """Connect to `target` before `deadline`; `dns_timeout` (seconds) bounds the look-up further.

    `given`: a socket of the caller's to connect. It says which family, and has one attempt: a socket
    can't be used again after it failed. Raises NameNotResolved, ConnectFailed, ConnectTimeout (stage
    "dns" or "tcp") and ConfigurationError. Whatever is raised, no socket stays open.
    """
    started = deadline.clock()
    if target.unix_path is not None:
        return _dial_unix(target, target.unix_path, deadline, given)
    if given is not None:
        target = replace(target, family="ipv6" if given.family == socket.AF_INET6 else "ipv4")
    source = _source(target)
    addresses = resolve(
        target.host,
        target.port,
        family=_family(target, source),
        deadline=deadline.within(dns_timeout),
        getaddrinfo=getaddrinfo,
    )
    resolved = deadline.clock()
    found = interleaved(addresses)[: 1 if given is not None else None]
    race = _Race(target, source, deadline, deque(found), given)
    sock, address = race.run()
    return Dialed(
        socket=sock,
        address=str(address),
        is_loopback=address.is_loopback,
        tried=tuple(f"{failed} {_word(problem)}" for failed, problem in race.failures),
        dns_seconds=resolved - started,
        connect_seconds=deadline.clock() - resolved,
    )


def _source(target: Target) -> Address | None:
    if target.source_address is None:
        return None
    source = literal(target.source_address)
    if source is None:
        message = f"Option 'source_address' must be an IP address, not {target.source_address!r}"
        raise ConfigurationError(message, stage="config")
    return source


def _family(target: Target, source: Address | None) -> Family:
    """The families worth asking for: an IPv4 source can't reach an IPv6 address, nor the reverse."""
    if source is None:
        return target.family
    fits: Family = "ipv4" if source.family == socket.AF_INET else "ipv6"
    if target.family not in ("any", fits):
        message = f"Option 'source_address' ({target.source_address}) contradicts family {target.family!r}"
        raise ConfigurationError(message, stage="config")
    return fits


def interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Families in turn, starting with the resolver's first choice (RFC 8305 section 4)."""
    groups: dict[int, list[Address]] = {}
    for address in addresses:
        groups.setdefault(address.family, []).append(address)
    return [a for row in zip_longest(*groups.values()) for a in row if a is not None]


class _Internal(OSError):
    """An address that `allow_internal_networks=False` keeps us from."""


@dataclass(slots=True)
class _Race:
    target: Target
    source: Address | None
    deadline: Deadline
    waiting: deque[Address]
    given: socket.socket | None = None
    running: dict[socket.socket, Address] = field(default_factory=dict)
    failures: list[tuple[Address, OSError]] = field(default_factory=list)
    next_start: float = -inf

    def run(self) -> tuple[socket.socket, Address]:
        """The first connection. All other sockets are closed, also if this is interrupted."""
        winner = None
        try:
            while winner is None:
                self._start_those_due()
                winner = self._first_connected()
            return winner, self.running.pop(winner)
        finally:
            for loser in self.running:
                loser.close()

    def _start_those_due(self) -> None:
        while self.waiting and (not self.running or self.deadline.clock() >= self.next_start):
            if self.deadline.is_over:
                return
            self.next_start = self.deadline.clock() + ATTEMPT_DELAY_SECONDS
            self._start(self.waiting.popleft())

    def _start(self, address: Address) -> None:
        # The address checked is the address connected to: a resolver that answers differently
        # the next time (DNS rebinding) has no second chance.
        if address.is_internal and not self.target.allow_internal_networks:
            self._failed(address, _Internal(errno.EACCES, "Internal address"))
            return
        try:
            sock = self.given or socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as problem:  # a family that this machine does not have, or no descriptor left
            self._failed(address, problem)
            return
        self.running[sock] = address
        try:
            sock.setblocking(False)
            if self.source is not None:
                sock.bind(self.source.sockaddr)
            code = sock.connect_ex(address.sockaddr)
        except OSError as problem:
            self._drop(sock, problem)
            return
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
            self._drop(sock, OSError(code, os.strerror(code)))

    def _drop(self, sock: socket.socket, problem: OSError) -> None:
        address = self.running.pop(sock)
        sock.close()
        self._failed(address, problem)

    def _failed(self, address: Address, problem: OSError) -> None:
        self.failures.append((address, problem))
        self.next_start = -inf

    def _first_connected(self) -> socket.socket | None:
        if self.deadline.is_over:
            raise _timed_out(self.target, self.failures)
        if not self.running:
            raise _failed(self.target, self.failures)
        seconds = self.deadline.remaining
        if self.waiting:
            pause = max(0.0, self.next_start - self.deadline.clock())
            seconds = pause if seconds is None else min(seconds, pause)
        for sock in wait.ready(list(self.running), read=False, write=True, seconds=seconds):
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code and _is_connected_to_itself(sock):
                code = errno.ECONNREFUSED
            if code:
                self._drop(sock, OSError(code, os.strerror(code)))
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        return None


def _is_connected_to_itself(sock: socket.socket) -> bool:
    # TCP's simultaneous open: nobody listens, and the kernel's choice of a local port was this one.
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # gone again already: the first read will tell
        return False


def _dial_unix(target: Target, path: str, deadline: Deadline, given: socket.socket | None) -> Dialed:
    started = deadline.clock()
    if not target.allow_internal_networks:
        message = f"{target} is internal, and option allow_internal_networks is False"
        raise ConnectFailed(message, stage="tcp", server=str(target))
    sock = given or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while (code := _connect_unix(sock, path)) == errno.EAGAIN:
            if deadline.is_over:
                raise _timed_out(target, [])
            time.sleep(UNIX_RETRY_SECONDS)
        if code:
            kind = _kind_of({code})
            error = kind(f"{os.strerror(code)}: {path}", stage="tcp", server=str(target))
            error.hint = _HINTS.get(code, "")
            error.errno = code
            raise error
    except BaseException:
        sock.close()
        raise
    seconds = deadline.clock() - started
    return Dialed(socket=sock, address=str(target), is_loopback=True, connect_seconds=seconds)


def _connect_unix(sock: socket.socket, path: str) -> int:
    try:
        if "\0" in path:  # the system would take what stands before it
            raise ValueError("it contains a NUL")
        return sock.connect_ex(path)
    except (OSError, ValueError) as problem:
        message = f"Option 'host' is no usable UNIX socket path: {path!r} ({problem})"
        raise ConfigurationError(message, stage="config") from None


_HINTS = {
    errno.ECONNREFUSED: "Nothing listens there, or a firewall refuses; check host and port.",
    errno.ENETUNREACH: "This machine has no route there; check its network, and option family.",
    errno.EHOSTUNREACH: "This machine has no route there; check its network, and option family.",
    errno.EADDRNOTAVAIL: "Check option source_address: it must be an address of this machine.",
    errno.ENOENT: "Check the path of the UNIX socket, and whether the server runs.",
    errno.EACCES: "The user of this process may not connect there.",
    errno.EMFILE: "This process has too many files open.",
}


def _word(problem: OSError) -> str:
    """How an attempt ended, for `Dialed.tried`."""
    if isinstance(problem, _Internal):
        return "internal"
    return "refused" if problem.errno == errno.ECONNREFUSED else str(problem.strerror).lower()


def _sentence(failures: list[tuple[Address, OSError]]) -> str:
    """Like "Connection refused by [::1]:25 and 127.0.0.1:25; Network is unreachable: …"."""
    kinds: dict[str, list[str]] = {}
    for address, problem in failures:
        joint = " by " if problem.errno == errno.ECONNREFUSED else ": "
        kinds.setdefault(f"{problem.strerror}{joint}", []).append(str(address))
    return "; ".join(kind + " and ".join(addresses) for kind, addresses in kinds.items())


def refusal_as_internal(target: Target, addresses: Iterable[Address], *, stage: str) -> ConnectFailed:
    """The error for a host that is internal, by its name or as all `addresses` that it has are."""
    where = " and ".join(dict.fromkeys(str(address.ip) for address in addresses))
    shown = f"{target.host!r} is internal ({where})" if where else f"{target.host!r} is internal"
    message = f"Host {shown}, and option allow_internal_networks is False"
    return ConnectFailed(message, stage=stage, server=str(target))


def _failed(target: Target, failures: list[tuple[Address, OSError]]) -> ConnectFailed:
    server = str(target)
    if all(isinstance(problem, _Internal) for _, problem in failures):
        return refusal_as_internal(target, [address for address, _ in failures], stage="tcp")
    codes = {problem.errno for _, problem in failures}
    error = _kind_of(codes)(_sentence(failures), stage="tcp", server=server)
    if len(codes) == 1:
        error.errno = codes.pop()
        error.hint = _HINTS.get(error.errno or 0, "")
    return error


def _kind_of(codes: set[int | None]) -> type[ConnectFailed]:
    return NobodyListens if codes == {errno.ECONNREFUSED} else ConnectFailed


def _timed_out(target: Target, failures: list[tuple[Address, OSError]]) -> ConnectTimeout:
    message = "No connection within the time limit"
    if failures:
        message += f"; {_sentence(failures)}"
    hint = "Check host and port, and whether a firewall drops the packets; the option is timeouts.connect."
    if target.port == 25:
        hint += " Many hosting providers block port 25: try port 587 or 465."
    return ConnectTimeout(message, stage="tcp", server=str(target), hint=hint)
