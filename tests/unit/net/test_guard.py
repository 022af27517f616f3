"""The guard behind proxies: which bytes each kind of proxy gets, and what never comes to a proxy."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from mailbridge import (
    ConnectFailed,
    ConnectTimeout,
    NameNotResolved,
    ProxyFailed,
    SMTPConfig,
    SMTPConnection,
    open_channel,
)
from mailbridge.config.proxies import parse_proxies
from mailbridge.deadline import Deadline
from mailbridge.net.dialer import Target
from mailbridge.net.guard import MOST_ADDRESSES
from mailbridge.net.proxy.route import Reached, reach
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.process import wait_until
from tests.servers.proxy_dialogues import SUCCESS, UNREACHABLE
from tests.servers.proxy_faults import Fault, Protocol, Then
from tests.servers.scripted_proxy import ScriptedProxy

pytestmark = pytest.mark.needs("socks")

GREETING = b"220 mx.test ESMTP\r\n"
SOON = 10.0  # seconds; reaching it is a failure
PROTOCOLS: dict[str, Protocol] = {
    "http": "connect",
    "socks4": "socks4",
    "socks4a": "socks4",
    "socks5": "socks5",
}
PUBLIC, PUBLIC6, INTERNAL, INTERNAL6 = "8.8.4.4", "2606:4700::1", "10.0.0.1", "fd00::1"
NAMES = {
    "public.test": [PUBLIC],
    "both.test": [PUBLIC6, PUBLIC],
    "six.test": [PUBLIC6],
    "internal.test": [INTERNAL],
    "internals.test": [INTERNAL6, INTERNAL],
    "mixed.test": [INTERNAL, PUBLIC, INTERNAL6],
    "many.test": [f"8.8.4.{last}" for last in range(1, 20)],
}
V4, V6 = socket.inet_pton(socket.AF_INET, PUBLIC), socket.inet_pton(socket.AF_INET6, PUBLIC6)


def way(
    proxy: ScriptedProxy, scheme: str, host: str, *, seconds: float | None = SOON, **target: Any
) -> Reached:
    proxies = parse_proxies(f"{scheme}://{proxy.host}:{proxy.port}", host=host)
    target = {"allow_internal_networks": False, **target}
    return reach(Target(host=host, port=25, **target), proxies, deadline=Deadline.after(seconds))


def greeting_of(reached: Reached) -> bytes:
    """What the server says first; the stream is closed then."""
    data = b""
    try:
        while not data.endswith(b"\r\n") and (piece := reached.stream.receive(Deadline.after(SOON))):
            data += piece
    finally:
        reached.stream.close()
    return data


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that went to the resolver. It knows `NAMES`."""
    questions: list[str] = []

    def getaddrinfo(host: str, port: int, family: int = 0, *_: Any) -> list[Any]:
        questions.append(host)
        rows = [(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip) for ip in NAMES.get(host, [])]
        rows = [row for row in rows if family in (0, row[0])]
        if not rows:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (kind, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0)[: 2 if "." in ip else 4]) for kind, ip in rows
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return questions


# ---- what the proxy gets


SOCKS4, SOCKS5, PORT = b"\x04\x01\x00\x19", b"\x05\x01\x00", b"\x00\x19"
CONNECT = b"CONNECT %s:25 HTTP/1.1\r\nHost: %s:25\r\n\r\n"
BY_ADDRESS = {
    "http": CONNECT % (b"8.8.4.4", b"8.8.4.4"),
    "socks4": SOCKS4 + V4 + b"\0",
    "socks4a": SOCKS4 + V4 + b"\0",
    "socks5": SOCKS5 + b"\x01" + V4 + PORT,
}
BY_NAME = {
    "http": CONNECT % (b"public.test", b"public.test"),
    "socks4": SOCKS4 + V4 + b"\0",  # it knows no names
    "socks4a": SOCKS4 + b"\0\0\0\x01" + b"\0" + b"public.test\0",
    "socks5": SOCKS5 + b"\x03\x0bpublic.test" + PORT,
}


