"""Hostile peers of each protocol, at full speed and dripping: every wait is over in its limit and a moment.

At full speed there is always something to read: a limit that is looked at only while waiting never ends.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import Any

import pytest

from mailbridge import Envelope, MailbridgeError, Mailer, SMTPConfig

LIMIT = 1.0  # seconds
MARGIN = 0.25
ENVELOPE = Envelope("a@a.example", "b@b.example")
HTTP_200 = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HTTP_200 + b"Transfer-Encoding: chunked\r\n\r\n"

# What a peer begins with, and what it says again and again.
PEERS: dict[str, tuple[str, bytes, bytes]] = {
    "SMTP: empty lines": ("smtp", b"", b"\r\n" * 4096),
    "SMTP: a greeting without end": ("smtp", b"", b"220-hello\r\n" * 512),
    "SMTP: a line without end": ("smtp", b"220 ", b"x" * 8192),
    "SMTP: empty lines in place of EHLO's answer": ("smtp", b"220 hello\r\n", b"\r\n" * 4096),
    "HTTP CONNECT: 100 Continue": ("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 256),
    "HTTP CONNECT: a header without end": ("http", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 512),
    "HTTP CONNECT: empty lines": ("http", b"", b"\r\n" * 4096),
    "SOCKS5: zeros": ("socks5", b"", b"\0" * 8192),
    "SOCKS5: empty names": ("socks5", b"\5\0", b"\5\0\0\3\xff" + b"x" * 255),
    "SOCKS4: zeros": ("socks4", b"", b"\0" * 8192),
    "token: 100 Continue": ("token", b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 256),
    "token: 100 Continue with fields": ("token", b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 256),
    "token: trailers": ("token", CHUNKED + b"0\r\n", b"X: y\r\n" * 1024),
    "token: empty chunk extensions": ("token", CHUNKED, b"1;" + b"x" * 1000 + b"\r\na\r\n"),
    "token: a body without end": ("token", HTTP_200 + b"\r\n", b" " * 65536),
    "token: a header without end": ("token", HTTP_200, b"X: y\r\n" * 1024),
}


@contextmanager
def peer(first: bytes, again: bytes, *, drips: bool) -> Iterator[int]:
    """A port where one connection at a time gets `first`, and then `again` without end."""
    ends = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not ends.is_set():
            with suppress(OSError):
                sock, _ = listener.accept()
                with sock:
                    sock.settimeout(0.1)
                    for data in chain([first], repeat(again)):
                        if ends.is_set() or not send(sock, data):
                            break

    def send(sock: socket.socket, data: bytes) -> bool:
        pieces = [data[i : i + 1] for i in range(len(data))] if drips else [data]
        for piece in pieces:
            rest = memoryview(piece)
            while rest and not ends.is_set():
                try:
                    rest = rest[sock.send(rest) :]
                except TimeoutError:
                    continue
                except OSError:
                    return False
            if drips and ends.wait(0.01):
                return False
        return True

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ends.set()
            thread.join(10)


def smtp(port: int) -> dict[str, Any]:
    return {"port": port}


def through(scheme: str) -> Callable[[int], dict[str, Any]]:
    return lambda port: {"port": 25, "host": "192.0.2.1", "proxy": f"{scheme}://127.0.0.1:{port}"}


def token(port: int) -> dict[str, Any]:
    """The mail server is the other one: it gets as far as AUTH."""
    oauth2 = {
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
        "token_url": f"http://127.0.0.1:{port}/token",
        "allow_insecure_token_url": True,
    }
    return {"username": "u", "oauth2": oauth2}


OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "smtp": smtp,
    "http": through("http"),
    "socks5": through("socks5"),
    "socks4": through("socks4"),
    "token": token,
}


@pytest.mark.parametrize("drips", [False, True], ids=["full speed", "dripping"])
@pytest.mark.parametrize("name", PEERS)
def test_a_send_is_over_in_time(name: str, drips: bool, smtp_server: Any) -> None:
    protocol, first, again = PEERS[name]
    with peer(first, again, drips=drips) as port:
        options: dict[str, Any] = {"host": "127.0.0.1", "security": "none", "timeout": 30} | OPTIONS[
            protocol
        ](port)
        if protocol == "token":
            options["port"] = smtp_server.port
        with Mailer(SMTPConfig.from_mapping(options)) as mailer:
            began = time.monotonic()
            with pytest.raises(MailbridgeError) as caught:
                mailer.send(b"Subject: x\r\n\r\nx\r\n", envelope=ENVELOPE, deadline=LIMIT)
            seconds = time.monotonic() - began
    assert seconds < LIMIT + MARGIN
    assert not caught.value.outcome_unknown
