"""PROXY headers from bytes and to bytes: exact, whole, cut anywhere, hostile; always bounded."""

import pickle
import sys
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.proxy_protocol.crc32c import crc32c
from mailbridge.proxy_protocol.header import (
    MAX_V1,
    MAX_V2,
    InvalidProxyHeader,
    ProxyHeader,
    ProxySsl,
    SslTlvType,
    TlvType,
    decode,
    encode,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
SIX = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
FOUR_ENDS = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + (56324).to_bytes(2) + (25).to_bytes(2)
LARGEST = 16 + 0xFFFF


def four(**changes):
    """A header over IPv4; what of it does not matter to a test stands here."""
    ends = {"source": ("192.0.2.1", 56324), "destination": ("198.51.100.2", 25)}
    return ProxyHeader(**{"version": 2, "family": "ipv4", **ends, **changes})


def v1(family, source, destination):
    return ProxyHeader(version=1, family=family, source=source, destination=destination)


def v2(block=b"", codes="2111", length=None):
    """Bytes of version 2: `codes` are command and family, `length` what is claimed."""
    claimed = len(block) if length is None else length
    return SIGNATURE + bytes.fromhex(codes) + claimed.to_bytes(2) + block


def tlv(kind, value, length=None):
    return bytes((kind,)) + (len(value) if length is None else length).to_bytes(2) + value


def ssl(*within, client=1, verify=0):
    return bytes((client,)) + verify.to_bytes(4) + b"".join(within)


def with_crc(data, wrong_by=0):
    """`data` ends with four zero bytes, the room for the checksum."""
    return data[:-4] + (crc32c(data) ^ wrong_by).to_bytes(4)


def unix(source, destination):
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def outcome(data, **options):
    try:
        return decode(data, **options)
    except InvalidProxyHeader as error:
        return type(error)


UNKNOWN = ProxyHeader(version=1)
NO_FAMILY = ProxyHeader(version=2)
LOCAL = ProxyHeader(version=2, command="LOCAL")
PATHS = ProxyHeader(version=2, family="unix", source="/run/client", destination="/run/smtp")

# What decodes, and to what; `encode` gives the same bytes for those in CANONICAL.
CANONICAL = {
    # The specification, section 2.1: the example, and the longest lines.
    "example": (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        v1("ipv4", ("192.168.0.1", 56324), ("192.168.0.11", 443)),
    ),
    "longest TCP4": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        v1("ipv4", ("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    "longest TCP6": (
        f"PROXY TCP6 {SIX} {SIX} 65535 65535\r\n".encode(),
        v1("ipv6", (SIX, 65535), (SIX, 65535)),
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", UNKNOWN),
    "port 0": (b"PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", v1("ipv4", ("192.0.2.1", 0), ("192.0.2.2", 0))),
    "IPv6 shortened": (
        b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
        v1("ipv6", ("2001:db8::1", 1), ("::1", 65535)),
    ),
    "IPv4 mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 2\r\n",
        v1("ipv6", ("::ffff:192.0.2.1", 1), ("::ffff:198.51.100.2", 2)),
    ),
    "LOCAL": (v2(codes="2000"), LOCAL),
    "PROXY of no family": (v2(codes="2100"), NO_FAMILY),
    "TCP over IPv4": (v2(FOUR_ENDS), four()),
    "UDP over IPv4": (v2(FOUR_ENDS, "2112"), four(transport="dgram")),
    "TCP over IPv6": (
        v2(bytes.fromhex("20010db8000000000000000000000001" + "00" * 15 + "01" + "0001ffff"), "2121"),
        four(family="ipv6", source=("2001:db8::1", 1), destination=("::1", 65535)),
    ),
    "UDP over IPv6, mapped": (
        v2(bytes.fromhex(("00" * 10 + "ffff" + "c0000201") * 2 + "00010002"), "2122"),
        four(
            family="ipv6",
            transport="dgram",
            source=("::ffff:192.0.2.1", 1),
            destination=("::ffff:192.0.2.1", 2),
        ),
    ),
    "UNIX stream": (v2(unix(b"/run/client", b"/run/smtp"), "2131"), PATHS),
    "UNIX dgram": (v2(unix(b"/run/client", b"/run/smtp"), "2132"), replace(PATHS, transport="dgram")),
    "UNIX without a name": (v2(unix(b"", b"/s"), "2131"), replace(PATHS, source="", destination="/s")),
    "UNIX of full length": (
        v2(unix(b"a" * 108, b"\xff" * 108), "2131"),
        replace(PATHS, source="a" * 108, destination="\udcff" * 108),
    ),
    "UNIX abstract": (
        v2(unix(b"\0a\0b", b"/\xc3\xa9"), "2131"),
        replace(PATHS, source="\0a\0b", destination="/é"),
    ),
    "vectors": (
        v2(
            FOUR_ENDS
            + tlv(0x02, b"mail.example.com")
            + tlv(0xE0, b"\0\xff")
            + tlv(0x04, b"")
            + tlv(0x04, b"pad")
        ),
        four(tlvs=((0x02, b"mail.example.com"), (0xE0, b"\0\xff"), (0x04, b""), (0x04, b"pad"))),
    ),
    "vectors after UNIX": (
        v2(unix(b"/run/client", b"/run/smtp") + tlv(0x05, b"id"), "2131"),
        replace(PATHS, tlvs=((0x05, b"id"),)),
    ),
    "longest by default": (
        v2(FOUR_ENDS + tlv(0xE0, bytes(MAX_V2 - 16 - 12 - 3))),
        four(tlvs=((0xE0, bytes(MAX_V2 - 31)),)),
    ),
}
OTHERWISE = {
    "UNKNOWN with the longest addresses": (f"PROXY UNKNOWN {SIX} {SIX} 65535 65535\r\n".encode(), UNKNOWN),
    "UNKNOWN with addresses": (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", UNKNOWN),
    "UNKNOWN with one space": (b"PROXY UNKNOWN \r\n", UNKNOWN),
    "UNKNOWN with anything": (b"PROXY UNKNOWN   TCP4 \0\xff\x80 99999\r\n", UNKNOWN),
    "IPv6 in full": (
        b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0001 0:0:0:0:0:0:0:1 1 2\r\n",
        v1("ipv6", ("2001:db8::1", 1), ("::1", 2)),
    ),
    "IPv4 mapped in hexadecimal": (
        b"PROXY TCP6 ::ffff:c000:201 ::FFFF:1.2.3.4 1 2\r\n",
        v1("ipv6", ("::ffff:192.0.2.1", 1), ("::ffff:1.2.3.4", 2)),
    ),
    "LOCAL with addresses": (v2(FOUR_ENDS, "2011"), LOCAL),
    "LOCAL with anything": (v2(b"\x03\xff\xff junk", "2000"), LOCAL),
    "LOCAL of an unknown family": (v2(b"x", "20ff"), LOCAL),
    "LOCAL too short for its family": (v2(b"x" * 5, "2021"), LOCAL),
    "no family, with anything": (v2(b"\x03\xff\xff junk", "2100"), NO_FAMILY),
    "no family, stream": (v2(FOUR_ENDS, "2101"), NO_FAMILY),
    "no transport": (v2(FOUR_ENDS, "2110"), NO_FAMILY),
    "no transport, no addresses": (v2(b"", "2130"), NO_FAMILY),
    "checksum": (with_crc(v2(FOUR_ENDS + tlv(0x03, bytes(4)))), four()),
}
VALID = CANONICAL | OTHERWISE

INVALID_V1 = {
    "LF alone": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
    "CR alone": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rEHLO",
    "CR twice": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
    "LF in UNKNOWN": b"PROXY UNKNOWN x\ny\r\n",
    "CR in UNKNOWN": b"PROXY UNKNOWN x\ry\r\n",
    "UNKNOWN, LF alone": b"PROXY UNKNOWN\n",
    "lower case": b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "lower-case protocol": b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
    "lower-case unknown": b"PROXY unknown\r\n",
    "bogus protocol": b"PROXY BANANA 1.2.3.4 1.2.3.5 1 2\r\n",
    "UDP": b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "no space after UNKNOWN": b"PROXY UNKNOWNX\r\n",
    "nothing after PROXY": b"PROXY\r\n",
    "nothing after TCP4": b"PROXY TCP4\r\n",
    "space before": b" PROXY UNKNOWN\r\n",
    "CRLF before": b"\r\nPROXY UNKNOWN\r\n",
    "two spaces at first": b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "two spaces before the source": b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    "two spaces between addresses": b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
    "two spaces between ports": b"PROXY TCP4 192.0.2.1 192.0.2.2 1  2\r\n",
    "tab": b"PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n",
    "space at the end": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
    "more at the end": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
    "no destination": b"PROXY TCP4 192.0.2.1\r\n",
    "no ports": b"PROXY TCP4 192.0.2.1 192.0.2.2\r\n",
    "one port": b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    "empty address": b"PROXY TCP4  192.0.2.2 1 2\r\n",
    "IPv6 under TCP4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "IPv4 under TCP6": b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    "mixed under TCP4": b"PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
    "mixed under TCP6": b"PROXY TCP6 ::1 192.0.2.1 1 2\r\n",
    "mapped under TCP4": b"PROXY TCP4 ::ffff:192.0.2.1 192.0.2.2 1 2\r\n",
    "host name": b"PROXY TCP4 localhost 192.0.2.2 1 2\r\n",
    "host name of hexadecimal digits": b"PROXY TCP4 cafe.de 192.0.2.2 1 2\r\n",
    "leading zero in the source": b"PROXY TCP4 010.0.0.1 192.0.2.2 1 2\r\n",
    "leading zero in the destination": b"PROXY TCP4 192.0.2.1 192.0.02.2 1 2\r\n",
    "leading zero in a mapped address": b"PROXY TCP6 ::ffff:192.0.02.1 ::1 1 2\r\n",
    "hexadecimal IPv4": b"PROXY TCP4 0xc0000201 192.0.2.2 1 2\r\n",
    "IPv4 as one number": b"PROXY TCP4 3221225985 192.0.2.2 1 2\r\n",
    "three numbers": b"PROXY TCP4 192.0.1 192.0.2.2 1 2\r\n",
    "256": b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
    "network": b"PROXY TCP4 192.0.2.1/24 192.0.2.2 1 2\r\n",
    "other digits": "PROXY TCP4 192.0.2.\u0661 192.0.2.2 1 2\r\n".encode(),
    "zone": b"PROXY TCP6 fe80::1%1 ::1 1 2\r\n",
    "brackets": b"PROXY TCP6 [::1] ::1 1 2\r\n",
    "two double colons": b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
    "three colons": b"PROXY TCP6 1:::2 ::1 1 2\r\n",
    "nine groups": b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n",
    "seven groups": b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n",
    "five digits in a group": b"PROXY TCP6 ::12345 ::1 1 2\r\n",
    "port 65536": b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    "port 99999": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n",
    "port of six digits": b"PROXY TCP4 192.0.2.1 192.0.2.2 100000 2\r\n",
    "hexadecimal port": b"PROXY TCP4 192.0.2.1 192.0.2.2 0x10 2\r\n",
    "port of letters": b"PROXY TCP4 192.0.2.1 192.0.2.2 abc 2\r\n",
    "negative port": b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
    "signed port": b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
    "leading zero in the source port": b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
    "leading zero in the destination port": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 02\r\n",
    "port 00": b"PROXY TCP4 192.0.2.1 192.0.2.2 00 2\r\n",
    "port with underscore": b"PROXY TCP4 192.0.2.1 192.0.2.2 1_0 2\r\n",
    "NUL": b"PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n",
    "one byte too long": b"PROXY UNKNOWN".ljust(MAX_V1 - 1) + b"\r\n",
    "200 bytes": b"PROXY UNKNOWN ".ljust(198, b"x") + b"\r\n",
    "no end within 107 bytes": b"PROXY UNKNOWN ".ljust(MAX_V1, b"x"),
    "2000 bytes without an end": b"PROXY UNKNOWN ".ljust(2000, b"x"),
    "CR as byte 107": b"PROXY UNKNOWN ".ljust(MAX_V1 - 1, b"x") + b"\r",
    "EHLO": b"EHLO client.example.com\r\n",
    "TLS": bytes.fromhex("16030100"),
    "HTTP": b"GET / HTTP/1.1\r\n",
    "PROXY as in a pop song": b"PROXIMA\r\n",
}
INVALID_V2 = {
    "signature with another end": SIGNATURE[:-1] + b"\r" + v2(FOUR_ENDS)[12:],
    "version 0": v2(FOUR_ENDS, "0111"),
    "version 1": v2(FOUR_ENDS, "1111"),
    "version 3": v2(FOUR_ENDS, "3111"),
    "command 2": v2(FOUR_ENDS, "2211"),
    "command 15": v2(FOUR_ENDS, "2f11"),
    "family 4": v2(FOUR_ENDS, "2141"),
    "family 15": v2(FOUR_ENDS, "21f1"),
    "transport 3": v2(FOUR_ENDS, "2113"),
    "transport 15": v2(FOUR_ENDS, "211f"),
    "transport 3 of no family": v2(b"", "2103"),
    "no room for IPv4": v2(FOUR_ENDS[:-1]),
    "no addresses": v2(b""),
    "no room for IPv6": v2(bytes(35), "2121"),
    "no room for UNIX": v2(bytes(215), "2131"),
    "one byte beyond the limit": v2(bytes(MAX_V2 - 15)),
    "LOCAL beyond the limit": v2(bytes(MAX_V2 - 15), "2000"),
    "65551 bytes claimed": v2(length=0xFFFF),
    "UNIX with more after its end": v2(unix(b"/a\0b", b"/s"), "2131"),
    "one byte after the addresses": v2(FOUR_ENDS + b"\x04"),
    "half a vector's length": v2(FOUR_ENDS + b"\x04\0"),
    "vector longer than the header": v2(FOUR_ENDS + tlv(0x04, b"abc", length=4)),
    "second vector longer than the header": v2(FOUR_ENDS + tlv(0x04, b"abc") + tlv(0xE0, b"", length=0xFFFF)),
    "bytes after the last vector": v2(FOUR_ENDS + tlv(0x04, b"abc", length=2)),
    "checksum wrong": with_crc(v2(FOUR_ENDS + tlv(0x03, bytes(4))), wrong_by=1),
    "checksum zero": v2(FOUR_ENDS + tlv(0x03, bytes(4))),
    "checksum of three bytes": v2(FOUR_ENDS + tlv(0x03, bytes(3))),
    "checksum empty": v2(FOUR_ENDS + tlv(0x03, b"")),
    "two checksums": with_crc(v2(FOUR_ENDS + tlv(0x03, bytes(4)) * 2)),
    "authority not UTF-8": v2(FOUR_ENDS + tlv(0x02, b"\xff")),
    "authority of 256 bytes": v2(FOUR_ENDS + tlv(0x02, b"a" * 256)),
    "two authorities": v2(FOUR_ENDS + tlv(0x02, b"a") + tlv(0x02, b"b")),
    "unique id of 129 bytes": v2(FOUR_ENDS + tlv(0x05, b"a" * 129)),
    "namespace not ASCII": v2(FOUR_ENDS + tlv(0x30, b"\xc3\xa9")),
    "SSL of four bytes": v2(FOUR_ENDS + tlv(0x20, bytes(4))),
    "SSL with half a vector": v2(FOUR_ENDS + tlv(0x20, ssl(b"\x21\0"))),
    "SSL with a vector longer than itself": v2(
        FOUR_ENDS + tlv(0x20, ssl(tlv(0x21, b"x", length=2))) + tlv(4, b"")
    ),
    "SSL version not ASCII": v2(FOUR_ENDS + tlv(0x20, ssl(tlv(0x21, b"\xc3\xa9")))),
    "SSL common name not UTF-8": v2(FOUR_ENDS + tlv(0x20, ssl(tlv(0x22, b"\xff")))),
    "SSL with two common names": v2(FOUR_ENDS + tlv(0x20, ssl(tlv(0x22, b"a"), tlv(0x22, b"b")))),
}
INVALID = INVALID_V1 | INVALID_V2


def cases(table):
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), id=name) for name, row in table.items()
    ]