@pytest.mark.parametrize("scheme", list(PROTOCOLS))
@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, BY_ADDRESS),
        ({"guard_names": "local"}, BY_ADDRESS),
        ({"guard_names": "proxy"}, BY_NAME),
        ({"allow_internal_networks": True}, BY_NAME),
        ({"allow_internal_networks": True, "guard_names": "local"}, BY_NAME),
    ],
)
def test_the_proxy_gets_an_address_or_a_name(
    scheme: str,
    options: dict[str, Any],
    wanted: dict[str, bytes],
    asked: list[str],
    scripted_proxy: StartScriptedProxy,
) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    assert greeting_of(way(proxy, scheme, "public.test", **options)) == GREETING
    (request,) = proxy.requests
    assert request.removeprefix(b"\x05\x01\x00" if scheme == "socks5" else b"") == wanted[scheme]
    is_address = wanted[scheme] == BY_ADDRESS[scheme]
    assert asked == (["public.test"] if is_address else [])


@pytest.mark.parametrize(
    ("scheme", "wanted"),
    [
        ("http", CONNECT % (b"[2606:4700::1]", b"[2606:4700::1]")),
        ("socks4a", SOCKS4 + b"\0\0\0\x01" + b"\0" + b"2606:4700::1\0"),
        ("socks5", SOCKS5 + b"\x04" + V6 + PORT),
    ],
)
def test_an_ipv6_address(scheme: str, wanted: bytes, scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    way(proxy, scheme, "six.test").stream.close()
    assert proxy.requests[0].endswith(wanted)


def test_a_chain_asks_its_last_proxy_for_the_address(
    asked: list[str], scripted_proxy: StartScriptedProxy
) -> None:
    last = scripted_proxy("connect", greeting=GREETING)
    first = scripted_proxy("socks5", target=last.address)
    chain = parse_proxies([f"socks5://{first.host}:{first.port}", "http://last.test"], host="public.test")
    target = Target(host="public.test", port=25, allow_internal_networks=False)
    assert greeting_of(reach(target, chain, deadline=Deadline.after(SOON))) == GREETING
    assert (first.targets, last.targets) == (["last.test:80"], [f"{PUBLIC}:25"])
    assert asked == ["public.test"], "where the proxies of a chain are is their owner's business"


@pytest.mark.parametrize(
    ("host", "options", "wanted"),
    [
        ("public.test", {}, PUBLIC),
        ("public.test", {"guard_names": "proxy"}, "public.test"),
        ("both.test", {"family": "ipv4"}, PUBLIC),
        ("both.test", {"family": "ipv6"}, PUBLIC6),
    ],
)
def test_a_handler_gets_the_address(host: str, options: dict[str, Any], wanted: str) -> None:
    got: list[Any] = []

    def handler(proxy: object, target: object, deadline: object) -> socket.socket:
        got.append(target)
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    proxies = parse_proxies({"url": "gate://gate.test:7", "handler": handler}, host=host)
    target = Target(host=host, port=25, allow_internal_networks=False, **options)
    reach(target, proxies, deadline=Deadline.after(SOON)).stream.close()
    assert got == [(wanted, 25)]


@pytest.mark.parametrize(("names", "wanted"), [("local", PUBLIC), ("proxy", "public.test")])
def test_the_option_holds_for_mail_and_for_channels(
    names: Any, wanted: str, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy("connect", fault="403")
    config = SMTPConfig(
        host="public.test",
        port=25,
        proxy=f"http://{proxy.host}:{proxy.port}",
        allow_internal_networks=False,
        guard_names=names,
    )
    with pytest.raises(ProxyFailed):
        SMTPConnection(config).connect()
    with pytest.raises(ProxyFailed):
        open_channel(config, "public.test", 25)
    assert proxy.targets == [f"{wanted}:25"] * 2


# ---- what never comes to a proxy


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "::1",
        "[::1]",
        "169.254.169.254",
        "::ffff:10.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        # What the proxy reads as such an address: digits, letters and dots of other alphabets are mapped.
        "127.0.0.1.",
        "0x7f000001.",
        pytest.param("１２７.０.０.１", marks=pytest.mark.needs("idna")),
        pytest.param("127。0。0。1", marks=pytest.mark.needs("idna")),
        pytest.param("①②⑦.0.0.1", marks=pytest.mark.needs("idna")),
        pytest.param("127.0.0.1\u200b", marks=pytest.mark.needs("idna")),
        pytest.param("２１３０７０６４３３", marks=pytest.mark.needs("idna")),
        pytest.param("0ｘ7f000001", marks=pytest.mark.needs("idna")),
        "localhost",
        "localhost.",
        "a.localhost",
        pytest.param("ｌｏｃａｌｈｏｓｔ", marks=pytest.mark.needs("idna")),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "socks5", "socks4"])
