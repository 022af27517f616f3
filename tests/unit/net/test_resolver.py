"""Names to addresses: what is a name, what is internal, and that the time limit holds."""

import socket
import sys
import threading
import time
from typing import Any

import pytest

from mailbridge.deadline import NEVER, Deadline
from mailbridge.errors import ConfigurationError, ConnectTimeout, NameNotResolved
from mailbridge.net.resolver import Address, ascii_host, literal, resolve, verifiable_name


def row(ip: str, port: int = 25) -> tuple[Any, ...]:
    if ":" in ip:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)


def answering(*ips: str) -> Any:
    return lambda *question: [row(ip) for ip in ips]


def must_not_be_asked(*question: object) -> Any:
    pytest.fail(f"the resolver was asked for {question}")


def address(ip: str) -> Address:
    found = literal(ip, 25)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("mail.example", "mail.example"),
        ("mail.example.", "mail.example."),
        ("MAIL.Example", "MAIL.Example"),
        ("mail_server", "mail_server"),
        ("xn--fa-hia.example", "xn--fa-hia.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("日本語.jp", "xn--wgv71a119e.jp"),
        ("bücher。example", "xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
@pytest.mark.needs("idna")
def test_names_as_they_stand_in_dns(host: str, expected: str) -> None:
    assert ascii_host(host) == expected


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "mail..example",
        "mail.example..",
        ".example",
        "a\r\nb",
        "a\0b",
        "a b",
        "a\x7fb",
        "-mail.example",
        "mail-.example",
        "mail/example",
        "user@mail.example",
        "mail.example:587",
        "[mail.example]",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "bü cher.example",
        "bü\r\ncher.example",
        "bü_cher.example",
        "ü..example",
        "\u200b",
    ],
)
def test_what_is_no_host_name(host: str) -> None:
    with pytest.raises(ConfigurationError, match="'host'"):
        ascii_host(host)


@pytest.mark.needs("idna")
def test_full_width_digits_are_no_way_to_an_address_that_was_not_checked() -> None:
    # UTS 46 maps them to ASCII digits: what comes out is looked up and vetted like any other name.
    [found] = resolve("127.0.0.1", 25, deadline=NEVER, getaddrinfo=must_not_be_asked)
    assert found.is_internal
    [mapped] = resolve("１２７.0.0.1", 25, deadline=NEVER, getaddrinfo=answering("127.0.0.1"))
    assert mapped.is_internal


def test_a_port_in_the_name_is_pointed_out() -> None:
    with pytest.raises(ConfigurationError, match="port does not belong"):
        ascii_host("mail.example:587")


def test_other_letters_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)
    assert ascii_host("mail.example") == "mail.example"
    with pytest.raises(ConfigurationError, match=r"mailbridge-smtp\[idna\]"):
        ascii_host("faß.example")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("mail.example.", "mail.example"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]", "fe80::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("faß.example", "xn--fa-hia.example"),
    ],
)
@pytest.mark.needs("idna")
def test_what_a_certificate_can_prove(host: str, expected: str) -> None:
    assert verifiable_name(host) == expected


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1:25"), ("::1", "[::1]:25"), ("[::1]", "[::1]:25"), ("0:0::1", "[::1]:25")],
)
def test_literals_need_no_resolver(host: str, shown: str) -> None:
    found = resolve(host, 25, deadline=Deadline.after(0), getaddrinfo=must_not_be_asked)
    assert [str(a) for a in found] == [shown]


def test_a_zone_becomes_the_scope_of_the_address() -> None:
    [found] = resolve("fe80::1%lo", 25, deadline=NEVER)
    assert found.sockaddr[3] == socket.if_nametoindex("lo")
    assert found.is_internal
    [numbered] = resolve("[fe80::1%7]", 25, deadline=NEVER)
    assert numbered.sockaddr[3] == 7
    with pytest.raises(NameNotResolved, match="interface"):
        resolve("fe80::1%nosuchif0", 25, deadline=NEVER)


@pytest.mark.parametrize("host", ["[127.0.0.1]", "127.1", "0x7f.1"])
def test_other_spellings_are_left_to_the_resolver(host: str) -> None:
    assert literal(host) is None


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::10.1.2.3",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:7f00:1::1",
    ],
)
def test_internal_addresses(ip: str) -> None:
    assert address(ip).is_internal


