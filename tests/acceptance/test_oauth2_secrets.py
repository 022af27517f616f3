"""The secrets of OAuth2 show nowhere, whatever the token endpoint does with them and wherever somebody looks.

Secret are the client's secret, refresh tokens, access tokens and signing keys: as they are, in base64,
URL-encoded, escaped, cut short. What a mail server quotes of a token is test_secrets.py's business.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any
from urllib.parse import quote

import pytest

from mailbridge import (
    AccessToken,
    AuthenticationFailed,
    ConfigurationError,
    MailbridgeError,
    Mailer,
    SMTPConfig,
    TokenUnavailable,
)
from mailbridge.oauth2.shared import forget_sources, source_for
from mailbridge.testing import ScriptedServer
from tests.acceptance.oauth2_sentinels import (
    ACCESS_TOKEN,
    CLIENT_SECRET,
    HEADER,
    REFRESH_TOKEN,
    SECRETS,
    SPELLINGS,
    Log,
    Telling,
    assert_hidden,
    leaks,
    oauth2_at,
    pickled,
    views_of_error,
    views_of_log,
)
from tests.acceptance.sending import USER, committed, envelope, mailer_for, message
from tests.servers.token_server import ANSWERS, JSON, Reply, TokenServer

pytestmark = pytest.mark.needs("oauthlib")


def test_the_scanner_finds_what_it_looks_for() -> None:
    for secret in SECRETS:
        for spell in SPELLINGS.values():
            assert leaks(f"error: you said {spell(secret)}!")
    assert not leaks("refresh_token at localhost:1, scope mail, expires in 3600 s, client_id the-client")


# ---- everywhere that somebody could look


def views_of_mailer(mailer: Mailer) -> Iterator[str]:
    config, source = mailer.config, source_for(mailer.config)
    (upstream,) = mailer._router.upstreams
    for connection in (
        mailer,
        upstream,
        upstream.pool,
        upstream.login_breaker,
        config,
        config.oauth2,
        source,
        source._states.get(),
    ):
        yield from (repr(connection), str(connection))
        with suppress(TypeError):
            yield repr(vars(connection))
    token = source._states.get().token
    yield from (repr(token), str(token), *pickled(token))
    yield from (*pickled(config), *pickled(config.oauth2))
    yield from (repr(source_for), repr(source._store))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.fixture(autouse=True)
def no_tokens_of_others() -> Iterator[None]:
    forget_sources()
    yield
    forget_sources()


def smtp_server(token: str = ACCESS_TOKEN) -> ScriptedServer:
    return ScriptedServer(users={USER: token}, auth=["XOAUTH2"])


def client(server: ScriptedServer, tokens: TokenServer, **options: Any) -> Mailer:
    return mailer_for(
        server, username=USER, oauth2=oauth2_at(tokens), debug=True, **({"timeout": 5} | options)
    )


def check_sends(mailer: Mailer, log: Log, kind: type[MailbridgeError] | None) -> None:
    """verify() and two sends, and a look everywhere."""
    report = mailer.verify()
    assert report.ok is (kind is None)
    views = [str(report), repr(report), report.as_json(), *pickled(report)]
    for number in (1, 2):
        with nullcontext() if kind is None else pytest.raises(kind) as caught:
            views += [repr(mailer.send(message(number), envelope=envelope()))]
        if caught is not None:
            views += views_of_error(caught.value)
    assert_hidden(iter(views), views_of_log(log), views_of_mailer(mailer))


def test_all_goes_well(log: Log) -> None:
    with smtp_server() as server, Telling() as tokens, client(server, tokens) as mailer:
        check_sends(mailer, log, None)
        assert tokens.requests[0]["client_secret"] == CLIENT_SECRET
        assert tokens.heads[0]["x-gateway"] == HEADER
        assert any("access token for" in record.getMessage() for record in log.records)


@pytest.mark.parametrize("answer", [*ANSWERS, "half", "closed", "echo"])
def test_whatever_the_endpoint_answers(answer: str, log: Log) -> None:
    if answer == "no content type":  # a token, but for its head
        return
    with smtp_server() as server, Telling(answer=answer) as tokens, client(server, tokens) as mailer:
        check_sends(mailer, log, TokenUnavailable)


def test_a_slow_endpoint(log: Log) -> None:
    silent = Telling(answer="silent")
    with smtp_server() as server, silent as tokens, client(server, tokens, timeout=0.3) as mailer:
        check_sends(mailer, log, TokenUnavailable)


def test_a_token_that_the_mail_server_refuses(log: Log) -> None:
    with smtp_server("another") as server, Telling() as tokens, client(server, tokens) as mailer:
        check_sends(mailer, log, AuthenticationFailed)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RecursionError])
def test_an_interrupt_while_a_token_is_asked_for(
    interrupt: type[BaseException], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> bytes:
        raise interrupt

    monkeypatch.setattr("http.client.HTTPResponse.read", read)
    with smtp_server() as server, Telling() as tokens, client(server, tokens) as mailer:
        with pytest.raises(interrupt) as caught:
            mailer.send(message(1), envelope=envelope())
        assert tokens.requests
        assert mailer.stats().size == 0
        assert_hidden(views_of_error(caught.value), views_of_log(log), views_of_mailer(mailer))


# Where an endpoint may put what it was sent.
PLACES: dict[str, Callable[[str], Reply]] = {
    "description": lambda text: (
        400,
        JSON,
        json.dumps({"error": "invalid_request", "error_description": f"You said {text}"}).encode(),
    ),
    "error": lambda text: (400, JSON, json.dumps({"error": text}).encode()),
    "error of 200": lambda text: (200, JSON, json.dumps({"error": "no", "access_token": text}).encode()),
    "page": lambda text: (500, {"Content-Type": "text/html"}, f"<pre>{text}</pre>".encode()),
    "kind of token": lambda text: (
        200,
        JSON,
        json.dumps({"access_token": "x", "token_type": text}).encode(),
    ),
    "content type": lambda text: (200, {"Content-Type": f"text/{text}"}, b"x"),
    "broken object": lambda text: (200, JSON, b'{"access_token": "' + text.encode()),
    "location": lambda text: (302, {"Location": f"https://x.test/?{text}"}, b""),
    "retry": lambda text: (429, {"Retry-After": text, "Date": text}, b""),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("place", PLACES)
def test_the_endpoint_quotes_it(place: str, spelling: str, log: Log) -> None:
    """All that it was sent, in turn, since some places are cut short."""
    sent = [SPELLINGS[spelling](secret) for secret in (CLIENT_SECRET, REFRESH_TOKEN, HEADER)]
    reply = PLACES[place](" ".join(sent))
    with smtp_server() as server, Telling(reply) as tokens, client(server, tokens) as mailer:
        check_sends(mailer, log, TokenUnavailable)
        assert committed(server) == {}


# ---- configurations

BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "unknown": {"refresh_tokn": REFRESH_TOKEN},
    "not text": {"refresh_token": REFRESH_TOKEN.encode()},
    "a line break": {"client_secret": f"{CLIENT_SECRET}\n"},
    "no endpoint": {"token_url": None},
    "in the endpoint": {"token_url": f"https://user:{quote(REFRESH_TOKEN, safe='')}@x.test/"},
    "no key": {"refresh_token": None, "client_secret": None, "private_key": CLIENT_SECRET, "grant": "x"},
    "no account": {"refresh_token": None, "grant": "jwt_bearer", "service_account": ["x", CLIENT_SECRET]},
    "a header": {"extra_headers": {"X Gateway": HEADER}},
    "a header's value": {"extra_headers": {"X-Gateway": f"{HEADER}\r\n"}},
    "no moment": {"expires": CLIENT_SECRET},
    "no store": {"token_store": ["x", CLIENT_SECRET]},
}


def options(**changes: Any) -> dict[str, Any]:
    base = {"token_url": "https://x.test/", "client_id": "the-client", "client_secret": CLIENT_SECRET}
    return {
        "host": "x.example",
        "username": USER,
        "oauth2": base | {"refresh_token": REFRESH_TOKEN} | changes,
    }


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_a_configuration_that_cannot_be_made(name: str) -> None:
    for make in (SMTPConfig.from_mapping, lambda given: SMTPConfig(**given)):
        with pytest.raises(ConfigurationError) as caught:
            make(options(**BAD_OPTIONS[name]))
        assert_hidden(views_of_error(caught.value))


def test_a_configuration_and_its_parts() -> None:
    account = {"client_email": "robot@p.test", "private_key": CLIENT_SECRET}
    for given in (
        options(extra_params={"password": HEADER}, extra_headers={"X-Gateway": HEADER}),
        options(refresh_token=None, access_token=ACCESS_TOKEN),
        options(refresh_token=None, client_secret=None, service_account=account),
        options(refresh_token=None, client_secret=None, service_account=json.dumps(account)),
    ):
        config = SMTPConfig.from_mapping(given)
        for value in (config, config.oauth2, {"config": config}, [config]):
            assert_hidden(iter([repr(value), str(value), f"{value}", *pickled(value)]))


def test_in_a_url() -> None:
    for secret in ("", "&oauth2.hots=1"):
        url = (
            f"smtp://user@x.example/?oauth2.token_url={quote('https://x.test/', safe='')}"
            f"&oauth2.client_id=c&oauth2.client_secret={quote(CLIENT_SECRET, safe='')}"
            f"&oauth2.refresh_token={quote(REFRESH_TOKEN, safe='')}{secret}"
        )
        try:
            assert_hidden(iter([repr(SMTPConfig.from_url(url))]))
        except ConfigurationError as error:
            assert secret
            assert_hidden(views_of_error(error))
        else:
            assert not secret


def test_a_key_that_cannot_sign(log: Log) -> None:
    for oauth2 in (
        {"service_account": {"client_email": "robot@p.test", "private_key": CLIENT_SECRET}},
        {"service_account": {"client_email": "robot@p.test", "private_key": f"-----BEGIN {CLIENT_SECRET}"}},
        {"grant": "jwt_bearer", "private_key": CLIENT_SECRET, "client_id": "c"},
        {"private_key": f"-----BEGIN {CLIENT_SECRET}", "client_id": "c", "grant": "client_credentials"},
    ):
        with smtp_server() as server, TokenServer() as tokens:
            at = {"token_url": tokens.url, "allow_insecure_token_url": True}
            with mailer_for(server, username=USER, oauth2=oauth2 | at, debug=True, timeout=5) as mailer:
                check_sends(mailer, log, ConfigurationError)
            assert tokens.requests == []


# ---- providers, stores and callbacks of the user's own, which may say anything


def failing(*_: object) -> Any:
    raise LookupError(f"no {REFRESH_TOKEN} for {CLIENT_SECRET}")


def test_a_provider_that_fails(log: Log) -> None:
    for provider in (failing, lambda: f"{ACCESS_TOKEN}\r\n", lambda: [ACCESS_TOKEN], lambda: None):
        with smtp_server() as server, mailer_for(server, username=USER, oauth2=provider, timeout=5) as mailer:
            with pytest.raises(MailbridgeError) as caught:
                mailer.send(message(1), envelope=envelope())
            assert caught.value.stage == "token"
            assert_hidden(views_of_error(caught.value), views_of_log(log))


class Store:
    """Fails in one of its methods, with a text that quotes what it was given."""

    def __init__(self, where: str) -> None:
        self.where = where

    def lock(self, key: str, timeout: float) -> Any:
        return failing() if self.where == "lock" else nullcontext()

    def load(self, key: str) -> AccessToken | None:
        return failing() if self.where == "load" else None

    def save(self, key: str, token: AccessToken) -> None:
        if self.where == "save":
            raise LookupError(f"no room for {token.dump()}")


@pytest.mark.parametrize("where", ["lock", "load", "save"])
def test_a_store_that_fails(where: str, log: Log) -> None:
    with smtp_server() as server, Telling() as tokens:
        oauth2 = oauth2_at(tokens) | {"token_store": Store(where)}
        with mailer_for(server, username=USER, oauth2=oauth2, debug=True, timeout=5) as mailer:
            with pytest.raises(TokenUnavailable, match="store failed") as caught:
                mailer.send(message(1), envelope=envelope())
            report = mailer.verify()
            assert_hidden(views_of_error(caught.value), views_of_log(log), iter([str(report)]))


def test_a_callback_that_fails(log: Log) -> None:
    with smtp_server() as server, Telling() as tokens:
        oauth2 = oauth2_at(tokens) | {"on_refresh": failing}
        with mailer_for(server, username=USER, oauth2=oauth2, debug=True, timeout=5) as mailer:
            assert mailer.send(message(1), envelope=envelope()).accepted
            assert any("on_refresh raised LookupError" in record.getMessage() for record in log.records)
            assert_hidden(views_of_log(log), views_of_mailer(mailer))