@pytest.mark.parametrize("names", ["local", "proxy"])
def test_what_is_internal_as_it_is_spelled(
    names: str, scheme: str, host: str, asked: list[str], scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    with pytest.raises(ConnectFailed, match=r"internal.*allow_internal_networks"):
        way(proxy, scheme, host, guard_names=names)
    assert (proxy.requests, asked) == ([], [])


@pytest.mark.parametrize("scheme", list(PROTOCOLS))
@pytest.mark.parametrize(
    ("host", "where"), [("internal.test", "10.0.0.1"), ("internals.test", "fd00::1 and 10.0.0.1")]
)
def test_a_name_that_leads_to_internal_addresses_alone(
    scheme: str, host: str, where: str, scripted_proxy: StartScriptedProxy
) -> None:
    where = "10.0.0.1" if scheme == "socks4" else where
    proxy = scripted_proxy(PROTOCOLS[scheme], greeting=GREETING)
    with pytest.raises(ConnectFailed, match=rf"'{host}' is internal \({where}\).*allow_internal_n") as caught:
        way(proxy, scheme, host)
    assert (caught.value.stage, caught.value.server) == ("proxy", f"{host}:25")
    assert proxy.connections == []


def test_socks4_has_no_names_to_leave_to_the_proxy(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks4", greeting=GREETING)
    with pytest.raises(ConnectFailed, match=r"internal \(10\.0\.0\.1\)"):
        way(proxy, "socks4", "internal.test", guard_names="proxy")
    assert proxy.connections == []


@pytest.mark.parametrize("scheme", list(PROTOCOLS))
def test_of_a_mixed_answer_the_public_address_alone_is_asked_for(
    scheme: str, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], fault=getting_to(b"none", PROTOCOLS[scheme]))
    with pytest.raises(ProxyFailed, match=rf"\(asked for {PUBLIC}\)") as caught:
        way(proxy, scheme, "mixed.test")
    assert proxy.targets == [f"{PUBLIC}:25"]
    assert caught.value.server == "mixed.test:25"


def test_a_name_that_is_not_known_here(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks5", greeting=GREETING)
    with pytest.raises(NameNotResolved) as caught:
        way(proxy, "socks5", "nowhere.test")
    assert (caught.value.stage, caught.value.server) == ("dns", "nowhere.test:25")
    assert "guard_names='proxy'" in caught.value.hint
    assert proxy.connections == []
    assert greeting_of(way(proxy, "socks5", "nowhere.test", guard_names="proxy")) == GREETING


def test_resolving_has_its_own_time_limit(
    monkeypatch: pytest.MonkeyPatch, scripted_proxy: StartScriptedProxy
) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: may_go_on.wait(SOON) and [])
    proxy = scripted_proxy("connect", greeting=GREETING)
    way_there = f"http://{proxy.host}:{proxy.port}"
    config = SMTPConfig(proxy=way_there, allow_internal_networks=False, timeouts={"dns": 0.1})
    try:
        with pytest.raises(ConnectTimeout, match="DNS") as caught:
            open_channel(config, "public.test", 25, tls=False)
    finally:
        may_go_on.set()
    assert (caught.value.stage, caught.value.server) == ("dns", "public.test:25")
    assert proxy.connections == []


def test_the_proxy_itself_may_be_internal(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks5", greeting=GREETING)
    assert proxy.host == "127.0.0.1"
    assert greeting_of(way(proxy, "socks5", "public.test")) == GREETING


# ---- several addresses


def getting_to(
    address: bytes, protocol: Protocol = "connect", *, then: Then = "close", answer: bytes | None = None
) -> Fault:
    """A proxy that gets to one address only, the one that these bytes say; else it says `answer`."""

    def pieces(request: bytes) -> list[bytes]:
        if address in request:
            return [SUCCESS[protocol] + GREETING]
        return [UNREACHABLE[protocol] if answer is None else answer]

    return Fault("reply", pieces, then=then)


@pytest.mark.parametrize(("scheme", "address"), [("http", b"8.8.4.4"), ("socks4a", V4), ("socks5", V4)])
def test_the_next_address_is_asked_for_where_the_proxy_did_not_get_to_one(
    scheme: str, address: bytes, asked: list[str], scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy(PROTOCOLS[scheme], fault=getting_to(address, PROTOCOLS[scheme]))
    assert greeting_of(way(proxy, scheme, "both.test")) == GREETING
    assert [target.translate({91: None, 93: None}) for target in proxy.targets] == [
        f"{PUBLIC6}:25",
        f"{PUBLIC}:25",
    ]
    assert asked == ["both.test"], "asked again, it could say something else"
    wait_until(lambda: proxy.open_connections == 0, SOON)


@pytest.mark.parametrize(
    ("answer", "then", "number"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "close", 2),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "close", 2),
        (b"", "close", 2),
        (b"", "reset", 2),
        (b"", "silence", 2),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "close", 1),
    ],
)
def test_which_failures_lead_to_the_next_address(
    answer: bytes, then: Then, number: int, scripted_proxy: StartScriptedProxy
) -> None:
    proxy = scripted_proxy("connect", fault=getting_to(b"none", answer=answer, then=then))
    with pytest.raises(ConnectFailed, match=r"asked for 2606:4700::1") as caught:
        way(proxy, "http", "both.test", seconds=0.4 if then == "silence" else SOON)
    assert proxy.targets == [f"[{PUBLIC6}]:25", f"{PUBLIC}:25"][:number]
    assert (f"and {PUBLIC})" in str(caught.value)) == (number == 2)
    assert (caught.value.stage, caught.value.server) == ("proxy", "both.test:25")


