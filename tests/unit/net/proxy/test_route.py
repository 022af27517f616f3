"""The way to a target: who resolves what, what handlers may give, chains, TLS inside TLS, one deadline."""

from __future__ import annotations

import importlib.util
import os
import socket
import ssl
import threading
from typing import Any

import pytest

from mailbridge import (
    CertificateRejected,
    ConfigurationError,
    ConnectFailed,
    ConnectTimeout,
    NameNotResolved,
    ProxyFailed,
    ProxyURL,
)
from mailbridge.config.groups import TLSOptions
from mailbridge.config.proxies import parse_proxies
from mailbridge.deadline import Deadline
from mailbridge.net.dialer import Target
from mailbridge.net.proxy.route import Reached, reach
from mailbridge.net.tls.handshake import Handshake
from tests.servers.certificates import Certificates
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.process import wait_until
from tests.servers.proxy_faults import Protocol
from tests.servers.scripted_proxy import ScriptedProxy

BEYOND = "mx.beyond.test"  # a name that exists nowhere
pytestmark = pytest.mark.needs("socks")

GREETING = b"220 mx.test ESMTP\r\n"
SOON = 10.0  # seconds; reaching it is a failure
PROTOCOLS: dict[str, Protocol] = {
    "http": "connect",
    "socks4": "socks4",
    "socks4a": "socks4",
    "socks5": "socks5",
    "socks5h": "socks5",
}

Asked = list[tuple[str, int]]


def way(
    proxy: Any, host: str = BEYOND, port: int = 25, *, seconds: float | None = SOON, **target: Any
) -> Reached:
    proxies = parse_proxies(proxy, host=host)
    return reach(Target(host=host, port=port, **target), proxies, deadline=Deadline.after(seconds))


def greeting_of(reached: Reached) -> bytes:
    """What the server says first; the stream is closed then."""
    data = b""
    try:
        while not data.endswith(b"\r\n") and (piece := reached.stream.receive(Deadline.after(SOON))):
            data += piece
    finally:
        reached.stream.close()
    return data


