"""Which PROXY headers can be made, how they compare, and which one fits a socket."""

from dataclasses import replace

import pytest

from mailbridge.proxy_protocol.header import InvalidProxyHeader, ProxyHeader, TlvType, for_socket

UNKNOWN = ProxyHeader(version=1)
LOCAL = ProxyHeader(version=2, command="LOCAL")
PATHS = ProxyHeader(version=2, family="unix", source="/run/client", destination="/run/smtp")


def four(**changes):
    """A header over IPv4; what of it does not matter to a test stands here."""
    ends = {"source": ("192.0.2.1", 56324), "destination": ("198.51.100.2", 25)}
    return ProxyHeader(**{"version": 2, "family": "ipv4", **ends, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"version": 0},
        {"command": "LOCAL"},
        {"command": "LOCAL", "source": None, "destination": None},
        {"command": "LOCAL", "family": "unknown"},
        {"family": "unknown"},
        {"family": "unknown", "destination": None},
        {"family": "unknown", "source": None},
        {"family": "unknown", "source": None, "destination": None, "tlvs": ((4, b""),)},
        {"version": 1, "command": "LOCAL", "family": "unknown", "source": None, "destination": None},
        {"version": 1, "transport": "dgram"},
        {"version": 1, "tlvs": ((4, b""),)},
        {"version": 1, "family": "unix", "source": "/a", "destination": "/b"},
        {"transport": "unspec"},
        {"family": "ipx"},
        {"family": "ipv6"},
        {"family": "unix"},
        {"source": None},
        {"destination": None},
        {"source": "192.0.2.1"},
        {"source": ("::1", 1)},
        {"source": ("::ffff:192.0.2.1", 1)},
        {"source": ("192.0.2.1 ", 1)},
        {"source": ("192.0.2.1\r\n", 1)},
        {"source": (3221225985, 1)},
        {"source": ("192.0.2.1", -1)},
        {"source": ("192.0.2.1", 65536)},
        {"destination": ("192.0.2.1", 65536)},
        {"source": ("192.0.2.1", "25")},
        {"source": ("192.0.2.1", 1, 0, 0)},
        {"family": "ipv6", "source": ("fe80::1%eth0", 1), "destination": ("::1", 1)},
        {"family": "unix", "source": "/a", "destination": ("192.0.2.1", 1)},
        {"family": "unix", "source": "/a", "destination": "b" * 109},
        {"family": "unix", "source": "/a", "destination": "é" * 55},
        {"family": "unix", "source": "/a\0b", "destination": "/c"},
        {"family": "unix", "source": "/a\0", "destination": "/c"},
        {"family": "unix", "source": "\0", "destination": "/c"},
        {"family": "unix", "source": "\0a\0", "destination": "/c"},
        {"family": "unix", "source": "\ud800", "destination": "/c"},
        {"tlvs": ((256, b""),)},
        {"tlvs": ((-1, b""),)},
        {"tlvs": ((0xE0, bytes(65536)),)},
        {"tlvs": ((TlvType.CRC32C, bytes(4)),)},
        {"tlvs": ((TlvType.ALPN, b"a"), (TlvType.NOOP, b""), (TlvType.ALPN, b"a"))},
        {"tlvs": ((TlvType.AUTHORITY, b"a" * 256),)},
        {"tlvs": ((TlvType.SSL, b""),)},
    ],
)
def test_what_no_header_can_say_is_not_made(changes):
    with pytest.raises(InvalidProxyHeader):
        four(**changes)


def test_equal_headers_say_the_same_however_they_are_spelled():
    header = four(family="ipv6", source=("2001:0DB8::0:1", 1), destination=("::FFFF:c000:0201", 2))
    assert (header.source, header.destination) == (("2001:db8::1", 1), ("::ffff:192.0.2.1", 2))
    assert (
        ProxyHeader(version=2, transport="dgram")
        == ProxyHeader(version=2)
        == ProxyHeader(version=2, transport="unspec")
    )
    assert replace(PATHS, source="\udcc3\udca9") == replace(PATHS, source="é")
    assert [header.names_client, PATHS.names_client, LOCAL.names_client, UNKNOWN.names_client] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("sockname", "peername", "family", "source", "destination"),
    [
        (("192.0.2.1", 5), ("198.51.100.2", 25), "ipv4", ("192.0.2.1", 5), ("198.51.100.2", 25)),
        (("::1", 1, 0, 0), ("2001:db8::1", 25, 0, 0), "ipv6", ("::1", 1), ("2001:db8::1", 25)),
        (
            ("::ffff:192.0.2.1", 5, 0, 0),
            ("::ffff:c633:6402", 25),
            "ipv4",
            ("192.0.2.1", 5),
            ("198.51.100.2", 25),
        ),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%2", 25, 0, 2), "ipv6", ("fe80::1", 1), ("fe80::2", 25)),
    ],
)
def test_header_of_a_socket(sockname, peername, family, source, destination):
    for version in (1, 2):
        assert for_socket(version, sockname, peername) == ProxyHeader(
            version=version, family=family, source=source, destination=destination
        )


@pytest.mark.parametrize("sockname", ["/run/client", b"/run/client", "/run/client\0"])
def test_header_of_a_unix_socket_with_a_name(sockname):
    assert for_socket(1, sockname, "/run/smtp") == UNKNOWN
    assert for_socket(2, sockname, "/run/smtp") == PATHS


def test_header_of_an_abstract_unix_socket():
    assert for_socket(2, b"\0\xffx", "/run/smtp") == replace(PATHS, source="\0\udcffx")


@pytest.mark.parametrize(
    ("sockname", "peername"),
    [
        ("", "/run/smtp"),  # what a client on a UNIX socket is called
        (b"", b""),
        (b"\0", "/run/smtp"),
        (("192.0.2.1", 1), ("::1", 2, 0, 0)),
        (("::1", 1, 0, 0), ("192.0.2.1", 2)),
        (("::ffff:192.0.2.1", 1, 0, 0), ("2001:db8::1", 2, 0, 0)),
        (("192.0.2.1", 1), "/run/smtp"),
        ("/run/client", ("192.0.2.1", 1)),
        ((2, 1234), (3, 25)),  # AF_VSOCK: the numbers are no addresses of IPv4
        (("eth0", 3), ("eth0", 3)),
        (("192.0.2.1",), ("192.0.2.2",)),
        (None, None),
        (("192.0.2.1", 1), None),
        (0, 0),
        ((), ()),
    ],
)
def test_a_socket_whose_addresses_mean_nothing(sockname, peername):
    assert for_socket(1, sockname, peername) == UNKNOWN
    assert for_socket(2, sockname, peername) == LOCAL
