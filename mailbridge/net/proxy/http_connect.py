"""HTTP CONNECT on a stream (RFC 9110 section 9.3.6): ask an HTTP proxy for a way to the target.

h11 reads the answer, but is given only what has the form that RFC 9112 demands: HTTP/1.x, lines that
end in CRLF, and no more than 8 KiB of them. Two readers that disagree on where an answer ends would
disagree on what the target said: what follows belongs to the target, which in SMTP speaks first, and is
handed back to the stream.
"""

from base64 import b64encode
from urllib.parse import quote

import h11

from mailbridge.config.proxies import ProxyURL
from mailbridge.deadline import Deadline
from mailbridge.errors import ProxyFailed
from mailbridge.net.stream import Stream
from mailbridge.reply import printable
from mailbridge.secret import MASK

# A proxy's answer to CONNECT is a few lines; none of them is of use beyond the first. It counts together
# with the 1xx answers that may precede it (RFC 9110 section 15.2).
MAX_HEADER = 8 * 1024  # bytes
_VERSION = b"HTTP/1."
_END = b"\r\n\r\n"

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
    answer = _answer(connection, stream, proxy, deadline)
    reason = printable(_masked(bytes(answer.reason).decode("latin-1"), proxy), 200)
    if not 200 <= answer.status_code < 300:
        raise ProxyFailed(
            f"The proxy {proxy} answered {answer.status_code} {reason}".rstrip(),
            status=answer.status_code,
            hint=_hint(answer.status_code, proxy),
        )
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
    """The final answer; what came behind it is back in the stream."""
    received, left = b"", MAX_HEADER
    while True:
        end = received.find(_END) + len(_END)
        head = received[:end] if end >= len(_END) else received
        if problem := _malformed(head):
            raise _no_http(proxy, problem)
        if len(head) > left:
            raise _no_http(proxy, "more than 8 KiB of header")
        if end < len(_END):
            data = stream.receive(deadline)
            if not data:
                raise ProxyFailed(f"The proxy {proxy} closed the connection before it had answered")
            received += data
            continue
        received, left = received[end:], left - end
        try:
            connection.receive_data(head)
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise _no_http(proxy, str(error)) from None
        if isinstance(event, h11.Response):
            stream.unread(received)
            return event


def _malformed(head: bytes) -> str:
    """What in the beginning of an answer, however little of it there is, can become no HTTP/1; or ""."""
    if not head.startswith(_VERSION[: len(head)]):
        return f"it began with {head[:40].decode('latin-1')}"
    if len(head) - 2 * head.count(b"\r\n") - head.endswith(b"\r") != len(head.translate(None, b"\r\n")):
        return "a line does not end in CRLF"
    return ""


def _no_http(proxy: ProxyURL, problem: str) -> ProxyFailed:
    return ProxyFailed(f"The proxy {proxy} did not answer in HTTP: {printable(_masked(problem, proxy), 200)}")


def _hint(status: int, proxy: ProxyURL) -> str:
    if status == 407 and proxy.username is not None:
        return "The proxy does not accept these credentials, or wants another scheme than Basic."
    return _HINTS.get(status, "")
