"""Token introspection over HTTP (RFC 7662), for a server that has to know whose an access token is.

`good-NAME` is always NAME's. It runs in a thread of this process and asks for no authentication.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

STANDING = "good-"


class Introspection:
    """Answers at `url` until `stop`. `asked` are the tokens that it was asked about, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._users: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/introspect"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def accept(self, token: str, username: str) -> None:
        """From now on `token` is `username`'s."""
        self._users[token] = username

    def revoke(self, token: str) -> None:
        """From now on `token` is nobody's, even one of those that are always good."""
        self._users[token] = ""

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, token: str) -> dict[str, object]:
        self.asked.append(token)
        standing = token.removeprefix(STANDING) if token.startswith(STANDING) else ""
        username = self._users.get(token, standing)
        return {"active": bool(username), "username": username}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                body = json.dumps(answer(form.get("token", [""])[0])).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: whoever wants to know looks at `asked`."""

        return Handler
