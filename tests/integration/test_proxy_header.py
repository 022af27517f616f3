"""PROXY headers: ours to servers that demand one, those of HAProxy and nginx, and mismatches."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from mailbridge import (
    ConnectionLost,
    GreetingRefused,
    MailbridgeError,
    ReplyTimeout,
    SMTPConnection,
    TLSModeMismatch,
)
from tests.integration.conftest import SECONDS, Configure, StartMailer
from tests.integration.mails import new_mail
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.exim import Exim
from tests.servers.fixtures import StartRelay
from tests.servers.haproxy import HAProxy
from tests.servers.nginx import Nginx
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import Postfix
from tests.servers.squid import Squid

LOGIN = {"username": USERNAME, "password": PASSWORD}
STARTTLS: dict[str, Any] = {"security": "starttls", **LOGIN}
TLS: dict[str, Any] = {"security": "tls", **LOGIN}
# Where clients come from that shall not be taken for a proxy: other addresses of this machine.
OWN = "127.0.0.21"
BALANCED = "127.0.0.31"

DEMANDING = [
    ("postfix", "behind_proxy", STARTTLS),
    ("postfix", "behind_proxy_smtps", TLS),
    ("exim", "behind_proxy", STARTTLS),
    ("exim", "behind_proxy_tls", TLS),
]


def times_seen(server: Postfix | Exim | OpenSmtpd, address: str) -> int:
    """How often a client from there is in the server's log, by the PROXY header."""
    addresses = [client if isinstance(client, str) else client[0] for client in server.clients()]
    return addresses.count(address)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("server", "service", "options"), DEMANDING)
def test_the_server_logs_whom_the_header_names(
    request: pytest.FixtureRequest,
    relay: StartRelay,
    mailer: StartMailer,
    server: str,
    service: str,
    options: dict[str, Any],
    version: int,
) -> None:
    """The relay hands the header on as it is; without it the server would see the relay's own address."""
    running: Postfix | Exim = request.getfixturevalue(server)
    between = relay(getattr(running, service).address)
    already = times_seen(running, OWN)
    client = mailer(between, host="localhost", source_address=OWN, proxy_protocol=version, **options)
    mails = [new_mail(), new_mail()]
    first, second = (mail.send(client) for mail in mails)
    assert times_seen(running, OWN) == already + 1
    assert (second.connection_id, second.round_trips) == (first.connection_id, 2)
    for mail in mails:
        assert running.delivered(mail.message_id) == [mail.content]


def test_opensmtpd_logs_whom_the_header_names(
    opensmtpd: OpenSmtpd, relay: StartRelay, mailer: StartMailer
) -> None:
    between = relay(opensmtpd.behind_proxy.address)
    already, count = times_seen(opensmtpd, OWN), len(opensmtpd.messages())
    mail = new_mail()
    mail.send(mailer(between, source_address=OWN, proxy_protocol=2))
    assert times_seen(opensmtpd, OWN) == already + 1
    assert opensmtpd.messages(at_least=count + 1)[-1].message_id == mail.message_id


def test_the_header_costs_no_round_trip(postfix: Postfix, configure: Configure) -> None:
    trips = []
    for server, version in ((postfix.plain, None), (postfix.behind_proxy, 2)):
        connection = SMTPConnection(configure(server, proxy_protocol=version))
        connection.connect()
        connection.quit()
        trips.append(connection.round_trips)
    assert trips[0] == trips[1]


class TestThroughAProxy:
    """The addresses of the connection are the proxy's business then, and the header says so."""

    @pytest.mark.parametrize(("server", "version"), [("postfix", 2), ("exim", 1), ("exim", 2)])
    def test_the_server_takes_the_connection_for_the_client(
        self, request: pytest.FixtureRequest, squid: Squid, mailer: StartMailer, server: str, version: int
    ) -> None:
        running: Postfix | Exim = request.getfixturevalue(server)
        already = times_seen(running, OWN), times_seen(running, "127.0.0.1")
        options = {"proxy": f"http://{squid.open}", "source_address": OWN, "proxy_protocol": version}
        mail = new_mail()
        mail.send(mailer(running.behind_proxy, **options, **STARTTLS))
        assert times_seen(running, OWN) == already[0]
        assert times_seen(running, "127.0.0.1") > already[1]
        assert running.delivered(mail.message_id) == [mail.content]

    def test_postfix_does_not_know_unknown(self, squid: Squid, postfix: Postfix, mailer: StartMailer) -> None:
        client = mailer(postfix.behind_proxy, proxy=f"http://{squid.open}", proxy_protocol=1)
        with pytest.raises(GreetingRefused, match="421") as caught:
            new_mail().send(client)
        assert "PROXY header" in caught.value.hint


