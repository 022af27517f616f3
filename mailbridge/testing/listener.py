"""What a server needs before it can talk: a listening socket with an accepting thread, and a TLS context."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Listener", "Path", "bound_socket", "server_context"]

Path = str | os.PathLike[str]
BACKLOG = 128


def bound_socket(address: tuple[str, int] | str) -> socket.socket:
    """A socket at (host, port) or at the path of a UNIX socket; connections are refused until it listens."""
    if isinstance(address, str):
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


class Listener:
    """Has a bound socket listen, with an accepting thread."""

    def __init__(self, sock: socket.socket, accepted: Callable[[socket.socket, Any], None]) -> None:
        self._sock = sock
        try:
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        self._sock.setblocking(False)
        self._accepted = accepted
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="scripted-smtp-accept", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while all(key.fileobj is not self._wake for key, _ in selector.select()):
                try:
                    sock, peer = self._sock.accept()
                except OSError:
                    continue  # the client has left already
                sock.setblocking(True)
                self._accepted(sock, peer)

    def close(self) -> None:
        self._waker.send(b"x")
        self._thread.join()
        for sock in (self._sock, self._waker, self._wake):
            sock.close()


def server_context(
    tls: str | None,
    given: ssl.SSLContext | None,
    certfile: Path | None,
    keyfile: Path | None,
    client_ca: Path | None,
) -> ssl.SSLContext | None:
    if tls not in (None, "starttls", "implicit"):
        raise ValueError(f"tls is None, 'starttls' or 'implicit'; got {tls!r}")
    if given is not None and (certfile or keyfile or client_ca):
        raise ValueError(
            "ssl_context already says what certfile, keyfile and client_ca say; give one or the other"
        )
    if given is None and certfile is None:
        if tls is not None:
            raise ValueError(f"tls={tls!r} needs certfile= and keyfile=, or ssl_context=")
        return None
    context = given
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.fspath(certfile or ""), None if keyfile is None else os.fspath(keyfile))
        if client_ca is not None:
            context.load_verify_locations(os.fspath(client_ca))
            context.verify_mode = ssl.CERT_REQUIRED
    if context.sni_callback is None:
        context.sni_callback = _note_server_name
    return context


def _note_server_name(tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
    tls.asked_name = name  # type: ignore[union-attr]  # the channel reads it where the handshake ends
