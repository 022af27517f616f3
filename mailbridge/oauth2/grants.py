"""What is asked of a token endpoint: the body of the request, for each grant.

Bodies are oauthlib's; one client object for each request, since they are not safe for threads and remember
what they have seen. Sending them is `http`'s, reading the answer `answers`'.
"""

import base64
import json
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret

# RFC 7523 section 3: short. Google refuses more than an hour; the rest is room for clocks that differ.
ASSERTION_SECONDS = 600
_JWT_BEARER_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_CERTIFICATE_BEGINS, _CERTIFICATE_ENDS = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def request_body(options: OAuth2Options, username: str, refresh_token: Secret | None, now: float) -> Secret:
    """The form to post. `now` is in seconds since 1970.

    Raises `ConfigurationError` for a key or key file that can't be used.
    """
    if options.grant == "refresh_token":
        body = _refresh(options, refresh_token, now)
    elif options.grant == "client_credentials":
        body = _client_credentials(options, now)
    else:
        body = _jwt_bearer(options, username, now)
    if options.extra_params:
        extra = {name: value.reveal() for name, value in options.extra_params}
        body = Secret(urlencode(dict(parse_qsl(body.reveal(), keep_blank_values=True)) | extra))
    return body


def _refresh(options: OAuth2Options, refresh_token: Secret | None, now: float) -> Secret:
    """RFC 6749 section 6."""
    from oauthlib.oauth2 import WebApplicationClient

    if refresh_token is None:
        raise ConfigurationError(
            "There is no refresh token, neither configured nor in the token store",
            stage="token",
            hint="A person must consent first: mailbridge oauth2 authorize gets one.",
        )
    client = WebApplicationClient(options.client_id)
    return Secret(
        client.prepare_refresh_body(
            refresh_token=refresh_token.reveal(), scope=options.scope or None, client_id=options.client_id,
            include_client_id=True, **client_authentication(options, now),
        )
    )  # fmt: skip


def client_authentication(options: OAuth2Options, now: float) -> dict[str, Any]:
    """How the client proves itself: by its secret, by an assertion (RFC 7523 section 2.2), or not at all."""
    if options.client_secret is not None:
        return {"client_secret": options.client_secret.reveal()}
    return _assertion(options, now) if options.private_key is not None else {}


def _client_credentials(options: OAuth2Options, now: float) -> Secret:
    """RFC 6749 section 4.4."""
    from oauthlib.oauth2 import BackendApplicationClient

    client = BackendApplicationClient(options.client_id)
    return Secret(
        client.prepare_request_body(
            scope=options.scope or None, include_client_id=True, **client_authentication(options, now)
        )
    )


def _assertion(options: OAuth2Options, now: float) -> dict[str, Any]:
    import jwt

    key = _private_key(options)
    algorithm, headers = _signature(options, key)
    claims = {
        "iss": options.client_id,
        "sub": options.client_id,
        "aud": options.token_url,
        "jti": str(uuid.uuid4()),
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now) + ASSERTION_SECONDS,
    }
    try:
        signed = jwt.encode(claims, key.reveal(), algorithm, headers=headers)
    except Exception as problem:
        raise _bad_key("oauth2.private_key", problem) from None
    return {"client_assertion_type": _JWT_BEARER_CLIENT, "client_assertion": signed}


def _signature(options: OAuth2Options, key: Secret) -> tuple[str, dict[str, Any]]:
    """Algorithm and headers. Microsoft finds the certificate by its thumbprint, others by the key's id."""
    headers: dict[str, Any] = {"kid": options.key_id} if options.key_id else {}
    thumbprint = _thumbprint(options, key)
    if thumbprint is None:
        return "RS256", headers
    encoded = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    # Microsoft wants PS256 beside x5t#S256, and RS256 beside the SHA-1 that its portal shows.
    if len(thumbprint) == 20:
        return "RS256", headers | {"x5t": encoded}
    return "PS256", headers | {"x5t#S256": encoded}


