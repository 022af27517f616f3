"""What a proxy and its client say before the tunnel stands, at the proxy's end: CONNECT, SOCKS 4, 4a, 5.

It reads strictly: a request that is not exactly what the RFCs allow is refused, so that a sloppy client
fails. It opens no connection to a target.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import NoReturn

from tests.servers.proxy_faults import Fault, Protocol, Stage, Then, socks4_reply, socks5_reply

CHUNK = 65536
KEPT = 65536  # bytes of each kind that are kept for looking at
LONGEST_REQUEST = 65536
BYTE_BY_BYTE_SECONDS = 0.001  # between two bytes, so that they are read one by one
# The request line of RFC 9112 section 3.2.3 and fields without folding or control characters.
CONNECT = re.compile(
    rb"CONNECT (\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+):([0-9]{1,5}) HTTP/1\.1\r\n"
    rb"((?:[!#-'*+.0-9A-Z^-z|~-]+:[ -~]*\r\n)*)\r\n"
)
FIELD = r"(?im)^%s:[ ]*(.*?)[ ]*\r$"
SUCCESS: dict[Protocol, bytes] = {
    "connect": b"HTTP/1.1 200 Connection established\r\n\r\n",
    "socks4": socks4_reply(90),
    "socks5": socks5_reply(0),
}
UNREACHABLE: dict[Protocol, bytes] = {
    "connect": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    "socks4": socks4_reply(91),
    "socks5": socks5_reply(5),
}
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
LOGIN_REQUIRED = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="scripted"\r\nContent-Length: 0\r\n\r\n'
)
Account = tuple[str, str]


@dataclass(slots=True)
class ProxyConnection:
    """What one client has said so far."""

    request: bytes = b""  # all that was meant for the proxy
    payload: bytes = b""  # what came behind it, for the target (the first 64 KiB)
    target: str = ""  # as "host:port", the host as the client wrote it: a name, or an address
    credentials: Account | None = None
    server_name: str | None = None  # what the client asked for in its TLS handshake (SNI)
    tls_error: str | None = None
    is_open: bool = True


class Over(Exception):
    """The dialogue has ended; `how` the connection shall."""

    def __init__(self, how: Then = "close") -> None:
        super().__init__(how)
        self.how = how


@dataclass(slots=True)
class Link:
    """The client's end of one connection: requests in, answers out, with the fault in its place."""

    sock: socket.socket
    record: ProxyConnection
    fault: Fault | None
    stop: threading.Event
    byte_by_byte: bool = False
    unread: bytes = field(default=b"", init=False)

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        while len(self.unread) < count:
            self._fill()
        return self._take(count)

    def read_until(self, end: bytes) -> bytes:
        while end not in self.unread:
            if len(self.unread) > LONGEST_REQUEST:
                raise Over
            self._fill()
        return self._take(self.unread.index(end) + len(end))

    def answer(self, stage: Stage, regular: bytes, greeting: bytes = b"") -> None:
        """The regular answer or what the fault has for this stage; `greeting` in one segment with it."""
        fault = self.fault
        if fault is None or fault.stage != stage:
            self._send(regular + greeting)
            return
        pieces = fault.pieces(self.record.request)
        if fault.then == "continue":
            self._send(b"".join(pieces) + greeting)
            return
        for piece in pieces:
            self._send_at_once(piece)
            if self.stop.wait(fault.every):
                break
        raise Over(fault.then)

    def refuse(self, stage: Stage, answer: bytes) -> NoReturn:
        self.answer(stage, answer)
        raise Over

    def read_to_the_end(self, *, is_payload: bool = False) -> None:
        """Answer nothing more, but remember what comes, until the client leaves."""
        with contextlib.suppress(Over):
            while True:
                if is_payload:
                    self.record.payload = (self.record.payload + self.unread)[:KEPT]
                else:
                    self.record.request = (self.record.request + self.unread)[:KEPT]
                self.unread = b""
                self._fill()

    def _take(self, count: int) -> bytes:
        taken, self.unread = self.unread[:count], self.unread[count:]
        self.record.request += taken
        return taken

    def _fill(self) -> None:
        try:
            data = self.sock.recv(CHUNK)
        except OSError:
            raise Over from None
        if not data:
            raise Over
        self.unread += data

    def _send(self, data: bytes) -> None:
        if not self.byte_by_byte:
            self._send_at_once(data)
            return
        for byte in data:
            self._send_at_once(bytes([byte]))
            self.stop.wait(BYTE_BY_BYTE_SECONDS)

    def _send_at_once(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:  # the client has left; what it said last is still there
            raise Over from None


def hear_connect(link: Link, account: Account | None) -> tuple[str, int]:
    """Host and port by RFC 9110 section 9.3.6, with Basic credentials (RFC 7617)."""
    match = CONNECT.fullmatch(link.read_until(b"\r\n\r\n"))
    fields = match.group(3).decode("ascii") if match else ""
    if match is None or len(re.findall(FIELD % "host", fields)) != 1:
        link.refuse("reply", BAD_REQUEST)
    host, port = match.group(1).decode("ascii"), int(match.group(2))
    link.record.target = f"{host}:{port}"
    scheme, _, token = next(iter(re.findall(FIELD % "proxy-authorization", fields)), "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            username, _, password = base64.b64decode(token, validate=True).decode().partition(":")
            link.record.credentials = (username, password)
    if account not in (None, link.record.credentials):
        link.refuse("reply", LOGIN_REQUIRED)
    return host.strip("[]"), port


def hear_socks4(link: Link, account: Account | None) -> tuple[str, int]:
    """SOCKS 4, or 4a if the address is 0.0.0.x; the user is all that it knows of an account."""
    version, command = link.read(2)
    port = int.from_bytes(link.read(2), "big")
    address = link.read(4)
    username = link.read_until(b"\0")[:-1].decode(errors="replace")
    host = str(ipaddress.IPv4Address(address))
    if address[:3] == bytes(3) and address[3] != 0:
        host = link.read_until(b"\0")[:-1].decode("ascii", "replace")
    link.record.target = f"{host}:{port}"
    link.record.credentials = (username, "") if username else None
    if (version, command) != (4, 1) or not host:
        link.refuse("reply", socks4_reply(91))
    if account is not None and account[0] != username:
        link.refuse("reply", socks4_reply(93))
    return host, port


def hear_socks5(link: Link, account: Account | None) -> tuple[str, int]:
    """RFC 1928, with the login of RFC 1929 if there is an account."""
    version, count = link.read(2)
    methods = link.read(count)
    wanted = 0 if account is None else 2
    if version != 5 or wanted not in methods:
        link.refuse("method", b"\x05\xff")
    link.answer("method", bytes([5, wanted]))
    if account is not None:
        hear_login(link, account)
    version, command, _, kind = link.read(4)
    if kind == 3:
        host = link.read(link.read(1)[0]).decode("ascii", "replace")
    else:
        host = str(ipaddress.ip_address(link.read(16 if kind == 4 else 4)))
    port = int.from_bytes(link.read(2), "big")
    link.record.target = f"[{host}]:{port}" if kind == 4 else f"{host}:{port}"
    if (version, command) != (5, 1) or kind not in (1, 3, 4):
        link.refuse("reply", socks5_reply(7))
    return host, port


def hear_login(link: Link, account: Account) -> None:
    """RFC 1929."""
    version, length = link.read(2)
    username = link.read(length).decode(errors="replace")
    password = link.read(link.read(1)[0]).decode(errors="replace")
    link.record.credentials = (username, password)
    if version != 1 or link.record.credentials != account:
        link.refuse("auth", b"\x01\x01")
    link.answer("auth", b"\x01\x00")


HEAR = {"connect": hear_connect, "socks4": hear_socks4, "socks5": hear_socks5}