class TestBalancers:
    """Nothing is configured for these: they make the header, from the connection that they get."""

    @pytest.mark.parametrize(
        ("balancer", "service", "server", "options"),
        [
            ("haproxy", "v1", "postfix", STARTTLS),
            ("haproxy", "v2", "postfix", STARTTLS),
            ("haproxy", "v2_tls", "postfix", {"security": "tls"}),  # Postfix sees no TLS, and offers no login
            ("haproxy", "v1_smtps", "postfix", TLS),
            ("haproxy", "v2_smtps", "postfix", TLS),
            ("haproxy", "exim_v1", "exim", STARTTLS),
            ("haproxy", "exim_v2", "exim", STARTTLS),
            ("haproxy", "exim_v2_tls", "exim", {**TLS, "auth": "CRAM-MD5"}),
            ("nginx", "v1", "postfix", STARTTLS),
            ("nginx", "v1_smtps", "postfix", TLS),
            ("nginx", "exim_v1", "exim", STARTTLS),
        ],
    )
    def test_mail_arrives_and_the_log_names_the_client(
        self,
        request: pytest.FixtureRequest,
        mailer: StartMailer,
        balancer: str,
        service: str,
        server: str,
        options: dict[str, Any],
    ) -> None:
        front: HAProxy | Nginx = request.getfixturevalue(balancer)
        running: Postfix | Exim = request.getfixturevalue(server)
        already = times_seen(running, BALANCED)
        mail = new_mail()
        mail.send(mailer(getattr(front, service), source_address=BALANCED, **options))
        assert times_seen(running, BALANCED) == already + 1
        assert running.delivered(mail.message_id) == [mail.content]

    @pytest.mark.parametrize("service", ["opensmtpd_v2", "opensmtpd_v2_tls"])
    def test_opensmtpd(
        self, haproxy: HAProxy, opensmtpd: OpenSmtpd, mailer: StartMailer, service: str
    ) -> None:
        already, count = times_seen(opensmtpd, BALANCED), len(opensmtpd.messages())
        security = "tls" if service.endswith("_tls") else "none"
        mail = new_mail()
        mail.send(mailer(getattr(haproxy, service), source_address=BALANCED, security=security))
        assert times_seen(opensmtpd, BALANCED) == already + 1
        assert opensmtpd.messages(at_least=count + 1)[-1].message_id == mail.message_id

    def test_tls_that_ends_at_nginx(self, nginx: Nginx, postfix: Postfix, mailer: StartMailer) -> None:
        mail = new_mail()
        mail.send(mailer(nginx.tls, security="tls"))
        assert postfix.delivered(mail.message_id) == [mail.content]


class TestMismatches:
    """A clear error within the deadline, whose hint names the option."""

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize(
        ("server", "service", "security"),
        [
            ("postfix", "plain", "starttls"),
            ("postfix", "smtps", "tls"),
            ("exim", "plain", "none"),
            ("exim", "tls", "tls"),
            ("opensmtpd", "plain", "none"),
            ("dovecot", "submission", "starttls"),
        ],
    )
    def test_a_header_that_nobody_expects(
        self,
        request: pytest.FixtureRequest,
        mailer: StartMailer,
        server: str,
        service: str,
        security: str,
        version: int,
    ) -> None:
        endpoint = getattr(request.getfixturevalue(server), service)
        client = mailer(endpoint, security=security, proxy_protocol=version)
        began = time.monotonic()
        with pytest.raises(MailbridgeError) as caught:
            new_mail().send(client)
        assert time.monotonic() - began < SECONDS
        assert caught.value.stage in ("greeting", "ehlo", "tls")
        assert not caught.value.outcome_unknown
        assert "PROXY header" in caught.value.hint
        assert "proxy_protocol" in caught.value.hint
        failed = [stage for stage in client.verify() if stage.status == "failed"]
        assert len(failed) == 1
        assert "proxy_protocol" in failed[0].hint

    def test_a_version_that_the_server_does_not_know(self, opensmtpd: OpenSmtpd, mailer: StartMailer) -> None:
        with pytest.raises(ConnectionLost) as caught:
            new_mail().send(mailer(opensmtpd.behind_proxy, proxy_protocol=1))
        assert "proxy_protocol" in caught.value.hint

    @pytest.mark.parametrize("server", ["postfix", "exim", "opensmtpd"])
    def test_the_server_waits_for_one(
        self, request: pytest.FixtureRequest, mailer: StartMailer, server: str
    ) -> None:
        endpoint = request.getfixturevalue(server).behind_proxy
        client = mailer(endpoint, timeout=None, timeouts={"greeting": 0.3})
        with pytest.raises(ReplyTimeout) as caught:
            new_mail().send(client)
        assert caught.value.stage == "greeting"
        assert "waits for a PROXY header: then set proxy_protocol" in caught.value.hint

    def test_exim_has_waited_long_enough(self, exim: Exim, mailer: StartMailer) -> None:
        """It greets after three seconds, and then says why it takes no command."""
        with pytest.raises(GreetingRefused, match="required Proxy negotiation failed") as caught:
            new_mail().send(mailer(exim.behind_proxy))
        assert "set proxy_protocol" in caught.value.hint

    def test_the_handshake_in_the_place_of_one(self, postfix: Postfix, mailer: StartMailer) -> None:
        with pytest.raises(TLSModeMismatch, match="421"):
            new_mail().send(mailer(postfix.behind_proxy_smtps, security="tls"))

    def test_a_server_that_has_hung_up_before(self, configure: Configure, postfix: Postfix) -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        connection = SMTPConnection(configure(postfix.plain, proxy_protocol=2), sock=ours)
        with pytest.raises(ConnectionLost) as caught:
            connection.connect()
        assert caught.value.stage == "greeting"
        assert not connection.is_open
