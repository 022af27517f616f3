"""What the vectors of a PROXY header mean, and which cannot be."""

import pytest

from mailbridge.proxy_protocol.header import InvalidProxyHeader, ProxyHeader, ProxySsl, SslTlvType, TlvType
from mailbridge.proxy_protocol.tlvs import decode_tlvs, encode_tlvs


def header(*tlvs):
    return ProxyHeader(
        version=2, family="ipv4", source=("192.0.2.1", 1), destination=("192.0.2.2", 25), tlvs=tlvs
    )


def ssl(*within, client=1, verify=0):
    return bytes((client,)) + verify.to_bytes(4) + encode_tlvs(within)


@pytest.mark.parametrize(
    ("client", "verify", "encrypted", "verified"),
    [
        (0, 0, False, False),
        (1, 0, True, False),
        (1, 1, True, False),
        (3, 0, True, True),
        (3, 20, True, False),
        (5, 0, True, True),
        (5, 1, True, False),
        (2, 0, False, True),
        (0xF8, 0, False, False),
    ],
)
def test_flags_of_tls(client, verify, encrypted, verified):
    found = header((TlvType.SSL, ssl(client=client, verify=verify))).ssl
    assert found == ProxySsl(client=client, verify=verify)
    assert (found.is_encrypted, found.has_verified_certificate) == (encrypted, verified)


def test_everything_said_of_tls():
    said = ("TLSv1.3", "Zoë", "TLS_AES_256_GCM_SHA384", "RSA-SHA256", "RSA2048")
    within = zip(SslTlvType, (text.encode() for text in said), strict=True)
    found = header((TlvType.SSL, ssl(*within, client=7, verify=0xFFFFFFFF))).ssl
    assert found == ProxySsl(
        client=7,
        verify=0xFFFFFFFF,
        version=said[0],
        cn=said[1],
        cipher=said[2],
        sig_alg=said[3],
        key_alg=said[4],
    )


def test_unregistered_vectors_within_ssl_are_passed_over():
    value = ssl((0x99, b"\xff"), (0x99, b"again"), (0x02, b"\xff"), (0x02, b""), (0x22, b"Zo"), client=3)
    assert header((TlvType.SSL, value)).ssl == ProxySsl(client=3, verify=0, cn="Zo")


def test_meaning_of_vectors():
    found = header((1, b"h2"), (2, "é.example".encode()), (5, b"\0" * 128), (0x30, b"blue"))
    assert (found.alpn, found.authority, found.unique_id) == (b"h2", "é.example", bytes(128))
    assert (found.netns, found.ssl) == ("blue", None)
    assert header((2, b"a" * 255)).authority == "a" * 255
    nothing = header((4, b"pad"), (0xE0, b"custom"), (0x21, b"of no meaning here"))
    assert [nothing.alpn, nothing.authority, nothing.unique_id, nothing.netns, nothing.ssl] == [None] * 5


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (0x02, b"a" * 256, "AUTHORITY vector of the PROXY header has 256 bytes, 255 is the most"),
        (0x02, b"\xff", "AUTHORITY vector of the PROXY header is not utf-8"),
        (0x05, b"a" * 129, "UNIQUE_ID vector of the PROXY header has 129 bytes, 128 is the most"),
        (0x20, b"\1\0\0\0", "SSL vector of the PROXY header is too short"),
        (0x20, ssl((0x21, "é".encode())), "SSL VERSION vector of the PROXY header is not ascii"),
        (0x20, ssl((0x23, "é".encode())), "SSL CIPHER vector of the PROXY header is not ascii"),
        (0x20, ssl((0x22, b"\xff")), "SSL CN vector of the PROXY header is not utf-8"),
        (0x20, ssl() + b"\x21\0\2x", "type 0x21 in the PROXY header is longer than the room for it"),
        (0x30, "é".encode(), "NETNS vector of the PROXY header is not ascii"),
        (256, b"", "vector of type 256 with 0 bytes"),
    ],
)
def test_impossible_vectors(kind, value, problem):
    with pytest.raises(InvalidProxyHeader, match=problem):
        header((kind, value))


@pytest.mark.parametrize("kind", [kind for kind in TlvType if kind not in (TlvType.NOOP, TlvType.CRC32C)])
def test_a_registered_type_stands_once(kind):
    tlv = (int(kind), ssl())  # bytes below 0x80, which all of them may have
    assert header(tlv, (0x04, b""), (0xE0, b"")).tlvs[0] == tlv
    with pytest.raises(InvalidProxyHeader, match="only once"):
        header(tlv, (0xE0, b""), tlv)


def test_padding_and_unregistered_types_may_stand_again():
    tlvs = ((0x04, b""), (0xE0, b"a"), (0x04, b""), (0xE0, b"a"), (0x21, b""), (0x21, b""))
    assert header(*tlvs).tlvs == decode_tlvs(encode_tlvs(tlvs)) == tlvs
