"""The header is taken, and not a byte more: what comes behind it is still in the socket."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.proxy_protocol.header import InvalidProxyHeader, ProxyHeader, encode
from mailbridge.server.proxy_header import read_header

ENDS = {"source": ("192.0.2.1", 5), "destination": ("192.0.2.2", 25)}
V1 = encode(ProxyHeader(version=1, family="ipv4", **ENDS))
V2 = encode(ProxyHeader(version=2, family="ipv4", tlvs=((2, b"mail.example"),), **ENDS), with_crc=True)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def read(
    pair: tuple[socket.socket, socket.socket], pieces: list[bytes], seconds: float = 5
) -> ProxyHeader:
    reading = asyncio.create_task(read_header(pair[0], seconds))
    for piece in pieces:
        await asyncio.sleep(0)
        pair[1].sendall(piece)
    return await reading


@given(st.sampled_from([V1, V2]), st.integers(0, 200), st.integers(0, 200), st.binary(max_size=50))
def test_what_is_behind_stays(header: bytes, first: int, second: int, behind: bytes) -> None:
    data = header + behind
    low, high = sorted((first, second))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        asyncio.run(
            read((ours, theirs), [piece for piece in (data[:low], data[low:high], data[high:]) if piece])
        )
        theirs.close()
        ours.setblocking(True)
        rest = b""
        while piece := ours.recv(1000):
            rest += piece
    assert rest == behind


def test_an_end_before_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    async def main() -> None:
        reading = asyncio.create_task(read_header(pair[0], 5))
        pair[1].sendall(V1[:-1])
        pair[1].shutdown(socket.SHUT_WR)
        await reading

    with pytest.raises(InvalidProxyHeader, match="ended before"):
        asyncio.run(main())


def test_the_time_is_over(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(read(pair, [V2[:-1]], seconds=0.05))


def test_datagrams_do_not_come_by_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    datagram = encode(ProxyHeader(version=2, family="ipv4", transport="dgram", **ENDS))
    with pytest.raises(InvalidProxyHeader, match="datagram"):
        asyncio.run(read(pair, [datagram]))
