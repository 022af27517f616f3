"""TLS to an https proxy and TLS to the server inside it, each with its own trust; HTTPS by `open_channel`."""

from __future__ import annotations

import http.client
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mailbridge import (
    CertificateRejected,
    ConfigurationError,
    ConnectTimeout,
    ProxyFailed,
    SMTPConnection,
    TLSModeMismatch,
    open_channel,
)
from tests.integration.conftest import SECONDS, Configure, StartMailer
from tests.integration.mails import new_mail
from tests.integration.ways import HTTP_LOGIN, WAYS, Proxied
from tests.servers.certificates import Certificates
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.postfix import Postfix
from tests.servers.process import LOOPBACK, Endpoint, free_port
from tests.servers.squid import Squid
from tests.servers.stunnel import Stunnel

LOGIN = {"username": USERNAME, "password": PASSWORD}
# Python 3.13 wants of a certificate that signs itself that it says that it may.
LENIENT = {"strict": False}


def https(squid: Squid, host: str = "localhost", **tls: Any) -> dict[str, Any]:
    return {"url": f"https://{host}:{squid.https.port}", "tls": tls}


class TestTrust:
    """Squid shows a certificate of one authority, stunnel one that is its own: no trust fits both."""

    def test_each_is_judged_by_its_own(
        self,
        squid: Squid,
        stunnel: Stunnel,
        postfix: Postfix,
        certificates: Certificates,
        mailer: StartMailer,
    ) -> None:
        client = mailer(
            stunnel.self_signed,
            security="tls",
            proxy=https(squid, ca_file=certificates.ca_file),
            tls={"ca_file": certificates.self_signed.cert_file, **LENIENT},
        )
        mail = new_mail(b"x" * 70 + b"\r\n" + b"..\r\n" * 300_000)
        mail.send(client)
        assert postfix.delivered(mail.message_id) == [mail.content]
        assert new_mail().send(client).round_trips == 2

    @pytest.mark.parametrize("tls", ["none", "of the server", "of another"])
    def test_the_proxy_is_not_judged_by_what_is_for_the_server(
        self,
        squid: Squid,
        postfix: Postfix,
        certificates: Certificates,
        configure: Configure,
        mailer: StartMailer,
        tls: str,
    ) -> None:
        """`configure` trusts the proxy's authority too, but for the server."""
        trust = {
            "none": {},
            "of the server": {"ca_file": certificates.self_signed.cert_file},
            "of another": {"ca_file": certificates.other_ca_file},
        }[tls]
        client = mailer(postfix.plain, security="starttls", proxy=https(squid, **trust))
        with pytest.raises(
            CertificateRejected, match=f"TLS to the proxy https://localhost:{squid.https.port}: "
        ):
            new_mail().send(client)
        stage = client.verify()["proxy"]
        assert stage.status == "failed"
        assert "The certificate of localhost is signed by an authority that is not trusted" in stage.detail
        assert "proxy.tls" in stage.hint

    def test_the_server_is_not_judged_by_what_is_for_the_proxy(
        self, squid: Squid, postfix: Postfix, certificates: Certificates, mailer: StartMailer
    ) -> None:
        client = mailer(
            postfix.plain,
            security="starttls",
            proxy=https(squid, ca_file=certificates.ca_file),
            tls={"ca_file": certificates.other_ca_file},
        )
        with pytest.raises(CertificateRejected) as caught:
            new_mail().send(client)
        assert caught.value.stage == "tls"
        assert "proxy" not in str(caught.value)
        assert client.verify()["proxy"].status == "ok"

    def test_a_proxy_that_is_not_verified_does_not_weaken_the_server(
        self, squid: Squid, postfix: Postfix, certificates: Certificates, mailer: StartMailer
    ) -> None:
        options = {"security": "starttls", "proxy": https(squid, verify=False)}
        mail = new_mail()
        mail.send(mailer(postfix.plain, **options))
        assert postfix.delivered(mail.message_id) == [mail.content]
        with pytest.raises(CertificateRejected) as caught:
            new_mail().send(mailer(postfix.plain, tls={"ca_file": certificates.other_ca_file}, **options))
        assert caught.value.stage == "tls"

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_the_proxys_name_is_verified(
        self, squid: Squid, postfix: Postfix, certificates: Certificates, configure: Configure, host: str
    ) -> None:
        for name in (None, "mail.lab.test"):
            proxy = https(squid, host, ca_file=certificates.ca_file, server_hostname=name)
            connection = SMTPConnection(configure(postfix.plain, proxy=proxy))
            connection.connect()
            assert connection.quit().is_positive
        proxy = https(squid, host, ca_file=certificates.ca_file, server_hostname="wrong.lab.test")
        connection = SMTPConnection(configure(postfix.plain, proxy=proxy))
        with pytest.raises(
            CertificateRejected, match=r"TLS to the proxy .*wrong\.lab\.test is for another name"
        ):
            connection.connect()


