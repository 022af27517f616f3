"""Addresses, and the lists of addresses and CIDR ranges that a server is configured with.

Names are not resolved: whom to believe must not hang on DNS.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mailbridge.config.values import invalid

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2
_MAPPED_PREFIX = 96  # bits
_CLIENT_PREFIX = 64  # bits


def plain(address: str) -> str:
    """`address` without zone, in normal form; IPv4 in the clothes of IPv6 becomes IPv4."""
    try:
        found = _plain(address)
    except ValueError:
        return address
    return str(found)


def client_of(address: str) -> str:
    """Whose `address` is: an IPv6 client has a whole network of 64 bits (RFC 6177), an IPv4 client itself."""
    try:
        found = _plain(address)
    except ValueError:
        return address
    return str(
        found if isinstance(found, IPv4Address) else IPv6Network((found, _CLIENT_PREFIX), strict=False)
    )


class Hosts:
    """A set of addresses, asked with `in`. What is no IP address is in none but the set of all."""

    def __init__(
        self, networks: Iterable[IPv4Network | IPv6Network] = (), *, everybody: bool = False
    ) -> None:
        self._networks = tuple(networks)
        self.is_everybody = everybody

    @classmethod
    def parse(cls, name: str, given: object) -> "Hosts":
        """The option `name`: a list of addresses, ranges such as "10.0.0.0/8", or "*" for everybody.

        Raises ConfigurationError.
        """
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise invalid(name, f"must be a list of addresses and CIDR ranges, not {given!r}")
        entries = list(given)
        if "*" in entries:
            return cls(everybody=True)
        return cls(_network(name, entry) for entry in entries)

    def __contains__(self, address: str) -> bool:
        if self.is_everybody:
            return True
        try:
            found = _plain(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)

    def __bool__(self) -> bool:
        return self.is_everybody or bool(self._networks)


def _plain(address: str) -> IPv4Address | IPv6Address:
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _network(name: str, entry: object) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(str(entry))  # a value of the module ipaddress gives its text
        if "%" in str(entry):
            raise ValueError(f"{entry!r} has a zone, addresses of peers are compared without")
    except ValueError as error:
        raise invalid(name, f"has an entry that is neither an address nor a CIDR range: {error}") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        first = network.network_address.ipv4_mapped
        return IPv4Network((first, network.prefixlen - _MAPPED_PREFIX))
    return network
