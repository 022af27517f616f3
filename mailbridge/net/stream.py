"""One byte stream over a non-blocking socket, in clear text or under TLS, with absolute deadlines.

The only place that reads from and writes to a connection's socket. It does not interpret failures: it raises
TimeoutError, OSError and ssl.SSLError as they come, and knows no SMTP. `StreamFile` shows a stream as a raw
binary file with one deadline, for libraries that read and write files.
"""

import errno
import io
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socket import AF_INET, AF_INET6, socket
from typing import Any, TypeVar

from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError
from mailbridge.net import wait
from mailbridge.net.layers import KEPT_FIRST_BYTES, TLS, Layer, Plain
from mailbridge.net.resolver import Address, verifiable_name
from mailbridge.net.tls.facts import TLSFacts, facts_of

T = TypeVar("T")


class PlaintextBeforeTLS(OSError):
    """The peer sent bytes in clear text where only a TLS handshake may begin.

    With implicit TLS that is a server of clear text, after STARTTLS an injection (RFC 3207
    section 4.2, CVE-2011-0411). `first_bytes` are the first of them; none was taken as data.
    """

    def __init__(self, first_bytes: bytes) -> None:
        super().__init__(errno.EPROTO, "Clear text arrived before the TLS handshake")
        self.first_bytes = first_bytes


