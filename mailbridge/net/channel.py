"""A way to any host, as configured for mail: the same proxies, trust and time limits.

For what a mailer needs beside SMTP (a token server), and for code of your own.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.config.values import invalid
from mailbridge.deadline import Deadline
from mailbridge.errors import MailbridgeError
from mailbridge.net.dialer import Target
from mailbridge.net.proxy.route import reach
from mailbridge.net.stream import Stream, StreamFile
from mailbridge.net.tls.handshake import Handshake


class Channel:
    """An open connection with the methods of a socket that clients such as `http.client` use.

    All that is done with it ends by the one deadline that it was opened with: TimeoutError.
    """

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline
        self._files = 0  # given out by `makefile` and not closed yet
        self._is_closed = False

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sendall(self, data: bytes) -> None:
        self._stream.send(data, self._deadline)

    def recv(self, size: int) -> bytes:
        """At least one byte and at most `size`; b"" at end-of-file."""
        return self._stream.receive(self._deadline, size)

    def makefile(self, mode: str = "rb", *_: Any, **__: Any) -> io.BufferedReader:
        """A buffered reader; for writing there is `sendall`."""
        if mode != "rb":
            raise ValueError(f"a channel is read as 'rb', not {mode!r}")
        self._files += 1
        return io.BufferedReader(_File(self._stream, self._deadline, self._let_go))

    def close(self) -> None:
        """Close, once the files that `makefile` gave are closed too.

        So it is with sockets: `http.client` closes early, and reads the rest of an answer from its file.
        """
        self._is_closed = True
        if not self._files:
            self._stream.close()

    def _let_go(self) -> None:
        self._files -= 1
        if self._is_closed:
            self.close()


class _File(StreamFile):
    """A file of a channel, which hears when it is closed."""

    def __init__(self, stream: Stream, deadline: Deadline, when_closed: Callable[[], None]) -> None:
        super().__init__(stream, deadline)
        self._when_closed = when_closed

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._when_closed()


def open_channel(
    config: SMTPConfig, host: str, port: int, *, tls: bool = True, deadline: float | None = None
) -> Channel:
    """Connect to host:port through `config.proxy`, with TLS as `config.tls` says.

    The certificate must prove `host`, whatever `tls.server_hostname` is for mail. `deadline` in
    seconds bounds opening and use; `timeouts.connect` bounds opening.

    Raises `ConnectFailed` and its kinds (`ProxyFailed`, `TLSFailed`, `ConnectTimeout`, …), and
    `ConfigurationError` for what is no host or no port.
    """
    if port not in range(1, 65536):
        raise invalid("port", f"must lie between 1 and 65535, not {port!r}")
    whole = Deadline.after(deadline)
    opening = whole.within(config.timeouts.connect)
    target = Target(
        host=host,
        port=port,
        family=config.family,
        source_address=config.source_address,
        allow_internal_networks=config.allow_internal_networks,
        guard_names=config.guard_names,
    )
    stream = reach(target, config.proxy, dns_timeout=config.timeouts.dns, deadline=opening).stream
    if not tls:
        return Channel(stream, whole)
    options = replace(config.tls, server_hostname=None)
    try:
        Handshake(stream, options, host=host, server=str(target)).perform(mode="tls", deadline=opening)
    except BaseException as error:
        stream.close()
        if isinstance(error, MailbridgeError):
            error.server = error.server or str(target)
        raise
    return Channel(stream, whole)