def test_the_limits_are_those_of_the_specification():
    assert (MAX_V1, MAX_V2) == (107, 536)


def test_the_tables_have_not_shrunk():
    assert len(VALID) + len(INVALID) >= 130


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize(("data", "header"), cases(VALID))
def test_valid(data, header, kind):
    assert decode(kind(data)) == (header, len(data))


@pytest.mark.parametrize(("data", "header"), cases(VALID))
def test_what_follows_is_not_looked_at(data, header):
    for tail in (b"EHLO x\r\n", b"\n", b"\r\n", b"\0" * 100_000, data):
        assert decode(data + tail) == (header, len(data))


@pytest.mark.parametrize(("data", "header"), cases(VALID))
def test_every_prefix_asks_for_more(data, header):
    assert [end for end in range(len(data)) if decode(data[:end]) is not None] == []


@pytest.mark.parametrize(("data", "header"), cases(CANONICAL))
def test_encode_is_byte_exact(data, header):
    assert encode(header) == data


@pytest.mark.parametrize("data", cases(INVALID))
def test_invalid(data):
    with pytest.raises(InvalidProxyHeader):
        decode(data)


@pytest.mark.parametrize("data", cases(INVALID))
def test_invalid_however_it_is_cut(data):
    """No prefix is ever taken for a header, and what once was refused is refused with more behind it."""
    found = [outcome(data[:end]) for end in range(len(data) + 1)]
    refused_at = found.index(InvalidProxyHeader)
    assert set(found[:refused_at]) == {None}
    assert set(found[refused_at:]) == {InvalidProxyHeader}


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        (b"EHLO x", 1),
        (b"PRX", 3),
        (b"PROXY TCP5 ", 10),
        (b"PROXY TCP4 1\n", 13),
        (b"\r\nEHLO", 3),
        (v2(FOUR_ENDS, "3111"), 13),
        (v2(FOUR_ENDS, "2141"), 14),
        (v2(length=0xFFFF), 16),
        (v2(FOUR_ENDS[:-1]), 16),
    ],
)
def test_what_is_wrong_is_refused_at_its_first_byte(data, needed):
    assert decode(data[: needed - 1]) is None
    with pytest.raises(InvalidProxyHeader):
        decode(data[:needed])


