"""PROXY protocol headers, versions 1 and 2: values to bytes and back, as HAProxy's proxy-protocol.txt says.

A load balancer, or a client in its place, writes the header before anything else; it says whose
connection this is. `decode` takes nothing that is not exactly as the specification has it, and looks
at no byte beyond the header. Whether a header is due, and from whom it is believed, is not decided
here: a listener that guesses can be lied to (section 2).
"""

import re
from ipaddress import ip_address
from typing import cast

from mailbridge.proxy_protocol.crc32c import crc32c
from mailbridge.proxy_protocol.tlvs import (
    TLV_FIXED,
    InvalidProxyHeader,
    ProxySsl,
    SslTlvType,
    Tlvs,
    TlvType,
    decode_tlvs,
    encode_tlvs,
)
from mailbridge.proxy_protocol.value import (
    UNIX_BYTES,
    AddressFamily,
    Endpoint,
    ProxyHeader,
    Transport,
    for_socket,
)

__all__ = [
    "MAX_V1",
    "MAX_V2",
    "InvalidProxyHeader",
    "ProxyHeader",
    "ProxySsl",
    "SslTlvType",
    "TlvType",
    "decode",
    "encode",
    "for_socket",
]

MAX_V1 = 107  # bytes, CRLF included (section 2.1)
# Bytes that a header of version 2 may have unless told otherwise: what the smallest TCP segment that
# everybody must take has room for, and what both versions were made to fit in (section 2).
MAX_V2 = 536

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_BEGINNINGS = (_SIGNATURE, b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r\n")
# Section 2.1: single spaces, no leading zeros. Whether an address is one, the value judges.
_V1_LINE = re.compile(rb"PROXY TCP[46] ([\da-fA-F:.]+) ([\da-fA-F:.]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")

_V2_FIXED = 16  # bytes: signature, version and command, family and transport, length
_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high four bits, the command in the low ones
_FAMILIES: tuple[AddressFamily, ...] = ("unknown", "ipv4", "ipv6", "unix")
_TRANSPORTS: tuple[Transport, ...] = ("unspec", "stream", "dgram")
_CRC_BYTES = 4
_ADDRESS_BYTES = {"ipv4": 4, "ipv6": 16, "unix": UNIX_BYTES}
_PORT_BYTES = {"ipv4": 2, "ipv6": 2, "unix": 0}


def encode(header: ProxyHeader, *, with_crc: bool = False) -> bytes:
    """The bytes of `header`, to be written before anything else and in one piece.

    `with_crc` adds a checksum, which version 2 alone knows. Raises InvalidProxyHeader if the vectors
    are too long (65 535 bytes with the addresses). Beyond 536 bytes receivers may refuse it.
    """
    if header.version == 2:
        return _encode_v2(header, with_crc)
    if with_crc:
        raise InvalidProxyHeader("Version 1 of the PROXY header has no checksum")
    if not header.names_client:
        return b"PROXY UNKNOWN\r\n"
    source, source_port = cast(tuple[str, int], header.source)
    destination, destination_port = cast(tuple[str, int], header.destination)
    protocol = "TCP4" if header.family == "ipv4" else "TCP6"
    return f"PROXY {protocol} {source} {destination} {source_port} {destination_port}\r\n".encode()


def decode(
    data: bytes | bytearray | memoryview, *, max_v2_bytes: int = MAX_V2
) -> tuple[ProxyHeader, int] | None:
    """The header that `data` begins with and its length in bytes, or None: more data is needed.

    What follows the header belongs to the session and is not looked at. Give the same data with more
    behind it after None; nothing is kept in between, and it never asks for more than 107 bytes
    (version 1) or `max_v2_bytes` (version 2, fixed part included; 536 by default).

    Raises InvalidProxyHeader as soon as the bytes can't become a header any more.
    """
    # Released at the end, so that a bytearray can be cut by who handles the error.
    with memoryview(data) as view:
        beginning = bytes(view[: len(max(_BEGINNINGS, key=len))])
        if not any(beginning[: len(known)] == known[: len(beginning)] for known in _BEGINNINGS):
            raise InvalidProxyHeader(
                f"The connection does not begin with a PROXY header but with {beginning!r}",
                hint="Let the proxy send one (send-proxy in HAProxy, proxy_protocol in nginx) or expect none",
            )
        if beginning.startswith(_SIGNATURE[:1]):
            return _decode_v2(view, max_v2_bytes)
        return _decode_v1(bytes(view[:MAX_V1]))


def _decode_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    found = re.search(rb"[\r\n]", data)
    end = found.start() if found else len(data)
    if data[end : end + 2] != b"\r\n":
        if data[end:] not in (b"", b"\r"):
            raise InvalidProxyHeader("The PROXY header has a CR or an LF that is not part of a CRLF")
        if len(data) == MAX_V1:
            raise InvalidProxyHeader(f"The PROXY header has no CRLF within {MAX_V1} bytes")
        return None
    if data.startswith(b"PROXY UNKNOWN"):
        return ProxyHeader(version=1), end + 2
    line = _V1_LINE.fullmatch(data, 0, end)
    if line is None:
        raise InvalidProxyHeader(f"The PROXY header is not well made: {data[:end]!r}")
    source, destination, source_port, destination_port = line.groups()
    header = ProxyHeader(
        version=1,
        family="ipv4" if data.startswith(b"PROXY TCP4") else "ipv6",
        source=(source.decode(), int(source_port)),
        destination=(destination.decode(), int(destination_port)),
    )
    return header, end + 2


def _decode_v2(view: memoryview, max_bytes: int) -> tuple[ProxyHeader, int] | None:
    fixed = bytes(view[:_V2_FIXED])
    command, family, transport = _judge_codes(fixed)
    if len(fixed) < _V2_FIXED:
        return None
    size = _V2_FIXED + int.from_bytes(fixed[14:])
    names_client = command == _PROXY and family != "unknown" and transport != "unspec"
    if size > max_bytes:
        raise InvalidProxyHeader(f"The PROXY header has {size} bytes, {max_bytes} is the most")
    if names_client and size < _end_of_addresses(family):
        raise InvalidProxyHeader(f"The PROXY header has {size} bytes, too few for addresses of {family}")
    if len(view) < size:
        return None
    if names_client:
        return _decode_named(bytes(view[:size]), family, transport), size
    # Section 2.2: skip the whole block. What is in it can't be told where the family is not known.
    return ProxyHeader(version=2, command="PROXY" if command == _PROXY else "LOCAL"), size


def _judge_codes(fixed: bytes) -> tuple[int, AddressFamily, Transport]:
    """Command, family and transport, as far as they are there; what is missing yet counts as good."""
    command = fixed[12] if len(fixed) > 12 else _LOCAL
    if command not in (_LOCAL, _PROXY):
        raise InvalidProxyHeader(f"The PROXY header has an unknown version or command: 0x{command:02x}")
    if command == _LOCAL or len(fixed) < 14:
        return command, "unknown", "unspec"  # section 2.2: for LOCAL the family is ignored, whatever it is
    family, transport = divmod(fixed[13], 16)
    if family >= len(_FAMILIES) or transport >= len(_TRANSPORTS):
        raise InvalidProxyHeader(f"The PROXY header has an unknown family or transport: 0x{fixed[13]:02x}")
    return command, _FAMILIES[family], _TRANSPORTS[transport]


def _decode_named(whole: bytes, family: AddressFamily, transport: Transport) -> ProxyHeader:
    start_of_tlvs = _end_of_addresses(family)
    tlvs = decode_tlvs(whole[start_of_tlvs:])
    _check_crc(whole, start_of_tlvs, tlvs)
    source, destination = _unpack_ends(whole, family)
    return ProxyHeader(
        version=2,
        family=family,
        transport=transport,
        source=source,
        destination=destination,
        tlvs=tuple(tlv for tlv in tlvs if tlv[0] != TlvType.CRC32C),
    )


def _check_crc(whole: bytes, start: int, tlvs: Tlvs) -> None:
    """Section 2.2.3: over the whole header, as if the checksum itself were zero."""
    for kind, value in tlvs:
        if kind == TlvType.CRC32C:
            if len(value) != _CRC_BYTES:
                raise InvalidProxyHeader("The checksum of the PROXY header does not have 32 bits")
            at = start + TLV_FIXED
            zeroed = whole[:at] + bytes(_CRC_BYTES) + whole[at + _CRC_BYTES :]
            if crc32c(zeroed) != int.from_bytes(value):
                raise InvalidProxyHeader("The checksum of the PROXY header is wrong")
        start += TLV_FIXED + len(value)


def _encode_v2(header: ProxyHeader, with_crc: bool) -> bytes:
    block = _pack_ends(header) + encode_tlvs(header.tlvs)
    if with_crc:
        block += encode_tlvs([(TlvType.CRC32C, bytes(_CRC_BYTES))])
    if len(block) > 0xFFFF:
        raise InvalidProxyHeader(
            f"The vectors make the PROXY header too long: {_V2_FIXED + len(block)} bytes"
        )
    command = _PROXY if header.command == "PROXY" else _LOCAL
    codes = _FAMILIES.index(header.family) << 4 | _TRANSPORTS.index(header.transport)
    whole = _SIGNATURE + bytes((command, codes)) + len(block).to_bytes(2) + block
    return whole[:-_CRC_BYTES] + crc32c(whole).to_bytes(_CRC_BYTES) if with_crc else whole


def _end_of_addresses(family: AddressFamily) -> int:
    return _V2_FIXED + 2 * (_ADDRESS_BYTES[family] + _PORT_BYTES[family])


def _unpack_ends(whole: bytes, family: AddressFamily) -> tuple[Endpoint, Endpoint]:
    """Both addresses come first, then both ports."""
    size = _ADDRESS_BYTES[family]
    first, second = (whole[start : start + size] for start in (_V2_FIXED, _V2_FIXED + size))
    if family == "unix":
        return _path(first), _path(second)
    ports = _V2_FIXED + 2 * size
    return (
        (str(ip_address(first)), int.from_bytes(whole[ports : ports + 2])),
        (str(ip_address(second)), int.from_bytes(whole[ports + 2 : ports + 4])),
    )


def _path(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _pack_ends(header: ProxyHeader) -> bytes:
    match header.source, header.destination:
        case (str(first), str(second)):
            paths = (path.encode("utf-8", "surrogateescape") for path in (first, second))
            return b"".join(path.ljust(UNIX_BYTES, b"\0") for path in paths)
        case ((first, first_port), (second, second_port)):
            addresses = ip_address(first).packed + ip_address(second).packed
            return addresses + first_port.to_bytes(2) + second_port.to_bytes(2)
    return b""
