"""Mail to a real server with access tokens: every grant, renewals, refusals, and the way of the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mailbridge import AccessToken, AuthenticationFailed, Mailer, TokenUnavailable
from mailbridge.oauth2.shared import forget_sources
from tests.integration.conftest import StartMailer
from tests.integration.mails import new_mail
from tests.servers.certificates import Certificates
from tests.servers.dovecot import USERNAME, Dovecot
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.names import NAME
from tests.servers.proxy_faults import Protocol
from tests.servers.squid import Squid
from tests.servers.token_server import Reply, TokenServer

MECHANISMS = ["XOAUTH2", "OAUTHBEARER"]
SENDS = 50


class Issuer(TokenServer):
    """A token server whose tokens Dovecot takes, for as long as it `is_believed`."""

    def __init__(self, dovecot: Dovecot, **options: Any) -> None:
        self.is_believed = True
        self.introspection = dovecot.introspection
        super().__init__(**options)

    def reply_to(self, form: dict[str, str], head: dict[str, str]) -> Reply:
        already = len(self.issued)
        reply = super().reply_to(form, head)
        for token in self.issued[already:]:
            if self.is_believed:
                self.introspection.accept(token, USERNAME)
            else:
                self.introspection.revoke(token)
        return reply


StartIssuer = Callable[..., Issuer]


@pytest.fixture(autouse=True)
def no_tokens_of_others() -> Iterator[None]:
    forget_sources()
    yield
    forget_sources()


@pytest.fixture
def issuer(dovecot: Dovecot, certificates: Certificates) -> Iterator[StartIssuer]:
    """issuer(**options) starts one that speaks TLS; it is stopped after the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> Issuer:
            return stack.enter_context(Issuer(dovecot, identity=certificates.good, **options))

        yield start


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def refreshing(issuer: Issuer, **options: Any) -> dict[str, Any]:
    return {
        "token_url": issuer.url,
        "client_id": "the-client",
        "client_secret": "the-client-secret",
        "refresh_token": "first-refresh-token",
    } | options


def login(issuer: Issuer, **options: Any) -> dict[str, Any]:
    """Options of a mailer that logs in to Dovecot with tokens of `issuer`."""
    return {"security": "starttls", "username": USERNAME, "oauth2": refreshing(issuer)} | options


def send(mailer: Mailer, dovecot: Dovecot) -> None:
    """One mail, that arrives."""
    mail = new_mail()
    assert mail.send(mailer).accepted
    assert mail.content in [message.content for message in dovecot.messages()]


def accepting(dovecot: Dovecot, token: str) -> str:
    dovecot.introspection.accept(token, USERNAME)
    return token


