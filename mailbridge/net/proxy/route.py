"""From a target to a stream: directly, or through one proxy or a chain of them, within one deadline.

The first proxy is dialed as a server would be; each further step is asked for inside the way so
far. No TLS to the target: that comes after, on whatever way this gave.
"""

import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mailbridge.config.proxies import ProxyURL
from mailbridge.deadline import Deadline
from mailbridge.errors import (
    ConnectFailed,
    ConnectTimeout,
    MailbridgeError,
    ProxyFailed,
    TLSFailed,
    TLSModeMismatch,
)
from mailbridge.net.dialer import Dialed, Target, dial
from mailbridge.net.guard import last_stops, spelled
from mailbridge.net.proxy.http_connect import http_connect
from mailbridge.net.resolver import resolve
from mailbridge.net.stream import Stream
from mailbridge.net.tls.handshake import Handshake
from mailbridge.reply import printable
from mailbridge.secret import clear_locals


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The way to a target. Whoever gets it closes the stream.

    `dialed` is the first step, None where a handler of the user's own made it. `said` tells for each
    proxy what it was asked and how it answered, `proxy_seconds` how long that took, with the look-up
    of the target's name where the guard has it resolved here.
    `is_loopback`: it ends at this very machine, with nobody between.
    """

    stream: Stream
    dialed: Dialed | None
    said: tuple[str, ...] = ()
    proxy_seconds: float = 0.0
    is_loopback: bool = False

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent, by the stages of `verify()`."""
        spent = {"proxy": self.proxy_seconds} if self.said else {}
        if self.dialed is not None:
            spent |= {"dns": self.dialed.dns_seconds, "tcp": self.dialed.connect_seconds}
        return spent


def reach(
    target: Target,
    proxies: Sequence[ProxyURL] = (),
    *,
    dns_timeout: float | None = None,
    deadline: Deadline,
    given: socket.socket | None = None,
) -> Reached:
    """A stream to `target`. `deadline` bounds all steps together. `given`: see `dial`; without proxies.

    Raises `ConnectFailed` and its kinds; where proxies are asked, `ProxyFailed` and
    `ConnectTimeout`, both with stage "proxy". Whatever is raised, no socket stays open.
    """
    if not proxies:
        direct = dial(target, dns_timeout=dns_timeout, deadline=deadline, given=given)
        return Reached(stream=Stream(direct.socket), dialed=direct, is_loopback=direct.is_loopback)
    began = deadline.clock()
    left = last_stops(target, proxies[-1], deadline.within(dns_timeout))
    asked: list[str] = []
    while True:
        way = _Way(target, proxies, left.pop(0))
        asked.append(way.last.host)
        try:
            way.open(dns_timeout, deadline.share(len(left) + 1))
            return way.reached(deadline.clock() - began)
        except (ProxyFailed, ConnectTimeout) as error:
            if not left or deadline.is_over or not way.is_worth_another(error):
                if way.has_asked and asked[0] != spelled(target.host):
                    error.reword(f"{error.message} (asked for {' and '.join(asked)})")
                raise


@dataclass(slots=True)
class _Way:
    """One attempt to get through all proxies to `last`: the target, or an address of it."""

    target: Target
    proxies: Sequence[ProxyURL]
    last: Target
    stream: Stream | None = None
    dialed: Dialed | None = None
    said: list[str] = field(default_factory=list)

    def open(self, dns_timeout: float | None, deadline: Deadline) -> None:
        outer = sys.exception()
        stops = [_stop(self.target, proxy.host, proxy.port) for proxy in self.proxies[1:]] + [self.last]
        try:
            self.stream, self.dialed = _first(self.target, self.proxies[0], stops[0], dns_timeout, deadline)
        except MailbridgeError as error:
            raise _at_proxy(error, self.target) from error.__cause__
        try:
            for proxy, stop in zip(self.proxies, stops, strict=True):
                self.said.append(_step(self.stream, proxy, stop, dns_timeout, deadline))
        except BaseException as error:
            self.stream.close()
            if isinstance(error, MailbridgeError):
                _at_proxy(error, self.target)
            clear_locals(error, outer=outer)  # they hold credentials, and what a proxy quotes of them
            raise

    @property
    def has_asked(self) -> bool:
        """Whether it came to asking for `last`. A handler is asked at once."""
        is_next = self.stream is not None and len(self.said) == len(self.proxies) - 1
        return is_next or self.proxies[0].handler is not None

    def is_worth_another(self, error: ProxyFailed | ConnectTimeout) -> bool:
        """Whether another address may do better: the last proxy did not get to this one, or may not."""
        is_forbidden = isinstance(error, ProxyFailed) and error.status == 403
        return self.has_asked and (error.transient or is_forbidden)

    def reached(self, seconds: float) -> Reached:
        assert self.stream is not None  # noqa: S101  # it is open
        if self.dialed is not None:
            seconds -= self.dialed.dns_seconds + self.dialed.connect_seconds
        return Reached(stream=self.stream, dialed=self.dialed, said=tuple(self.said), proxy_seconds=seconds)


def _at_proxy(error: MailbridgeError, target: Target) -> MailbridgeError:
    error.stage, error.server = "proxy", str(target)
    return error


def _stop(target: Target, host: str, port: int) -> Target:
    """A proxy as a target of the one before it. Whoever configured it may have it anywhere."""
    return replace(target, host=spelled(host), port=port, allow_internal_networks=True)


