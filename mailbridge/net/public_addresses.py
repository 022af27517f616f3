"""Which IP addresses are public: what `allow_internal_networks=False` lets through.

Judged by the special-purpose registries of IANA (RFC 6890) alone. What `ipaddress` makes of them
differs between versions of Python, and says "global" of addresses that lead to the nearest relay or
gateway, which may be an internal one: no mail server has such an address.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address

_SPECIAL_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # "this network" (RFC 791 section 3.2)
            "10.0.0.0/8",  # private use (RFC 1918)
            "100.64.0.0/10",  # shared by the customers of a provider (RFC 6598)
            "127.0.0.0/8",  # loopback (RFC 1122 section 3.2.1.3)
            "168.63.129.16/32",  # Azure's own services, as seen from its virtual machines
            "169.254.0.0/16",  # link-local (RFC 3927)
            "172.16.0.0/12",  # private use (RFC 1918)
            "192.0.0.0/24",  # assignments for protocols (RFC 6890 section 2.1)
            "192.0.2.0/24",  # documentation (RFC 5737)
            "192.31.196.0/24",  # the nearest AS112 server (RFC 7535)
            "192.52.193.0/24",  # the nearest AMT relay (RFC 7450)
            "192.88.99.0/24",  # the nearest 6to4 relay, withdrawn (RFC 7526)
            "192.168.0.0/16",  # private use (RFC 1918)
            "192.175.48.0/24",  # the nearest AS112 server (RFC 7534)
            "198.18.0.0/15",  # benchmarks (RFC 2544)
            "198.51.100.0/24",  # documentation (RFC 5737)
            "203.0.113.0/24",  # documentation (RFC 5737)
            "224.0.0.0/3",  # multicast (RFC 5771) and reserved (RFC 1112 section 4)
        ),
    )
)

# All public IPv6 addresses there are (RFC 4291 section 2.4; IANA's registry of IPv6 address space) …
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# … but these.
_SPECIAL_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # assignments for protocols, Teredo among them (RFC 2928)
            "2001:db8::/32",  # documentation (RFC 3849)
            "2620:4f:8000::/48",  # the nearest AS112 server (RFC 7534)
            "3ffe::/16",  # the 6bone, withdrawn (RFC 3701)
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052 section 2.1)
_6TO4 = IPv6Network("2002::/16")  # RFC 3056 section 2


def is_public(address: IPAddress) -> bool:
    """Whether `address` is a public unicast one. An IPv6 address that carries an IPv4 address
    (mapped, NAT64, 6to4) is what that one is.
    """
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is None:
            return address in _GLOBAL_UNICAST and not any(address in network for network in _SPECIAL_IPV6)
        address = carried
    return not any(address in network for network in _SPECIAL_IPV4)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _MAPPED or address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return None
