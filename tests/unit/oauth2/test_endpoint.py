"""Token requests against a scripted server: each answer is the right error, in time, and shows no secret."""

from __future__ import annotations

import logging
import ssl
import time
import traceback
from typing import Any
from urllib.parse import quote_plus

import pytest

from mailbridge import DeadlineExceeded, MailbridgeError, SMTPConfig, TokenUnavailable
from mailbridge.deadline import NEVER, Deadline
from mailbridge.oauth2 import shared
from mailbridge.oauth2.shared import source_for
from tests.servers.certificates import Certificates
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.token_server import TokenServer
from tests.unit.oauth2.conftest import CLIENT_SECRET, Configure, StartTokenServer

SECRETS = (CLIENT_SECRET, "first-refresh-token", "access-token-1")
FORMS = {form for secret in SECRETS for form in (secret, quote_plus(secret), repr(secret)[1:-1])}


def failure(config: SMTPConfig, deadline: Deadline = NEVER) -> MailbridgeError:
    """The error of asking for a token, after a look for secrets in it and in its frames."""
    with pytest.raises(MailbridgeError) as caught:
        source_for(config).token(deadline)
    error = caught.value
    views = [str(error), repr(error), repr(vars(error)), repr(error.__reduce__())]
    link: BaseException | None = error
    while link is not None:
        for frame in traceback.TracebackException.from_exception(link, capture_locals=True).stack:
            if frame.filename != __file__:
                views.append(f"{frame.line} {frame.locals}")
        link = link.__cause__ or link.__context__
    assert [form for form in FORMS for view in views if form in view] == []
    return error