def _first(
    target: Target, proxy: ProxyURL, stop: Target, dns_timeout: float | None, deadline: Deadline
) -> tuple[Stream, Dialed | None]:
    if proxy.handler is not None:
        return _by_handler(proxy, (stop.host, stop.port), deadline), None
    own = _stop(target, proxy.host, proxy.port)
    try:
        dialed = dial(own, dns_timeout=dns_timeout, deadline=deadline)
    except ConnectTimeout as error:
        error.reword(f"The proxy {proxy} can't be reached: {error.message}")
        raise
    except ConnectFailed as error:
        raise ProxyFailed(f"The proxy {proxy} can't be reached: {error.message}", hint=error.hint) from error
    return Stream(dialed.socket), dialed


def _ask(stream: Stream, proxy: ProxyURL, stop: tuple[str, int], deadline: Deadline) -> str:
    if proxy.scheme in ("http", "https"):
        return http_connect(stream, proxy, stop, deadline)
    # Where no SOCKS proxy is used, PySocks is not loaded, though it may be installed.
    from mailbridge.net.proxy.socks import socks_connect

    return socks_connect(stream, proxy, stop, deadline)


def _step(
    stream: Stream, proxy: ProxyURL, stop: Target, dns_timeout: float | None, deadline: Deadline
) -> str:
    """Ask one proxy for the next stop; gives what was said."""
    if proxy.handler is not None:
        return f"{proxy} to {stop} by its handler"
    try:
        if proxy.scheme == "https":
            _encrypt(stream, proxy, deadline)
        if proxy.scheme == "socks4":
            stop = _ipv4(stop, dns_timeout, deadline)
        return f"{proxy} {_ask(stream, proxy, (stop.host, stop.port), deadline)}"
    except TimeoutError as error:
        if isinstance(error, MailbridgeError):
            raise
        message = f"The proxy {proxy} did not answer within the time limit"
        raise ConnectTimeout(message, hint="The option is timeouts.connect.") from None
    except MailbridgeError:
        raise
    except OSError as error:
        raise ProxyFailed(f"The connection to the proxy {proxy} broke: {error.strerror or error}") from error


def _encrypt(stream: Stream, proxy: ProxyURL, deadline: Deadline) -> None:
    """TLS to the proxy itself. What goes wrong is said of the proxy, not of the mail server behind it."""
    try:
        handshake = Handshake(stream, proxy.tls, host=proxy.host, server=f"{proxy.host}:{proxy.port}")
        handshake.perform(mode="tls", deadline=deadline, to_proxy=True)
    except MailbridgeError as error:
        error.reword(f"TLS to the proxy {proxy}: {error.message}")
        if isinstance(error, TLSModeMismatch):
            error.hint = "Write http:// if the proxy speaks no TLS on this port."
        elif isinstance(error, TLSFailed):
            error.hint = "Its options are those of proxy.tls (ca_file, server_hostname, ...), not of tls."
        raise


def _ipv4(stop: Target, dns_timeout: float | None, deadline: Deadline) -> Target:
    """SOCKS4 knows IPv4 addresses alone, so that the name is resolved here."""
    addresses = resolve(stop.host, stop.port, family="ipv4", deadline=deadline.within(dns_timeout))
    return replace(stop, host=str(addresses[0].ip))


class _Call:
    """A handler on a thread of its own, since only so it can be left behind at the deadline."""

    def __init__(self, proxy: ProxyURL, target: tuple[str, int], deadline: Deadline) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._is_left = self._is_done = False
        self._thread = threading.Thread(
            target=self._work, args=(proxy, target, deadline), name="mailbridge-proxy", daemon=True
        )

    def _work(self, proxy: ProxyURL, target: tuple[str, int], deadline: Deadline) -> None:
        assert proxy.handler is not None  # noqa: S101  # only proxies with one come here
        result, error = None, None
        try:
            result = proxy.handler(proxy, target, deadline)
        except BaseException as raised:  # it is raised to the caller
            error = raised
        with self._lock:
            if not self._is_left:
                self.result, self.error, self._is_done = result, error, True
                return
        _close(result)

    def wait(self, deadline: Deadline) -> bool:
        """Whether the handler came back in time; if not, whatever it gives later is closed."""
        self._thread.start()
        try:
            self._thread.join(deadline.remaining)
        except BaseException:  # an interrupt
            with self._lock:
                self._is_left = True
            _close(self.result)
            raise
        with self._lock:
            self._is_left = not self._is_done
        return self._is_done


def _by_handler(proxy: ProxyURL, target: tuple[str, int], deadline: Deadline) -> Stream:
    call = _Call(proxy, target, deadline)
    if not call.wait(deadline):
        raise ConnectTimeout(f"The handler of {proxy} did not come back within the time limit", stage="proxy")
    if isinstance(call.error, MailbridgeError):
        raise call.error
    if call.error is not None:
        shown = printable(f"{type(call.error).__name__}: {call.error}", 200)
        raise ProxyFailed(f"The handler of {proxy} failed: {shown}", stage="proxy") from call.error
    sock, secured = (
        call.result if isinstance(call.result, tuple) and len(call.result) == 2 else (call.result, False)
    )
    if not isinstance(sock, socket.socket):
        kind = type(sock).__name__
        raise ProxyFailed(f"The handler of {proxy} gave no socket but {kind}", stage="proxy")
    try:
        return Stream(sock, secured=bool(secured))
    except OSError as error:
        raise ProxyFailed(f"The handler of {proxy} gave a closed socket", stage="proxy") from error


def _close(result: object) -> None:
    sock = result[0] if isinstance(result, tuple) and result else result
    if isinstance(sock, socket.socket):
        sock.close()