def test_every_other_first_byte_is_refused_at_once():
    assert [chr(byte) for byte in range(256) if outcome(bytes((byte,))) is None] == ["\r", "P"]


def test_the_limit_of_version_2_can_be_moved():
    data = v2(FOUR_ENDS + tlv(0xE0, bytes(0xFFFF - 12 - 3)))
    assert len(data) == LARGEST
    assert decode(data, max_v2_bytes=LARGEST) == (four(tlvs=((0xE0, bytes(0xFFFF - 15)),)), LARGEST)
    assert decode(data, max_v2_bytes=10 * LARGEST) == decode(data, max_v2_bytes=LARGEST)
    with pytest.raises(InvalidProxyHeader, match=f"has {LARGEST} bytes, {LARGEST - 1} is the most"):
        decode(data[:16], max_v2_bytes=LARGEST - 1)
    with pytest.raises(InvalidProxyHeader, match="has 28 bytes, 27 is the most"):
        decode(v2(FOUR_ENDS), max_v2_bytes=27)


def test_a_buffer_can_be_cut_while_its_error_is_handled():
    buffer = bytearray(b"EHLO x\r\n")
    with pytest.raises(InvalidProxyHeader):
        decode(buffer)
    try:
        decode(buffer)
    except InvalidProxyHeader:
        del buffer[:4]  # BufferError, if the traceback held a view of it
    assert buffer == b" x\r\n"


