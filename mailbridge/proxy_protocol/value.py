"""The value that a PROXY protocol header stands for, in normal form, and the one that fits a socket.

What can be made is what can be sent: every check of addresses, ports and vectors is made here, once,
for headers that are built and for those that are read. How it is spelled as bytes is said in
`proxy_header`; nothing here decides whom to believe.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from mailbridge.proxy_protocol.tlvs import (
    InvalidProxyHeader,
    ProxySsl,
    Tlvs,
    TlvType,
    check_tlvs,
    decode_ssl,
    find,
)

Version = Literal[1, 2]
AddressFamily = Literal["unknown", "ipv4", "ipv6", "unix"]
Transport = Literal["unspec", "stream", "dgram"]
Endpoint = tuple[str, int] | str  # address and port, or the path of a UNIX socket

UNIX_BYTES = 108  # bytes of a UNIX address on the wire, filled up with NUL (section 2.2)
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """What a PROXY header says: whose connection this is. Equal headers say the same.

    `source` is the client's end and `destination` the one it connected to: (address, port) for ipv4
    and ipv6, the address without zone and in normal form; for unix a path ("" without a name, a first
    NUL for Linux's abstract names, bytes that are not UTF-8 as surrogates).

    `names_client` is false for LOCAL (version 2: the sender speaks for itself, as a health check does)
    and for the family "unknown": then both ends are None, there are no vectors, and a receiver goes on
    with the addresses of its socket.

    `tlvs` are the vectors of version 2, (type, value) in their order, without the checksum. What the
    properties give comes from them, and much of that from the client: do not trust it.

    Raises InvalidProxyHeader, a ValueError, for what no header can say.
    """

    version: Version
    command: Literal["PROXY", "LOCAL"] = "PROXY"
    family: AddressFamily = "unknown"
    transport: Transport = "stream"  # always "unspec" where the family is unknown
    source: Endpoint | None = None
    destination: Endpoint | None = None
    tlvs: Tlvs = ()

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise InvalidProxyHeader(f"There is no version {self.version} of the PROXY header")
        if self.names_client:
            self._check_named()
            object.__setattr__(self, "source", _normal(self.family, self.source))
            object.__setattr__(self, "destination", _normal(self.family, self.destination))
            return
        if self.source is not None or self.destination is not None or self.tlvs:
            raise InvalidProxyHeader(
                "A PROXY header of no known family carries neither addresses nor vectors"
            )
        if self.command == "LOCAL" and (self.version == 1 or self.family != "unknown"):
            raise InvalidProxyHeader("LOCAL is a command of version 2, and goes with the family unknown")
        object.__setattr__(self, "transport", "unspec")

    def _check_named(self) -> None:
        if self.transport == "unspec":
            raise InvalidProxyHeader("A PROXY header with addresses says stream or dgram")
        if self.version == 1 and (self.family == "unix" or self.transport == "dgram" or self.tlvs):
            raise InvalidProxyHeader("Version 1 of the PROXY header is for TCP alone, without vectors")
        check_tlvs(self.tlvs)
        if find(self.tlvs, TlvType.CRC32C) is not None:
            raise InvalidProxyHeader("The checksum of a PROXY header is made when it is encoded")

    @property
    def names_client(self) -> bool:
        """Whether `source` and `destination` are to be believed in place of the socket's addresses."""
        return self.command == "PROXY" and self.family != "unknown"

    @property
    def alpn(self) -> bytes | None:
        """The protocol that the client asked for within TLS (RFC 7301)."""
        return find(self.tlvs, TlvType.ALPN)

    @property
    def authority(self) -> str | None:
        """The host name that the client asked for, as in SNI. At most 255 bytes, else unchecked."""
        value = find(self.tlvs, TlvType.AUTHORITY)
        return None if value is None else value.decode()

    @property
    def unique_id(self) -> bytes | None:
        """The name that the sender of the header gave to the connection; at most 128 bytes."""
        return find(self.tlvs, TlvType.UNIQUE_ID)

    @property
    def netns(self) -> str | None:
        """The network namespace that the client came in by."""
        value = find(self.tlvs, TlvType.NETNS)
        return None if value is None else value.decode("ascii")

    @property
    def ssl(self) -> ProxySsl | None:
        """What is known of the client's TLS."""
        value = find(self.tlvs, TlvType.SSL)
        return None if value is None else decode_ssl(value)


def for_socket(version: Version, sockname: object, peername: object) -> ProxyHeader:
    """The header of a client that speaks for itself: from its own address to its peer's.

    The names are what `getsockname()` and `getpeername()` give. Where they mean nothing to the
    other side the header is UNKNOWN (version 1) or LOCAL (version 2): for UNIX sockets in version 1
    or without a name of their own, as clients have none; for families of which the header knows nothing.

    IPv4 in the clothes of IPv6 (`::ffff:192.0.2.1`) becomes IPv4; zones (`%eth0`) are left out.
    """
    source, destination = _own_end(sockname), _own_end(peername)
    if isinstance(source, tuple) and isinstance(destination, tuple):
        if ":" in source[0] and ":" in destination[0]:
            return ProxyHeader(version=version, family="ipv6", source=source, destination=destination)
        if ":" not in source[0] + destination[0]:
            return ProxyHeader(version=version, family="ipv4", source=source, destination=destination)
    elif isinstance(source, str) and isinstance(destination, str) and source and version == 2:
        return ProxyHeader(version=version, family="unix", source=source, destination=destination)
    return ProxyHeader(version=version, command="PROXY" if version == 1 else "LOCAL")


def _own_end(name: object) -> Endpoint | None:
    match name:
        case str() | bytes():
            path = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
            return path.rstrip("\0")  # which can't be told from what fills the field
        case (str(host), int(port), *_):
            try:
                address = ip_address(host.partition("%")[0])
            except ValueError:
                return None
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            return str(mapped or address), port
    return None


def _normal(family: AddressFamily, end: object) -> Endpoint:
    match end:
        case str() if family == "unix":
            return _normal_path(end)
        case (str(address), int(port)) if family in ("ipv4", "ipv6"):
            if not 0 <= port <= _MAX_PORT:
                raise InvalidProxyHeader(f"A port in a PROXY header is not from 0 to {_MAX_PORT}: {port}")
            return _normal_address(family, address), port
    raise InvalidProxyHeader(f"A PROXY header of the family {family} can't carry {end!r} as an end")


def _normal_address(family: AddressFamily, address: str) -> str:
    """The one spelling of an address (RFC 5952)."""
    try:
        if family == "ipv4":
            return str(IPv4Address(address))
        six = IPv6Address(address)
    except ValueError:
        raise InvalidProxyHeader(
            f"A PROXY header of the family {family} has the address {address!r}"
        ) from None
    if six.scope_id is not None:
        raise InvalidProxyHeader(f"A PROXY header can't carry the zone of {address!r}")
    # Python spells it with dots from 3.13 on, inet_ntop always has.
    return f"::ffff:{six.ipv4_mapped}" if six.ipv4_mapped else str(six)


def _normal_path(path: str) -> str:
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = b"\0"
    is_abstract = raw.startswith(b"\0")
    if len(raw) > UNIX_BYTES or raw.endswith(b"\0") or (b"\0" in raw and not is_abstract):
        raise InvalidProxyHeader(f"A PROXY header can't carry the UNIX address {path!r}")
    return raw.decode("utf-8", "surrogateescape")
