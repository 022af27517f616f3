"""The form that each grant posts; signatures are checked with the public key."""

from __future__ import annotations

import json
import os
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from mailbridge import ConfigurationError, Secret
from mailbridge.config.oauth2 import parse_oauth2
from mailbridge.oauth2.grants import request_body

NOW = 1_700_000_000.7
URL = "https://idp.test/token"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
MICROSOFT = {"provider": "microsoft", "tenant": "t", "client_id": "the-client"}


def certificate() -> x509.Certificate:
    from datetime import UTC, datetime, timedelta

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailer")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(7).not_valid_before(today).not_valid_after(today + timedelta(days=1))
    return builder.sign(KEY, hashes.SHA256())


def form(options: dict[str, Any], refresh_token: Secret | None = None) -> dict[str, str]:
    body = request_body(parse_oauth2(options), "user@example.com", refresh_token, NOW)
    assert "***" in repr(body)
    return {name: "".join(values) for name, values in parse_qs(body.reveal()).items()}


def signed(token: str, algorithm: str = "RS256") -> tuple[dict[str, Any], dict[str, Any]]:
    claims = jwt.decode(
        token,
        KEY.public_key(),
        algorithms=[algorithm],
        options={"verify_exp": False, "verify_aud": False, "verify_nbf": False, "verify_iat": False},
    )
    return jwt.get_unverified_header(token), claims


def test_refresh_token() -> None:
    options = {"token_url": URL, "client_id": "c d", "client_secret": "a&b=c+d", "refresh_token": "r"}
    assert form(options, Secret("newest")) == {
        "grant_type": "refresh_token",
        "client_id": "c d",
        "client_secret": "a&b=c+d",
        "refresh_token": "newest",
    }


def test_without_a_refresh_token_nobody_asks() -> None:
    options = {"token_url": URL, "client_id": "c", "grant": "refresh_token", "token_store": "file:/x"}
    with pytest.raises(ConfigurationError, match="mailbridge oauth2 authorize"):
        form(options)


def test_client_credentials_with_a_secret() -> None:
    assert form(MICROSOFT | {"client_secret": "s"}) == {
        "grant_type": "client_credentials",
        "client_id": "the-client",
        "client_secret": "s",
        "scope": "https://outlook.office365.com/.default",
    }


def test_extra_parameters_win() -> None:
    extra = {"scope": "other", "resource": "https://r.test/?a=b&c"}
    found = form(MICROSOFT | {"client_secret": "s", "extra_params": extra})
    assert (found["scope"], found["resource"]) == ("other", "https://r.test/?a=b&c")
    assert found["grant_type"] == "client_credentials"


def test_client_credentials_with_a_certificate(tmp_path: Path) -> None:
    cert = certificate()
    der = cert.public_bytes(serialization.Encoding.DER)
    both = cert.public_bytes(serialization.Encoding.PEM).decode() + PEM
    (tmp_path / "key.pem").write_text(both)
    import base64

    def thumb(digest: bytes) -> str:
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    by_sha1 = {"private_key": PEM, "thumbprint": sha1(der).hexdigest().upper()}
    by_file = {"private_key": str(tmp_path / "key.pem")}
    for given, algorithm, header in (
        (by_sha1, "RS256", {"x5t": thumb(sha1(der).digest())}),
        (by_file, "PS256", {"x5t#S256": thumb(sha256(der).digest())}),
        ({"private_key": both}, "PS256", {"x5t#S256": thumb(sha256(der).digest())}),
    ):
        found = form(MICROSOFT | given)
        assert found["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert found["client_id"] == "the-client"
        assert "client_secret" not in found
        head, claims = signed(found["client_assertion"], algorithm)
        assert head.items() >= header.items()
        assert claims.pop("jti")
        url = "https://login.microsoftonline.com/t/oauth2/v2.0/token"
        times = {"iat": int(NOW), "nbf": int(NOW), "exp": int(NOW) + 600}
        assert claims == {"iss": "the-client", "sub": "the-client", "aud": url, **times}
    one, other = (form(MICROSOFT | by_sha1)["client_assertion"] for _ in range(2))
    assert one != other  # each assertion has an id of its own


def test_a_refresh_token_of_a_client_with_a_key() -> None:
    options = {"token_url": URL, "client_id": "c", "private_key": PEM, "key_id": "k1", "refresh_token": "r"}
    head, claims = signed(form(options, Secret("r"))["client_assertion"])
    assert head["kid"] == "k1"
    assert claims["exp"] == int(NOW) + 600


def test_service_account(tmp_path: Path) -> None:
    account = {"type": "service_account", "client_email": "robot@p.test", "private_key": PEM}
    (tmp_path / "account.json").write_text(json.dumps(account))
    for given in (account, json.dumps(account), str(tmp_path / "account.json")):
        found = form({"service_account": given})
        assert found["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assert set(found) == {"grant_type", "assertion"}
        assert signed(found["assertion"])[1] == {
            "iss": "robot@p.test",
            "sub": "user@example.com",
            "aud": "https://oauth2.googleapis.com/token",
            "scope": "https://mail.google.com/",
            "iat": int(NOW),
            "exp": int(NOW) + 600,
        }


def test_jwt_bearer_elsewhere_has_its_scope_in_the_form_too() -> None:
    options = {
        "grant": "jwt_bearer",
        "token_url": URL,
        "client_id": "c",
        "private_key": PEM,
        "scope": "mail.send",
    }
    found = form(options)
    assert found["scope"] == "mail.send"
    assert signed(found["assertion"])[1]["iss"] == "c"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (MICROSOFT | {"private_key": "/nowhere/key.pem"}, "private_key' names a file that can't be read"),
        (MICROSOFT | {"private_key": PEM}, "no certificate beside the key"),
        (MICROSOFT | {"private_key": PEM, "thumbprint": "xyz"}, "40 or 64 hexadecimal digits"),
        (
            MICROSOFT | {"private_key": "-----BEGIN PRIVATE KEY-----\nsecretstuff", "thumbprint": "0" * 40},
            "no key that can sign",
        ),
        (
            {"service_account": {"client_email": "a", "private_key": "-----BEGIN x\nsecretstuff"}},
            "service_account' holds no key that can sign",
        ),
        ({"service_account": {"client_id": "secretstuff"}}, "client_email or private_key is missing"),
        ({"service_account": "/nowhere/account.json"}, "service_account' names a file that can't be read"),
    ],
)
def test_keys_that_are_none(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match="Option") as caught:
        form(options)
    assert says in str(caught.value)
    assert caught.value.stage == "token"
    assert "secretstuff" not in str(caught.value)


def test_the_environment_variable_for_insecure_transport_is_not_needed() -> None:
    assert "OAUTHLIB_INSECURE_TRANSPORT" not in os.environ
    options = {"token_url": "http://127.0.0.1/", "allow_insecure_token_url": True, "client_id": "c"}
    assert form(options | {"refresh_token": "r"}, Secret("r"))["refresh_token"] == "r"