def test_error_is_readable_bounded_and_can_be_pickled():
    with pytest.raises(InvalidProxyHeader) as raised:
        decode(b"EHLO \x1b[2J" + b"x" * 100_000)
    text = str(raised.value)
    assert "does not begin with a PROXY header but with b'EHLO" in text
    assert "send-proxy" in text
    assert "\x1b" not in text
    assert len(text) < 300
    assert isinstance(raised.value, ValueError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == text


# As HAProxy 2.6 sent them; TLS with the options ssl, cert-cn, ssl-cipher, cert-sig, cert-key, authority,
# unique-id and crc32c.
HAPROXY_TLS = bytes.fromhex(
    "0d0a0d0a000d0a515549540a2111008f7f0000017f000001b532552d030004aca8b7010200106d61696c2e6578616d706c"
    "652e636f6d05002461356638613934612d366361352d346632642d396435342d61313436346665336332306320003f0100"
    "000000210007544c5376312e332500075253413230343824000a5253412d534841323536230016544c535f4145535f3235"
    "365f47434d5f534841333834"
)
HAPROXY_TLS_CERTIFICATE = bytes.fromhex(
    "0d0a0d0a000d0a515549540a211100aa7f0000017f000001ebca552d0300049143d82e010004736d74700200106d61696c"
    "2e6578616d706c652e636f6d05002465383361663666362d316236612d343836332d386665302d30366335663161666362"
    "61642000530700000000210007544c5376312e33220011616c6963652e6578616d706c652e636f6d250007525341323034"
    "3824000a5253412d534841323536230016544c535f4145535f3235365f47434d5f534841333834"
)
HAPROXY = {
    "send-proxy": (
        b"PROXY TCP4 127.0.0.1 127.0.0.1 53312 21801\r\n",
        v1("ipv4", ("127.0.0.1", 53312), ("127.0.0.1", 21801)),
    ),
    "send-proxy over IPv6": (
        b"PROXY TCP6 ::1 ::1 38272 21802\r\n",
        v1("ipv6", ("::1", 38272), ("::1", 21802)),
    ),
    "send-proxy for a UNIX client": (b"PROXY UNKNOWN\r\n", UNKNOWN),
    "send-proxy-v2": (
        bytes.fromhex("0d0a0d0a000d0a515549540a2111000c7f0000017f000001dd58552b"),
        four(source=("127.0.0.1", 56664), destination=("127.0.0.1", 21803)),
    ),
    "send-proxy-v2 over IPv6": (
        bytes.fromhex("0d0a0d0a000d0a515549540a21210024" + ("00" * 15 + "01") * 2 + "b0ac552c"),
        four(family="ipv6", source=("::1", 45228), destination=("::1", 21804)),
    ),
    "send-proxy-v2 for a UNIX client": (bytes.fromhex("0d0a0d0a000d0a515549540a20000000"), LOCAL),
    "crc32c and unique-id": (
        bytes.fromhex(
            "0d0a0d0a000d0a515549540a2111001f7f0000017f000001a8ba552e03000404716d04050009636f6e6e2d30303031"
        ),
        four(
            source=("127.0.0.1", 43194),
            destination=("127.0.0.1", 21806),
            tlvs=((TlvType.UNIQUE_ID, b"conn-0001"),),
        ),
    ),
}


@pytest.mark.parametrize(("data", "header"), cases(HAPROXY))
def test_what_haproxy_sends(data, header):
    assert decode(data + b"EHLO x\r\n") == (header, len(data))


@pytest.mark.parametrize(("data", "header"), [row for name, row in HAPROXY.items() if "crc" not in name])
def test_encode_gives_what_haproxy_sends(data, header):
    assert encode(header) == data


def test_what_haproxy_says_of_tls():
    header, size = decode(HAPROXY_TLS)
    assert size == len(HAPROXY_TLS)
    assert (header.alpn, header.authority, header.netns) == (None, "mail.example.com", None)
    assert header.unique_id == b"a5f8a94a-6ca5-4f2d-9d54-a1464fe3c20c"
    assert header.ssl == ProxySsl(
        client=1,
        verify=0,
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        sig_alg="RSA-SHA256",
        key_alg="RSA2048",
    )
    assert header.ssl.is_encrypted
    assert not header.ssl.has_verified_certificate  # there was none, though `verify` is 0


def test_what_haproxy_says_of_a_client_certificate():
    header, _ = decode(HAPROXY_TLS_CERTIFICATE)
    assert header.alpn == b"smtp"
    assert (header.ssl.client, header.ssl.cn) == (7, "alice.example.com")
    assert header.ssl.has_verified_certificate


@pytest.mark.parametrize("data", [HAPROXY_TLS, HAPROXY_TLS_CERTIFICATE])
def test_a_checksum_finds_every_changed_byte(data):
    for at in range(len(data)):
        changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        # A single bit makes LOCAL or no transport of it; then the block, its checksum too, is to be ignored.
        if at not in (12, 13):
            assert outcome(changed) in (InvalidProxyHeader, None), at  # None: a longer one was claimed


def test_checksum_stands_last_and_is_right():
    for header in (four(), four(tlvs=((0x02, b"a"),)), PATHS, LOCAL):
        data = encode(header, with_crc=True)
        assert data[-7:-4] == b"\x03\0\x04"
        assert data == with_crc(data[:-4] + bytes(4))
        assert decode(data) == (header, len(data))
    with pytest.raises(InvalidProxyHeader, match="Version 1 of the PROXY header has no checksum"):
        encode(UNKNOWN, with_crc=True)


def test_a_checksum_is_found_wherever_it_stands():
    before, after = tlv(0x05, b"id"), tlv(0x02, b"mail.example.com") + tlv(0x04, b"\x03\0\x04\0\0\0\0")
    data = v2(FOUR_ENDS + before + tlv(0x03, bytes(4)) + after)
    at = 16 + 12 + len(before) + 3
    data = data[:at] + crc32c(data).to_bytes(4) + data[at + 4 :]
    header, _ = decode(data)
    assert [kind for kind, _ in header.tlvs] == [0x05, 0x02, 0x04]
    for wrong in (at, 20, len(data) - 20):
        with pytest.raises(InvalidProxyHeader, match="checksum of the PROXY header is wrong"):
            decode(data[:wrong] + bytes((data[wrong] ^ 0x40,)) + data[wrong + 1 :])


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_checksum_of_another_length_is_told_as_such(length):
    with pytest.raises(InvalidProxyHeader, match="does not have 32 bits"):
        decode(v2(FOUR_ENDS + tlv(0x03, bytes(length))))


def test_vectors_beyond_the_length_field_are_refused():
    most = 0xFFFF - 12 - 3
    assert len(encode(four(tlvs=((0xE0, bytes(most)),)))) == LARGEST
    for header, crc in (
        (four(tlvs=((0xE0, bytes(most + 1)),)), False),
        (four(tlvs=((0xE0, bytes(most)),)), True),
    ):
        with pytest.raises(InvalidProxyHeader, match="too long"):
            encode(header, with_crc=crc)


PORTS = st.integers(0, 65535)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SSL_VECTORS = st.builds(
    lambda client, verify, texts: ssl(
        *(tlv(kind, text.encode()) for kind, text in texts.items()), client=client, verify=verify
    ),
    st.integers(0, 255),
    st.integers(0, 0xFFFFFFFF),
    st.dictionaries(st.sampled_from(SslTlvType), st.text(st.characters(codec="ascii"), max_size=20)),
)
UNREGISTERED = st.tuples(
    st.integers(0, 255).filter(lambda kind: kind not in set(TlvType)), st.binary(max_size=40)
)
REGISTERED = {
    TlvType.ALPN: st.binary(max_size=20),
    TlvType.AUTHORITY: TEXT.map(str.encode),
    TlvType.UNIQUE_ID: st.binary(max_size=128),
    TlvType.SSL: SSL_VECTORS,
    TlvType.NETNS: st.text(st.characters(codec="ascii")).map(str.encode),
}


@st.composite
def vectors(draw):
    """Any vectors, registered ones at most once each, in any order."""
    noise = draw(
        st.lists(UNREGISTERED | st.tuples(st.just(int(TlvType.NOOP)), st.binary(max_size=5)), max_size=5)
    )
    kinds = draw(st.sets(st.sampled_from(sorted(REGISTERED))))
    return tuple(
        draw(st.permutations(noise + [(int(kind), draw(REGISTERED[kind])) for kind in sorted(kinds)]))
    )


@st.composite
def headers(draw):
    version = draw(st.sampled_from([1, 2]))
    family = draw(st.sampled_from(["unknown", "ipv4", "ipv6", "unix"][: 2 * version + (version == 1)]))
    if family == "unknown":
        command = draw(st.sampled_from(["PROXY", "LOCAL"][:version]))
        return ProxyHeader(version=version, command=command)
    if family == "unix":
        name = st.binary(max_size=107).map(
            lambda raw: raw.replace(b"\0", b"/").decode("utf-8", "surrogateescape")
        )
        end = name | name.filter(bool).map(lambda text: "\0" + text)
    else:
        end = st.tuples(st.ip_addresses(v=4 if family == "ipv4" else 6).map(str), PORTS)
    return ProxyHeader(
        version=version,
        family=family,
        transport=draw(st.sampled_from(["stream", "dgram"][:version])),
        source=draw(end),
        destination=draw(end),
        tlvs=draw(vectors()) if version == 2 else (),
    )


@given(headers(), st.booleans(), st.binary(max_size=40))
def test_what_is_encoded_decodes_to_the_same(header, crc, tail):
    data = encode(header, with_crc=crc and header.version == 2)
    assert decode(data + tail, max_v2_bytes=LARGEST) == (header, len(data))
    assert len(data) <= (MAX_V1 if header.version == 1 else LARGEST)


@given(headers(), st.booleans())
def test_no_prefix_of_what_is_encoded_is_taken_or_refused(header, crc):
    data = encode(header, with_crc=crc and header.version == 2)
    assert {outcome(data[:end], max_v2_bytes=LARGEST) for end in range(len(data))} == {None}


def near_misses():
    """Bytes that get past the first checks, and bytes that are anything."""
    body = st.binary(max_size=600)
    words = st.lists(
        st.sampled_from(
            ["192.0.2.1", "::1", "25", "0", "65536", "", "x", "\r", "\n", "\0", "::ffff:1.2.3.4"]
        ),
        max_size=8,
    )
    line = st.builds(
        lambda beginning, rest, end: beginning + " ".join(rest).encode() + end,
        st.sampled_from([b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", b"PROXY "]),
        words,
        st.sampled_from([b"\r\n", b"\n", b"\r", b""]),
    )
    some_tlvs = st.lists(st.builds(tlv, st.integers(0, 0x31), st.binary(max_size=30)), max_size=6).map(
        b"".join
    )
    binary = st.builds(
        lambda command, code, block, off: (
            SIGNATURE + bytes((command, code)) + max(len(block) + off, 0).to_bytes(2) + block
        ),
        st.sampled_from([0x20, 0x21, 0x21, 0x21, 0x22, 0x11]),
        st.sampled_from([0x00, 0x11, 0x12, 0x21, 0x31, 0x41, 0x13]),
        st.builds(
            lambda ends, rest: ends + rest, st.sampled_from([FOUR_ENDS, bytes(36), bytes(216)]), some_tlvs
        )
        | body,
        st.sampled_from([0, 0, 0, -1, 1, 100]),
    )
    return line | binary | body.map(SIGNATURE.__add__) | st.binary(max_size=4096)


@given(near_misses(), st.data())
def test_only_its_own_error_and_the_same_however_it_is_cut(data, draw):
    whole = outcome(data)
    end = draw.draw(st.integers(0, len(data)))
    assert outcome(data[:end]) in (None, whole)
    if isinstance(whole, tuple):
        header, size = whole
        again = encode(header)
        assert decode(again) == (header, len(again))
        assert decode(data[:size]) == (header, size)
        if header.version == 1:
            assert size <= MAX_V1


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=20))
def test_any_vectors_raise_only_its_own_error(found):
    data = v2(FOUR_ENDS + b"".join(tlv(kind, value) for kind, value in found))
    assert outcome(data, max_v2_bytes=LARGEST) is not None


def steps(data):
    """How many lines of Python it takes to decode `data`: the same on every machine."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        outcome(data, max_v2_bytes=LARGEST)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "make",
    [
        lambda n: v2(FOUR_ENDS + tlv(0xE0, b"") * n),
        lambda n: v2(FOUR_ENDS + b"\xe0\0\x01x" * n + b"\xe0\0\x01"),
        lambda n: v2(FOUR_ENDS + tlv(0x20, ssl(tlv(0x99, b"") * n))),
        lambda n: v2(FOUR_ENDS + tlv(0x03, b"") * n),
        lambda n: v2(FOUR_ENDS + tlv(0x20, ssl()) * n),
        lambda n: with_crc(v2(FOUR_ENDS + tlv(0xE0, bytes(n)) + tlv(0x03, bytes(4)))),
    ],
    ids=["vectors", "one that lies", "within ssl", "checksums", "ssl again and again", "under a checksum"],
)
def test_takes_linear_time(make):
    assert 0 < steps(make(5000)) < 12 * steps(make(500))


@pytest.mark.parametrize(
    "data", [b"PROXY UNKNOWN " + b"x" * 5000, b"PROXY TCP6 " + b":" * 5000, b"\r" * 5000]
)
def test_what_is_too_long_costs_no_more_than_what_is_not(data):
    assert steps(data) == steps(data[: MAX_V1 + 10])


def test_waiting_for_the_rest_costs_the_same_however_much_is_there():
    data = v2(FOUR_ENDS + tlv(0xE0, bytes(60_000)))
    assert steps(data[:-1]) == steps(data[:16])


def test_what_follows_is_not_copied():
    data = memoryview(b"PROXY UNKNOWN\r\n" + bytes(10_000_000))
    decode(data)
    tracemalloc.start()
    try:
        decode(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()
