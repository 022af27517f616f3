"""The consent of a person: on another device, and in a browser that comes back to a loopback port."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from mailbridge import DeadlineExceeded, FileTokenStore, SMTPConfig, TokenUnavailable
from mailbridge.cli.main import main
from mailbridge.deadline import NEVER, Deadline
from mailbridge.oauth2.authorize import Consent
from mailbridge.oauth2.shared import source_for
from tests.servers.certificates import Certificates
from tests.servers.token_server import JSON, Reply, TokenServer, refused
from tests.unit.oauth2.conftest import CLIENT_SECRET

DEVICE = {"device_code": "the-device-code", "user_code": "WDJB-MJHT", "interval": 3, "expires_in": 900}
DEVICE |= {"verification_uri": "https://idp.test/device"}
GRANTED = {"access_token": "granted", "expires_in": 3600, "refresh_token": "granted-refresh"}


class ConsentServer(TokenServer):
    """Gives `replies` one after the other."""

    def __init__(self, *replies: Reply | dict[str, Any], **options: Any) -> None:
        self.replies = list(replies)
        super().__init__(**options)

    def reply_to(self, form: dict[str, str], head: dict[str, str]) -> Reply:
        self.requests.append(form)
        self.heads.append(head)
        reply = self.replies.pop(0)
        return (200, JSON, json.dumps(reply).encode()) if isinstance(reply, dict) else reply


@pytest.fixture
def serve() -> Iterator[Callable[..., ConsentServer]]:
    servers: list[ConsentServer] = []

    def start(*replies: Reply | dict[str, Any], **options: Any) -> ConsentServer:
        servers.append(ConsentServer(*replies, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def consent_at(
    server: ConsentServer, show: Callable[[str, str], None], deadline: Deadline = NEVER, **oauth2: Any
) -> Consent:
    given = {"token_url": server.url, "client_id": "c", "client_secret": CLIENT_SECRET, "refresh_token": "r"}
    config = SMTPConfig(
        username="user@example.com", oauth2={**given, "allow_insecure_token_url": True, **oauth2}, timeout=10
    )
    assert config.oauth2 is not None
    return Consent(
        config=config,
        options=config.oauth2,
        username="user@example.com",
        scope="mail offline_access",
        show=show,
        deadline=deadline,
        wall_clock=lambda: 1000.0,
    )


# ---- another device (RFC 8628)


def test_a_device_code_is_asked_about_until_it_is_granted(serve: Callable[..., ConsentServer]) -> None:
    pending = refused(400, "authorization_pending")
    server = serve(DEVICE, pending, refused(400, "slow_down"), pending, GRANTED)
    shown: list[tuple[str, str]] = []
    waits: list[float] = []
    consent = consent_at(server, lambda *what: shown.append(what))
    token = consent.by_device(server.url.replace("/token", "/device"), waits.append)
    assert token.refresh_token is not None
    assert (token.value.reveal(), token.refresh_token.reveal()) == ("granted", "granted-refresh")
    assert shown == [("https://idp.test/device", "WDJB-MJHT")]
    assert waits == [3, 3, 8, 8]
    client = {"client_id": "c", "client_secret": CLIENT_SECRET}
    assert server.requests[0] == client | {"scope": "mail offline_access"}
    assert "/tenant/device" in server.heads[0][""]
    asked = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "the-device-code"}
    assert server.requests[1:] == [client | asked] * 4


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        ([refused(400, "invalid_client")], "invalid_client"),
        ([{"device_code": "x"}], "status 200"),
        ([DEVICE, refused(400, "access_denied", "the-device-code")], r"access_denied \(\*\*\*\)"),
        ([DEVICE, refused(400, "expired_token")], "expired_token"),
        ([DEVICE, {"access_token": "x"}], "no refresh token"),
    ],
)
def test_a_device_that_is_not_granted(
    serve: Callable[..., ConsentServer], replies: list[Any], says: str
) -> None:
    server = serve(*replies)
    with pytest.raises(TokenUnavailable, match=says):
        consent_at(server, lambda *what: None).by_device(server.url, lambda seconds: None)


def test_nobody_types_the_code_in(serve: Callable[..., ConsentServer]) -> None:
    now = [0.0]
    server = serve(DEVICE, *[refused(400, "authorization_pending")] * 5)

    def wait(seconds: float) -> None:
        now[0] += seconds

    consent = consent_at(server, lambda *what: None, Deadline(10.0, lambda: now[0]))
    with pytest.raises(DeadlineExceeded, match="Nobody consented in time"):
        consent.by_device(server.url, wait)


# ---- a browser here (RFC 8252, RFC 7636)


class Browser:
    """Opens what it is shown, like a person who consents, in a thread of its own."""

    def __init__(self, answer: Callable[[dict[str, str]], list[dict[str, str]]]) -> None:
        self.answer = answer
        self.asked: dict[str, str] = {}
        self.statuses: list[int] = []
        self.thread: threading.Thread | None = None

    def __call__(self, address: str, code: str) -> None:
        self.asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        self.thread = threading.Thread(target=self.come_back, daemon=True)
        self.thread.start()

    def come_back(self) -> None:
        for query in self.answer(self.asked):
            try:
                with urllib.request.urlopen(
                    f"{self.asked['redirect_uri']}?{urlencode(query)}", timeout=5
                ) as page:
                    self.statuses.append(page.status)
            except urllib.error.HTTPError as error:
                self.statuses.append(error.code)
                error.close()


def test_the_browser_comes_back_with_a_code(serve: Callable[..., ConsentServer]) -> None:
    server = serve(GRANTED)
    # Somebody else's visits do not count: no state, another's state, no code.
    browser = Browser(
        lambda asked: [
            {},
            {"code": "forged", "state": "x"},
            {"state": asked["state"]},
            {"code": "the-code", "state": asked["state"]},
        ]
    )
    token = consent_at(server, browser).in_browser("https://idp.test/authorize?tenant=7")
    assert browser.thread is not None
    browser.thread.join(10)
    assert token.value.reveal() == "granted"
    assert browser.statuses == [404, 404, 404, 200]
    asked, form = browser.asked, server.requests[0]
    assert asked["tenant"] == "7"
    assert (asked["response_type"], asked["client_id"]) == ("code", "c")
    assert (asked["scope"], asked["login_hint"]) == ("mail offline_access", "user@example.com")
    assert asked["redirect_uri"].startswith("http://localhost:")
    assert asked["code_challenge_method"] == "S256"
    digest = sha256(form["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert 43 <= len(form["code_verifier"]) <= 128  # RFC 7636 section 4.1
    del form["code_verifier"]
    assert form == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "redirect_uri": asked["redirect_uri"],
        "client_id": "c",
        "client_secret": CLIENT_SECRET,
    }


def test_the_person_says_no(serve: Callable[..., ConsentServer]) -> None:
    browser = Browser(lambda asked: [{"error": "access_denied", "state": asked["state"]}])
    with pytest.raises(TokenUnavailable, match="did not grant it: access_denied"):
        consent_at(serve(), browser).in_browser("https://idp.test/authorize")


def test_nobody_comes_back(serve: Callable[..., ConsentServer]) -> None:
    consent = consent_at(serve(), lambda *what: None, Deadline.after(0.05))
    with pytest.raises(DeadlineExceeded, match="Nobody consented in time"):
        consent.in_browser("https://idp.test/authorize")


def test_google_is_asked_for_a_refresh_token(serve: Callable[..., ConsentServer]) -> None:
    browser = Browser(lambda asked: [{"error": "enough", "state": asked["state"]}])
    with pytest.raises(TokenUnavailable):
        consent_at(serve(), browser, provider="google").in_browser("https://idp.test/authorize")
    assert (browser.asked["access_type"], browser.asked["prompt"]) == ("offline", "consent")


# ---- the command


def test_the_command_keeps_the_token_where_the_application_finds_it(
    serve: Callable[..., ConsentServer],
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve(DEVICE, GRANTED, identity=certificates.good)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "secret").write_text(CLIENT_SECRET + "\n")
    arguments = {
        "--username": "user@example.com",
        "--client-id": "c",
        "--client-secret-file": str(tmp_path / "secret"),
        "--store": str(tmp_path / "tokens"),
        "--token-url": server.url,
        "--device-url": server.url,
        "--scope": "mail",
        "--ca-file": str(certificates.ca_file),
    }
    flat = [word for pair in arguments.items() for word in pair]
    assert main(["oauth2", "authorize", *flat, "--device"]) == 0
    said = capsys.readouterr()
    assert "type in the code WDJB-MJHT" in said.err
    assert f"file:{tmp_path}/tokens" in said.out
    for secret in (CLIENT_SECRET, "granted", "the-device-code"):
        assert secret not in said.out + said.err
    oauth2 = {"grant": "refresh_token", "token_url": server.url, "client_id": "c", "scope": "mail"}
    oauth2 |= {"client_secret": CLIENT_SECRET, "token_store": f"file:{tmp_path}/tokens"}
    config = SMTPConfig(username="user@example.com", oauth2=oauth2)
    token, is_cached = source_for(config).token(NEVER)
    assert (token.value.reveal(), is_cached) == ("granted", True)
    assert FileTokenStore(tmp_path / "tokens").folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        ([], 2, "needed for the grant"),
        (["--token-url", "https://127.0.0.1:9/"], 2, "must be google or microsoft for this"),
        (["--provider", "google", "--authorize-url", "http://x/"], 2, "must begin with https://"),
        (["--provider", "google", "--timeout", "0.01", "--no-browser"], 1, "Nobody consented in time"),
    ],
)
def test_what_the_command_cannot_do(
    more: list[str], status: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["oauth2", "authorize", "--username", "u@x", "--client-id", "c", "--store", str(tmp_path / "t")]
    assert main([*words, *more]) == status
    assert says in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
