"""The option `oauth2`: what it takes, what it makes of it, and what it refuses; nothing secret is shown."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mailbridge import ConfigurationError, FileTokenStore, OAuth2Options, Secret, SMTPConfig
from mailbridge.config.oauth2 import endpoints, parse_oauth2
from mailbridge.oauth2.shared import store_of

pytest.importorskip("oauthlib", reason="the environment without extras has none of it")
pytest.importorskip("jwt")

URL = "https://idp.test/token"
REFRESH = {"token_url": URL, "client_id": "c", "refresh_token": "the-refresh-token"}
ACCOUNT = {"client_email": "robot@project.test", "private_key": "-----BEGIN PRIVATE KEY-----"}


def a_provider() -> str:
    return "token"


def refused(value: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_oauth2(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "grant", "token_url", "scope"),
    [
        (
            {"provider": "google", "client_id": "c", "client_secret": "s", "refresh_token": "r"},
            "refresh_token",
            "https://oauth2.googleapis.com/token",
            "",
        ),
        (
            {"service_account": ACCOUNT},
            "jwt_bearer",
            "https://oauth2.googleapis.com/token",
            "https://mail.google.com/",
        ),
        (
            {"provider": "microsoft", "client_id": "c", "refresh_token": "r"},
            "refresh_token",
            "https://login.microsoftonline.com/common/oauth2/v2.0/token",
            "https://outlook.office.com/SMTP.Send offline_access",
        ),
        (
            {"provider": "microsoft", "tenant": "t.example", "client_id": "c", "client_secret": "s"},
            "client_credentials",
            "https://login.microsoftonline.com/t.example/oauth2/v2.0/token",
            "https://outlook.office365.com/.default",
        ),
        (
            {"provider": "microsoft", "tenant": "t", "client_id": "c", "private_key": "/k.pem"},
            "client_credentials",
            "https://login.microsoftonline.com/t/oauth2/v2.0/token",
            "https://outlook.office365.com/.default",
        ),
        (REFRESH | {"provider": "google", "scope": ["a", "b"]}, "refresh_token", URL, "a b"),
        ({"access_token": "x"}, "static", "", ""),
        (
            {"token_url": URL, "grant": "jwt_bearer", "client_id": "c", "private_key": "/k"},
            "jwt_bearer",
            URL,
            "",
        ),
    ],
)
def test_grants_and_presets(given: dict[str, Any], grant: str, token_url: str, scope: str) -> None:
    found = parse_oauth2(given)
    assert (found.grant, found.token_url, found.scope) == (grant, token_url, scope)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (7, "must be a mapping of options, or a callable, not int"),
        ({}, "names no refresh_token"),
        ({"refreshtoken": "x"}, "Did you mean 'oauth2.refresh_token'?"),
        ({"provider": "yahoo", "refresh_token": "x"}, "must be one of google, microsoft"),
        ({"grant": "password"}, "must be one of static, refresh_token, client_credentials, jwt_bearer"),
        ({"refresh_token": "x"}, "'oauth2.token_url' is needed"),
        ({"token_url": URL, "refresh_token": "x"}, "'oauth2.client_id' is needed"),
        ({"token_url": URL, "grant": "refresh_token", "client_id": "c"}, "or a token_store that holds one"),
        (
            {"provider": "microsoft", "client_id": "c", "client_secret": "s"},
            "'oauth2.tenant' is needed",
        ),
        ({"provider": "microsoft", "tenant": "a/b", "refresh_token": "x"}, "must be the name or the id"),
        (
            {"token_url": URL, "client_id": "c", "client_secret": "s", "private_key": "k"},
            "one of both",
        ),
        ({"grant": "static"}, "'oauth2.access_token' is needed"),
        ({"token_url": URL, "grant": "jwt_bearer", "private_key": "k"}, "it is who signs"),
        (REFRESH | {"token_url": "http://idp.test/token"}, "must begin with https://"),
        (REFRESH | {"token_url": "https://u:p@idp.test/"}, "without user and fragment"),
        (REFRESH | {"token_url": "https://idp.test:99999/"}, "is no URL"),
        (REFRESH | {"token_url": "ftp://idp.test/"}, "must be https://"),
        (REFRESH | {"expires": "soon"}, "seconds since 1970"),
        (REFRESH | {"expires": datetime(2030, 1, 1)}, "with a time zone"),
        (REFRESH | {"refresh_token": "a\r\nb"}, "without control characters"),
        (REFRESH | {"extra_headers": {"Host": "x"}}, "can't set the header"),
        (REFRESH | {"extra_headers": {"X": "a\r\nb"}}, "without control characters"),
        (REFRESH | {"extra_headers": {"X:": "a"}}, "can't set the header"),
        (REFRESH | {"extra_params": "a=b"}, "must be a mapping"),
        (REFRESH | {"token_store": "nowhere.Store"}, "can't be imported"),
        (REFRESH | {"token_store": object()}, "must be a TokenStore"),
        (REFRESH | {"on_refresh": "os.sep"}, "must be a callable"),
        ({"provider": a_provider, "scope": "x"}, "can't stand beside a provider that is a callable"),
        ("nowhere.provider", "can't be imported"),
    ],
)
def test_what_cannot_work_is_refused_at_once(given: Any, says: str) -> None:
    assert says in refused(given)


def test_http_is_for_tests_only() -> None:
    given = REFRESH | {"token_url": "http://127.0.0.1:1/", "allow_insecure_token_url": "true"}
    assert parse_oauth2(given).server == "127.0.0.1:1"


@pytest.mark.parametrize(
    "moment", [1_893_456_000, "1893456000", 1_893_456_000.0, datetime(2030, 1, 1, tzinfo=UTC)]
)
def test_moments(moment: object) -> None:
    assert parse_oauth2({"access_token": "x", "expires": moment}).expires == 1_893_456_000


def test_secrets_are_masked_everywhere() -> None:
    given = REFRESH | {
        "client_secret": "the-client-secret",
        "access_token": "the-access-token",
        "extra_params": {"assertion": "the-param"},
        "extra_headers": {"Authorization": "Basic the-header"},
    }
    account = parse_oauth2({"service_account": ACCOUNT | {"private_key": "the-key"}})
    config = SMTPConfig(username="u", oauth2=given)
    for shown in (repr(config), str(config.oauth2), repr(account), repr(pickle.dumps(config))):
        assert "'***'" in shown or "***" in shown
        for secret in ("the-client", "the-access", "the-refresh", "the-param", "the-header", "the-key"):
            assert secret not in shown
    assert "the-refresh-token" not in refused(given | {"token_url": "ftp://x"})


def test_equal_options_are_equal() -> None:
    given = REFRESH | {"extra_params": {"b": "1", "a": "2"}, "token_store": "mailbridge.MemoryTokenStore"}
    again = REFRESH | {"extra_params": {"a": "2", "b": "1"}, "token_store": "mailbridge.MemoryTokenStore"}
    one, other = SMTPConfig(username="u", oauth2=given), SMTPConfig(username="u", oauth2=again)
    assert one == other
    assert hash(one) == hash(other)
    assert one != SMTPConfig(username="u", oauth2=given | {"refresh_token": "other"})
    assert isinstance(one.oauth2, OAuth2Options)
    assert SMTPConfig(username="u", oauth2=one.oauth2) == one


def test_a_provider_is_a_callable_or_its_path() -> None:
    for value in (a_provider, {"provider": a_provider}):
        assert parse_oauth2(value).supplier is a_provider
    assert parse_oauth2("os.getcwd").supplier is not None
    assert parse_oauth2("os.getcwd").can_renew


def test_stores(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    for value in (store, f"file:{tmp_path}"):
        assert store_of(parse_oauth2(REFRESH | {"token_store": value})) == store
    assert store_of(parse_oauth2(REFRESH)) is store_of(parse_oauth2(REFRESH | {"scope": "x"}))


def test_a_service_account_may_come_with_its_secrets_covered() -> None:
    covered = ACCOUNT | {"private_key": Secret(ACCOUNT["private_key"])}
    assert parse_oauth2({"service_account": covered}) == parse_oauth2({"service_account": ACCOUNT})


def test_in_a_url() -> None:
    config = SMTPConfig.from_url(
        "smtps://u%40x.example@h.example/?oauth2.provider=google&oauth2.client_id=c&oauth2.refresh_token=r"
    )
    assert config.oauth2 is not None
    assert (config.oauth2.provider, config.oauth2.refresh_token) == ("google", Secret("r"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"oauth2": REFRESH}, "needs username"),
        ({"oauth2": REFRESH, "username": ""}, "needs username"),
        ({"oauth2": REFRESH, "username": "u", "password": "p"}, "can't stand beside oauth2"),
    ],
)
def test_beside_username_and_password(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        SMTPConfig(**options)
    assert SMTPConfig(username="u", password="", oauth2=REFRESH).password is None


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*names: str) -> Callable[[str], object]:
        return lambda name: None if name in names else name

    monkeypatch.setattr("mailbridge.config.oauth2.find_spec", without("oauthlib", "jwt"))
    assert "mailbridge-smtp[oauth2]" in refused(REFRESH)
    assert parse_oauth2({"access_token": "x"}).grant == "static"
    assert parse_oauth2(a_provider).grant == "callable"
    monkeypatch.setattr("mailbridge.config.oauth2.find_spec", without("jwt"))
    assert parse_oauth2(REFRESH).grant == "refresh_token"
    assert "mailbridge-smtp[oauth2-jwt]" in refused({"service_account": ACCOUNT})


def test_endpoints_for_the_consent_of_a_person() -> None:
    device, authorize, scope = endpoints(parse_oauth2(REFRESH | {"provider": "microsoft", "tenant": "t"}))
    assert device == "https://login.microsoftonline.com/t/oauth2/v2.0/devicecode"
    assert authorize == "https://login.microsoftonline.com/t/oauth2/v2.0/authorize"
    assert "offline_access" in scope
    with pytest.raises(ConfigurationError, match="google or microsoft"):
        endpoints(parse_oauth2(REFRESH))
