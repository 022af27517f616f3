"""The checksum against the vectors that others have published."""

import pytest

from mailbridge.proxy_protocol.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),  # the check value of CRC catalogues
        # RFC 3720 appendix B.4, whose bytes stand in the order of the wire there.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_published_vectors(data, checksum):
    assert crc32c(data) == checksum
