"""A channel with http.client on it: in clear and under TLS, with and without proxies, within its deadline."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mailbridge import (
    CertificateRejected,
    ConfigurationError,
    ConnectFailed,
    ConnectTimeout,
    ProxyFailed,
    SMTPConfig,
    open_channel,
)
from mailbridge.net.channel import Channel
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.scripted_proxy import ScriptedProxy

pytestmark = pytest.mark.needs("socks")

BODY = b"token " * 50_000
MARGIN = 3.0  # seconds that a busy machine may add


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("channel") / "certificates")


class TokenServer(http.server.BaseHTTPRequestHandler):
    """Gives back how it was asked, then a body; or drips for as long as somebody reads."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/drip":
            self.drip()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY) + len(asked)))
        self.end_headers()
        self.wfile.write(asked + BODY)

    def drip(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(200):
                self.wfile.write(b".")
                time.sleep(0.05)

    def log_message(self, *_: object) -> None: ...


class Site:
    """A web server on loopback; `names` are those that clients asked for in their TLS handshakes."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.names: list[str | None] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenServer)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may hang up
        if context is not None:
            context.sni_callback = lambda sock, name, ctx: self.names.append(name)  # type: ignore[assignment]
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.address: tuple[str, int] = ("127.0.0.1", self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def tls_site(identities: Certificates) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identities.good.cert_file, identities.good.key_file)
    made = Site(context)
    yield made
    made.close()


def config(proxy: Any = None, **options: Any) -> SMTPConfig:
    return SMTPConfig.from_mapping({"host": "mx.example", "proxy": proxy, "timeout": 5, **options})


def url(proxy: ScriptedProxy, scheme: str) -> str:
    return f"{scheme}://{proxy.host}:{proxy.port}"


def post(channel: Channel, path: str = "/token") -> bytes:
    connection = http.client.HTTPConnection("token.test")
    connection.sock = channel  # type: ignore[assignment]
    connection.request("POST", path, b"grant ")
    return connection.getresponse().read()


def test_directly_in_clear(site: Site) -> None:
    with open_channel(config(), *site.address, tls=False) as channel:
        assert post(channel) == b"grant " + BODY
        assert post(channel) == b"grant " + BODY, "a connection may carry several requests"


def test_directly_under_tls(tls_site: Site, identities: Certificates) -> None:
    trusting = config(tls={"ca_file": str(identities.ca_file), "server_hostname": "smtp.only.test"})
    with open_channel(trusting, "localhost", tls_site.address[1]) as channel:
        assert post(channel) == b"grant " + BODY
    assert tls_site.names == ["localhost"], "what is for mail alone is not asked for here"


@pytest.mark.parametrize(
    ("scheme", "protocol"), [("http", "connect"), ("socks4a", "socks4"), ("socks5h", "socks5")]
)
@pytest.mark.parametrize("tls", [True, False])
def test_through_a_proxy(
    scheme: str,
    protocol: Any,
    tls: bool,
    site: Site,
    tls_site: Site,
    identities: Certificates,
    scripted_proxy: StartScriptedProxy,
) -> None:
    proxy = scripted_proxy(protocol, target=(tls_site if tls else site).address)
    trusting = config(url(proxy, scheme), tls={"ca_file": str(identities.ca_file)})
    with open_channel(trusting, "mail.lab.test", 443, tls=tls, deadline=10) as channel:
        assert post(channel) == b"grant " + BODY
    assert proxy.targets == ["mail.lab.test:443"]
    assert tls_site.names == (["mail.lab.test"] if tls else [])


def test_under_tls_through_an_https_proxy_with_its_own_trust(
    tls_site: Site, identities: Certificates, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy("connect", target=tls_site.address, identity=identities.good)
    own = {"url": f"https://localhost:{proxy.port}", "tls": {"ca_file": str(identities.ca_file)}}
    with open_channel(config(own, tls={"ca_file": str(identities.ca_file)}), "mail.lab.test", 443) as channel:
        assert post(channel) == b"grant " + BODY
    assert (proxy.connections[0].server_name, tls_site.names) == ("localhost", ["mail.lab.test"])
    for tls, proxy_tls in ((None, identities.ca_file), (identities.ca_file, None)):
        own["tls"] = {"ca_file": str(proxy_tls) if proxy_tls else None}
        mixed = config(own, tls={"ca_file": str(tls) if tls else None})
        with pytest.raises(CertificateRejected) as caught:
            open_channel(mixed, "mail.lab.test", 443)
        assert caught.value.stage == ("proxy" if proxy_tls is None else "tls")


def test_a_certificate_must_prove_the_host_and_not_the_name_for_mail(identities: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identities.wrong_host.cert_file, identities.wrong_host.key_file)
    site = Site(context)
    try:
        mail = config(tls={"ca_file": str(identities.ca_file), "server_hostname": "other.lab.test"})
        with pytest.raises(CertificateRejected, match="for another name") as caught:
            open_channel(mail, *site.address)
        assert caught.value.server == f"127.0.0.1:{site.address[1]}"
    finally:
        site.close()


def test_a_proxy_that_refuses(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("connect", fault="403")
    with pytest.raises(ProxyFailed, match=r"answered 403") as caught:
        open_channel(config(url(proxy, "http")), "token.test", 443)
    assert (caught.value.stage, caught.value.server) == ("proxy", "token.test:443")


# ---- deadlines


def test_opening_ends_by_the_time_limit_for_connecting(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("connect", fault="drip")
    began = time.monotonic()
    with pytest.raises(ConnectTimeout):
        open_channel(config(url(proxy, "http"), timeout=None, timeouts={"connect": 0.3}), "token.test", 443)
    assert time.monotonic() - began < 0.3 + MARGIN


@pytest.mark.parametrize("tls", [True, False])
def test_opening_ends_by_its_own_deadline(tls: bool, scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks5", fault="silence after the reply" if tls else "silence")
    began = time.monotonic()
    with pytest.raises(ConnectTimeout):
        open_channel(config(url(proxy, "socks5")), "token.test", 443, tls=tls, deadline=0.3)
    assert time.monotonic() - began < 0.3 + MARGIN


def test_use_ends_by_the_deadline_even_if_bytes_drip(site: Site) -> None:
    began = time.monotonic()
    with (
        open_channel(config(), *site.address, tls=False, deadline=0.4) as channel,
        pytest.raises(TimeoutError),
    ):
        post(channel, "/drip")
    assert time.monotonic() - began < 0.4 + MARGIN


# ---- a socket's manners


def test_it_receives_sends_and_ends_like_a_socket(site: Site) -> None:
    with open_channel(config(), *site.address, tls=False, deadline=10) as channel:
        channel.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert channel.recv(4) == b"HTTP"
        rest = b""
        while piece := channel.recv(65536):
            rest += piece
        assert rest.endswith(BODY)
    with pytest.raises(OSError, match="closed"):
        channel.recv(1)
    channel.close()


def test_it_is_read_as_bytes_only(site: Site) -> None:
    with open_channel(config(), *site.address, tls=False) as channel:
        for mode in ("r", "wb", "w", "rwb"):
            with pytest.raises(ValueError, match="'rb'"):
                channel.makefile(mode)


def test_what_is_no_host() -> None:
    with pytest.raises(ConfigurationError):
        open_channel(config(), "token\r\ntest", 443)


@pytest.mark.parametrize("names", ["local", "proxy"])
@pytest.mark.parametrize("scheme", [None, "http"])
def test_the_guard_against_internal_networks_holds_here_too(
    names: str, scheme: str | None, site: Site, scripted_proxy: StartScriptedProxy
) -> None:
    way = url(scripted_proxy("connect", target=site.address), scheme) if scheme else None
    with pytest.raises(ConnectFailed, match="internal"):
        open_channel(config(way, allow_internal_networks=False, guard_names=names), *site.address, tls=False)


def test_the_guard_hands_an_address_to_the_proxy_and_the_name_to_tls(
    tls_site: Site,
    identities: Certificates,
    scripted_proxy: StartScriptedProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.4.4", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: rows)
    proxy = scripted_proxy("connect", target=tls_site.address)
    trusting = config(
        url(proxy, "http"), tls={"ca_file": str(identities.ca_file)}, allow_internal_networks=False
    )
    with open_channel(trusting, "mail.lab.test", 443, deadline=10) as channel:
        assert post(channel) == b"grant " + BODY
    assert (proxy.targets, tls_site.names) == (["8.8.4.4:443"], ["mail.lab.test"])
