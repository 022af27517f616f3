"""Peers on loopback for the tests of sockets and TLS: each runs in a thread that ends with its test."""

import errno
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from mailbridge.deadline import Deadline
from mailbridge.net.stream import Stream
from mailbridge.net.tls.context import forget_contexts
from tests.servers.certificates import Certificates, Identity, make_certificates

PATIENCE = 10  # seconds; far more than anything here takes, so that reaching it is a failure


class Peer:
    """A listener that gives each connection to `talk`, one after the other."""

    def __init__(self, talk: Callable[[socket.socket], None], host: str, backlog: int | None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=backlog)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.server = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.connections = 0
        self._talk = talk
        self._failures: list[BaseException] = []
        self._ended = threading.Semaphore(0)
        self._current: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(PATIENCE)
            with connection:
                self._current = connection
                try:
                    self._talk(connection)
                except OSError:
                    pass  # the client hung up, which is its right
                except BaseException as failure:
                    self._failures.append(failure)
            self._ended.release()

    def wait_for_talk(self) -> None:
        """Until the next conversation has come to its end."""
        assert self._ended.acquire(timeout=PATIENCE), "the conversation does not end"

    def stop(self) -> None:
        for sock in (self._listener, self._current):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive(), "the peer does not end"
        for failure in self._failures:
            raise failure


Serve = Callable[..., Peer]
Connect = Callable[[Peer], Stream]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(
            talk: Callable[[socket.socket], None], *, host: str = "127.0.0.1", backlog: int | None = None
        ) -> Peer:
            peer = Peer(talk, host, backlog)
            stack.callback(peer.stop)
            return peer

        yield start


@pytest.fixture
def connect(serve: Serve) -> Iterator[Connect]:
    with ExitStack() as stack:

        def open_stream(peer: Peer) -> Stream:
            stream = Stream(socket.create_connection((peer.host, peer.port), PATIENCE))
            stack.callback(stream.close)
            return stream

        yield open_stream


@pytest.fixture
def soon() -> Deadline:
    return Deadline.after(PATIENCE)


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("net") / "certificates")


@pytest.fixture(autouse=True)
def _fresh_contexts() -> Iterator[None]:
    forget_contexts()
    yield
    forget_contexts()


def server_context(
    identity: Identity,
    *,
    version: ssl.TLSVersion | None = None,
    client_ca: Path | None = None,
) -> ssl.SSLContext:
    """For a server that shows `identity`, speaks `version` only, wants certificates of `client_ca`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def tls_talk(
    context: ssl.SSLContext, talk: Callable[[ssl.SSLSocket], None]
) -> Callable[[socket.socket], None]:
    """`talk` under TLS, from the first byte on."""

    def wrapped(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as secured:
            talk(secured)

    return wrapped


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def receive_all(connection: socket.socket) -> bytes:
    pieces = []
    while data := connection.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


def wait_for_end(connection: socket.socket) -> None:
    """Send nothing, until the client hangs up."""
    receive_all(connection)


def reset(connection: socket.socket) -> None:
    """Hang up with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()


class MemoryServer:
    """The server's half of a TLS session over `sock`, whose ciphertext the test holds in its hands."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.socket = sock
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self.outgoing.read())
                self.incoming.write(self.socket.recv(65536))
            else:
                self.socket.sendall(self.outgoing.read())
                return

    def encrypted(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    def receive(self) -> bytes:
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = self.socket.recv(65536)
                if not data:
                    raise OSError(errno.ECONNRESET, "end of file") from None
                self.incoming.write(data)


@pytest.fixture
def memory_pair(identities: Certificates) -> Iterator[Callable[..., tuple[Stream, MemoryServer]]]:
    """Both halves of a TLS session in one thread, after the handshake."""
    with ExitStack() as stack:

        def make(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[Stream, MemoryServer]:
            ours, theirs = socket.socketpair()
            theirs.settimeout(PATIENCE)
            stack.callback(theirs.close)
            stream = Stream(ours)
            stack.callback(stream.close)
            server = MemoryServer(theirs, server_context(identities.good, version=version))
            thread = threading.Thread(target=server.shake_hands)
            thread.start()
            context = ssl.create_default_context(cafile=str(identities.ca_file))
            stream.start_tls(context, "localhost", Deadline.after(PATIENCE))
            thread.join()
            return stream, server

        yield make
