"""What the sender has to see of each fault of a proxy: written down from the RFCs, not from the code."""

from __future__ import annotations

from dataclasses import dataclass

from mailbridge import (
    ConnectTimeout,
    MailbridgeError,
    ProtocolViolation,
    ProxyFailed,
)
from tests.servers.proxy_faults import Protocol


@dataclass(frozen=True)
class Told:
    """What the caller is to be told: the kind of error, its stage, and words of its sentence."""

    kind: type[MailbridgeError] | None = ProxyFailed
    words: str = ""
    stage: str = "proxy"
    status: int | None = None


FINE = Told(None)
LATE = Told(ConnectTimeout, "did not answer within the time limit")
CLOSED = Told(words="closed the connection")
BROKEN = Told(words="(broke|can't be reached).*([Rr]eset|Broken pipe)|closed the connection")
NO_HTTP = Told(words="did not answer in HTTP")
INVALID = Told(words="refused: SOCKS. proxy server sent invalid data")
# Behind a good reply nobody can tell the proxy's silence from the server's.
LEAVING = {
    "close at once": BROKEN,
    "reset at once": BROKEN,
    "silence at once": LATE,
    "close before the reply": CLOSED,
    "close in the reply": CLOSED,
    "close after the reply": Told(ProxyFailed, "ended before the greeting", "greeting"),
    "reset before the reply": BROKEN,
    "reset in the reply": BROKEN,
    "reset after the reply": Told(ProxyFailed, "ended before the greeting", "greeting"),
    "silence": LATE,
    "silence in the reply": LATE,
    "silence after the reply": Told(ConnectTimeout, "No greeting came through", "greeting"),
    "drip": LATE,
}
EXPECTED: dict[Protocol, dict[str, Told]] = {
    "connect": {
        **LEAVING,
        "endless headers": NO_HTTP,
        "64 KiB header": NO_HTTP,
        "one huge line": NO_HTTP,
        "endless 1xx": NO_HTTP,
        "drip of headers": LATE,
        "407 offering Basic": Told(words="answered 407.*user:password@", status=407),
        "407 offering Digest": Told(words="answered 407.*user:password@", status=407),
        "407 offering nothing": Told(words="answered 407.*user:password@", status=407),
        "403": Told(words="answered 403 Forbidden.*administrator", status=403),
        "502": Told(words="answered 502 Bad Gateway.*could not reach", status=502),
        "302": Told(words="answered 302 Found", status=302),
        "101": NO_HTTP,
        "2000": NO_HTTP,
        "20": NO_HTTP,
        "HTTP/2": NO_HTTP,
        "LF only": NO_HTTP,
        "NUL in a header": NO_HTTP,
        "body in the 200": Told(
            ProtocolViolation, "", "greeting"
        ),  # RFC 9110 section 9.3.6: there is no body
        "garbage": NO_HTTP,
        "empty lines first": NO_HTTP,
        "SMTP instead": NO_HTTP,
        "SOCKS instead": NO_HTTP,
        "control characters": Told(words=r"answered 502 \\x1b\[31mred", status=502),
        "echo": Told(words="answered 502 You sent CONNECT", status=502),
    },
    "socks5": {
        **LEAVING,
        "garbage": INVALID,
        "wrong version": INVALID,
        "no acceptable method": Told(words="methods were rejected"),
        "method not offered": INVALID,
        "close in the method": CLOSED,
        "close before the method": CLOSED,
        "silence before the method": LATE,
        "authentication failed": Told(words="authentication failed.*does not accept these credentials"),
        "wrong version of authentication": INVALID,
        "close in the authentication": CLOSED,
        "close before the authentication": CLOSED,
        "refused 1": Told(words="0x01: General SOCKS server failure"),
        "refused 2": Told(words="0x02: Connection not allowed"),
        "refused 3": Told(words="0x03: Network unreachable"),
        "refused 4": Told(words="0x04: Host unreachable"),
        "refused 5": Told(words="0x05: Connection refused"),
        "refused 6": Told(words="0x06: TTL expired"),
        "refused 7": Told(words="0x07: Command not supported"),
        "refused 8": Told(words="0x08: Address type not supported"),
        "refused 9": Told(words="0x09: Unknown error"),
        "refused 255": Told(words="0xff: Unknown error"),
        "three bytes of a refusal": Told(words="0x05: Connection refused"),
        "wrong version in the reply": INVALID,
        "reply of SOCKS4": INVALID,
        "unknown type of address": INVALID,
    },
    "socks4": {
        **LEAVING,
        "garbage": INVALID,
        "wrong version in the reply": INVALID,
        "refused 91": Told(words="0x5b: Request rejected or failed"),
        "refused 92": Told(words="0x5c: .*identd"),
        "refused 93": Told(words="0x5d: .*identd"),
        "refused 94": Told(words="0x5e: Unknown error"),
        "refused in two bytes": CLOSED,
    },
}