class TestGrants:
    @pytest.mark.parametrize("mechanism", MECHANISMS)
    @pytest.mark.parametrize(("service", "security"), [("submission", "starttls"), ("submissions", "tls")])
    def test_a_token_that_is_there_already(
        self, dovecot: Dovecot, mailer: StartMailer, mechanism: str, service: str, security: str
    ) -> None:
        oauth2 = {"access_token": accepting(dovecot, f"standing-{mechanism}-{service}")}
        options = {"security": security, "auth": mechanism, "username": USERNAME, "oauth2": oauth2}
        send(mailer(getattr(dovecot, service), **options), dovecot)
        assert oauth2["access_token"] in dovecot.introspection.asked

    @pytest.mark.parametrize("mechanism", MECHANISMS)
    def test_a_refresh_token(
        self, dovecot: Dovecot, mailer: StartMailer, issuer: StartIssuer, mechanism: str
    ) -> None:
        server = issuer(rotates=True)
        client = mailer(dovecot.submission, **login(server, auth=mechanism, pool=False))
        send(client, dovecot)
        send(client, dovecot)
        [form] = server.requests
        assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "first-refresh-token")
        assert dovecot.introspection.asked[-2:] == server.issued * 2

    @pytest.mark.parametrize("mechanism", MECHANISMS)
    @pytest.mark.parametrize("proof", ["client_secret", "private_key"])
    def test_client_credentials(
        self,
        dovecot: Dovecot,
        mailer: StartMailer,
        issuer: StartIssuer,
        private_key: str,
        mechanism: str,
        proof: str,
    ) -> None:
        server = issuer()
        shown = {"client_secret": "the-client-secret", "private_key": private_key}[proof]
        oauth2 = {"token_url": server.url, "client_id": "the-client", "scope": "mail", proof: shown}
        send(mailer(dovecot.submission, **login(server, auth=mechanism, oauth2=oauth2)), dovecot)
        [form] = server.requests
        assert (form["grant_type"], form["scope"]) == ("client_credentials", "mail")
        assert ("client_secret" in form, "client_assertion" in form) == (
            proof == "client_secret",
            proof == "private_key",
        )

    @pytest.mark.parametrize("mechanism", MECHANISMS)
    def test_a_service_account(
        self,
        dovecot: Dovecot,
        mailer: StartMailer,
        issuer: StartIssuer,
        private_key: str,
        mechanism: str,
    ) -> None:
        server = issuer()
        account = {"client_email": "robot@project.test", "private_key": private_key}
        oauth2 = {"token_url": server.url, "service_account": account}
        send(mailer(dovecot.submission, **login(server, auth=mechanism, oauth2=oauth2)), dovecot)
        [form] = server.requests
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"

    @pytest.mark.parametrize("mechanism", MECHANISMS)
    @pytest.mark.parametrize("kind", [str, AccessToken])
    def test_a_provider_of_the_users_own(
        self, dovecot: Dovecot, mailer: StartMailer, mechanism: str, kind: Any
    ) -> None:
        def provider() -> Any:
            return kind(accepting(dovecot, "from-a-provider"))

        options = {"security": "starttls", "username": USERNAME, "oauth2": provider}
        send(mailer(dovecot.submission, auth=mechanism, **options), dovecot)

    def test_of_both_mechanisms_one_is_chosen(
        self, dovecot: Dovecot, mailer: StartMailer, issuer: StartIssuer
    ) -> None:
        report = mailer(dovecot.submission, **login(issuer())).verify()
        assert report.ok, str(report)
        assert report["auth"].detail.startswith(tuple(f"{name} accepted" for name in MECHANISMS))
        for name in MECHANISMS:
            assert name in report["auth"].detail.partition("offered: ")[2]

    def test_a_token_longer_than_a_command_line(self, dovecot: Dovecot, mailer: StartMailer) -> None:
        """It goes in two steps (RFC 4954 section 4); Microsoft's tokens are that long."""
        token = accepting(dovecot, "long-" + "x" * 2500)
        for mechanism in MECHANISMS:
            options = {"security": "starttls", "username": USERNAME, "auth": mechanism}
            send(mailer(dovecot.submission, oauth2={"access_token": token}, **options), dovecot)


@pytest.mark.parametrize("mechanism", MECHANISMS)
class TestRefusals:
    def test_a_cached_token_that_was_revoked_is_replaced(
        self, dovecot: Dovecot, mailer: StartMailer, issuer: StartIssuer, mechanism: str
    ) -> None:
        server = issuer(rotates=True)
        client = mailer(dovecot.submission, **login(server, auth=mechanism, pool=False))
        send(client, dovecot)
        dovecot.introspection.revoke(server.issued[0])
        send(client, dovecot)
        send(client, dovecot)
        first, second = server.issued
        assert dovecot.introspection.asked[-4:] == [first, first, second, second]
        assert not server.is_revoked  # the second request had the rotated refresh token

    def test_a_session_outlives_its_token(
        self, dovecot: Dovecot, mailer: StartMailer, issuer: StartIssuer, mechanism: str
    ) -> None:
        server = issuer()
        client = mailer(dovecot.submission, **login(server, auth=mechanism))
        send(client, dovecot)
        dovecot.introspection.revoke(server.issued[0])
        send(client, dovecot)
        assert (client.stats().opened_total, client.stats().reused_total) == (1, 1)
        assert len(server.requests) == 1

    def test_refused_again_is_final(
        self, dovecot: Dovecot, mailer: StartMailer, issuer: StartIssuer, mechanism: str
    ) -> None:
        server = issuer()
        client = mailer(dovecot.submission, **login(server, auth=mechanism, pool=False))
        send(client, dovecot)
        dovecot.introspection.revoke(server.issued[0])
        server.is_believed = False
        with pytest.raises(AuthenticationFailed) as caught:
            new_mail().send(client)
        error = caught.value
        assert not isinstance(error, TokenUnavailable)
        assert (error.stage, error.mechanism) == ("auth", mechanism)
        assert json.loads(error.challenge)["status"]
        assert error.hint
        assert not error.is_transient
        assert server.issued == dovecot.introspection.asked[-2:]
        assert client.stats().size == 0

    def test_fifty_sends_make_one_refused_login(
        self, dovecot: Dovecot, mailer: StartMailer, issuer: StartIssuer, mechanism: str
    ) -> None:
        server = issuer()
        server.is_believed = False
        client = mailer(dovecot.submission, **login(server, auth=mechanism, pool={"max_size": 5}))
        already = len(dovecot.introspection.asked)
        errors = send_at_once(client)
        assert [type(error) for error in errors] == [AuthenticationFailed] * SENDS
        assert all(error.challenge for error in errors)
        assert len(server.requests) == 1
        assert dovecot.introspection.asked[already:] == server.issued
        assert client.stats().size == 0


