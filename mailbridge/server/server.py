"""`MailServer`: a receiving SMTP server with an event loop and a thread of its own.

For development, for tests, and to hand incoming mail to an application. It stores and relays nothing:
what becomes of a mail is up to `on_message`. The thread ends with `stop`, or with the process.
"""

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from mailbridge import logs
from mailbridge.config.values import as_count, invalid
from mailbridge.errors import ConfigurationError
from mailbridge.net.ehlo_name import ehlo_name
from mailbridge.secret import Secret
from mailbridge.server import logs as server_logs
from mailbridge.server.acceptor import Reception
from mailbridge.server.options import build
from mailbridge.server.session import ReceivedEnvelope, Session

_BACKLOG = 1024  # connections that wait in the kernel
_STOP_SECONDS = 1.5  # with what follows, `stop` returns within 2 s
_SPARE_SECONDS = 0.4
_MAX_PORT = 65535

OnConnect = Callable[[Session], Awaitable[None] | None]
OnAuth = Callable[[Session, str], Awaitable[None] | None]
OnMailFrom = Callable[[Session, str, dict[str, str]], Awaitable[None] | None]
OnRcptTo = Callable[[Session, str], Awaitable[None] | None]
OnMessage = Callable[[Session, ReceivedEnvelope, bytes], Awaitable[object] | object]
Login = Callable[[str, str], Awaitable[bool] | bool]


class MailServer:
    """A receiving server on `host` and `port` (0: any that is free; `port` tells which).

    `start()` and `stop()`, or a `with` block. Safe to use from any thread.

    Hooks may be functions, run in a pool of `hook_threads` threads, or coroutine functions, run on the
    server's event loop. Each gets the `Session` first and refuses by raising `Reject`; any other exception
    is logged and answered 451, so that the client tries again.

    * `on_connect(session)`: before the greeting.
    * `on_auth(session, username)`: the password was right.
    * `on_mail_from(session, sender, parameters)`, `on_rcpt_to(session, recipient)`.
    * `on_message(session, envelope, content)`: the mail is acknowledged when this has returned, and only
      then. `content` is bytes with CRLF; `envelope` a `ReceivedEnvelope`.

    `use_proxy` says who sends PROXY headers (version 1 or 2), and then must: a list of addresses and CIDR
    ranges; `["*"]` or True: everybody, which lets everybody claim any address. A peer in it that sends none
    within `proxy_header_timeout` seconds, or a wrong one, is refused. `ignored_hosts`: clients, such as
    health checks, that no hook and no log record is told of and from which no mail is taken.

    `tls`: an `ssl.SSLContext`, or a mapping of `cert_file`, `key_file` and `key_password`; STARTTLS is
    offered then, and demanded with `require_starttls`. `implicit_tls`: TLS from the first byte.

    `auth`: a mapping of users to passwords, or a function (username, password) -> bool; offers PLAIN and
    LOGIN, within TLS only unless `allow_insecure_auth`. Mail is taken from who is logged in, unless
    `require_auth` is False.

    `max_message_size` in bytes; `max_buffered_size` in bytes for all mails that are being received at a time
    (by default 256 MiB, or eight of the greatest size if that is more); `max_connections` and
    `max_connections_per_client` count those too that have said nothing yet (a client is an IPv4 address or
    the /64 network of an IPv6 one, behind a proxy of `use_proxy` that which it names); `idle_timeout` in
    seconds, for a command and for each 64 KiB of a mail (RFC 5321 section 4.5.3.2 asks for five minutes).
    `name` is the server's own in greetings.

    Raises ConfigurationError for options that can't work, and where the extra `server` is not installed.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        on_message: OnMessage,
        on_connect: OnConnect | None = None,
        on_auth: OnAuth | None = None,
        on_mail_from: OnMailFrom | None = None,
        on_rcpt_to: OnRcptTo | None = None,
        use_proxy: bool | Iterable[str] = False,
        ignored_hosts: Iterable[str] = (),
        proxy_header_timeout: float = 5.0,
        tls: ssl.SSLContext | Mapping[str, Any] | None = None,
        implicit_tls: bool = False,
        require_starttls: bool = False,
        auth: Mapping[str, str | Secret] | Login | None = None,
        require_auth: bool = True,
        allow_insecure_auth: bool = False,
        max_message_size: int = 32 * 1024 * 1024,
        max_buffered_size: int | None = None,
        max_recipients: int = 1000,
        max_connections: int = 500,
        max_connections_per_client: int = 100,
        idle_timeout: float = 300.0,
        hook_threads: int = 8,
        name: str | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        if find_spec("aiosmtpd") is None:
            raise ConfigurationError(
                "A receiving server needs aiosmtpd",
                stage="config",
                hint="Install the extra: mailbridge-smtp[server].",
            )
        self.host = host
        self._wanted_port = as_count("port", port, least=0)
        if self._wanted_port > _MAX_PORT:
            raise invalid("port", f"must be from 0 to {_MAX_PORT}, not {port!r}")
        self._policy = build(
            use_proxy=use_proxy,
            ignored_hosts=ignored_hosts,
            proxy_header_timeout=proxy_header_timeout,
            tls=tls,
            implicit_tls=implicit_tls,
            require_starttls=require_starttls,
            auth=auth,
            require_auth=require_auth,
            allow_insecure_auth=allow_insecure_auth,
            max_message_size=max_message_size,
            max_buffered_size=max_buffered_size,
            max_recipients=max_recipients,
            max_connections=max_connections,
            max_connections_per_client=max_connections_per_client,
            idle_timeout=idle_timeout,
            hook_threads=hook_threads,
            on_connect=on_connect,
            on_auth=on_auth,
            on_mail_from=on_mail_from,
            on_rcpt_to=on_rcpt_to,
            on_message=on_message,
            name=ehlo_name(f"{host}:0") if name is None else name,
            logger=logger or server_logs.default_logger,
        )
        self._lock = threading.Lock()
        self._running: _Running | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on; before `start` the one that was asked for."""
        running = self._running
        return self._wanted_port if running is None else running.port

    @property
    def is_running(self) -> bool:
        """Whether it takes connections."""
        return self._running is not None

    def start(self) -> "MailServer":
        """Listen; clients can connect when this returns. Does nothing if it runs already.

        Raises OSError if host and port can't be listened on.
        """
        with self._lock:
            if self._running is None:
                if self._policy.proxies.is_everybody:
                    text = "use_proxy believes PROXY headers from everybody: any client can claim any address"
                    logs.write(self._policy.logger, logging.WARNING, text, action="spoofable")
                self._running = _Running(self._policy, _listen(self.host, self._wanted_port))
        return self

    def stop(self, drain: float = _STOP_SECONDS) -> None:
        """End within about `drain` seconds. Does nothing if it does not run.

        Idle clients are told 421; mails on their way may be delivered and acknowledged in this time.
        Those that are not were not acknowledged: their senders keep them.
        """
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.stop(drain)

    def __enter__(self) -> "MailServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"<MailServer {self.host}:{self.port} {state}>"