def test_a_silent_proxy_costs_an_address_its_share_of_the_time(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("connect", fault=getting_to(b"8.8.4.4", then="silence", answer=b""))
    assert greeting_of(way(proxy, "http", "both.test", seconds=0.6)) == GREETING


def test_a_proxy_that_is_down_or_not_reached_is_not_tried_again(scripted_proxy: StartScriptedProxy) -> None:
    first = scripted_proxy("connect", fault="403")
    chain = parse_proxies([f"http://{first.host}:{first.port}", "http://last.test"], host="both.test")
    target = Target(host="both.test", port=25, allow_internal_networks=False)
    with pytest.raises(ProxyFailed, match="answered 403") as caught:
        reach(target, chain, deadline=Deadline.after(SOON))
    assert first.targets == ["last.test:80"]
    assert "asked for" not in str(caught.value)
    first.refuse()
    with pytest.raises(ProxyFailed, match="can't be reached") as caught:
        way(first, "http", "both.test")
    assert "asked for" not in str(caught.value)


def test_somebody_elses_dns_makes_no_crowd_of_connections(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("connect", fault="403")
    with pytest.raises(ProxyFailed):
        way(proxy, "http", "many.test")
    assert proxy.targets == [f"{ip}:25" for ip in NAMES["many.test"][:MOST_ADDRESSES]]
