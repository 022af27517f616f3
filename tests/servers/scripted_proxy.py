"""`ScriptedProxy`: a proxy for what no real one does on demand, and that remembers what it was told.

Loopback only, a free port, one thread for each connection, all of them joined by `close()`. It lives in the
process of the test, but never asks the resolver: the names it knows are given to it. Which faults there are
stands in proxy_faults.py.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from mailbridge.testing.listener import Listener, bound_socket, server_context
from tests.servers.certificates import Identity
from tests.servers.process import LOOPBACK
from tests.servers.proxy_dialogues import (
    CHUNK,
    HEAR,
    KEPT,
    SUCCESS,
    UNREACHABLE,
    Account,
    Link,
    Over,
    ProxyConnection,
)
from tests.servers.proxy_faults import FAULTS, Fault, Protocol, Then

TARGET_SECONDS = 10.0  # to reach a server on loopback and to hear its greeting
# How long a closed connection goes on reading: closing with unread input would send a reset instead.
LINGER_SECONDS = 1.0
JOIN_SECONDS = 3.0  # the threads are woken by close(), so this is an alarm, not a wait


class ScriptedProxy:
    """A proxy that speaks "connect" (HTTP CONNECT), "socks4" (also 4a) or "socks5".

    It forwards to `target`, whatever the client asked for; without `target` to where the client asked,
    a name looked up in `names` alone (by default localhost). With `greeting` it connects nowhere: these bytes
    go out in one segment with the last answer, and then it only listens. With `coalesces` it waits for the
    first bytes of the target and sends them in one segment with the last answer.

    `fault`: a Fault or the name of one in the table of the protocol; it may be changed while the proxy runs
    and holds for the connections that come after. `byte_by_byte`: every answer goes out in pieces of one
    byte. `username` and `password`: nobody gets in without (SOCKS4: only the username counts). `identity`:
    TLS from the first byte, with this certificate.

    What was said is in `connections`, in the order of their coming, complete for what has been answered.
    Raises KeyError for an unknown fault, ValueError for one that can never happen.
    """

    def __init__(
        self,
        protocol: Protocol,
        *,
        target: tuple[str, int] | None = None,
        greeting: bytes | None = None,
        coalesces: bool = False,
        fault: Fault | str | None = None,
        byte_by_byte: bool = False,
        username: str | None = None,
        password: str = "",
        names: Mapping[str, str] | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.protocol = protocol
        self.connections: list[ProxyConnection] = []
        self._target = target
        self._greeting = greeting
        self._coalesces = coalesces
        self._byte_by_byte = byte_by_byte
        self._account: Account | None = None if username is None else (username, password)
        self._names = {"localhost": LOOPBACK} if names is None else names
        self._context: ssl.SSLContext | None = None
        if identity is not None:
            cert, key = identity.cert_file, identity.key_file
            self._context = server_context("implicit", None, cert, key, None)
        self.fault = fault
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._live: dict[threading.Thread, list[socket.socket]] = {}
        bound = bound_socket((LOOPBACK, 0))
        self.host, self.port = LOOPBACK, int(bound.getsockname()[1])
        self._listener: Listener | None = Listener(bound, self._accepted)

    @property
    def fault(self) -> Fault | None:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | str | None) -> None:
        chosen = FAULTS[self.protocol][fault] if isinstance(fault, str) else fault
        stage = chosen.stage if chosen else "accept"
        if stage in ("method", "auth") and self.protocol != "socks5":
            raise ValueError(f"{self.protocol} has no stage {stage!r}")
        if stage == "auth" and self._account is None:
            raise ValueError("nobody is asked to log in: give username= and password=")
        self._fault = chosen

    # -- what it saw ------------------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    @property
    def requests(self) -> list[bytes]:
        """All that each client said to the proxy itself."""
        return [connection.request for connection in tuple(self.connections)]

    @property
    def targets(self) -> list[str]:
        """Where each client wanted to go, "host:port"; "" where it did not come to that."""
        return [connection.target for connection in tuple(self.connections)]

    @property
    def credentials(self) -> list[Account | None]:
        """(username, password) of each client."""
        return [connection.credentials for connection in tuple(self.connections)]

    @property
    def open_connections(self) -> int:
        """How many clients have not left yet."""
        return sum(connection.is_open for connection in tuple(self.connections))

    # -- life -------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Stop listening: new connections are refused from now on; those under way go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """End everything and join the threads; may be called twice."""
        self.refuse()
        self._stop.set()
        with self._lock:
            live = [sock for sockets in self._live.values() for sock in sockets]
        for sock in live:
            with contextlib.suppress(OSError):  # it has been closed meanwhile
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's: that belongs to the thread
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                raise RuntimeError(f"a connection of the proxy did not end within {JOIN_SECONDS:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- connections ------------------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        record = ProxyConnection()
        self.connections.append(record)
        thread = threading.Thread(
            target=self._serve, args=(sock, record, self._fault), name="scripted-proxy", daemon=True
        )
        with self._lock:
            self._live[thread] = [sock]
        self._threads.append(thread)
        thread.start()

    def _serve(self, sock: socket.socket, record: ProxyConnection, fault: Fault | None) -> None:
        link = Link(sock, record, fault, self._stop, self._byte_by_byte)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        how: Then = "close"
        try:
            self._talk(link)
        except Over as over:
            how = over.how
        finally:
            if how == "silence":
                link.read_to_the_end()
            end(link.sock, how)
            with self._lock:
                sockets = self._live.pop(threading.current_thread())
            for other in sockets:
                other.close()
            record.is_open = False

    def _talk(self, link: Link) -> None:
        link.answer("accept", b"")
        if self._context is not None:
            self._start_tls(link, self._context)
        asked = HEAR[self.protocol](link, self._account)
        greeting = self._greeting or b""
        server = None
        if self._greeting is None and self._will_forward(link):
            server = self._reach(asked)
            if server is None:
                link.refuse("reply", UNREACHABLE[self.protocol])
            elif self._coalesces:
                greeting = server.recv(CHUNK)
        link.answer("reply", SUCCESS[self.protocol], greeting)
        if server is None:
            link.read_to_the_end(is_payload=True)
        else:
            forward(link, server)

    def _start_tls(self, link: Link, context: ssl.SSLContext) -> None:
        tls = context.wrap_socket(link.sock, server_side=True, do_handshake_on_connect=False)
        link.sock = tls
        self._remember(tls)
        try:
            tls.do_handshake()
        except OSError as error:
            link.record.tls_error = str(error)
            raise Over from None
        link.record.server_name = getattr(tls, "asked_name", None)

    def _will_forward(self, link: Link) -> bool:
        return link.fault is None or link.fault.then == "continue"

    def _reach(self, asked: tuple[str, int]) -> socket.socket | None:
        """A connection to the target; None where there is none to be had."""
        host, port = self._target or asked
        address = self._names.get(host, host)
        server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._remember(server)
        server.settimeout(TARGET_SECONDS)
        try:
            # Only an address: anything else would go to the resolver.
            socket.inet_pton(server.family, address)
            server.connect((address, port))
        except OSError:
            return None
        return server

    def _remember(self, sock: socket.socket) -> None:
        """So that close() can wake the thread and this socket is closed with its connection."""
        with self._lock:
            self._live[threading.current_thread()].append(sock)
        if self._stop.is_set():
            raise Over


def forward(link: Link, server: socket.socket) -> None:
    """Carry bytes both ways until one side ends. One thread for both, since TLS cannot do with two."""
    client = link.sock
    link.record.payload = link.unread[:KEPT]
    with contextlib.suppress(OSError):
        server.sendall(link.unread)
        while True:
            has_more = isinstance(client, ssl.SSLSocket) and client.pending()
            ready = [client] if has_more else select.select([client, server], [], [])[0]
            for source in ready:
                source.settimeout(0)
                try:
                    data = source.recv(CHUNK)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                finally:
                    source.settimeout(None)
                if not data:
                    return
                if source is client:
                    link.record.payload = (link.record.payload + data)[:KEPT]
                (server if source is client else client).sendall(data)


def end(sock: socket.socket, how: Then) -> None:
    """Say goodbye, or prepare the reset that the closing then sends."""
    with contextlib.suppress(OSError):  # the client was faster
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(0)
            with contextlib.suppress(OSError, ValueError):  # the client's goodbye is not waited for
                sock.unwrap()
        socket.socket.shutdown(sock, socket.SHUT_WR)
        latest = time.monotonic() + LINGER_SECONDS
        while (left := latest - time.monotonic()) > 0:
            sock.settimeout(left)
            if not socket.socket.recv(sock, CHUNK):
                return
