"""Mail through real proxies of each kind, through chains of them, and what is told where they refuse."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from mailbridge import ConnectFailed, ConnectTimeout, ProxyFailed
from tests.integration.conftest import SECONDS, StartMailer
from tests.integration.mails import addresses, new_mail
from tests.integration.ways import HTTP_LOGIN, SOCKS_LOGIN, WAYS, Proxied, Way
from tests.servers.certificates import Certificates
from tests.servers.dante import Dante
from tests.servers.dovecot import PASSWORD, USERNAME, Dovecot
from tests.servers.fixtures import StartRelay
from tests.servers.microsocks import Microsocks
from tests.servers.postfix import Postfix
from tests.servers.process import free_port, wait_until
from tests.servers.squid import Squid
from tests.servers.ssh import SshTunnel
from tests.servers.tinyproxy import Tinyproxy

LOGIN = {"username": USERNAME, "password": PASSWORD}
SERVICES: dict[str, dict[str, Any]] = {
    "plain": {"security": "starttls"},
    "submission": {"security": "starttls", **LOGIN},
    "smtps": {"security": "tls", **LOGIN},
}


@pytest.fixture(params=WAYS, ids=str)
def proxied(request: pytest.FixtureRequest, certificates: Certificates) -> Proxied:
    return Proxied(request.param, request, certificates)


def was_asked_last(proxy: Any, target: str) -> bool:
    """Whether its log says so, which some write a moment later."""
    return wait_until(lambda: proxy.connects()[-1:] == [target], SECONDS)


class TestEachWay:
    @pytest.mark.parametrize("service", SERVICES)
    def test_mail_arrives_and_the_connection_is_kept(
        self, proxied: Proxied, postfix: Postfix, mailer: StartMailer, service: str
    ) -> None:
        options = {"host": proxied.target_host, "proxy": proxied.option, **SERVICES[service]}
        client = mailer(getattr(postfix, service), **options)
        mails = [
            new_mail(b"..\r\n.\r\n" + b"x" * 900 + b"\r\n"),
            new_mail(to=["inbox@lab.test", *addresses(5)]),
        ]
        first, second = (mail.send(client) for mail in mails)
        assert (first.connection_reused, second.connection_reused) == (False, True)
        assert (second.connection_id, second.round_trips) == (first.connection_id, 2)
        for mail in mails:
            assert postfix.delivered(mail.message_id) == [mail.content]

    def test_a_login_with_dovecot(self, proxied: Proxied, dovecot: Dovecot, mailer: StartMailer) -> None:
        options = {"host": proxied.target_host, "proxy": proxied.option, "security": "starttls", **LOGIN}
        mail = new_mail()
        mail.send(mailer(dovecot.submission, **options))
        assert mail.message_id in [message.message_id for message in dovecot.messages()]

    def test_verify_tells_what_was_asked_of_whom(
        self, proxied: Proxied, postfix: Postfix, mailer: StartMailer
    ) -> None:
        host = proxied.target_host
        report = mailer(postfix.plain, host=host, proxy=proxied.option).verify()
        assert report.ok, str(report)
        asked_for = f"{host if proxied.way.resolves else '127.0.0.1'}:{postfix.plain.port}"
        stage = report["proxy"]
        assert str(proxied.endpoint) in stage.detail
        assert asked_for in stage.detail
        assert ("200" in stage.detail) == proxied.way.scheme.startswith("http")
        assert stage.seconds > 0
        assert report["tcp"].detail == f"connected to {proxied.endpoint}"
        assert proxied.way.login not in str(report) or not proxied.way.login
        if proxied.way.server == "dante":  # it logs addresses alone
            asked_for = f"127.0.0.1:{postfix.plain.port}"
        assert was_asked_last(proxied.server, asked_for)


def test_two_round_trips_on_the_wire(
    squid: Squid, postfix: Postfix, relay: StartRelay, mailer: StartMailer
) -> None:
    before_squid = relay(squid.open.address)
    client = mailer(postfix.plain, proxy=f"http://localhost:{before_squid.port}")
    first = new_mail().send(client)
    # TCP, CONNECT, greeting, EHLO, the flight, the content: no more than without a proxy, and its answer
    assert first.round_trips == 6
    before = before_squid.round_trips
    second = new_mail(to=addresses(50)).send(client)
    assert before_squid.round_trips - before == second.round_trips == 2
    assert len(before_squid.connections) == 1


def test_the_environment_names_it(
    squid: Squid, postfix: Postfix, mailer: StartMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "all_proxy", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{HTTP_LOGIN}{squid.basic}")
    mail = new_mail()
    mail.send(mailer(postfix.plain, host=squid.known_name, proxy="env"))
    assert postfix.delivered(mail.message_id) == [mail.content]
    count = len(squid.connects())
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, localhost")
    assert mailer(postfix.plain, proxy="env").verify()["proxy"].status == "skipped"
    assert len(squid.connects()) == count


class TestChains:
    def test_socks_then_http(
        self, microsocks: Microsocks, squid: Squid, postfix: Postfix, mailer: StartMailer
    ) -> None:
        proxy = [f"socks5://{SOCKS_LOGIN}{microsocks.password}", f"http://{HTTP_LOGIN}{squid.basic}"]
        mail = new_mail()
        mail.send(mailer(postfix.submission, host=squid.known_name, proxy=proxy, **SERVICES["submission"]))
        assert postfix.delivered(mail.message_id) == [mail.content]
        assert was_asked_last(microsocks, str(squid.basic))
        assert was_asked_last(squid, f"{squid.known_name}:{postfix.submission.port}")

    def test_http_then_socks(
        self, tinyproxy: Tinyproxy, dante: Dante, postfix: Postfix, mailer: StartMailer
    ) -> None:
        proxy = [f"http://{tinyproxy.open}", f"socks5://{dante.endpoint}"]
        mail = new_mail()
        mail.send(mailer(postfix.smtps, host=dante.known_name, proxy=proxy, **SERVICES["smtps"]))
        assert postfix.delivered(mail.message_id) == [mail.content]
        assert was_asked_last(tinyproxy, str(dante.endpoint))

    def test_three_with_tls_to_the_second(
        self,
        ssh_tunnel: SshTunnel,
        squid: Squid,
        microsocks: Microsocks,
        postfix: Postfix,
        certificates: Certificates,
        mailer: StartMailer,
    ) -> None:
        tls = {"ca_file": certificates.ca_file}
        https = f"https://{ssh_tunnel.known_name}:{squid.https.port}"
        proxy = [
            f"socks4a://{ssh_tunnel.endpoint}",
            {"url": https, "tls": tls},
            f"socks5://{microsocks.open}",
        ]
        client = mailer(postfix.plain, host=microsocks.known_name, proxy=proxy, security="starttls")
        mail = new_mail()
        first = mail.send(client)
        assert postfix.delivered(mail.message_id) == [mail.content]
        assert new_mail().send(client).round_trips == 2
        # TCP, three proxies, greeting, EHLO, STARTTLS, its handshake, EHLO, the flight, the content
        assert first.round_trips == 11
        assert was_asked_last(ssh_tunnel, f"{ssh_tunnel.known_name}:{squid.https.port}")
        assert was_asked_last(squid, str(microsocks.open))
        assert was_asked_last(microsocks, f"{microsocks.known_name}:{postfix.plain.port}")
        said = client.verify()["proxy"].detail.split("; ")
        assert [step.split("://")[0] for step in said] == ["socks4a", "https", "socks5"]

    def test_the_one_that_refuses_is_named(
        self, microsocks: Microsocks, squid: Squid, postfix: Postfix, mailer: StartMailer
    ) -> None:
        proxy = [f"socks5://{microsocks.open}", f"http://{squid.basic}"]
        with pytest.raises(ProxyFailed, match=f"http://{squid.basic} answered 407") as caught:
            new_mail().send(mailer(postfix.plain, proxy=proxy))
        assert str(microsocks.open) not in str(caught.value)

    def test_one_that_the_other_does_not_reach(
        self, microsocks: Microsocks, postfix: Postfix, mailer: StartMailer
    ) -> None:
        proxy = [f"socks5://{microsocks.open}", f"http://{free_port()}"]
        with pytest.raises(
            ProxyFailed, match=f"socks5://{microsocks.open} refused: 0x05: Connection refused"
        ):
            new_mail().send(mailer(postfix.plain, proxy=proxy))


BAD_LOGIN = "hinz:kunz%40sesam@"
NOWHERE = "192.0.2.1"  # RFC 5737; Squid and Dante let nobody through to it
NOT_ALLOWED = "does not allow this host or port"
UNREACHED = "could not reach the server"
WANTS = "wants credentials: write them into its URL"
DECLINES = "does not accept these credentials"
CLOSED = "closed the connection instead of answering"

# way, host (None: a port on loopback where nobody listens), status, what is said, the hint
REFUSALS: list[tuple[Way, str | None, int | None, str, str]] = [
    (Way("http", "squid", "basic"), "localhost", 407, "Proxy Authentication Required", WANTS),
    (Way("http", "squid", "basic", BAD_LOGIN), "localhost", 407, "Required", DECLINES),
    (Way("http", "squid", "open"), NOWHERE, 403, "403 Forbidden", NOT_ALLOWED),
    (Way("http", "squid", "open"), None, 503, "503 Service Unavailable", UNREACHED),
    (Way("https", "squid", "https"), None, 503, "503 Service Unavailable", UNREACHED),
    (Way("http", "tinyproxy", "basic"), "localhost", 407, "Proxy Authentication Required", WANTS),
    (Way("http", "tinyproxy", "basic", BAD_LOGIN), "localhost", 401, "401 Unauthorized", DECLINES),
    (Way("http", "tinyproxy", "open"), None, 500, "500 Unable to connect", ""),
    (Way("socks4", "dante", "endpoint"), None, None, "0x5b: Request rejected or failed", ""),
    (Way("socks4a", "dante", "endpoint"), "localhost", None, "0x5b: Request rejected or failed", ""),
    (Way("socks5", "dante", "endpoint"), None, None, "0x05: Connection refused", ""),
    (Way("socks5", "dante", "endpoint"), NOWHERE, None, "0x02: Connection not allowed by ruleset", ""),
    (Way("socks5", "dante", "endpoint"), "no.invalid", None, "0x04: Host unreachable", ""),
    (Way("socks5", "microsocks", "open"), None, None, "0x05: Connection refused", ""),
    (Way("socks5", "microsocks", "password"), "localhost", None, "authentication methods", WANTS),
    (Way("socks5", "microsocks", "password", BAD_LOGIN), "localhost", None, "failed", DECLINES),
    (Way("socks4", "microsocks", "open"), "localhost", None, CLOSED, "another version of SOCKS"),
    (Way("socks4", "ssh_tunnel", "endpoint"), None, None, CLOSED, "may not reach the server"),
    (Way("socks4a", "ssh_tunnel", "endpoint"), None, None, CLOSED, "may not reach the server"),
    (Way("socks5", "ssh_tunnel", "endpoint"), None, None, CLOSED, "may not reach the server"),
]


class TestRefusals:
    @pytest.mark.parametrize(("way", "host", "status", "said", "hint"), REFUSALS, ids=str)
    def test_the_proxys_own_reason(
        self,
        request: pytest.FixtureRequest,
        certificates: Certificates,
        postfix: Postfix,
        mailer: StartMailer,
        caplog: pytest.LogCaptureFixture,
        way: Way,
        host: str | None,
        status: int | None,
        said: str,
        hint: str,
    ) -> None:
        caplog.set_level(logging.DEBUG, logger="mailbridge")
        proxied = Proxied(way, request, certificates)
        server = postfix.plain if host else free_port()
        # One place in the pool: a proxy that fails must give it back.
        options = {"proxy": proxied.option, "pool": {"max_size": 1}, "debug": True}
        client = mailer(server, host=host or "localhost", **options)
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(ProxyFailed) as caught:
                new_mail().send(client)
        assert time.monotonic() - began < SECONDS
        error = caught.value
        assert (error.stage, error.status) == ("proxy", status)
        assert error.server == f"{host or 'localhost'}:{server.port}"
        assert f"The proxy {way.scheme}://{proxied.endpoint} " in error.message
        assert said in error.message
        assert error.hint.count(hint) == 1 if hint else error.hint == ""
        stage = client.verify()["proxy"]
        assert (stage.status, stage.detail, stage.hint) == ("failed", error.message, error.hint)
        told = f"{error} {error!r} {error.__cause__!r} {error.__context__!r} {stage} {caplog.text}"
        assert not [word for word in ("hinz", "kunz", "aGlueg") if word in told]

    def test_nobody_listens_where_the_proxy_should_be(self, postfix: Postfix, mailer: StartMailer) -> None:
        nobody = free_port()
        with pytest.raises(ProxyFailed, match=f"The proxy socks5://{nobody} can't be reached") as caught:
            new_mail().send(mailer(postfix.plain, proxy=f"socks5://{nobody}"))
        assert caught.value.stage == "proxy"
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)

    @pytest.mark.parametrize("service", ["plain", "smtps"])
    def test_a_mail_server_is_no_proxy(self, postfix: Postfix, mailer: StartMailer, service: str) -> None:
        endpoint = getattr(postfix, service)
        with pytest.raises(ProxyFailed, match=f"proxy http://{endpoint} ") as caught:
            new_mail().send(mailer(postfix.plain, proxy=f"http://{endpoint}"))
        assert caught.value.stage == "proxy"

    @pytest.mark.parametrize("scheme", ["socks4", "socks5"])
    def test_an_http_proxy_waits_for_the_rest_of_a_socks_request(
        self, squid: Squid, postfix: Postfix, mailer: StartMailer, scheme: str
    ) -> None:
        client = mailer(postfix.plain, proxy=f"{scheme}://{squid.open}", timeouts={"connect": 0.3})
        with pytest.raises(ConnectTimeout, match=f"{scheme}://{squid.open} did not answer") as caught:
            new_mail().send(client)
        assert caught.value.stage == "proxy"

    def test_socks4_asks_this_machine_for_the_name(
        self, ssh_tunnel: SshTunnel, postfix: Postfix, mailer: StartMailer
    ) -> None:
        count = len(ssh_tunnel.connects())
        client = mailer(postfix.plain, host="no.invalid", proxy=f"socks4://{ssh_tunnel.endpoint}")
        with pytest.raises(ConnectFailed, match=r"no\.invalid"):
            new_mail().send(client)
        assert len(ssh_tunnel.connects()) == count