class TestLayers:
    def test_tls_to_the_proxy_alone_is_no_safety(
        self, squid: Squid, postfix: Postfix, certificates: Certificates, configure: Configure
    ) -> None:
        config = configure(postfix.plain, proxy=https(squid, ca_file=certificates.ca_file), **LOGIN)
        connection = SMTPConnection(config)
        connection.connect()
        assert (connection.secure, connection.tls) == (False, None)
        with pytest.raises(ConfigurationError, match="clear text"):
            connection.login()

    def test_the_facts_are_those_of_the_server(
        self, squid: Squid, stunnel: Stunnel, certificates: Certificates, configure: Configure
    ) -> None:
        tls = {"ca_file": certificates.self_signed.cert_file, **LENIENT}
        proxy = https(squid, ca_file=certificates.ca_file)
        config = configure(stunnel.self_signed, security="tls", proxy=proxy, tls=tls)
        connections = [SMTPConnection(config) for _ in range(2)]
        for connection in connections:
            connection.connect()
            connection.quit()
        found = connections[1].tls
        assert found is not None
        assert (found.verified, found.resumed) == (True, True)
        assert found.issuer not in ("", "mailbridge test CA")  # who signed for the proxy

    def test_an_http_proxy_taken_for_an_https_one(
        self, squid: Squid, postfix: Postfix, mailer: StartMailer
    ) -> None:
        url = f"https://{HTTP_LOGIN}{squid.open}"
        with pytest.raises(TLSModeMismatch, match=f"TLS to the proxy https://{squid.open}: ") as caught:
            new_mail().send(mailer(postfix.plain, proxy=url))
        assert caught.value.stage == "proxy"
        assert "Write http://" in caught.value.hint

    def test_an_https_proxy_taken_for_an_http_one(
        self, squid: Squid, postfix: Postfix, mailer: StartMailer
    ) -> None:
        with pytest.raises(ProxyFailed, match=f"proxy http://{squid.https} ") as caught:
            new_mail().send(mailer(postfix.plain, proxy=f"http://{squid.https}"))
        assert caught.value.stage == "proxy"


class Page(http.server.BaseHTTPRequestHandler):
    """Answers in HTTP/1.0: `http.client` then closes its socket before it has read the page."""

    def do_GET(self) -> None:
        body = self.path.encode() * 20_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def website(certificates: Certificates) -> Iterator[Endpoint]:
    """An https server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.good.combined)
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Endpoint(server.server_port)
        server.shutdown()
        thread.join()


class TestChannel:
    @pytest.mark.parametrize("way", WAYS, ids=str)
    def test_a_page_by_https(
        self,
        request: pytest.FixtureRequest,
        certificates: Certificates,
        configure: Configure,
        website: Endpoint,
        way: Any,
    ) -> None:
        proxied = Proxied(way, request, certificates)
        # These names are the mail server's, and must not count here.
        tls = {"ca_file": certificates.ca_file, "server_hostname": "smtp.example.com"}
        config = configure(Endpoint(25), host="smtp.example.com", proxy=proxied.option, tls=tls)
        host = proxied.target_host
        with open_channel(config, host, website.port, deadline=SECONDS) as channel:
            client = http.client.HTTPConnection(host, website.port)
            client.sock = channel
            client.request("GET", "/token")
            response = client.getresponse()
            assert (response.status, response.read()) == (200, b"/token" * 20_000)

    def test_the_certificate_must_prove_the_host(
        self, squid: Squid, configure: Configure, certificates: Certificates, website: Endpoint
    ) -> None:
        tls = {"ca_file": certificates.other_ca_file}
        config = configure(Endpoint(25), proxy=https(squid, ca_file=certificates.ca_file), tls=tls)
        with pytest.raises(CertificateRejected) as caught:
            open_channel(config, squid.known_name, website.port)
        assert caught.value.server == f"{squid.known_name}:{website.port}"
        assert "proxy" not in str(caught.value)

    def test_the_proxy_refuses(self, squid: Squid, configure: Configure) -> None:
        config = configure(Endpoint(25), proxy=f"http://{squid.open}")
        nobody = free_port()
        with pytest.raises(ProxyFailed, match="503") as caught:
            open_channel(config, "localhost", nobody.port)
        assert (caught.value.stage, caught.value.server) == ("proxy", f"localhost:{nobody.port}")

    def test_one_deadline_for_opening_and_use(self, squid: Squid, configure: Configure) -> None:
        config = configure(Endpoint(25), proxy=f"http://{squid.open}")
        with socket.create_server((LOOPBACK, 0)) as silent:
            port = silent.getsockname()[1]
            with open_channel(config, LOOPBACK, port, tls=False, deadline=0.4) as channel:
                channel.sendall(b"hello")
                with pytest.raises(TimeoutError):
                    channel.recv(1)
            with pytest.raises(ConnectTimeout):
                open_channel(config, LOOPBACK, port, deadline=0.2)