def _thumbprint(options: OAuth2Options, key: Secret) -> bytes | None:
    """As configured; else of the certificate that stands beside the key."""
    if options.thumbprint:
        digits = re.sub(r"[:\s]", "", options.thumbprint)
        if not re.fullmatch(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}", digits):
            raise ConfigurationError(
                "Option 'oauth2.thumbprint' must be 40 or 64 hexadecimal digits", stage="token"
            )
        return bytes.fromhex(digits)
    found = _certificate_in(key.reveal())
    if found is None:
        if options.provider == "microsoft":
            raise ConfigurationError(
                "Option 'oauth2.private_key' has no certificate beside the key",
                stage="token",
                hint="Put the certificate into the same PEM file, or give its thumbprint.",
            )
        return None
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        return x509.load_pem_x509_certificate(found.encode()).fingerprint(SHA256())
    except ValueError as problem:
        raise _bad_key("oauth2.private_key", problem) from None


def _certificate_in(pem: str) -> str | None:
    """The first certificate of a PEM file, with the lines around it; None if there is none."""
    begins = pem.find(_CERTIFICATE_BEGINS)
    ends = pem.find(_CERTIFICATE_ENDS, begins)
    return pem[begins : ends + len(_CERTIFICATE_ENDS)] if 0 <= begins < ends else None


def _jwt_bearer(options: OAuth2Options, username: str, now: float) -> Secret:
    """RFC 7523 section 2.1: a service account acts for `username`."""
    from oauthlib.oauth2 import ServiceApplicationClient

    issuer, key = _service_account(options)
    client = ServiceApplicationClient(
        options.client_id or issuer,
        private_key=key.reveal(),
        issuer=issuer,
        subject=username,
        audience=options.token_url,
    )
    # Google reads the scope in the signed claims; RFC 7521 section 4.1 has it in the form.
    is_google = options.provider == "google"
    try:
        return Secret(
            client.prepare_request_body(
                issued_at=now,
                expires_at=now + ASSERTION_SECONDS,
                extra_claims={"scope": options.scope} if options.scope else None,
                scope="" if is_google else options.scope,
            )
        )
    except Exception as problem:
        name = "private_key" if options.service_account is None else "service_account"
        raise _bad_key(f"oauth2.{name}", problem) from None


def _service_account(options: OAuth2Options) -> tuple[str, Secret]:
    """Who signs, and the key."""
    account = options.service_account
    if account is None:
        return options.client_id, _private_key(options)
    text = account if isinstance(account, Secret) else _read("service_account", account)
    try:
        found = json.loads(text.reveal())
        issuer, key = found["client_email"], found["private_key"]
    except (ValueError, KeyError, TypeError):
        issuer = key = None
    if not isinstance(issuer, str) or not isinstance(key, str):
        raise ConfigurationError(
            "Option 'oauth2.service_account' is no service account: client_email or private_key is missing",
            stage="token",
            hint="Give the JSON key file of the service account, as it was downloaded.",
        )
    return issuer, Secret(key)


def _private_key(options: OAuth2Options) -> Secret:
    """A key in PEM, or the content of the file that is named."""
    given = options.private_key or Secret("")
    return given if "-----BEGIN" in given.reveal() else _read("private_key", given.reveal())


def _read(option: str, path: str) -> Secret:
    try:
        return Secret(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or type(problem).__name__
    # Not the path: what was meant to be a key but isn't written like one would be shown.
    raise ConfigurationError(
        f"Option 'oauth2.{option}' names a file that can't be read: {why}", stage="token"
    )


def _bad_key(option: str, problem: Exception) -> ConfigurationError:
    # The text of the libraries may quote what they could not read.
    return ConfigurationError(
        f"Option {option!r} holds no key that can sign ({type(problem).__name__})",
        stage="token",
        hint="It wants an RSA key in PEM format, not encrypted.",
    )
