"""The consent of a person, which gives the first refresh token: in a browser here, or on any other device.

For the command `mailbridge oauth2 authorize`; nothing that sends mail comes here. What a person is shown is
handed to a callable.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import DeadlineExceeded, TokenUnavailable
from mailbridge.oauth2.endpoint import Answer, post
from mailbridge.oauth2.grants import client_authentication
from mailbridge.oauth2.response import json_object, refusal, token_of
from mailbridge.oauth2.token import AccessToken
from mailbridge.reply import printable
from mailbridge.secret import Secret

_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_FIRST_INTERVAL, _SLOWER = 5.0, 5.0  # seconds; RFC 8628 sections 3.2 and 3.5
_PAGE = b"<!doctype html><meta charset=utf-8><title>mailbridge</title><p>%s You can close this window."

#: Shows a person an address to open, and a code to type in there ("" if there is none).
Show = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """Whom to ask for what. `wall_clock` is in seconds since 1970."""

    config: SMTPConfig
    options: OAuth2Options
    username: str
    scope: str
    show: Show
    deadline: Deadline
    wall_clock: Callable[[], float]

    def by_device(self, device_url: str, wait: Callable[[float], None]) -> AccessToken:
        """RFC 8628: the person types a code in, on any device, while this asks whether it is done."""
        answer = self._post({"scope": self.scope}, url=device_url)
        said = json_object(answer)
        # Google's is called verification_url.
        address = said.get("verification_uri") or said.get("verification_url")
        code, user_code = said.get("device_code"), said.get("user_code")
        if answer.status != 200 or not all(isinstance(each, str) for each in (address, code, user_code)):
            raise refusal(answer, said, now=self.wall_clock(), server=self.options.server, secrets=())
        self.show(printable(str(address), 300), printable(str(user_code), 60))
        interval = _seconds(said.get("interval"), _FIRST_INTERVAL)
        while not self.deadline.is_over:
            wait(interval)
            answer = self._post({"grant_type": _DEVICE_CODE, "device_code": str(code)})
            error = json_object(answer).get("error")
            if error == "slow_down":
                interval += _SLOWER
            elif error != "authorization_pending":
                return self._token(answer, Secret(str(code)))
        raise _too_late()

    def in_browser(self, authorize_url: str) -> AccessToken:
        """RFC 8252: the provider sends the browser to a loopback port, with a code that is exchanged here.

        PKCE (RFC 7636) and `state` make sure that it is the code of this very consent.
        """
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        with _Listener(state) as listener:
            digest = hashlib.sha256(verifier.encode()).digest()
            query = {
                "response_type": "code",
                "client_id": self.options.client_id,
                "redirect_uri": listener.address,
                "scope": self.scope,
                "state": state,
                "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
                "code_challenge_method": "S256",
                "login_hint": self.username,
            }
            if self.options.provider == "google":
                # Without these two Google gives no refresh token, or only the first time.
                query |= {"access_type": "offline", "prompt": "consent"}
            glue = "&" if urlsplit(authorize_url).query else "?"
            self.show(f"{authorize_url}{glue}{urlencode(query)}", "")
            code = listener.wait(self.deadline)
            form = {"grant_type": "authorization_code", "code": code.reveal(), "code_verifier": verifier}
            return self._token(self._post(form | {"redirect_uri": listener.address}), code, Secret(verifier))

    def _post(self, form: dict[str, str], *, url: str = "") -> Answer:
        known = {
            "client_id": self.options.client_id,
            **client_authentication(self.options, self.wall_clock()),
        }
        try:
            return post(self.config, self.options, Secret(urlencode(known | form)), self.deadline, url=url)
        except TimeoutError:
            if self.deadline.is_over:
                raise _too_late() from None
            raise

    def _token(self, answer: Answer, *sent: Secret) -> AccessToken:
        secret = (self.options.client_secret,) if self.options.client_secret is not None else ()
        server = self.options.server
        token = token_of(answer, now=self.wall_clock(), server=server, secrets=(*sent, *secret))
        if token.refresh_token is None:
            raise TokenUnavailable(
                "The provider gave an access token, but no refresh token",
                stage="token",
                server=server,
                hint="The scope must allow it: offline_access with Microsoft and others.",
            )
        return token


class _Listener:
    """Waits on a loopback port for the browser to come back with `state`; whoever else comes is sent away."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._found: dict[str, str] = {}
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        self._server.timeout = 0.5  # how often the deadline is looked at
        # By name: Microsoft lets only http://localhost have any port.
        self.address = f"http://localhost:{self._server.server_port}/"

    def __enter__(self) -> "_Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, deadline: Deadline) -> Secret:
        while not self._found:
            if deadline.is_over:
                raise _too_late()
            self._server.handle_request()
        if "code" in self._found:
            return Secret(self._found["code"])
        said = printable(f"{self._found['error']} {self._found.get('error_description', '')}".strip(), 300)
        raise TokenUnavailable(f"The provider did not grant it: {said}", stage="token")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # seconds that a silent visitor may hold the port

            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                is_ours = secrets.compare_digest(asked.get("state", "").encode(), listener._state.encode())
                if not is_ours or not ("code" in asked or "error" in asked):
                    self.send_error(404)
                    return
                listener._found = asked
                page = _PAGE % (b"Done." if "code" in asked else b"It was not granted.")
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, format: str, *args: Any) -> None:
                """Not a word: the request line holds the code."""

        return Handler


def _seconds(value: object, default: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return min(max(float(value), 1.0), 60.0) if is_number else default  # type: ignore[arg-type]  # it is one


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("Nobody consented in time", stage="token")