class Stream:
    """A connected socket as a stream of bytes. Not for several threads at once.

    It is open in the process that made it only: a forked child has the same descriptor, and one byte
    of its own would ruin the parent's session.

    `secured`: the socket's bytes are protected already by whoever gave it, so that `secure` is
    true without TLS of ours.
    """

    def __init__(self, sock: socket, *, secured: bool = False) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._layer: Layer = Plain(sock)
        self._ahead = b""  # read, but not yet received by the caller
        self._open = True
        self._pid = os.getpid()
        self.secure = secured
        self.tls: TLSFacts | None = None
        self.handshake_bytes = b""
        self.broken_by: OSError | None = None
        self.ends = _end(sock.getsockname), _end(sock.getpeername)
        self.sockname, self.peername = map(_name, self.ends)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return (
            f"<Stream to {self.peername or 'nobody'}, {self.tls.version if self.tls else 'clear'}, {state}>"
        )

    @property
    def is_open(self) -> bool:
        return self._open and self._pid == os.getpid()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The innermost TLS layer's own object, for channel bindings; never read or write it."""
        return self._layer.object if isinstance(self._layer, TLS) else None

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        """What a later connection can resume; under TLS 1.3 only once something was received."""
        return self.ssl_object.session if self.ssl_object is not None else None

    def unread(self, data: bytes) -> None:
        """Give back what was received but belongs to a later reader."""
        self._ahead = data + self._ahead

    def receive(self, deadline: Deadline, limit: int = 65536) -> bytes:
        """At least one byte and at most `limit`; b"" at end-of-file, with or without close_notify.

        Raises TimeoutError at the deadline, also if there is something to read: a peer that always
        has more to say would hold its reader for ever. OSError (ECONNRESET) and ssl.SSLError as they
        come.
        """
        if self._ahead:
            return self._take_ahead(limit)
        if deadline.is_over:
            raise TimeoutError(errno.ETIMEDOUT, "The time limit ran out")
        return self._until(deadline, partial(self._layer.read, limit), read=True)

    def receive_now(self, limit: int = 65536) -> bytes | None:
        """What can be received without waiting: None if nothing, b"" at end-of-file or if broken.

        `broken_by` tells these two apart. Session tickets of TLS 1.3 make the socket readable, but
        are nothing.
        """
        if self._ahead:
            return self._take_ahead(limit)
        try:
            return self._read_now(limit)
        except OSError as problem:
            self.broken_by = problem
            return b""

    def send(self, data: bytes | memoryview, deadline: Deadline, *, stop_when_readable: bool = False) -> int:
        """Send all of `data` and return its length; nothing is sent once the deadline is over.

        With `stop_when_readable`, stop as soon as the peer has sent something or hung up, and
        return how many bytes were given to the connection so far (under TLS up to 64 KiB of these
        may not have left yet); `receive` then tells what came. Raises TimeoutError at the
        deadline, OSError and ssl.SSLError as they come.
        """
        rest = memoryview(data).cast("B")
        total = len(rest)
        try:
            while rest or self._layer.unsent:
                if deadline.is_over:
                    raise TimeoutError(errno.ETIMEDOUT, "The time limit ran out")
                action = partial(self._push, rest, stop_when_readable)
                taken = self._until(deadline, action, read=stop_when_readable, write=True)
                if taken is None:
                    break
                rest = rest[taken:]
        except ConnectionError:
            # The peer may have said why before it hung up: this look raises a TLS alert, and keeps
            # an early reply for `receive`.
            if not self._has_heard() or not stop_when_readable:
                raise
        return total - len(rest)

    def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        deadline: Deadline,
        *,
        session: ssl.SSLSession | None = None,
        to_proxy: bool = False,
    ) -> None:
        """Shake hands; the certificate must prove `server_hostname`, a name or an IP address.

        `to_proxy`: this TLS ends at the proxy, so that it does not make the stream `secure`, and
        another `start_tls` may follow inside it. Raises PlaintextBeforeTLS, TimeoutError at the
        deadline, OSError and ssl.SSLError as they come, and ConfigurationError if there is no
        name to verify. After an error the stream is good for nothing but `close`.
        """
        early = self.receive_now(KEPT_FIRST_BYTES)
        if early:
            raise PlaintextBeforeTLS(early)
        if server_hostname is None and context.check_hostname:
            raise ConfigurationError(
                "Option 'tls.server_hostname' is needed: there is no host name to verify"
            )
        name = None if server_hostname is None else verifiable_name(server_hostname)
        layer = self._layer = TLS(self._layer, context, name, session)
        try:
            self._until(deadline, layer.shake_hands, read=True)
            self._until(deadline, layer.flush, write=True)
        finally:
            self.handshake_bytes = layer.first_bytes
        if not to_proxy:
            self.secure = True
            self.tls = facts_of(layer.object)

    def close(self) -> None:
        """Close at once, without waiting for anything; never raises."""
        if not self.is_open:
            self.abandon()
            return
        self._open = False
        try:
            if isinstance(self._layer, TLS):
                self._layer.say_goodbye()
        finally:
            with suppress(OSError):
                self._socket.close()

    def abandon(self) -> None:
        """Close this process's descriptor and write nothing: the session belongs to the parent."""
        self._open = False
        with suppress(OSError):
            self._socket.close()

    def _until(
        self, deadline: Deadline, action: Callable[[], T], *, read: bool = False, write: bool = False
    ) -> T:
        """`action`, again and again, with a wait whenever the socket isn't ready for it."""
        if not self.is_open:
            raise _closed()
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                wanted = True, self._layer.unsent
            except (BlockingIOError, ssl.SSLWantWriteError):
                wanted = read, write or self._layer.unsent
            wait.wait(self._socket, read=wanted[0], write=wanted[1], deadline=deadline)

    def _push(self, data: memoryview, stop_when_readable: bool) -> int | None:
        """How many bytes of `data` the connection took now; None if the peer has something to say."""
        if stop_when_readable and self._has_heard():
            return None
        if data:
            return self._layer.write(data)
        self._layer.flush()
        return 0

    def _has_heard(self) -> bool:
        """Whether the peer has sent bytes, which are kept for `receive`, or hung up."""
        if not self._ahead:
            heard = self._read_now(65536)
            self._ahead = heard or b""
            return heard is not None
        return True

    def _read_now(self, limit: int) -> bytes | None:
        if not self.is_open:
            raise _closed()
        try:
            return self._layer.read(limit)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _take_ahead(self, limit: int) -> bytes:
        data, self._ahead = self._ahead[:limit], self._ahead[limit:]
        return data


def _closed() -> OSError:
    return OSError(errno.EBADF, "The stream is closed")


def _end(ask: Callable[[], Any]) -> Any:
    """A socket's own or other end, as it tells it; None if it has none."""
    try:
        return ask()
    except OSError:
        return None


def _name(end: Any) -> str:
    """An end as text; "" if there is none."""
    if isinstance(end, tuple):
        return str(Address(AF_INET6 if len(end) == 4 else AF_INET, end))
    return end.decode(errors="replace") if isinstance(end, bytes) else str(end or "")


class StreamFile(io.RawIOBase):
    """Reads no more than is asked for; closing it leaves the stream open."""

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.receive(self._deadline, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        return self._stream.send(bytes(data), self._deadline)
