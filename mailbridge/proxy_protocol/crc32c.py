"""CRC32c, the checksum of PROXY protocol headers (RFC 4960 appendix B; the Castagnoli polynomial).

It finds accidents, not attackers. A table of 256 entries is quick enough for headers of some hundred
bytes; do not use it for more.
"""

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed, since the lowest bit goes first


def _entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (_POLYNOMIAL if index & 1 else 0)
    return index


_TABLE = tuple(_entry(index) for index in range(256))


def crc32c(data: bytes) -> int:
    """The CRC32c of `data`, as an unsigned number of 32 bits."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
