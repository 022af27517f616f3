"""Host names to addresses, within a time limit, by the operating system's own resolver.

`getaddrinfo` knows /etc/hosts, search domains and whatever else the machine is set up with, but
takes no time limit: it runs in a thread of its own, and a caller whose deadline is over goes on
without it. Nothing is cached here, and nothing connects.
"""

import importlib
import ipaddress
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError, ConnectTimeout, NameNotResolved
from mailbridge.net.public_addresses import IPAddress, is_public

Family = Literal["any", "ipv4", "ipv6"]
GetAddrInfo = Callable[..., list[tuple[Any, ...]]]

_FAMILIES: dict[str, socket.AddressFamily] = {
    "any": socket.AF_UNSPEC,
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
}
_FAMILY_NAMES = {"any": "", "ipv4": "IPv4 ", "ipv6": "IPv6 "}

# RFC 1123 section 2.1, and the underscore that names of containers carry.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_NAME = 253  # RFC 1035 section 2.3.4: 255 octets with the lengths of the labels


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to; `sockaddr` is what `socket.connect` takes."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        host = f"[{self.sockaddr[0]}]" if self.family == socket.AF_INET6 else self.sockaddr[0]
        return f"{host}:{self.sockaddr[1]}"

    @property
    def ip(self) -> IPAddress:
        return ipaddress.ip_address(self.sockaddr[0].partition("%")[0])

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine's, an IPv4 address in IPv6 form (::ffff:127.0.0.1) included.

        An address inside a NAT64 or 6to4 one is not: it is a gateway elsewhere that knows what it means.
        """
        ip = self.ip
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback

    @property
    def is_internal(self) -> bool:
        """Whether it is anything but a public unicast address: see `public_addresses`."""
        return not is_public(self.ip)


def literal(host: str, port: int = 0) -> Address | None:
    """The address that `host` spells out ("127.0.0.1", "::1", "[::1]", "fe80::1%eth0"), or None.

    Raises NameNotResolved if it names a network interface that is not there.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return Address(socket.AF_INET, (str(ip), port)) if bare == host else None
    return Address(socket.AF_INET6, (str(ip), port, 0, _scope(ip.scope_id, host)))


def _scope(zone: str | None, host: str) -> int:
    if zone is None:
        return 0
    try:
        return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError as problem:
        message = f"Address {host!r} names a network interface that does not exist"
        raise NameNotResolved(message, stage="dns", server=host) from problem


def ascii_host(host: str, *, option: str = "host") -> str:
    """`host` as it stands in DNS: checked, in ASCII (RFC 5890 A-labels), one trailing dot kept.

    Raises ConfigurationError, naming `option`, for what can't be a host name, and for names with
    other letters if the package `idna` is missing. Literal addresses are not names: see `literal`.
    """
    name = host if host.isascii() else _to_ascii(host, option)
    labels = name.removesuffix(".").split(".")
    if len(name) > _LONGEST_NAME + 1 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigurationError(
            f"Option {option!r} is no host name and no IP address: {host[:_LONGEST_NAME]!r}",
            stage="config",
            hint="A port does not belong into it." if re.search(r":\d+$", host) else "",
        )
    return name


def verifiable_name(host: str, *, option: str = "tls.server_hostname") -> str:
    """The form of `host` that a certificate can prove: no brackets, zone or trailing dot."""
    address = literal(host.partition("%")[0].strip("[]"))
    return str(address.ip) if address is not None else ascii_host(host, option=option).removesuffix(".")


def _to_ascii(host: str, option: str) -> str:
    if len(host) > _LONGEST_NAME + 1:  # before it is encoded, which takes time for what is long
        raise ConfigurationError(
            f"Option {option!r} is no host name and no IP address: {host[:_LONGEST_NAME]!r}", stage="config"
        )
    # Never Python's own codec: it makes "fass" of "faß" (IDNA 2003) and lets CR and LF through.
    try:
        idna = importlib.import_module("idna")
    except ImportError:
        raise ConfigurationError(
            f"Option {option!r} has letters outside ASCII: {host!r}",
            stage="config",
            hint="Install the extra: pip install 'mailbridge-smtp[idna]'.",
        ) from None
    try:
        name: bytes = idna.encode(host, uts46=True, std3_rules=True)
    except idna.IDNAError as problem:
        message = f"Option {option!r} is no valid international host name: {host!r} ({problem})"
        raise ConfigurationError(message, stage="config") from None
    return name.decode("ascii")


def resolve(
    host: str,
    port: int,
    *,
    family: Family = "any",
    deadline: Deadline,
    getaddrinfo: GetAddrInfo | None = None,
) -> list[Address]:
    """The addresses of `host` in the resolver's order, each once; literals need no resolver.

    Raises NameNotResolved, ConnectTimeout at the deadline (both with stage "dns"), and
    ConfigurationError if `host` can't be a name.
    """
    spelled = literal(host, port)
    if spelled is not None:
        found = [spelled]
    else:
        rows = _within(deadline, ascii_host(host), port, family, getaddrinfo or socket.getaddrinfo)
        found = [Address(socket.AddressFamily(row[0]), tuple(row[4])) for row in rows if row[0] in _USABLE]
    wanted = _FAMILIES[family]
    chosen = [a for a in dict.fromkeys(found) if wanted in (socket.AF_UNSPEC, a.family)]
    if not chosen:
        message = f"Host {host!r} has no {_FAMILY_NAMES[family]}address"
        hint = "" if family == "any" else "The options family and source_address limit which are used."
        raise NameNotResolved(message, stage="dns", server=f"{host}:{port}", hint=hint)
    return chosen


_USABLE = frozenset({socket.AF_INET, socket.AF_INET6})


def _within(
    deadline: Deadline, host: str, port: int, family: Family, getaddrinfo: GetAddrInfo
) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            rows.extend(getaddrinfo(host, port, _FAMILIES[family], socket.SOCK_STREAM))
        except BaseException as problem:  # whatever it is, the caller must see it, not the thread
            problems.append(problem)

    allowed = deadline.remaining
    asking = threading.Thread(target=ask, name="mailbridge-dns", daemon=True)
    if not deadline.is_over:
        asking.start()
        # Joined to its very end: Python warns of a fork beside a thread, also of one that is about to go.
        asking.join(allowed)
    server = f"{host}:{port}"
    if asking.ident is None or asking.is_alive():
        limit = f" within {allowed:g} s" if allowed else " in time"
        hint = "Check the machine's DNS servers; the option is timeouts.dns."
        raise ConnectTimeout(f"No answer from DNS for {host!r}{limit}", stage="dns", server=server, hint=hint)
    if problems:
        raise _not_resolved(host, server, problems[0])
    return rows


def _not_resolved(host: str, server: str, problem: BaseException) -> BaseException:
    if not isinstance(problem, OSError | UnicodeError):
        return problem
    code = getattr(problem, "errno", None)
    said = getattr(problem, "strerror", None) or str(problem)
    temporary = code == socket.EAI_AGAIN
    error = NameNotResolved(
        f"Host {host!r} could not be resolved: {said}",
        stage="dns",
        server=server,
        hint="Check the machine's DNS servers." if temporary else "Check the spelling of the host name.",
    )
    error.errno = code
    error.__cause__ = problem
    return error
