"""Bytes through a non-blocking socket, under as many layers of TLS as are asked for.

Each layer reads and writes what it can at once. Nothing here waits or knows a time limit: where
the socket isn't ready, BlockingIOError comes up, or SSLWantReadError where TLS must hear from the
peer first. TLS runs over memory and not over the socket itself, so that it can lie over another
layer of TLS (an https proxy), and so that freeing it in a forked child can't write to the socket.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

# What TLS encrypts in one go; what waits unsent in memory stays near this.
PIECE_BYTES = 64 * 1024
READ_BYTES = 64 * 1024

# How often one call asks the socket for more before its caller may look at the clock: a peer could
# send tickets and other records without content for ever.
MOST_PULLS = 64

# Enough to recognise a greeting or an HTTP answer where a TLS record was due.
KEPT_FIRST_BYTES = 128


class Layer(Protocol):
    """`unsent`: whether bytes that were taken have not reached the socket yet."""

    @property
    def unsent(self) -> bool: ...

    def read(self, limit: int) -> bytes:
        """At least one byte, or b"" at end-of-file."""

    def write(self, data: memoryview) -> int:
        """How many of `data`'s bytes were taken: at least one."""

    def flush(self) -> None:
        """Bring what was taken to the socket."""


class Plain:
    """The socket itself."""

    unsent = False

    def __init__(self, sock: socket.socket) -> None:
        self.read = sock.recv
        self.write = sock.send

    def flush(self) -> None:
        pass


class TLS:
    """TLS over `lower`. Raises what `ssl` raises; a peer that just hangs up is end-of-file."""

    def __init__(
        self, lower: Layer, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None
    ) -> None:
        self._lower = lower
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ciphertext = memoryview(b"")
        self.first_bytes = b""
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)

    @property
    def unsent(self) -> bool:
        return bool(self._ciphertext) or self._outgoing.pending > 0 or self._lower.unsent

    def shake_hands(self) -> None:
        """Go on with the handshake, up to its end; `flush` brings the last of it to the peer."""
        try:
            self._hearing(self.object.do_handshake)
        finally:
            self._flush_what_goes()  # with a failure: the alert that tells the server why

    def read(self, limit: int) -> bytes:
        try:
            return self._hearing(lambda: self.object.read(limit))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        finally:
            self._flush_what_goes()  # answers to key updates

    def write(self, data: memoryview) -> int:
        self.flush()
        taken = self._hearing(lambda: self.object.write(data[:PIECE_BYTES]))
        self._flush_what_goes()
        return taken

    def flush(self) -> None:
        while self._ciphertext or self._outgoing.pending:
            if not self._ciphertext:
                self._ciphertext = memoryview(self._outgoing.read())
            self._ciphertext = self._ciphertext[self._lower.write(self._ciphertext) :]
        self._lower.flush()

    def say_goodbye(self) -> None:
        """Send close_notify (RFC 8446 section 6.1) if that goes at once, and don't wait for the peer's.

        Nothing is sent while earlier bytes are stuck: they may be the end of a message that was
        given up.
        """
        if self.unsent:
            return
        with contextlib.suppress(OSError):
            self.read(READ_BYTES)  # closing a socket with unread bytes (tickets) resets the connection
        with contextlib.suppress(OSError, ValueError):
            self.object.unwrap()
        self._flush_what_goes()

    def _flush_what_goes(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()

    def _hearing(self, action: Callable[[], T]) -> T:
        """`action`, given what arrives for as long as it wants more; SSLWantReadError if that ends."""
        for _ in range(MOST_PULLS):
            try:
                return action()
            except ssl.SSLWantReadError:
                self._flush_what_goes()
                self._pull()
        raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The peer sends nothing of use")

    def _pull(self) -> None:
        try:
            data = self._lower.read(READ_BYTES)
        except BlockingIOError:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "Nothing has arrived") from None
        self.first_bytes += data[: KEPT_FIRST_BYTES - len(self.first_bytes)]
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
