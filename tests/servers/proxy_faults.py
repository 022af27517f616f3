"""What a scripted proxy does wrong, or allowed but unusual: values with names, one table per protocol.

The tables are meant for `@pytest.mark.parametrize("fault", CONNECT_FAULTS)`. Those in HARMLESS are allowed
by the RFCs: through them mail has to arrive. Whether a fault comes to pass is up to scripted_proxy.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

Stage = Literal["accept", "method", "auth", "reply"]
Then = Literal["continue", "close", "reset", "silence"]
Protocol = Literal["connect", "socks4", "socks5"]

DRIP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """What is said instead of one answer.

    `stage`: "accept", before the client was listened to (and before TLS); "method" and "auth", the first two
    answers of SOCKS5; "reply", the last answer of every protocol. `pieces` gets all that the client has sent
    so far and gives what to send, `every` seconds apart; it may be endless. `then`: "continue" as if this had
    been the regular answer, or "close", "reset", or "silence" (which reads on until the client leaves).
    """

    stage: Stage
    pieces: Callable[[bytes], Iterable[bytes]]
    _: KW_ONLY
    every: float = 0.0
    then: Then = "close"


def says(data: bytes, then: Then = "close", *, stage: Stage = "reply") -> Fault:
    return Fault(stage, lambda request: [data], then=then)


def without_end(head: bytes, again: bytes) -> Fault:
    return Fault("reply", lambda request: itertools.chain([head], itertools.repeat(again)))


def drips(head: bytes, again: bytes = b"") -> Fault:
    """A byte at a time: `head`, then `again` over and over, or nothing more if that is empty."""

    def one_by_one(request: bytes) -> Iterable[bytes]:
        return (bytes([byte]) for byte in itertools.chain(head, itertools.cycle(again)))

    return Fault("reply", one_by_one, every=DRIP_SECONDS, then="silence")


def echo(request: bytes) -> list[bytes]:
    """An answer that quotes all of the request: in the reason, in a header and in the body."""
    quoted = b" ".join(request.split())
    return [b"HTTP/1.1 502 You sent " + quoted + b"\r\nX-Request: " + quoted + b"\r\n\r\n" + request]


def socks5_reply(code: int, bound: bytes = b"\x01\x7f\x00\x00\x01") -> bytes:
    """RFC 1928 section 6; `bound` is the type of the bound address and the address."""
    return b"\x05" + bytes([code]) + b"\x00" + bound + b"\x04\xd2"


def socks4_reply(code: int) -> bytes:
    """From the paper on SOCKS 4: version 0, code, port and address, which mean nothing for CONNECT."""
    return b"\x00" + bytes([code]) + bytes(6)


OK = b"HTTP/1.1 200 Connection established\r\n"
OFFERS = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n"
DOMAIN = b"bound.proxy.test"


def leaving(part: bytes, whole: bytes) -> dict[str, Fault]:
    """The ways to leave or fall silent in every protocol; `part` is a piece of the good answer `whole`."""
    return {
        "close at once": says(b"", stage="accept"),
        "reset at once": says(b"", "reset", stage="accept"),
        "silence at once": says(b"", "silence", stage="accept"),
        "close before the reply": says(b""),
        "close in the reply": says(part),
        "close after the reply": says(whole),
        "reset before the reply": says(b"", "reset"),
        "reset in the reply": says(part, "reset"),
        "reset after the reply": says(whole, "reset"),
        "silence": says(b"", "silence"),
        "silence in the reply": says(part, "silence"),
        "silence after the reply": says(whole, "silence"),
    }


CONNECT_FAULTS: dict[str, Fault] = {
    **leaving(b"HTTP/1.1 200 Conn", OK + b"\r\n"),
    "endless headers": without_end(OK, b"X-Header: and another one\r\n"),
    "64 KiB header": says(OK + b"X-Header: " + b"a" * 65536 + b"\r\n\r\n", "continue"),
    "one huge line": without_end(b"HTTP/1.1 200 ", b"a" * 4096),
    "endless 1xx": without_end(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "drip": drips(OK + b"X-Header: ", b"a"),
    "drip of headers": drips(OK, b"X-Header: a\r\n"),
    "407 offering Basic": says(OFFERS + b'Proxy-Authenticate: Basic realm="x"\r\n\r\n'),
    "407 offering Digest": says(OFFERS + b'Proxy-Authenticate: Digest realm="x", nonce="y"\r\n\r\n'),
    "407 offering nothing": says(OFFERS + b"\r\n"),
    "403": says(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<h1>No</h1>"),
    "502": says(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    "302": says(b"HTTP/1.1 302 Found\r\nLocation: http://login.proxy.test/\r\nContent-Length: 0\r\n\r\n"),
    "1xx before 200": says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n", "continue"),
    "101": says(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: smtp\r\nConnection: upgrade\r\n\r\n", "continue"
    ),
    "204": says(b"HTTP/1.1 204 No Content\r\n\r\n", "continue"),
    "HTTP/1.0 without a reason": says(b"HTTP/1.0 200 \r\n\r\n", "continue"),
    "2000": says(b"HTTP/1.1 2000 OK\r\n\r\n", "continue"),
    "20": says(b"HTTP/1.1 20 OK\r\n\r\n", "continue"),
    "HTTP/2": says(b"HTTP/2 200\r\n\r\n", "continue"),
    "LF only": says(b"HTTP/1.1 200 OK\n\n", "continue"),
    "NUL in a header": says(OK + b"X-Header: a\x00b\r\n\r\n", "continue"),
    # RFC 9110 section 9.3.6: a client ignores both fields in a 2xx to CONNECT.
    "Content-Length in the 200": says(OK + b"Content-Length: 5\r\n\r\n", "continue"),
    "Transfer-Encoding in the 200": says(OK + b"Transfer-Encoding: chunked\r\n\r\n", "continue"),
    "body in the 200": says(OK + b"Content-Length: 5\r\n\r\nhello", "continue"),
    "garbage": says(bytes(range(256)) * 4),
    "empty lines first": says(b"\r\n" * 20 + OK + b"\r\n", "continue"),
    "SMTP instead": says(b"220 mx.test ESMTP\r\n", "silence"),
    "SOCKS instead": says(b"\x05\x00"),
    "control characters": says(b"HTTP/1.1 502 \x1b[31mred\x07 \xff\xfe\r\n\r\n"),
    "echo": Fault("reply", echo),
}
SOCKS5_FAULTS: dict[str, Fault] = {
    **leaving(socks5_reply(0)[:4], socks5_reply(0)),
    "drip": drips(socks5_reply(0, b"\x03\xff" + b"a" * 255)[:-1]),  # takes 26 seconds
    "garbage": says(b"HTTP/1.1 400 Bad Request\r\n\r\n", stage="method"),
    "wrong version": says(b"\x04\x00", "continue", stage="method"),
    "no acceptable method": says(b"\x05\xff", stage="method"),
    "method not offered": says(b"\x05\x01", "silence", stage="method"),
    "close in the method": says(b"\x05", stage="method"),
    "close before the method": says(b"", stage="method"),
    "silence before the method": says(b"", "silence", stage="method"),
    "authentication failed": says(b"\x01\x01", stage="auth"),
    "wrong version of authentication": says(b"\x05\x00", "continue", stage="auth"),
    "close in the authentication": says(b"\x01", stage="auth"),
    "close before the authentication": says(b"", stage="auth"),
    **{f"refused {code}": says(socks5_reply(code)) for code in range(1, 9)},
    "refused 9": says(socks5_reply(9)),  # a code that RFC 1928 leaves open
    "refused 255": says(socks5_reply(255)),
    "three bytes of a refusal": says(b"\x05\x05\x00"),
    "wrong version in the reply": says(b"\x04" + socks5_reply(0)[1:], "continue"),
    "reply of SOCKS4": says(socks4_reply(90), "silence"),
    "unknown type of address": says(socks5_reply(0, b"\x02\x7f\x00\x00\x01"), "continue"),
    "name as bound address": says(socks5_reply(0, b"\x03" + bytes([len(DOMAIN)]) + DOMAIN), "continue"),
    "empty name as bound address": says(socks5_reply(0, b"\x03\x00"), "continue"),
    "IPv6 bound address": says(socks5_reply(0, b"\x04" + bytes(15) + b"\x01"), "continue"),
}
SOCKS4_FAULTS: dict[str, Fault] = {
    **leaving(socks4_reply(90)[:3], socks4_reply(90)),
    "drip": drips(socks4_reply(90)[:7]),
    "garbage": says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "wrong version in the reply": says(b"\x05" + socks4_reply(90)[1:], "continue"),
    **{f"refused {code}": says(socks4_reply(code)) for code in (91, 92, 93)},
    "refused 94": says(socks4_reply(94)),  # not a code
    "refused in two bytes": says(socks4_reply(91)[:2]),
}
FAULTS: dict[Protocol, dict[str, Fault]] = {
    "connect": CONNECT_FAULTS,
    "socks4": SOCKS4_FAULTS,
    "socks5": SOCKS5_FAULTS,
}
HARMLESS = frozenset(
    {
        "1xx before 200",
        "204",
        "HTTP/1.0 without a reason",
        "Content-Length in the 200",
        "Transfer-Encoding in the 200",
        "name as bound address",
        "empty name as bound address",
        "IPv6 bound address",
    }
)
