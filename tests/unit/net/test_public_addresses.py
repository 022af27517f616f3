"""What counts as public: the registries of IANA, the same on every version of Python."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.net.public_addresses import is_public

# The IANA IPv4 Special-Purpose Address Registry, multicast and class E; then what is in use inside clouds.
IPV4 = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/31"),
    *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32"),
    *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
    *("168.63.129.16/32", "169.254.169.254/32", "100.100.100.200/32", "192.0.0.192/32"),
)
# The IANA IPv6 Special-Purpose Address Registry, multicast, and what has been withdrawn.
IPV6 = (
    *("::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64"),
    *("2001::/23", "2001::/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48"),
    *("2001:3::/32", "2001:4:112::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32"),
    *("2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "ff00::/8"),
    *("::/96", "::ffff:0:0:0/96", "fec0::/10", "3ffe::/16", "fd00:ec2::254/128"),
)


@pytest.mark.parametrize("network", [*IPV4, *IPV6])
def test_nothing_special_is_public(network: str) -> None:
    covered = ip_network(network)
    for address in (covered[0], covered[covered.num_addresses // 2], covered[-1]):
        assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("1.0.0.0", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
        *("126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0"),
        *("172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.31.195.255"),
        *("192.31.197.0", "192.52.192.255", "192.52.194.0", "192.88.98.255", "192.88.100.0"),
        *("192.167.255.255", "192.169.0.0", "192.175.47.255", "192.175.49.0", "198.17.255.255", "198.20.0.0"),
        *("198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255"),
        *("2001:200::", "2001:db7:ffff::", "2001:db9::", "2003::", "2606:4700::1", "2a00:1450::1"),
        *("2620:4f:7fff:ffff::1", "2620:4f:8001::", "3ffd:ffff::1"),
    ],
)
def test_what_lies_beside_it_is(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["::2:0:0:1", "0100::2:0:0:0:1", "1fff:ffff::1", "4000::1", "5eff::1", "fbff::1"]
)
def test_ipv6_that_nobody_was_given_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@given(st.ip_addresses(v=4) | st.sampled_from([ip_network(n)[1 % ip_network(n).num_addresses] for n in IPV4]))
def test_an_address_that_carries_another_is_what_that_is(inner: IPv4Address) -> None:
    number = int(inner)
    for carrier in (
        int(IPv6Address("::ffff:0:0")) | number,
        int(IPv6Address("64:ff9b::")) | number,
        int(IPv6Address("2002::")) | number << 80,
        int(IPv6Address("2002::")) | number << 80 | 0x1234_5678,
    ):
        assert is_public(IPv6Address(carrier)) == is_public(inner)


@given(st.ip_addresses())
def test_what_python_knows_to_be_special_is_never_public(address: IPv4Address | IPv6Address) -> None:
    carries = any(
        isinstance(address, IPv6Address) and address in IPv6Network(network)
        for network in ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16")
    )
    if not carries and (not address.is_global or address.is_multicast or address.is_reserved):
        assert not is_public(address)
