"""SOCKS byte for byte: what goes out, what each reply means, and that no byte behind it is taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge import ProxyFailed, ProxyURL, Secret
from mailbridge.deadline import Deadline
from mailbridge.net.proxy.socks import LONGEST_NAME, socks_connect
from mailbridge.net.stream import Stream

pytestmark = pytest.mark.needs("socks")

TARGET = ("mx.example", 587)
PORT = (587).to_bytes(2, "big")
GREETING = b"220 mx ESMTP\r\n"
SOON = 10.0  # seconds; reaching it is a failure
BOUND = b"\x01\x7f\0\0\x01\0\x19"
OK5 = b"\x05\0\0" + BOUND
OK4 = b"\0\x5a" + bytes(6)


class Talk:
    """A proxy that has said all it will say before it is asked: nothing here waits."""

    def __init__(self) -> None:
        ours, self.proxy = socket.socketpair()
        self.stream = Stream(ours)
        self.deadline = Deadline.after(SOON)

    def ask(self, scheme: str, answer: bytes, target: tuple[str, int] = TARGET, **proxy: Any) -> str:
        self.proxy.sendall(answer)
        self.proxy.shutdown(socket.SHUT_WR)
        value = ProxyURL(**{"scheme": scheme, "host": "proxy.example", "port": 1080, **proxy})
        return socks_connect(self.stream, value, target, self.deadline)

    def rest(self) -> bytes:
        return self.stream.receive(self.deadline)

    def heard(self) -> bytes:
        return self.proxy.recv(65536)

    def close(self) -> None:
        self.stream.close()
        self.proxy.close()


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.close()


# ---- requests


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("mx.example", b"\x03\x0amx.example"),
        ("192.0.2.1", b"\x01\xc0\0\x02\x01"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
        ("a" * LONGEST_NAME, None),
    ],
)
def test_socks5_without_login(host: str, address: bytes | None, talk: Talk) -> None:
    if address is None:
        host = ".".join(["a" * 31] * 4)
        address = b"\x03\x7f" + host.encode()
    said = talk.ask("socks5", b"\x05\0" + OK5 + GREETING, (host, 587))
    assert talk.heard() == b"\x05\x01\0" + b"\x05\x01\0" + address + PORT
    assert said == f"SOCKS5 to {host}:587"
    assert talk.rest() == GREETING


def test_socks5_with_login(talk: Talk) -> None:
    account: dict[str, Any] = {"username": "us\u00e9r", "password": Secret("p:w")}
    talk.ask("socks5", b"\x05\x02" + b"\x01\0" + OK5 + GREETING, **account)
    hello, login = b"\x05\x02\0\x02", b"\x01\x05us\xc3\xa9r\x03p:w"
    assert talk.heard() == hello + login + b"\x05\x01\0\x03\x0amx.example" + PORT
    assert talk.rest() == GREETING


def test_socks5_that_wants_no_login_though_one_is_there_does_not_get_it(talk: Talk) -> None:
    talk.ask("socks5", b"\x05\0" + OK5, username="user", password=Secret("secret"))
    heard = talk.heard()
    assert heard.startswith(b"\x05\x02\0\x02\x05\x01\0")
    assert b"secret" not in heard


@pytest.mark.parametrize(("username", "user_id"), [(None, b""), ("me", b"me")])
def test_socks4_and_4a(username: str | None, user_id: bytes, talk: Talk) -> None:
    talk.ask("socks4a", OK4 + GREETING, username=username)
    assert talk.heard() == b"\x04\x01" + PORT + b"\0\0\0\x01" + user_id + b"\0" + b"mx.example\0"
    assert talk.rest() == GREETING
    other = Talk()
    try:
        other.ask("socks4", OK4, ("192.0.2.1", 587), username=username)
        assert other.heard() == b"\x04\x01" + PORT + b"\xc0\0\x02\x01" + user_id + b"\0"
    finally:
        other.close()


def test_a_name_too_long(talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match="127 bytes"):
        talk.ask("socks5", b"", ("a" * (LONGEST_NAME + 1), 587))
    talk.stream.close()
    assert talk.heard() == b""


# ---- replies


@pytest.mark.parametrize(
    "bound",
    [
        BOUND,
        b"\x04" + bytes(16) + b"\0\x19",
        b"\x03\x05proxy\0\x19",
        b"\x03\0\0\x19",
        b"\x03\xff" + b"a" * 257,
    ],
)
def test_whatever_address_is_bound_the_greeting_stays(bound: bytes, talk: Talk) -> None:
    talk.ask("socks5", b"\x05\0\x05\0\0" + bound + GREETING)
    assert talk.rest() == GREETING


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        ("socks5", b"\x04\0", "refused: SOCKS5 proxy server sent invalid data"),
        ("socks5", b"HTTP/1.1 400 Bad\r\n", "invalid data"),
        ("socks5", b"\x05\xff", "methods were rejected.*write them into its URL"),
        ("socks5", b"\x05\x02", "requested username/password.*write them into its URL"),
        ("socks5", b"\x05\x01", "invalid data"),
        *(
            ("socks5", b"\x05\0\x05" + bytes([code]) + b"\0", f"refused: 0x{code:02x}: ")
            for code in range(1, 256)
        ),
        ("socks5", b"\x05\0\x04\0\0" + BOUND, "invalid data"),
        ("socks5", b"\x05\0\x05\0\0\x02abcd\0\0", "invalid data"),
        ("socks4", b"\x04\x5a" + bytes(6), "invalid data"),
        *(
            ("socks4", b"\0" + bytes([code]) + bytes(6), f"refused: 0x{code:02x}: ")
            for code in (0, 91, 92, 93, 255)
        ),
    ],
)
def test_a_refusal_is_told_in_the_proxys_words(scheme: str, answer: bytes, words: str, talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match=words) as caught:
        talk.ask(scheme, answer, ("192.0.2.1", 587))
    assert f"{scheme}://proxy.example:1080" in caught.value.message
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("answer", [b"\x05\x02\x01\x01", b"\x05\x02\x05\0"])
def test_a_login_that_fails(answer: bytes, talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match="refused: SOCKS5") as caught:
        talk.ask("socks5", answer, username="user", password=Secret("Sentinel"))
    assert "Sentinel" not in f"{caught.value!r}{caught.value}"


@pytest.mark.parametrize(
    ("scheme", "whole"),
    [("socks5", b"\x05\0" + OK5), ("socks4", OK4), ("socks5", b"\x05\0\x05\0\0\x03\x05ab")],
)
def test_a_reply_cut_short_is_a_closed_connection(scheme: str, whole: bytes) -> None:
    for size in range(len(whole)):
        talk = Talk()
        try:
            with pytest.raises(ProxyFailed, match="closed the connection"):
                talk.ask(scheme, whole[:size], ("192.0.2.1", 587))
        finally:
            talk.close()


@given(st.sampled_from(["socks4", "socks4a", "socks5"]), st.binary(max_size=40))
def test_no_reply_makes_anything_but_a_way_or_proxy_failed(scheme: str, answer: bytes) -> None:
    talk = Talk()
    try:
        with suppress(ProxyFailed):
            assert talk.ask(scheme, answer)
    finally:
        talk.close()


def test_the_deadline_is_one_for_all_reads(talk: Talk) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0  # each look at the clock is a second later, however fast the proxy drips
        return now[0]

    class Dripping(Stream):
        def receive(self, deadline: Deadline, limit: int = 65536) -> bytes:
            if deadline.is_over:
                raise TimeoutError
            return super().receive(deadline, 1)

    talk.deadline = Deadline.after(40, clock)
    talk.stream.__class__ = Dripping
    with pytest.raises(TimeoutError):
        talk.ask("socks5", b"\x05\0\x05\0\0\x03\xff" + b"a" * 257)
