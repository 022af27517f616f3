"""The decoder of answers takes anything: it gives a sound token or `TokenUnavailable`, without secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge import Secret, TokenUnavailable
from mailbridge.oauth2.endpoint import Answer
from mailbridge.oauth2.response import LONGEST_LIFETIME, token_of
from mailbridge.oauth2.token import ASSUMED_LIFETIME, AccessToken

NOW = 1_000_000.0
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["access_token", "token_type", "expires_in", "scope", "refresh_token", "error", "error_description"]
)
bodies = st.text() | json_values.map(json.dumps) | st.dictionaries(names, json_values).map(json.dumps)


def read(
    body: object,
    *,
    status: int = 200,
    content_type: str = "application/json",
    date: float | None = None,
    secrets: tuple[Secret, ...] = (),
) -> AccessToken:
    text = body if isinstance(body, str) else json.dumps(body)
    answer = Answer(status=status, content_type=content_type, body=Secret(text), date=date)
    return token_of(answer, now=NOW, server="idp.test:443", secrets=secrets)


def refusal(body: object, **about: Any) -> TokenUnavailable:
    with pytest.raises(TokenUnavailable) as caught:
        read(body, **about)
    return caught.value


@given(bodies, st.integers(100, 599), st.sampled_from(["application/json", "text/html", ""]))
def test_anything_is_a_sound_token_or_an_error(body: str, status: int, content_type: str) -> None:
    token = error = None
    try:
        token = read(body, status=status, content_type=content_type)
    except TokenUnavailable as refused:
        error = refused
    if token is None:
        assert error is not None
        assert error.stage == "token"
        assert not error.is_transient or status >= 429 or "error" in body
        assert str(error).isprintable()
        assert len(str(error)) < 2500
        return
    assert (status, content_type) == (200, "application/json")
    assert token.expires_at is not None
    assert NOW < token.expires_at <= NOW + LONGEST_LIFETIME
    assert all("!" <= character <= "~" for character in token.value.reveal())


@pytest.mark.parametrize(
    ("told", "lifetime"),
    [
        (3600, 3600),
        ("3599", 3599),
        (1.5, 1.5),
        (None, ASSUMED_LIFETIME),
        (-1, ASSUMED_LIFETIME),
        (0, ASSUMED_LIFETIME),
        (True, ASSUMED_LIFETIME),
        ("soon", ASSUMED_LIFETIME),
        ("nan", ASSUMED_LIFETIME),
        ([3600], ASSUMED_LIFETIME),
        (1e18, LONGEST_LIFETIME),
        (10**400, ASSUMED_LIFETIME),
    ],
)
def test_lifetimes(told: object, lifetime: float) -> None:
    assert read({"access_token": "x", "expires_in": told}).expires_at == NOW + lifetime


@pytest.mark.parametrize("token", ["a b", "a\r\nb", "a\x01b", "\x7f", "ü", "", None, 7, ["x"]])
def test_what_is_no_token_is_none(token: object) -> None:
    refusal({"access_token": token})


def test_the_type_may_be_missing_and_is_written_in_any_way() -> None:
    assert read({"access_token": "x"}).value == Secret("x")
    assert read({"access_token": "x", "token_type": "bEARER"}).value == Secret("x")
    assert "not Bearer" in str(refusal({"access_token": "x", "token_type": "DPoP"}))


def test_an_error_counts_though_the_status_is_200() -> None:
    assert "invalid_grant" in str(refusal({"error": "invalid_grant", "access_token": "x"}))


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8))
def test_a_server_that_quotes_a_secret_does_not_spread_it(secret: str) -> None:
    said = {"error": "invalid_client", "error_description": f"I got <{secret}>, really"}
    error = refusal(said, status=400, secrets=(Secret(secret),))
    assert f"<{secret}>" not in str(error)
    assert f"<{secret}>" not in repr(vars(error))


@pytest.mark.parametrize(
    ("code", "description", "hint"),
    [
        ("invalid_grant", "Token has been expired or revoked.", "consent again"),
        ("invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.", "consent again"),
        ("invalid_grant", "AADSTS50076: you must use multi-factor authentication", "policies"),
        ("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)", "clock right"),
        ("invalid_grant", "Invalid JWT Signature.", "key of the service account"),
        ("invalid_grant", "Invalid email or User ID", "mailbox of the Workspace domain"),
        ("invalid_client", "AADSTS7000215: Invalid client secret provided.", "not its id"),
        ("invalid_client", "AADSTS7000222: The provided client secret keys are expired.", "has ended"),
        ("invalid_client", "AADSTS700027: Client assertion contains an invalid signature.", "uploaded"),
        ("invalid_client", "", "Check client_id"),
        (
            "unauthorized_client",
            "AADSTS700016: Application not found in the directory",
            "client_id and tenant",
        ),
        ("unauthorized_client", "Client is unauthorized to retrieve access tokens", "domain-wide delegation"),
        ("invalid_request", "AADSTS90002: Tenant 'x' not found.", "no such tenant"),
        ("invalid_scope", "AADSTS70011: The provided value for scope is not valid.", "Check scope"),
        ("unsupported_grant_type", "", "does not know the grant"),
        ("access_denied", "", "administrator"),
    ],
)
def test_hints(code: str, description: str, hint: str) -> None:
    error = refusal({"error": code, "error_description": description}, status=400)
    assert hint in error.hint
    assert not error.is_transient


def test_clocks_that_differ_are_told() -> None:
    assert "-300 s" in refusal({"error": "invalid_grant"}, status=400, date=NOW - 300).hint
    assert "clocks" not in refusal({"error": "invalid_grant"}, status=400, date=NOW - 30).hint


def test_words_of_the_server_are_untrusted() -> None:
    error = refusal({"error": "invalid\x1b[31m", "error_description": "x\r\ny" * 1000}, status=400)
    assert str(error).isprintable()
    assert len(str(error)) < 1000