@pytest.mark.parametrize(
    "ip",
    [
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.32.0.1",
        "2606:4700::1",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ],
)
def test_public_addresses(ip: str) -> None:
    assert not address(ip).is_internal


def test_loopback_also_in_disguise() -> None:
    assert address("127.0.0.2").is_loopback
    assert address("::1").is_loopback
    assert address("::ffff:127.0.0.1").is_loopback
    assert not address("10.0.0.1").is_loopback
    assert not address("0.0.0.0").is_loopback


def test_the_resolvers_order_is_kept_and_each_address_comes_once() -> None:
    found = resolve(
        "m.example", 25, deadline=NEVER, getaddrinfo=answering("::1", "10.0.0.2", "::1", "10.0.0.1")
    )
    assert [str(a) for a in found] == ["[::1]:25", "10.0.0.2:25", "10.0.0.1:25"]


def test_the_resolver_is_asked_for_streams_of_the_family_only() -> None:
    asked: list[tuple[Any, ...]] = []

    def getaddrinfo(*question: Any) -> list[tuple[Any, ...]]:
        asked.append(question)
        return [row("10.0.0.1", 587)]

    resolve("m.example", 587, family="ipv4", deadline=NEVER, getaddrinfo=getaddrinfo)
    assert asked == [("m.example", 587, socket.AF_INET, socket.SOCK_STREAM)]


@pytest.mark.needs("idna")
def test_the_resolver_never_sees_other_letters() -> None:
    asked: list[str] = []

    def getaddrinfo(host: str, *rest: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [row("10.0.0.1")]

    resolve("faß.example", 25, deadline=NEVER, getaddrinfo=getaddrinfo)
    assert asked == ["xn--fa-hia.example"]


@pytest.mark.parametrize(("host", "family"), [("::1", "ipv4"), ("127.0.0.1", "ipv6"), ("m.example", "ipv6")])
def test_no_address_of_the_family(host: str, family: Any) -> None:
    with pytest.raises(NameNotResolved, match=r"has no IPv[46] address") as caught:
        resolve(host, 25, family=family, deadline=NEVER, getaddrinfo=answering("10.0.0.1"))
    assert caught.value.stage == "dns"


@pytest.mark.parametrize(
    ("code", "hint"), [(socket.EAI_NONAME, "spelling"), (socket.EAI_AGAIN, "DNS servers")]
)
def test_a_name_that_does_not_resolve(code: int, hint: str) -> None:
    def getaddrinfo(*question: object) -> Any:
        raise socket.gaierror(code, "Some reason")

    with pytest.raises(NameNotResolved, match=r"'no\.example' could not be resolved: Some reason") as caught:
        resolve("no.example", 25, deadline=NEVER, getaddrinfo=getaddrinfo)
    assert caught.value.errno == code
    assert caught.value.stage == "dns"
    assert caught.value.server == "no.example:25"
    assert hint in caught.value.hint
    assert caught.value.is_transient


def test_what_else_goes_wrong_in_the_resolver_reaches_the_caller() -> None:
    def getaddrinfo(*question: object) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        resolve("m.example", 25, deadline=NEVER, getaddrinfo=getaddrinfo)


def test_a_resolver_that_does_not_answer_is_left_behind() -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []
    began = time.monotonic()

    def getaddrinfo(*question: object) -> Any:
        threads.append(threading.current_thread())
        release.wait(10)
        return []

    try:
        with pytest.raises(
            ConnectTimeout, match=r"No answer from DNS for 'm\.example' within 0\.0"
        ) as caught:
            resolve("m.example", 25, deadline=Deadline.after(0.05), getaddrinfo=getaddrinfo)
        assert time.monotonic() - began < 2
        assert caught.value.stage == "dns"
        assert threads[0].daemon
    finally:
        release.set()
        threads[0].join(10)


def test_nobody_is_asked_once_the_deadline_is_over() -> None:
    with pytest.raises(ConnectTimeout):
        resolve("m.example", 25, deadline=Deadline.after(0), getaddrinfo=must_not_be_asked)


def test_the_hosts_file_counts() -> None:
    assert all(a.is_loopback for a in resolve("localhost", 25, deadline=Deadline.after(10)))