def url(proxy: ScriptedProxy, scheme: str, host: str | None = None) -> str:
    return f"{scheme}://{host or proxy.host}:{proxy.port}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Whatever goes to the resolver. It knows localhost, and an address of each family for two names."""
    questions: Asked = []
    known = {
        "localhost": [(socket.AF_INET, "127.0.0.1")],
        "both.test": [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")],
        "six.test": [(socket.AF_INET6, "::1")],
    }

    def getaddrinfo(host: str, port: int, family: int = 0, *_: Any) -> list[Any]:
        questions.append((host, family))
        rows = [(kind, a) for kind, a in known.get(host, []) if family in (0, kind)]
        if not rows:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (kind, socket.SOCK_STREAM, 6, "", (a, port) if kind == socket.AF_INET else (a, port, 0, 0))
            for kind, a in rows
        ]

    def forbidden(*arguments: object) -> Any:
        raise AssertionError(f"the resolver was asked in another way: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        monkeypatch.setattr(socket, name, forbidden)
    return questions


# ---- who resolves the target's name


@pytest.mark.parametrize("scheme", ["http", "socks4a", "socks5", "socks5h"])
def test_the_proxy_alone_hears_the_targets_name(
    scheme: str, asked: Asked, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    assert greeting_of(way(url(proxy, scheme, "localhost"))) == GREETING
    assert [host for host, _ in asked] == ["localhost"]
    assert proxy.targets == [f"{BEYOND}:25"]


def test_socks4_resolves_here_and_ipv4_only(asked: Asked, scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks4", greeting=GREETING)
    assert greeting_of(way(url(proxy, "socks4"), "both.test")) == GREETING
    assert asked == [("both.test", socket.AF_INET)]
    assert proxy.targets == ["127.0.0.1:25"]


@pytest.mark.parametrize("host", ["six.test", "::1", "nowhere.test"])
def test_socks4_cannot_reach_ipv6(host: str, asked: Asked, scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks4", greeting=GREETING)
    with pytest.raises(NameNotResolved) as caught:
        way(url(proxy, "socks4"), host)
    assert caught.value.stage == "proxy"
    assert proxy.targets in ([], [""])


@pytest.mark.parametrize(
    ("scheme", "host", "target"),
    [
        ("http", "192.0.2.1", "192.0.2.1:25"),
        ("http", "2001:db8::1", "[2001:db8::1]:25"),
        ("http", "[2001:DB8:0::1]", "[2001:db8::1]:25"),
        ("socks5", "192.0.2.1", "192.0.2.1:25"),
        ("socks5", "2001:db8::1", "[2001:db8::1]:25"),
        ("socks4", "192.0.2.1", "192.0.2.1:25"),
        ("socks4a", "192.0.2.1", "192.0.2.1:25"),
    ],
)
def test_addresses_go_to_the_proxy_as_addresses(
    scheme: str, host: str, target: str, asked: Asked, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    assert greeting_of(way(url(proxy, scheme), host)) == GREETING
    assert proxy.targets == [target]
    assert asked == []


@pytest.mark.skipif(importlib.util.find_spec("idna") is None, reason="the extra idna is not installed")
def test_international_names_go_to_the_proxy_in_ascii(scripted_proxy: StartScriptedProxy) -> None:
    for scheme in ("http", "socks4a", "socks5"):
        proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
        assert greeting_of(way(url(proxy, scheme), "fa\u00df.test")) == GREETING
        assert proxy.targets == ["xn--fa-hia.test:25"]


@pytest.mark.parametrize("scheme", list(PROTOCOLS))
@pytest.mark.parametrize(
    "bad", ["\r", "\n", "\0", " ", "@", "/", "\r\nHost: x\r\n", "%0d%0a", ":", "?", "\\"]
)
def test_what_is_no_host_never_reaches_the_wire(
    scheme: str, bad: str, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    with pytest.raises(ConfigurationError):
        way(url(proxy, scheme), f"mx{bad}beyond.test")
    hop = ProxyURL(scheme="http", host=f"mx{bad}beyond.test", port=80)
    chain = (*parse_proxies(url(proxy, scheme), host=BEYOND), hop)
    with pytest.raises(ConfigurationError):  # nor as a later proxy of a chain
        reach(Target(host=BEYOND, port=25), chain, deadline=Deadline.after(SOON))
    assert proxy.requests == []


@pytest.mark.parametrize("scheme", ["socks4a", "socks5"])
def test_a_name_that_socks_has_no_room_for(scheme: str, scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    longest = ".".join(["a" * 31] * 3 + ["b" * 31])
    assert len(longest) == 127
    assert greeting_of(way(url(proxy, scheme), longest)) == GREETING
    with pytest.raises(ProxyFailed, match=r"too long.*127 bytes"):
        way(url(proxy, scheme), longest + "c")
    assert proxy.targets[0] == f"{longest}:25"
    assert proxy.targets[1:] in ([], [""])


# ---- what is known of the way


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks4a", "socks5"])
def test_what_was_said_and_how_long_it_took(scheme: str, scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    reached = way(url(proxy, scheme), "127.0.0.1")
    assert not reached.is_loopback
    assert reached.dialed is not None
    (said,) = reached.said
    assert url(proxy, scheme) in said
    assert "127.0.0.1:25" in said
    assert set(reached.seconds) == {"proxy", "dns", "tcp"}
    assert 0 < reached.seconds["proxy"] < SOON
    reached.stream.close()


def test_without_proxies_the_way_is_direct_and_may_be_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reached = way([], "127.0.0.1", server.getsockname()[1])
        assert (reached.said, reached.is_loopback) == ((), True)
        assert set(reached.seconds) == {"dns", "tcp"}
        reached.stream.close()


def test_a_unix_socket_cannot_be_reached_through_a_proxy(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks5", greeting=GREETING)
    with pytest.raises(ConnectFailed, match="UNIX socket") as caught:
        way(url(proxy, "socks5"), unix_path="/run/smtp")
    assert caught.value.stage == "proxy"
    assert proxy.requests == []


# ---- chains


def test_a_chain_asks_each_proxy_for_the_next(scripted_proxy: StartScriptedProxy) -> None:
    last = scripted_proxy("socks4", greeting=GREETING)
    middle = scripted_proxy("connect", target=last.address)
    first = scripted_proxy("socks5", target=middle.address)
    chain = [url(first, "socks5"), "http://middle.test:3128", "socks4a://last.test"]
    reached = way(chain)
    assert len(reached.said) == 3
    assert greeting_of(reached) == GREETING
    assert (first.targets, middle.targets, last.targets) == (
        ["middle.test:3128"],
        ["last.test:1080"],
        [f"{BEYOND}:25"],
    )


def test_a_later_proxy_of_a_chain_is_named_when_it_fails(scripted_proxy: StartScriptedProxy) -> None:
    last = scripted_proxy("connect", fault="403")
    first = scripted_proxy("socks5", target=last.address)
    with pytest.raises(ProxyFailed, match=r"http://last\.test:80 answered 403") as caught:
        way([url(first, "socks5"), "http://last.test"])
    assert (caught.value.stage, caught.value.status) == ("proxy", 403)
    wait_until(lambda: first.open_connections == 0, SOON)


def test_a_chain_through_proxies_at_ipv6_addresses(scripted_proxy: StartScriptedProxy) -> None:
    last = scripted_proxy("connect", greeting=GREETING)
    first = scripted_proxy("connect", target=last.address)
    assert greeting_of(way([url(first, "http"), "http://[2001:db8::2]:3128"])) == GREETING
    assert first.targets == ["[2001:db8::2]:3128"]


# ---- TLS to the proxy


def test_the_proxys_certificate_is_verified_with_its_own_authority_and_name(
    identities: Certificates, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy("connect", greeting=GREETING, identity=identities.good)
    trusting = {"url": url(proxy, "https", "localhost"), "tls": {"ca_file": str(identities.ca_file)}}
    reached = way(trusting)
    assert not reached.stream.secure, "TLS to the proxy is not TLS to the server"
    assert reached.stream.tls is None
    assert greeting_of(reached) == GREETING
    assert proxy.connections[0].server_name == "localhost"


@pytest.mark.parametrize(
    "tls", [None, {"ca_file": "other"}, {"ca_file": "own", "server_hostname": "elsewhere.test"}]
)
def test_a_proxy_that_does_not_prove_itself_gets_no_request(
    tls: dict[str, str] | None, identities: Certificates, scripted_proxy: StartScriptedProxy
) -> None:
    files = {"other": str(identities.other_ca_file), "own": str(identities.ca_file)}
    own = None if tls is None else {name: files.get(value, value) for name, value in tls.items()}
    proxy = scripted_proxy("connect", greeting=GREETING, identity=identities.good)
    with pytest.raises(CertificateRejected, match="TLS to the proxy https://localhost") as caught:
        way({"url": f"https://user:password@localhost:{proxy.port}", "tls": own})
    assert caught.value.stage == "proxy"
    assert proxy.requests == [b""]


def test_tls_inside_tls_shows_each_peer_its_own_name(
    identities: Certificates, scripted_proxy: StartScriptedProxy
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identities.wrong_host.cert_file, identities.wrong_host.key_file)
    names: list[str] = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)  # type: ignore[assignment]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            raw, _ = listening.accept()
            with raw, context.wrap_socket(raw, server_side=True) as tls:
                tls.sendall(GREETING)
                tls.recv(1)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        proxy = scripted_proxy("connect", target=listening.getsockname(), identity=identities.good)
        value = {"url": url(proxy, "https", "localhost"), "tls": {"ca_file": str(identities.ca_file)}}
        reached = way(value, "other.lab.test")
        options = TLSOptions(ca_file=str(identities.ca_file))
        handshake = Handshake(reached.stream, options, host="other.lab.test", server="other.lab.test:25")
        handshake.perform(mode="tls", deadline=Deadline.after(SOON))
        assert reached.stream.secure
        assert greeting_of(reached) == GREETING
        server.join(SOON)
        assert not server.is_alive()
    assert names == ["other.lab.test"]
    assert proxy.connections[0].server_name == "localhost"


# ---- nothing stays behind


@pytest.mark.parametrize("fault", ["403", "close in the reply", "silence", "garbage"])
def test_after_a_failure_no_descriptor_is_open(fault: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with ScriptedProxy("connect", fault=fault) as proxy, pytest.raises(ConnectFailed):
        way(url(proxy, "http"), seconds=0.3)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_interrupt_closes_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("mailbridge.net.proxy.route.http_connect", interrupted)
    with ScriptedProxy("connect", greeting=GREETING) as proxy:
        with pytest.raises(KeyboardInterrupt):
            way(url(proxy, "http"))
        wait_until(lambda: proxy.connections != [] and proxy.open_connections == 0, SOON)


def test_a_proxys_name_that_dns_does_not_answer_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: may_go_on.wait(SOON) and [])
    try:
        with pytest.raises(ConnectTimeout, match=r"socks5://proxy.test:1080 can't be reached") as caught:
            way("socks5://proxy.test", seconds=0.1)
    finally:
        may_go_on.set()
    assert (caught.value.stage, caught.value.server) == ("proxy", f"{BEYOND}:25")
