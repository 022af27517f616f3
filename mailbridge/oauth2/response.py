"""What a token endpoint answered: a token, or an error that says what to do.

Status and content type are looked at before the body is, and every field is checked: the answer comes from
outside. oauthlib's parser is not used here: it takes a web page for a form, and another scope for an error.
"""

import json
import re
from math import isfinite
from typing import Any

from mailbridge.errors import ConfigurationError, TokenUnavailable
from mailbridge.oauth2.endpoint import Answer
from mailbridge.oauth2.token import ASSUMED_LIFETIME, AccessToken
from mailbridge.reply import printable
from mailbridge.secret import Secret
from mailbridge.smtp.redaction import Redactor

# A year: beyond it, a lifetime is a mistake, and a token that never ends would never be renewed.
LONGEST_LIFETIME = 366 * 86400.0
# Clocks that differ by more than this explain why an assertion is refused (Google allows five minutes).
NOTEWORTHY_SKEW = 120.0
_JSON = re.compile(r"application/(.+\+)?json|text/json|text/javascript")
# RFC 6749 section 5.2, and what servers say beyond it, that pass by themselves.
_PASSING = {"temporarily_unavailable", "server_error", "slow_down", "authorization_pending"}

# (pattern over "error: description", hint); the first that fits counts.
_HINTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), hint)
    for pattern, hint in (
        (r"^invalid_grant.*signature", "The key of the service account is not known there, or was deleted."),
        (
            r"^invalid_grant.*(invalid jwt|iat|exp\b|short-lived|clock)|AADSTS700024",
            "The signed assertion was refused for its times: is this machine's clock right?",
        ),
        (
            r"^invalid_grant.*(email|user id|account not found)",
            "The service account acts for username: that must be a mailbox of the Workspace domain.",
        ),
        (
            r"AADSTS(50076|50079|53003|50158)",
            "The tenant's policies (multi-factor, conditional access) want a person: consent again.",
        ),
        (
            r"^invalid_grant",
            "The refresh token has ended or was revoked: a person must consent again "
            "(mailbridge oauth2 authorize), and refresh_token be replaced.",
        ),
        (r"^(interaction|consent|login)_required", "A person must sign in and consent again."),
        (r"AADSTS7000215", "client_secret must be the secret's value, not its id; or it was mistyped."),
        (r"AADSTS7000222", "The client secret has ended: make a new one in the app registration."),
        (
            r"AADSTS700027|AADSTS700030|client assertion",
            "The assertion was refused: is the certificate of private_key uploaded to the app registration, "
            "and the clock right?",
        ),
        (r"AADSTS700016", "The application is not known in this tenant: check client_id and tenant."),
        (r"AADSTS9000[2-9]|AADSTS90002", "There is no such tenant: check tenant."),
        (
            r"AADSTS65001",
            "Nobody has consented to this application: an administrator grants it, or a person consents.",
        ),
        (r"^invalid_client", "Check client_id and client_secret (or private_key and its certificate)."),
        (
            r"^unauthorized_client",
            "This client may not use this grant or scope. Google service accounts: allow the client id and "
            "https://mail.google.com/ under domain-wide delegation. Microsoft: grant the application the "
            "permission SMTP.SendAsApp, with an administrator's consent.",
        ),
        (r"^access_denied", "The provider's policy denies it; its administrator can tell why."),
        (
            r"^invalid_scope",
            "Check scope. Microsoft's applications want https://outlook.office365.com/.default.",
        ),
        (r"^invalid_target|^invalid_resource", "Check scope: it names a resource that is not known."),
        (r"^unsupported_grant_type", "This endpoint does not know the grant: check grant and token_url."),
        (r"^invalid_request", "The endpoint misses something: check tenant, token_url and extra_params."),
    )
)  # fmt: skip