@pytest.mark.parametrize(
    ("answer", "says", "is_transient"),
    [
        ("html", "status 200 and text/html instead of JSON", False),
        ("html 502", "status 502", True),
        ("empty", "an empty body", False),
        ("no content type", "no content type instead of JSON", False),
        ("array", "no JSON object", False),
        ("broken json", "no JSON object", False),
        ("no token", "holds no access token", False),
        ("mac token", "not Bearer", False),
        ("line break", "characters that no token has", False),
        ("invalid_grant", "a person must consent again", False),
        ("unauthorized", "the secret's value, not its id", False),
        ("unauthorized_client", "SMTP.SendAsApp", False),
        ("bare 401", "status 401", False),
        ("too many", "Too many requests", True),
        ("500", "status 500", True),
        ("passing", "temporarily_unavailable", True),
        ("redirect", "Redirects are not followed", False),
        ("clock", "is this machine's clock right? The clocks differ", False),
        ("2 MiB", "larger than 1 MiB", False),
        ("gzip", "no JSON object", False),
        ("half", "broke off its answer", True),
        ("closed", "broke off its answer", True),
        ("echo", "invalid_request", False),
    ],
)
def test_an_answer_without_a_token(
    token_server: StartTokenServer,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
    answer: str,
    says: str,
    is_transient: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    server = token_server(answer=answer)
    error = failure(configure(server))
    assert type(error) is TokenUnavailable
    assert says in str(error)
    assert error.stage == "token"
    assert error.server == f"localhost:{server.port}"
    assert error.is_transient is is_transient
    assert len(server.requests) == 1
    assert [form for form in FORMS if form in caplog.text] == []


@pytest.mark.parametrize("answer", ["silent", "drip"])
def test_a_slow_answer_ends_at_the_callers_deadline(
    token_server: StartTokenServer, configure: Configure, answer: str
) -> None:
    server = token_server(answer=answer)
    began = time.monotonic()
    assert type(failure(configure(server), Deadline.after(0.4))) is DeadlineExceeded
    assert time.monotonic() - began < 5


def test_a_slow_answer_ends_at_the_requests_own_limit(
    token_server: StartTokenServer, configure: Configure
) -> None:
    error = failure(configure(token_server(answer="drip"), timeouts={"command": 0.3}))
    assert type(error) is TokenUnavailable
    assert error.is_transient
    assert "did not answer within the time limit" in str(error)


def blind() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("which", ["self_signed", "wrong_host", "expired", "good"])
@pytest.mark.parametrize(
    "mail", ["verified", "verify=False", "blind context", "trusting context", "common name"]
)
def test_what_is_believed_of_mail_servers_is_not_believed_of_the_token_server(
    token_server: StartTokenServer, configure: Configure, certificates: Certificates, which: str, mail: str
) -> None:
    authority = str(certificates.ca_file)
    tls: dict[str, Any] = {
        "verified": {"ca_file": authority},
        "verify=False": {"verify": False, "ca_file": authority},
        "blind context": {"context": blind()},
        "trusting context": {"context": ssl.create_default_context(cafile=authority)},
        "common name": {"ca_file": authority, "allow_common_name": True},
    }[mail]
    own = {} if which == "good" else {"ca_file": authority}  # the good one's authority is not the system's
    server = token_server(identity=getattr(certificates, which))
    config = configure(server, oauth2={"tls": own}, tls=tls)
    error = failure(config)
    assert config == configure(server, oauth2={"tls": own}, tls=tls)  # it is a key, and stays what it was
    assert type(error) is TokenUnavailable
    assert "ertificate" in str(error)
    assert server.requests == []


def test_a_context_for_the_token_server_must_still_verify_when_it_is_used(
    token_server: StartTokenServer, configure: Configure, certificates: Certificates
) -> None:
    server = token_server(identity=certificates.good)
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    config = configure(server, oauth2={"tls": {"context": context}})
    context.check_hostname = False
    assert "oauth2.tls" in str(failure(config))
    assert server.requests == []
    context.check_hostname = True
    shared.forget_sources()
    assert source_for(config).token(NEVER)


def test_a_token_over_https_with_its_own_authority(
    token_server: StartTokenServer, configure: Configure, certificates: Certificates
) -> None:
    server = token_server(identity=certificates.good)
    config = configure(
        server,
        oauth2={
            "scope": "mail.send",
            "extra_params": {"tenant": "x"},
            "extra_headers": {"X-Api": "7"},
            "tls": {"ca_file": certificates.ca_file},
        },
    )
    token, is_cached = source_for(config).token(NEVER)
    assert (token.value.reveal(), is_cached) == ("access-token-1.of.the-token-server", False)
    assert server.requests == [
        {
            "grant_type": "refresh_token",
            "client_id": "the-client",
            "client_secret": CLIENT_SECRET,
            "refresh_token": "first-refresh-token",
            "scope": "mail.send",
            "tenant": "x",
        }
    ]
    head = server.heads[0]
    assert head[""] == "POST /tenant/token?api=2 HTTP/1.1"
    assert head["host"] == f"localhost:{server.port}"
    assert head["content-type"] == "application/x-www-form-urlencoded"
    assert head["x-api"] == "7"


def test_nobody_listens(token_server: StartTokenServer, configure: Configure) -> None:
    server = token_server()
    server.close()
    error = failure(configure(server))
    assert type(error) is TokenUnavailable
    assert error.is_transient


@pytest.mark.parametrize("protocol", ["connect", "socks5"])
def test_with_a_proxy_the_request_is_seen_there(
    token_server: StartTokenServer,
    configure: Configure,
    certificates: Certificates,
    scripted_proxy: StartScriptedProxy,
    protocol: Any,
) -> None:
    if protocol == "socks5":
        pytest.importorskip("socks", reason="PySocks is not part of every environment")
    server = token_server(identity=certificates.good)
    scheme = {"connect": "http", "socks5": "socks5h"}[protocol]
    proxy = scripted_proxy(protocol)
    # Nothing listens where the configuration sends the request: only the proxy knows the way.
    proxy._target = ("127.0.0.1", server.port)
    url = "https://localhost:9/token"
    config = configure(
        server,
        oauth2={"token_url": url, "tls": {"ca_file": certificates.ca_file}},
        proxy=f"{scheme}://127.0.0.1:{proxy.port}",
    )
    source_for(config).token(NEVER)
    assert proxy.targets == ["localhost:9"]
    assert len(server.requests) == 1


def test_a_proxy_that_refuses_is_an_error_and_no_reason_to_go_directly(
    token_server: StartTokenServer, configure: Configure, scripted_proxy: StartScriptedProxy
) -> None:
    server = token_server()
    proxy = scripted_proxy("connect", fault="407 offering Basic")
    error = failure(configure(server, proxy=f"http://127.0.0.1:{proxy.port}"))
    assert type(error) is TokenUnavailable
    assert "407" in str(error)
    assert server.requests == []


@pytest.mark.parametrize("through_proxy", [True, False])
def test_the_guard_against_internal_networks_holds_for_the_token_server(
    token_server: StartTokenServer,
    configure: Configure,
    scripted_proxy: StartScriptedProxy,
    through_proxy: bool,
) -> None:
    server = token_server()
    proxy = scripted_proxy("connect")
    way = f"http://127.0.0.1:{proxy.port}" if through_proxy else None
    error = failure(configure(server, proxy=way, allow_internal_networks=False))
    assert "is internal" in str(error)
    assert (server.requests, proxy.connections) == ([], [])


def test_no_lifetime_is_fifty_minutes_and_another_scope_no_error(
    token_server: StartTokenServer, configure: Configure
) -> None:
    server = token_server(answer="no lifetime")
    token, _ = source_for(configure(server)).token(NEVER)
    assert token.expires_at is not None
    assert token.issued_at is not None
    assert token.expires_at - token.issued_at == 3000
    server.answer = "other scope"
    source = source_for(configure(server, oauth2={"scope": "wanted"}))
    assert source.token(NEVER)[0].scope == "something entirely different"
    assert "something entirely different" in source.describe()


def test_the_server_for_tests_revokes_a_family(token_server: StartTokenServer) -> None:
    server: TokenServer = token_server(rotates=True)
    form = {"grant_type": "refresh_token", "refresh_token": "first-refresh-token"}
    assert server.reply_to(form, {})[0] == 200
    assert server.reply_to(form, {})[0] == 400
    assert server.is_revoked
    assert server.reply_to(form | {"refresh_token": server.family[-1]}, {})[0] == 400
