"""The server's end of one connection: lines in, bytes out, TLS, and every way to end it.

TLS runs over memory buffers, so the plain socket stays in hand: bytes can be cut, forged or followed by a RST
at any point of a handshake or of an encrypted session. Only the connection's own thread reads and closes the
socket; other threads wake it up by shutting the socket down. It knows no SMTP beyond the CRLF at the end of a
line.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal

from mailbridge.testing.records import Connection, Journal

__all__ = ["Channel", "Over"]

Ending = Literal["close", "goodbye", "reset"]

# How long a closed connection goes on reading after its FIN, in seconds. Closing with unread input would send
# a RST instead, and whether the peer sees end-of-file or a reset would depend on timing.
LINGER = 1.0
# Lines longer than any SMTP extension allows (AUTH: 12 288, RFC 4954 section 4) end the connection.
MAX_LINE = 1 << 20
# Bytes of raw input kept for looking at; a large message is not wanted twice in memory.
MAX_KEPT = 1 << 16
PIECE = 1 << 16


class Over(Exception):
    """The connection is over; unwinds to the connection's thread. `by` is what `Connection.closed_by` will
    say.
    """

    def __init__(self, by: str, how: Ending = "close") -> None:
        super().__init__(by)
        self.by = by
        self.how = how


class Channel:
    """One connection. `read_line` sends what `write` collected before it blocks, as real servers batch their
    replies.
    """

    def __init__(self, sock: socket.socket, record: Connection, journal: Journal) -> None:
        self._sock = sock
        self._record = record
        self._journal = journal
        self._input = bytearray()
        self._output = bytearray()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._has_goodbye = False  # the client's close_notify came
        self._is_asked = False  # something came, and was not answered yet
        self._ordered: Ending | None = None
        self._sending = threading.Lock()  # the TLS object and the order of bytes on the socket
        self._closing = threading.Lock()  # the file descriptor
        record._control = self
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # -- reading ----------------------------------------------------------------------------------------

    @property
    def has_input(self) -> bool:
        """Whether bytes that nobody read yet have already arrived."""
        return bool(self._input)

    def read_line(self) -> bytes:
        """The next line with its line end."""
        start = 0
        while (end := self._input.find(b"\n", start)) < 0:
            start = len(self._input)
            if start > MAX_LINE:
                raise Over("server")
            self.fill()
        line = bytes(self._input[: end + 1])
        del self._input[: end + 1]
        return line

    def take_input(self, size: int | None = None) -> bytes:
        """Take at most `size` bytes of what has arrived, or all of it, without waiting."""
        data = bytes(self._input[:size])
        del self._input[: len(data)]
        return data

    def put_back(self, data: bytes) -> None:
        """Return bytes that were taken too many."""
        self._input[:0] = data

    def fill(self) -> None:
        """Send what is due, then wait for more input."""
        self.flush()
        if self._has_goodbye:
            raise self._over("client", "goodbye")
        data = self._receive()
        if self._tls is None:
            with self._journal.change():
                self._record.clear_text += data[: max(0, MAX_KEPT - len(self._record.clear_text))]
            self._input += data
            return
        with self._sending:
            self._incoming.write(data)
            self._input += self._decrypt(self._tls)
            self._send_raw(self._outgoing.read())

    def discard(self) -> None:
        """Never answer again: read and forget until the client leaves or the server stops."""
        while True:
            self._ignore(self.take_input())
            self.fill()

    def stall(self) -> None:
        """Do not even read any more, until the client's FIN gets through or the server stops."""
        if hasattr(select, "POLLRDHUP"):
            watch = select.poll()
            watch.register(self._sock, select.POLLRDHUP)
            watch.poll()
        else:
            self._journal.stop.wait()
        raise self._over("client")

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than the server lives."""
        if self._journal.stop.wait(seconds):
            raise Over("stop")

    def _receive(self) -> bytes:
        if self._ordered is not None:
            raise self._over("test")
        try:
            data = self._sock.recv(PIECE)
        except OSError:
            raise self._over("client reset") from None
        if not data:
            raise self._over("client")
        self._is_asked = True
        return data

    def _decrypt(self, tls: ssl.SSLObject) -> bytes:
        found = bytearray()
        try:
            while piece := tls.read(PIECE):
                found += piece
        except ssl.SSLWantReadError:
            return bytes(found)
        except ssl.SSLError as error:
            self._note_tls_error(error)
            raise self._over("client") from None
        self._has_goodbye = True  # what came before it is read first
        if found:
            return bytes(found)
        raise self._over("client", "goodbye")

    def _ignore(self, data: bytes) -> None:
        if data:
            with self._journal.change():
                self._record.ignored += data[: max(0, MAX_KEPT - len(self._record.ignored))]

    # -- writing ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Have `data` sent with the next flush."""
        self._output += data

    def flush(self) -> None:
        if self._output:
            data = bytes(self._output)
            self._output.clear()
            self.send(data)

    def send(self, data: bytes) -> None:
        """Send now, in one piece, from any thread."""
        with self._sending:
            if self._tls is not None:
                try:
                    self._tls.write(data)
                except ssl.SSLError:
                    raise self._over("client") from None
                data = self._outgoing.read()
            self._send_raw(data)

    def push(self, data: bytes) -> None:
        """From another thread: send now. Raises ConnectionError if the client is gone."""
        try:
            self.send(data)
        except Over as over:
            raise ConnectionError(f"the connection is over (closed by {over.by})") from None

    def _send_raw(self, data: bytes) -> None:
        if data and self._is_asked:
            self._is_asked = False
            self._record.round_trips += 1
        try:
            self._sock.sendall(data)
        except OSError:
            raise self._over("client") from None

    # -- TLS --------------------------------------------------------------------------------------------

    def start_tls(self, context: ssl.SSLContext, tamper: Callable[[bytes], None] | None = None) -> None:
        """Shake hands as the server. Clear text that is still unread is dropped (RFC 3207 section 4.2).

        `tamper` is given the server's first flight instead of its being sent, and does with it what it likes.
        """
        self._input.clear()
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError as error:
                self._note_tls_error(error)
                self._send_raw(self._outgoing.read())
                raise Over("server") from None
            flight = self._outgoing.read()
            if tamper is not None and flight:
                tamper(flight)
                tamper = None
            else:
                self._send_raw(flight)
            if done:
                break
            self._incoming.write(self._receive())
        self._note_tls(tls)
        self._tls = tls
        # A client that resumes a session may say its first line along with the end of the handshake.
        self._input += self._decrypt(tls)

    def _note_tls(self, tls: ssl.SSLObject) -> None:
        with self._journal.change():
            self._record.tls_version = tls.version()
            self._record.tls_session_reused = bool(tls.session_reused)
            self._record.client_certificate = tls.getpeercert() or None
            self._record.server_name = getattr(tls, "asked_name", None)

    def _note_tls_error(self, error: ssl.SSLError) -> None:
        with self._journal.change():
            self._record.tls_error = str(error)

    # -- ending -----------------------------------------------------------------------------------------

    def order_end(self, how: str) -> None:
        """From another thread: have the connection's thread end it like this."""
        assert how in ("close", "goodbye", "reset")
        self._ordered = how  # type: ignore[assignment]  # narrowed by the assertion
        self._shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """From another thread: wake the connection's thread wherever it blocks. The server is stopping."""
        self._shutdown(socket.SHUT_RDWR)

    def end(self, over: Over) -> None:
        """Close as `over` says. Recorded before the peer can see it, so that a test finds it recorded."""
        with self._journal.change():
            self._record.closed_by = over.by
        if over.how == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close()
        else:
            with contextlib.suppress(Over):  # the client was faster
                self.flush()
                if over.how == "goodbye" and self._tls is not None:
                    self._say_goodbye(self._tls)
            self._shutdown(socket.SHUT_WR)
        with self._journal.change():
            self._record._has_left = True
        self._linger()
        self._close()

    def _say_goodbye(self, tls: ssl.SSLObject) -> None:
        with self._sending:
            with contextlib.suppress(ssl.SSLError):  # the peer's own close_notify is not waited for
                tls.unwrap()
            self._send_raw(self._outgoing.read())

    def _linger(self) -> None:
        deadline = time.monotonic() + LINGER
        try:
            while (left := deadline - time.monotonic()) > 0:
                self._sock.settimeout(left)
                if not self._sock.recv(PIECE):
                    return
        except OSError:
            pass  # closed, reset or out of time: all the same now

    def _shutdown(self, direction: int) -> None:
        with self._closing, contextlib.suppress(OSError):  # it may be closed already
            self._sock.shutdown(direction)

    def _close(self) -> None:
        with self._closing:
            self._sock.close()

    def _over(self, by: str, how: Ending = "close") -> Over:
        if self._journal.stop.is_set():
            return Over("stop")
        if self._ordered is not None:
            return Over("test", self._ordered)
        return Over(by, how)