def token_of(answer: Answer, *, now: float, server: str, secrets: tuple[Secret, ...] = ()) -> AccessToken:
    """The token in `answer`; `now` is in seconds since 1970. None of `secrets` is shown in an error.

    Raises `TokenUnavailable`: transient for 429, 5xx and what passes by itself.
    """
    said = _object(answer)
    if answer.status != 200 or said is None or "error" in said:
        raise refusal(answer, said or {}, now=now, server=server, secrets=secrets)
    kind = said.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _unusable(f"the token is of the type {_shown(str(kind), secrets, 40)!r}, not Bearer", server)
    value, refresh = said.get("access_token"), said.get("refresh_token")
    scope = said.get("scope")
    if not isinstance(value, str) or not value:
        raise _unusable("the answer holds no access token", server)
    try:
        return AccessToken(
            value=Secret(value),
            expires_at=now + _lifetime(said.get("expires_in")),
            # The answer's own scope counts, be it another than was asked for.
            scope=printable(scope, 500) if isinstance(scope, str) else "",
            refresh_token=Secret(refresh) if isinstance(refresh, str) and refresh else None,
            issued_at=now,
        )
    except ConfigurationError:
        pass
    raise _unusable("the access token has characters that no token has", server)


def _object(answer: Answer) -> dict[str, Any] | None:
    """The JSON object of the answer; None where it holds none."""
    if not _JSON.fullmatch(answer.content_type):
        return None
    try:
        found = json.loads(answer.body.reveal())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _lifetime(value: object) -> float:
    """Seconds. Some servers send them as text, some none, and some nonsense."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        seconds = 0.0
    if isinstance(value, bool) or not isfinite(seconds) or seconds <= 0:
        return ASSUMED_LIFETIME
    return min(seconds, LONGEST_LIFETIME)


def refusal(
    answer: Answer, said: dict[str, Any], *, now: float, server: str, secrets: tuple[Secret, ...]
) -> TokenUnavailable:
    """The error for an answer that holds no token."""
    code = _shown(said.get("error"), secrets, 80)
    description = _shown(said.get("error_description"), secrets, 300)
    if not code:
        what = f"the token server answered with status {answer.status}"
        what += _instead(answer, secrets) if answer.status == 200 else ""
    else:
        what = f"the token server refused, status {answer.status}: {code}"
        what += f" ({description})" if description else ""
    error = TokenUnavailable(
        f"No access token: {what}",
        stage="token",
        server=server,
        hint=_hint(answer, f"{code}: {description}", now),
    )
    error.transient = answer.status == 429 or answer.status >= 500 or code in _PASSING
    error.challenge = description
    return error


def json_object(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; empty where it holds none."""
    return _object(answer) or {}


def _instead(answer: Answer, secrets: tuple[Secret, ...]) -> str:
    if not answer.body:
        return " and an empty body"
    if not _JSON.fullmatch(answer.content_type):
        return f" and {_shown(answer.content_type, secrets, 60) or 'no content type'} instead of JSON"
    return " and something that is no JSON object"


def _hint(answer: Answer, said: str, now: float) -> str:
    hint = next((hint for pattern, hint in _HINTS if pattern.search(said)), "")
    if not hint:
        hint = _hint_for_status(answer)
    if answer.date is not None and abs(answer.date - now) > NOTEWORTHY_SKEW:
        hint += f" The clocks differ: the token server's is {answer.date - now:+.0f} s from this machine's."
    return hint.strip()


def _hint_for_status(answer: Answer) -> str:
    if answer.status == 429:
        wait = f" for {answer.retry_after:.0f} s" if answer.retry_after is not None else ""
        return f"Too many requests: nothing is asked there{wait}."
    if 300 <= answer.status < 400:
        return "Redirects are not followed: token_url must be the endpoint itself."
    if answer.status >= 500:
        return "The token server has trouble of its own; later tries may work."
    if answer.status in (401, 403):
        return "Check client_id and client_secret; a firewall or gateway may have answered, too."
    return "Check token_url: a token endpoint answers with JSON."


def _unusable(what: str, server: str) -> TokenUnavailable:
    return TokenUnavailable(
        f"No access token: {what}",
        stage="token",
        server=server,
        hint="Check token_url: this is not how a token endpoint for Bearer tokens answers (RFC 6749).",
    )


def _shown(value: object, secrets: tuple[Secret, ...], length: int) -> str:
    """A word of the server, which may quote what it was sent."""
    if not isinstance(value, str):
        return ""
    sent = Redactor()
    for secret in secrets:
        sent.remember_secret(secret)
    # Cut before, too: an answer may have a megabyte, and masking looks at each character.
    return printable(sent.masked(value[: 4 * length], in_exchange=True), length)
