"""Takes the PROXY header off a fresh connection and leaves every byte behind it in the socket.

So TLS or SMTP, whichever follows, starts with its own first byte, though both came in one segment.
Whether a header is due is decided in `server`.
"""

import asyncio
import socket
from contextlib import suppress

from mailbridge.proxy_protocol.header import MAX_V1, MAX_V2, InvalidProxyHeader, ProxyHeader, decode

_MOST = max(MAX_V1, MAX_V2)  # bytes


async def read_header(sock: socket.socket, seconds: float) -> ProxyHeader:
    """The header that the connection begins with. `sock` does not block.

    Raises InvalidProxyHeader if it is none, or none for a stream, and TimeoutError if it is not
    complete after `seconds`, however busily bytes drip in; OSError from the socket.
    """
    taken = b""
    async with asyncio.timeout(seconds):
        while True:
            await _readable(sock)
            with suppress(BlockingIOError, InterruptedError):
                seen = sock.recv(_MOST - len(taken), socket.MSG_PEEK)
                if not seen:
                    raise InvalidProxyHeader("The connection ended before the end of a PROXY header")
                found = decode(taken + seen)
                end = len(taken + seen) if found is None else found[1]
                taken += sock.recv(end - len(taken))  # what was seen is there
                if found is not None:
                    return _for_stream(found[0])


def _for_stream(header: ProxyHeader) -> ProxyHeader:
    if header.transport == "dgram":
        raise InvalidProxyHeader("The PROXY header tells of a datagram, on a stream")
    return header


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
