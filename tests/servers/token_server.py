"""`TokenServer`: a token endpoint for what no real one does on demand.

HTTP or HTTPS on loopback, a free port, one thread for each request, in the process of the test. It gives
tokens for any grant, and rotates refresh tokens if asked to: then a second use of one revokes the whole
family, as RFC 9700 section 4.14.2 has it. `answer` names what it says instead.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from mailbridge.testing.listener import server_context
from tests.servers.certificates import Identity
from tests.servers.process import LOOPBACK

Reply = tuple[int, dict[str, str], bytes]
JSON = {"Content-Type": "application/json;charset=UTF-8"}
MOST_SECONDS = 20.0  # no answer is kept back longer than this, whatever a test forgets


def refused(status: int, code: str, text: str = "", **headers: str) -> Reply:
    body = {"error": code} | ({"error_description": text} if text else {})
    return (
        status,
        JSON | {name.replace("_", "-"): value for name, value in headers.items()},
        json.dumps(body).encode(),
    )


def html(status: int) -> Reply:
    return status, {"Content-Type": "text/html"}, b"<html><body>Welcome to the hotel network</body></html>"


# Name -> the answer; what needs more than bytes is in TokenServer._special.
ANSWERS: dict[str, Reply] = {
    "html": html(200),
    "html 502": html(502),
    "empty": (200, JSON, b""),
    "no content type": (200, {}, b'{"access_token": "x"}'),
    "array": (200, JSON, b"[]"),
    "broken json": (200, JSON, b'{"access_token": "abc'),
    "no token": (200, JSON, b"{}"),
    "mac token": (200, JSON, b'{"access_token": "abc", "token_type": "mac"}'),
    "line break": (200, JSON, b'{"access_token": "abc\\r\\nRCPT TO:<x@y>", "token_type": "Bearer"}'),
    "invalid_grant": refused(400, "invalid_grant", "Token has been expired or revoked."),
    "unauthorized": refused(401, "invalid_client", "AADSTS7000215: Invalid client secret provided."),
    "unauthorized_client": refused(401, "unauthorized_client", "Client is unauthorized to use this method."),
    "bare 401": (401, {"Content-Type": "text/plain", "WWW-Authenticate": "Basic"}, b"no"),
    "too many": refused(429, "slow_down", Retry_After="17"),
    "500": (500, {"Content-Type": "text/plain"}, b"oops"),
    "passing": refused(400, "temporarily_unavailable"),
    "redirect": (302, {"Location": "https://elsewhere.test/token"}, b""),
    "clock": refused(
        400, "invalid_grant", "Invalid JWT: must be a short-lived token", Date="Mon, 01 Jan 2024 00:00:00 GMT"
    ),
    "2 MiB": (200, JSON, b'{"access_token": "' + b"a" * (2 << 20) + b'"}'),
    "gzip": (200, JSON | {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00garbage"),
}  # fmt: skip


class TokenServer:
    """`requests` are the forms it got, `heads` their header fields. `answer` may be changed while it runs.

    `answer`: None for tokens, a name of ANSWERS, or one of "silent" (takes the request, says nothing), "drip"
    (a byte every `pace` seconds), "half" (hangs up in the body), "closed" (hangs up at once), "echo" (quotes
    what it was sent in its refusal), "no lifetime", "other scope".
    """

    def __init__(
        self,
        *,
        identity: Identity | None = None,
        answer: str | None = None,
        rotates: bool = False,
        lifetime: float = 3600,
        pace: float = 0.05,
        first_refresh_token: str = "first-refresh-token",
    ) -> None:
        self.answer, self.rotates, self.lifetime, self.pace = answer, rotates, lifetime, pace
        self.requests: list[dict[str, str]] = []
        self.heads: list[dict[str, str]] = []
        self.issued: list[str] = []
        self.family = [first_refresh_token]  # the last one is good, the others are spent
        self.is_revoked = False
        self.gate: threading.Event | None = None  # no answer before it is set
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._context: ssl.SSLContext | None = None
        if identity is not None:
            self._context = server_context("implicit", None, identity.cert_file, identity.key_file, None)
        self._server = _Server(self)
        self.host, self.port = LOOPBACK, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="token-server", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://localhost:{self.port}/tenant/token?api=2"

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- answers ----------------------------------------------------------------------------------------

    def reply_to(self, form: dict[str, str], head: dict[str, str]) -> Reply:
        with self._lock:
            self.requests.append(form)
            self.heads.append(head)
        if self.gate is not None:
            self.gate.wait(MOST_SECONDS)
        if self.answer == "echo":
            return refused(400, "invalid_request", f"You said {form}")
        if self.answer in ANSWERS:
            return ANSWERS[self.answer]
        return self._token(form)

    def _token(self, form: dict[str, str]) -> Reply:
        with self._lock:
            number = len(self.issued) + 1
            said: dict[str, Any] = {
                "token_type": "Bearer",
                "expires_in": self.lifetime,
                "scope": form.get("scope", ""),
            }
            if form.get("grant_type") == "refresh_token" and self.rotates:
                used = form.get("refresh_token")
                self.is_revoked = self.is_revoked or used in self.family[:-1]
                if self.is_revoked or used != self.family[-1]:
                    return refused(
                        400, "invalid_grant", "The refresh token was used before: all are revoked."
                    )
                self.family.append(f"refresh-token-{number}-{used[-8:] if used else ''}")
                said["refresh_token"] = self.family[-1]
            said["access_token"] = f"access-token-{number}.of.the-token-server"
            self.issued.append(said["access_token"])
        if self.answer == "no lifetime":
            del said["expires_in"]
        if self.answer == "other scope":
            said["scope"] = "something entirely different"
        return 200, JSON, json.dumps(said).encode()

    def send(self, write: Callable[[bytes], Any], data: bytes) -> None:
        """The bytes of an answer, or what `answer` makes of them."""
        if self.answer == "silent":
            self._stop.wait(MOST_SECONDS)
        elif self.answer == "drip":
            for byte in data:
                if self._stop.wait(self.pace):
                    return
                write(bytes([byte]))
        elif self.answer == "half":
            write(data[:-10])
        elif self.answer != "closed":
            write(data)

    def secure(self, sock: Any) -> Any:
        if self._context is None:
            return sock
        sock.settimeout(MOST_SECONDS)
        return self._context.wrap_socket(sock, server_side=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a silent answer ends by the stop event, soon after

    def __init__(self, owner: TokenServer) -> None:
        self.owner = owner
        super().__init__((LOOPBACK, 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.request = self.server.owner.secure(self.request)
        super().setup()

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.request.close()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
        owner = self.server.owner
        head = {name.lower(): value for name, value in self.headers.items()} | {"": self.requestline}
        status, headers, content = owner.reply_to(form, head)
        lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
        lines += [f"Content-Length: {len(content)}", "Connection: close", "", ""]
        owner.send(self.wfile.write, "\r\n".join(lines).encode() + content)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""
