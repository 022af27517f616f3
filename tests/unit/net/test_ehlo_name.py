"""The name in EHLO: a full host name if there is one, else the address of the session's end; without DNS."""

import socket

import pytest

from mailbridge.net.ehlo_name import ehlo_name


@pytest.fixture(autouse=True)
def _no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the resolver was asked")

    for name in ("getfqdn", "getaddrinfo", "gethostbyname", "gethostbyaddr"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.parametrize("name", ["web-1.example.com", "a.b", "xn--bcher-kva.example"])
def test_the_full_name_of_this_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert ehlo_name("192.0.2.1:4711") == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "web-1",
            "localhost",
            "web.local",
            "localhost.localdomain",
            "",
            "a b.example",
            "a..b",
            "-a.example",
        ),
        *("a\r\nRCPT.example", "192.0.2.7", "büro.example", f"{'a' * 64}.example", ".".join(["a" * 60] * 5)),
    ],
)
@pytest.mark.parametrize(
    ("sockname", "literal"),
    [
        ("192.0.2.1:4711", "[192.0.2.1]"),
        ("[2001:db8::1]:4711", "[IPv6:2001:db8::1]"),
        ("[fe80::1%eth0]:4711", "[IPv6:fe80::1]"),
        ("", "[127.0.0.1]"),
        ("/run/smtp", "[127.0.0.1]"),
    ],
)
def test_an_address_in_the_place_of_a_name(
    name: str, sockname: str, literal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert ehlo_name(sockname) == literal