def send_at_once(client: Mailer) -> list[AuthenticationFailed]:
    """SENDS threads; the errors of those that could not log in."""
    errors: list[AuthenticationFailed] = []
    start = threading.Barrier(SENDS)

    def send_one() -> None:
        start.wait(10)
        try:
            new_mail().send(client)
        except AuthenticationFailed as error:
            errors.append(error)

    threads = [threading.Thread(target=send_one, daemon=True) for _ in range(SENDS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return errors


SCHEMES: dict[Protocol, str] = {"connect": "http", "socks4": "socks4a", "socks5": "socks5h"}


class TestThroughAProxy:
    """The token server goes by a name that only the proxy knows: a direct request would find nobody."""

    @pytest.mark.parametrize("protocol", SCHEMES)
    def test_the_request_is_seen_there(
        self,
        dovecot: Dovecot,
        mailer: StartMailer,
        issuer: StartIssuer,
        scripted_proxy: StartScriptedProxy,
        protocol: Protocol,
    ) -> None:
        server, proxy = issuer(), scripted_proxy(protocol, names={NAME: "127.0.0.1"})
        oauth2 = refreshing(server, token_url=server.url.replace("localhost", NAME))
        way = f"{SCHEMES[protocol]}://{proxy.host}:{proxy.port}"
        client = mailer(dovecot.submission, **login(server, oauth2=oauth2, host=NAME, proxy=way))
        send(client, dovecot)
        assert proxy.targets == [f"{NAME}:{dovecot.submission.port}", f"{NAME}:{server.port}"]
        assert len(server.requests) == 1
        for connection in proxy.connections:
            assert b"first-refresh-token" not in connection.request + connection.payload

    def test_a_proxy_that_refuses_it(
        self,
        dovecot: Dovecot,
        mailer: StartMailer,
        issuer: StartIssuer,
        scripted_proxy: StartScriptedProxy,
    ) -> None:
        server, proxy = issuer(), scripted_proxy("connect", names={"localhost": "127.0.0.1"})
        oauth2 = refreshing(server, token_url=server.url.replace("localhost", NAME))
        way = f"http://{proxy.host}:{proxy.port}"
        client = mailer(dovecot.submission, **login(server, oauth2=oauth2, proxy=way))
        with pytest.raises(TokenUnavailable) as caught:
            new_mail().send(client)
        assert caught.value.stage == "token"
        assert proxy.targets[-1] == f"{NAME}:{server.port}"
        assert server.requests == []

    def test_squid(self, dovecot: Dovecot, mailer: StartMailer, issuer: StartIssuer, squid: Squid) -> None:
        server = issuer()
        oauth2 = refreshing(server, token_url=server.url.replace("localhost", squid.known_name))
        way = f"http://{squid.username}:{squid.password}@{squid.basic}"
        client = mailer(dovecot.submission, **login(server, oauth2=oauth2, host=squid.known_name, proxy=way))
        send(client, dovecot)
        assert squid.connects()[-2:] == [
            f"{squid.known_name}:{dovecot.submission.port}",
            f"{squid.known_name}:{server.port}",
        ]
        assert len(server.requests) == 1
