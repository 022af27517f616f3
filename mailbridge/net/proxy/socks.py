"""SOCKS4, 4a and 5 on a stream, by PySocks (extra `socks`): the only place that knows this library.

PySocks has a time limit for each read; here it reads from our stream, under one deadline, and just
the bytes that it asks for, so that a greeting behind the proxy's answer stays unread.
"""

import io
from contextlib import closing
from typing import Any

from mailbridge.config.proxies import ProxyURL
from mailbridge.deadline import Deadline
from mailbridge.errors import ProxyFailed
from mailbridge.net.stream import Stream, StreamFile
from mailbridge.reply import printable

try:
    import socks  # type: ignore[import-untyped]  # PySocks has no types
except ModuleNotFoundError:  # the extra is not installed; `proxies` refuses to name such a proxy then
    _SocksSocket: Any = object
else:
    _SocksSocket = socks.socksocket

# RFC 1928 has one byte for the length of a name; PySocks writes lengths above 127 wrongly.
LONGEST_NAME = 127


def socks_connect(stream: Stream, proxy: ProxyURL, target: tuple[str, int], deadline: Deadline) -> str:
    """Ask the proxy for `target`; gives what was said, for reports.

    A name goes to the proxy as it is; for SOCKS4 the target must be an IPv4 address. Raises
    `ProxyFailed`, TimeoutError, OSError.
    """
    host, port = target
    if len(host) > LONGEST_NAME:
        raise ProxyFailed(f"The host name is too long for {proxy}: more than {LONGEST_NAME} bytes")
    refusal = _negotiate(stream, proxy, target, deadline)
    if refusal is not None:
        raise refusal
    return f"{proxy.scheme.upper()} to {host}:{port}"


def _negotiate(
    stream: Stream, proxy: ProxyURL, target: tuple[str, int], deadline: Deadline
) -> ProxyFailed | None:
    """What went wrong. PySocks' errors are not chained: their frames hold the credentials."""
    kind = socks.SOCKS5 if proxy.scheme == "socks5" else socks.SOCKS4
    with closing(_Negotiation(stream, deadline)) as negotiation:
        try:
            password = proxy.password.reveal() if proxy.password is not None else None
            negotiation.set_proxy(kind, proxy.host, proxy.port, True, proxy.username, password)
            del password
            if kind == socks.SOCKS5:
                negotiation._negotiate_SOCKS5(*target)
            else:
                negotiation._negotiate_SOCKS4(*target)
        except socks.ProxyError as error:
            return _refusal(error, proxy)
        finally:
            negotiation.set_proxy()
    return None


def _refusal(error: Any, proxy: ProxyURL) -> ProxyFailed:
    said = printable(str(error.msg), 200)
    if said == "Connection closed unexpectedly":  # PySocks' words for end-of-file
        return ProxyFailed(
            f"The proxy {proxy} closed the connection instead of answering",
            hint="It may not reach the server (`ssh -D` then closes), or speak another version of SOCKS.",
        )
    hint, is_login = "", isinstance(error, socks.SOCKS5AuthError)
    if is_login:
        hint = (
            "The proxy wants credentials: write them into its URL as user:password@."
            if proxy.username is None
            else "The proxy does not accept these credentials."
        )
    return ProxyFailed(f"The proxy {proxy} refused: {said}", hint=hint, transient=not is_login)


class _Negotiation(_SocksSocket):  # type: ignore[misc]  # PySocks has no types
    """PySocks' conversation with the proxy, on a stream of ours; its own socket is never connected."""

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        super().__init__()
        self._way = stream, deadline

    def makefile(self, mode: str, *_: Any, **__: Any) -> Any:
        file = StreamFile(*self._way)
        return io.BufferedWriter(file) if "w" in mode else file
