"""The type-length-value vectors of a PROXY protocol header of version 2 (proxy-protocol.txt, section 2.2).

Walks them within their bounds, checks those of registered types, gives their meaning. The sections
named here are those of HAProxy's proxy-protocol.txt. The checksum is not judged here: it covers the
whole header (`proxy_header`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from mailbridge.errors import MailbridgeError

Tlvs = tuple[tuple[int, bytes], ...]  # type (0 to 255) and value, in the order of the wire

TLV_FIXED = 3  # bytes: one of type, two of length
MAX_AUTHORITY = 255  # bytes; a host name of DNS has at most that many
MAX_UNIQUE_ID = 128  # bytes, section 2.2.5
_MAX_VALUE = 0xFFFF  # bytes, what the length field can say
_SSL_FIXED = 5  # bytes: one of client flags, four of the result of verification (section 2.2.6)

_CLIENT_SSL = 0x01
_CLIENT_CERT_CONN = 0x02
_CLIENT_CERT_SESS = 0x04


class InvalidProxyHeader(MailbridgeError, ValueError):
    """Bytes that are no PROXY header, or a value that none can carry; the connection is to be closed."""


class TlvType(IntEnum):
    """The registered types of vectors."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    NETNS = 0x30


class SslTlvType(IntEnum):
    """The registered types of vectors within the one of type SSL."""

    VERSION = 0x21
    CN = 0x22
    CIPHER = 0x23
    SIG_ALG = 0x24
    KEY_ALG = 0x25


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySsl:
    """What the sender of the header says of the TLS between the client and itself (section 2.2.6).

    `client` holds the flags, `verify` the result of verifying the client's certificate: 0 if there
    was one and it is good, but also, from HAProxy, if there was none. `cn` is the common name of that
    certificate; `sig_alg` and `key_alg` are of the certificate that the sender itself showed. None
    stands for what was not said.
    """

    client: int
    verify: int
    version: str | None = None
    cn: str | None = None
    cipher: str | None = None
    sig_alg: str | None = None
    key_alg: str | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether the client spoke TLS to the sender of the header."""
        return bool(self.client & _CLIENT_SSL)

    @property
    def has_verified_certificate(self) -> bool:
        """Whether the client showed a certificate, now or earlier in its TLS session, that was found good."""
        return bool(self.client & (_CLIENT_CERT_CONN | _CLIENT_CERT_SESS)) and self.verify == 0


def decode_tlvs(data: bytes, registered: type[IntEnum] = TlvType) -> Tlvs:
    """The vectors that `data` consists of, of which each `registered` type but NOOP stands at most once.

    Raises InvalidProxyHeader where they do not fit exactly.
    """
    found: list[tuple[int, bytes]] = []
    start = 0
    while start < len(data):
        value = start + TLV_FIXED
        end = value + int.from_bytes(data[start + 1 : value])
        if end > len(data):
            raise InvalidProxyHeader(
                f"A vector of type 0x{data[start]:02x} in the PROXY header is longer than the room for it"
            )
        found.append((data[start], data[value:end]))
        start = end
    _require_single(found, registered)
    return tuple(found)


def encode_tlvs(tlvs: Iterable[tuple[int, bytes]]) -> bytes:
    """The vectors as they go over the wire."""
    return b"".join(bytes((kind,)) + len(value).to_bytes(2) + value for kind, value in tlvs)


def check_tlvs(tlvs: Tlvs) -> None:
    """Raise InvalidProxyHeader unless all vectors are possible, and those of registered types right."""
    _require_single(tlvs, TlvType)
    for kind, value in tlvs:
        if not 0 <= kind <= 0xFF or len(value) > _MAX_VALUE:
            raise InvalidProxyHeader(
                f"No PROXY header can carry a vector of type {kind} with {len(value)} bytes"
            )
        if kind == TlvType.AUTHORITY:
            _require_length("AUTHORITY", value, MAX_AUTHORITY)
            _text("AUTHORITY", value)
        elif kind == TlvType.UNIQUE_ID:
            _require_length("UNIQUE_ID", value, MAX_UNIQUE_ID)
        elif kind == TlvType.NETNS:
            _text("NETNS", value, "ascii")
        elif kind == TlvType.SSL:
            decode_ssl(value)


def find(tlvs: Tlvs, kind: int) -> bytes | None:
    """The value of the first vector of this type."""
    return next((value for there, value in tlvs if there == kind), None)


def decode_ssl(value: bytes) -> ProxySsl:
    """The meaning of an SSL vector. Raises InvalidProxyHeader if it is not well made."""
    if len(value) < _SSL_FIXED:
        raise InvalidProxyHeader("The SSL vector of the PROXY header is too short")
    within = decode_tlvs(value[_SSL_FIXED:], SslTlvType)

    def said(kind: SslTlvType, charset: str = "ascii") -> str | None:
        text = find(within, kind)
        return None if text is None else _text(f"SSL {kind.name}", text, charset)

    return ProxySsl(
        client=value[0],
        verify=int.from_bytes(value[1:_SSL_FIXED]),
        version=said(SslTlvType.VERSION),
        cn=said(SslTlvType.CN, "utf-8"),
        cipher=said(SslTlvType.CIPHER),
        sig_alg=said(SslTlvType.SIG_ALG),
        key_alg=said(SslTlvType.KEY_ALG),
    )


def _require_single(tlvs: Iterable[tuple[int, bytes]], registered: type[IntEnum]) -> None:
    """Two of one registered type would contradict each other, and receivers differ in which they believe."""
    once = {int(kind) for kind in registered} - {TlvType.NOOP}
    kinds = [kind for kind, _ in tlvs if kind in once]
    if len(kinds) != len(set(kinds)):
        raise InvalidProxyHeader("The PROXY header has two vectors of a type that can stand there only once")


def _require_length(name: str, value: bytes, most: int) -> None:
    if len(value) > most:
        raise InvalidProxyHeader(
            f"The {name} vector of the PROXY header has {len(value)} bytes, {most} is the most"
        )


def _text(name: str, value: bytes, charset: str = "utf-8") -> str:
    try:
        return value.decode(charset)
    except UnicodeDecodeError:
        raise InvalidProxyHeader(f"The {name} vector of the PROXY header is not {charset}") from None