class _Running:
    """The thread, and the event loop within."""

    def __init__(self, policy: Any, listening: socket.socket) -> None:
        self.port: int = listening.getsockname()[1]
        self._policy = policy
        self._listening = listening
        self._process = os.getpid()
        self._is_ready = threading.Event()
        # A daemon: a program that forgets to stop the server can still end.
        self._thread = threading.Thread(target=self._run, name=f"mailbridge-server-{self.port}", daemon=True)
        self._failure: BaseException | None = None
        self._thread.start()
        self._is_ready.wait()
        if self._failure is not None:
            listening.close()
            raise self._failure

    def stop(self, drain: float) -> None:
        if self._process != os.getpid():
            self._listening.close()  # a forked child has the socket, but neither thread nor loop
            return
        self._loop.call_soon_threadsafe(self._reception.stop, drain)
        if threading.current_thread() is not self._thread:  # a hook may stop its own server
            self._thread.join(drain + _SPARE_SECONDS)

    def _run(self) -> None:
        try:
            with server_logs.aiosmtpd_kept_quiet(), asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:
            if self._is_ready.is_set():
                raise  # nobody waits for it any more but the hook for errors of threads
            self._failure = error
            self._is_ready.set()

    async def _serve(self) -> None:
        self._reception = Reception(self._policy)
        self._is_ready.set()
        await self._reception.serve(self._listening)


def _listen(host: str, port: int) -> socket.socket:
    """On the first address of `host`, IPv4 first; on "::" for IPv4 too. "" is every address."""
    addresses = socket.getaddrinfo(host or "::", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(addresses, key=lambda found: found[0] != socket.AF_INET)
    both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    listening.setblocking(False)
    # Accepted sockets inherit it. asyncio sets it itself only where a socket names its protocol: not here.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
