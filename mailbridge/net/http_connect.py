"""HTTP CONNECT on a stream (RFC 9110 section 9.3.6): ask an HTTP proxy for a way to the target.

h11 reads the answer, within its own bounds; what follows the answer belongs to the target, which in
SMTP speaks first, and is handed back to the stream.
"""

from base64 import b64encode
from urllib.parse import quote

import h11

from mailbridge.errors import ProxyFailed
from mailbridge.net.deadline import Deadline
from mailbridge.net.streams import Stream
from mailbridge.proxies import ProxyURL
from mailbridge.results import printable
from mailbridge.secret import MASK

# A proxy's answer to CONNECT is a few lines; none of them is of use beyond the first.
MAX_HEADER = 16 * 1024  # bytes
# 1xx answers may precede the real one (RFC 9110 section 15.2); an endless row of them is none.
_MOST_INTERIM_ANSWERS = 8

# So many characters of a secret in a row are not there by chance; a shorter secret counts as a whole.
_TELLING = 8

_HINTS = {
    401: "The proxy does not accept these credentials.",  # tinyproxy says so, where RFC 9110 has 407
    403: "The proxy does not allow this host or port; its administrator can.",
    407: "The proxy wants credentials: write them into its URL as user:password@.",
    502: "The proxy could not reach the server; check host and port.",
    503: "The proxy could not reach the server; check host and port.",
    504: "The proxy could not reach the server; check host and port.",
}


def http_connect(stream: Stream, proxy: ProxyURL, target: tuple[str, int], deadline: Deadline) -> str:
    """Open the tunnel; gives what was said, for reports. Raises `ProxyFailed`, TimeoutError, OSError."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER)
    stream.send(_request(connection, proxy, target), deadline)
    try:
        answer = _answer(connection, stream, proxy, deadline)
    except h11.RemoteProtocolError as error:
        said = printable(_masked(str(error), proxy), 200)
        raise ProxyFailed(f"The proxy {proxy} did not answer in HTTP: {said}") from None
    reason = printable(_masked(bytes(answer.reason).decode("latin-1"), proxy), 200)
    if not 200 <= answer.status_code < 300:
        raise ProxyFailed(
            f"The proxy {proxy} answered {answer.status_code} {reason}".rstrip(),
            status=answer.status_code,
            hint=_hint(answer.status_code, proxy),
        )
    stream.unread(connection.trailing_data[0])
    return f"CONNECT {authority(target)}: {answer.status_code} {reason}".rstrip()


def authority(target: tuple[str, int]) -> str:
    """host:port as HTTP writes it (RFC 3986 section 3.2)."""
    host, port = target
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _request(connection: h11.Connection, proxy: ProxyURL, target: tuple[str, int]) -> bytes:
    where = authority(target).encode("ascii")
    headers = [(b"Host", where)]
    if proxy.username is not None:
        headers.append((b"Proxy-Authorization", _basic(proxy)))
    return connection.send(h11.Request(method=b"CONNECT", target=where, headers=headers)) or b""


def _masked(text: str, proxy: ProxyURL) -> str:
    """What the proxy said, or "***" if that repeats credentials, which some quote in full or in part."""
    if proxy.username is None:
        return text
    password = proxy.password.reveal() if proxy.password is not None else ""
    encoded = password.encode()
    secrets = {password, encoded.decode("latin-1"), repr(encoded)[2:-1], quote(password, safe="")}
    secrets.add(_basic(proxy).decode().removeprefix("Basic "))
    for secret in secrets:
        size = min(len(secret), _TELLING)
        if any(secret[i : i + size] in text for i in range(len(secret) - size + 1) if size):
            return MASK
    return text


def _basic(proxy: ProxyURL) -> bytes:
    """RFC 7617, in UTF-8."""
    password = proxy.password.reveal() if proxy.password is not None else ""
    return b"Basic " + b64encode(f"{proxy.username}:{password}".encode())


def _answer(connection: h11.Connection, stream: Stream, proxy: ProxyURL, deadline: Deadline) -> h11.Response:
    interim = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event
        if isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > _MOST_INTERIM_ANSWERS:
                raise ProxyFailed(f"The proxy {proxy} sent interim answers without end")
        elif event is h11.NEED_DATA:
            data = stream.receive(deadline)
            if not data:
                raise ProxyFailed(f"The proxy {proxy} closed the connection before it had answered")
            connection.receive_data(data)
        else:
            raise ProxyFailed(f"The proxy {proxy} closed the connection instead of an answer")


def _hint(status: int, proxy: ProxyURL) -> str:
    if status == 407 and proxy.username is not None:
        return "The proxy does not accept these credentials, or wants another scheme than Basic."
    return _HINTS.get(status, "")
