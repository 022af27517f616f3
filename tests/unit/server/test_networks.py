"""Addresses and ranges: who is meant, in whatever spelling, and what is no list of hosts."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import ConfigurationError
from mailbridge.server.networks import Hosts, client_of, plain


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("unix:/run/x", "unix:/run/x"),
        ("", ""),
    ],
)
def test_one_spelling(given: str, expected: str) -> None:
    assert plain(given) == expected


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4%eth0", "2001:db8:1:2::/64"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_a_client_has_one_address_of_ipv4_or_a_network_of_ipv6(address: str, client: str) -> None:
    assert client_of(address) == client


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.0/25", "192.0.2.127", "192.0.2.128"),
        ("::ffff:192.0.2.0/121", "192.0.2.127", "192.0.2.128"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.0/24", "::ffff:192.0.2.9", "::ffff:192.0.3.9"),
        ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
        ("fe80::/10", "fe80::1%eth0", "::1"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
        (ip_network("10.0.0.0/8"), "10.1.2.3", "11.1.2.3"),
        (ip_address("10.0.0.1"), "10.0.0.1", "10.0.0.2"),
    ],
)
def test_inside_and_outside(entry: object, inside: str, outside: str) -> None:
    hosts = Hosts.parse("use_proxy", ["203.0.113.7", entry])
    assert inside in hosts
    assert outside not in hosts


def test_everybody_is_everybody() -> None:
    hosts = Hosts.parse("use_proxy", ["10.0.0.1", "*"])
    assert hosts.is_everybody
    assert "unix:/run/x" in hosts


@pytest.mark.parametrize("address", ["unix:/run/x", "mail.example", "", "10.0.0.1, 10.0.0.2"])
def test_what_is_no_address_is_in_no_range(address: str) -> None:
    assert address not in Hosts.parse("ignored_hosts", ["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize(
    "given",
    [
        "10.0.0.1",
        b"10.0.0.1",
        5,
        None,
        ["localhost"],
        ["10.0.0.1/24"],
        ["10.0.0.0/33"],
        [""],
        [None],
        ["fe80::1%x"],
    ],
)
def test_what_is_no_list_of_hosts(given: object) -> None:
    with pytest.raises(ConfigurationError, match="use_proxy"):
        Hosts.parse("use_proxy", given)


@given(st.ip_addresses(v=4))
def test_both_clothes_of_an_ipv4_address_are_one(address: object) -> None:
    hosts = Hosts.parse("use_proxy", [str(address)])
    assert f"::ffff:{address}" in hosts
    assert str(address) in Hosts.parse("use_proxy", [f"::ffff:{address}"])
