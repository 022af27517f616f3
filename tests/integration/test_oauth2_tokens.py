"""Every grant gets a token from an OAuth2 server that is nobody's of this project."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailbridge import SMTPConfig, TokenUnavailable
from mailbridge.cli.main import main
from mailbridge.deadline import Deadline
from mailbridge.oauth2 import shared
from mailbridge.oauth2.shared import source_for
from tests.servers.certificates import Certificates
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.oauth2_mock import OAuth2Mock
from tests.servers.process import wait_until


@pytest.fixture(autouse=True)
def no_tokens_from_before() -> Iterator[None]:
    shared.forget_sources()
    yield
    shared.forget_sources()


def config_for(
    server: OAuth2Mock, certificates: Certificates, oauth2: dict[str, Any], **options: Any
) -> SMTPConfig:
    tls = {"ca_file": certificates.ca_file}
    given = {"token_url": server.token_url, "scope": "mail", "tls": tls, **oauth2}
    return SMTPConfig(username=server.username, oauth2=given, timeout=10, **options)


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def grants(server: OAuth2Mock) -> list[dict[str, Any]]:
    account = {"client_email": "robot@project.test", "private_key": server.client_key}
    return [
        {"client_id": "c", "client_secret": "s", "refresh_token": "r"},
        {"client_id": "c", "client_secret": "s"},
        {"client_id": "c", "private_key": server.client_key},
        {"provider": "google", "service_account": account},
        {"grant": "jwt_bearer", "client_id": "c", "private_key": server.client_key},
    ]


@pytest.mark.parametrize("number", range(5))
def test_every_grant_gets_a_token(oauth2_mock: OAuth2Mock, certificates: Certificates, number: int) -> None:
    source = source_for(config_for(oauth2_mock, certificates, grants(oauth2_mock)[number]))
    token, is_cached = source.token(Deadline.after(20))
    assert is_cached is False
    assert claims_of(token.value.reveal())["scope"] == "mail"
    assert token.expires_at is not None
    assert token.issued_at is not None
    assert token.expires_at - token.issued_at == 3600
    assert source.token(Deadline.after(20)) == (token, True)
    assert "scope mail, expires in" in source.describe()


def test_a_rotated_refresh_token_is_the_next_one(
    oauth2_mock: OAuth2Mock, certificates: Certificates, tmp_path: Path
) -> None:
    options = {"client_id": "c", "refresh_token": "the-first", "token_store": f"file:{tmp_path}"}
    before = len(oauth2_mock.grants())
    rotated = []
    for _ in range(3):
        shared.forget_sources()  # as after a restart
        source = source_for(config_for(oauth2_mock, certificates, options))
        if rotated:
            source.drop(source.token(Deadline.after(20))[0])
        token, _ = source.token(Deadline.after(20))
        assert token.refresh_token is not None
        rotated.append(token.refresh_token.reveal())
    spent = [grant.split()[-1] for grant in oauth2_mock.grants()[before:]]
    assert spent == ["the-first", *rotated[:2]]


def test_a_signature_of_another_key_is_refused(oauth2_mock: OAuth2Mock, certificates: Certificates) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": "robot@project.test", "private_key": other.decode()}
    config = config_for(oauth2_mock, certificates, {"service_account": account})
    with pytest.raises(TokenUnavailable, match="signature") as caught:
        source_for(config).token(Deadline.after(20))
    assert "key of the service account" in caught.value.hint


def test_through_a_proxy(
    oauth2_mock: OAuth2Mock, certificates: Certificates, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy("connect")
    config = config_for(
        oauth2_mock,
        certificates,
        {"client_id": "c", "client_secret": "s"},
        proxy=f"http://127.0.0.1:{proxy.port}",
    )
    source_for(config).token(Deadline.after(20))
    assert proxy.targets == [f"localhost:{oauth2_mock.endpoint.port}"]


def test_consent_in_a_browser(
    oauth2_mock: OAuth2Mock, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser is urllib, which follows the redirect to the loopback port; the server checks PKCE."""
    trust = ssl.create_default_context(cafile=certificates.ca_file)
    pages: list[bytes] = []

    def visit(address: str) -> None:
        with urllib.request.urlopen(address, timeout=10, context=trust) as page:
            pages.append(page.read())

    def browse(address: str) -> None:
        threading.Thread(target=visit, args=(address,), daemon=True).start()

    monkeypatch.setattr("webbrowser.open", browse)
    words = {
        "--username": oauth2_mock.username,
        "--client-id": "c",
        "--scope": "mail",
        "--token-url": oauth2_mock.token_url,
        "--authorize-url": f"{oauth2_mock.base_url}/authorize",
        "--store": str(tmp_path),
        "--ca-file": str(certificates.ca_file),
        "--timeout": "20",
    }
    assert main(["oauth2", "authorize", *(word for pair in words.items() for word in pair)]) == 0
    oauth2 = {"grant": "refresh_token", "client_id": "c", "token_store": f"file:{tmp_path}"}
    source = source_for(config_for(oauth2_mock, certificates, oauth2))
    token, is_cached = source.token(Deadline.after(20))
    assert is_cached
    source.drop(token)
    assert source.token(Deadline.after(20))[1] is False
    assert wait_until(lambda: bool(pages), 10)
    assert b"Done." in pages[0]
