"""CONNECT byte for byte: what goes out, what each answer means, and what behind it belongs to the target."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailbridge import ProxyFailed, ProxyURL, Secret
from mailbridge.deadline import Deadline
from mailbridge.net.proxy.http_connect import MAX_HEADER, http_connect
from mailbridge.net.stream import Stream

TARGET = ("mx.example", 587)
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"
SOON = 10.0  # seconds; reaching it is a failure


class Talk:
    """A proxy that has said all it will say before it is asked: nothing here waits."""

    def __init__(self) -> None:
        ours, self.proxy = socket.socketpair()
        self.stream = Stream(ours)
        self.deadline = Deadline.after(SOON)

    def ask(self, answer: bytes, target: tuple[str, int] = TARGET, **proxy: Any) -> str:
        self.proxy.sendall(answer)
        self.proxy.shutdown(socket.SHUT_WR)
        value = ProxyURL(**{"scheme": "http", "host": "proxy.example", "port": 3128, **proxy})
        return http_connect(self.stream, value, target, self.deadline)

    def rest(self) -> bytes:
        data = b""
        while piece := self.stream.receive(self.deadline):
            data += piece
        return data

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


# ---- the request


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        (("mx.example", 587), b"mx.example:587"),
        (("192.0.2.1", 25), b"192.0.2.1:25"),
        (("2001:db8::1", 465), b"[2001:db8::1]:465"),
    ],
)
def test_the_request_without_credentials(target: tuple[str, int], authority: bytes, talk: Talk) -> None:
    said = talk.ask(OK, target)
    assert talk.heard() == b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)
    assert said == f"CONNECT {authority.decode()}: 200 Connection established"


@pytest.mark.parametrize(
    ("username", "password", "token"),
    [
        ("Aladdin", "open sesame", b"QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),  # RFC 7617 section 2
        ("test", "123\u00a3", b"dGVzdDoxMjPCow=="),  # RFC 7617 section 2.1
        ("user", None, b"dXNlcjo="),
        ("user", "a:b", b"dXNlcjphOmI="),
    ],
)
def test_basic_credentials(username: str, password: str | None, token: bytes, talk: Talk) -> None:
    talk.ask(OK, username=username, password=None if password is None else Secret(password))
    assert b"\r\nProxy-Authorization: Basic %b\r\n" % token in talk.heard()


# ---- answers that open the tunnel


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 299 Fine\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 8 + OK,
        b"HTTP/1.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (MAX_HEADER - 100) + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("greeting", [b"", b"220 mx ESMTP\r\n", b"220-a\r\n" + b"x" * 100_000 + b"\r\n"])
def test_what_follows_the_answer_belongs_to_the_target(answer: bytes, greeting: bytes, talk: Talk) -> None:
    talk.proxy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    assert talk.ask(answer + greeting)
    assert talk.rest() == greeting


# ---- answers that do not


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403, "answered 403 Forbidden.*administrator"),
        (b"HTTP/1.1 407 Login\r\n\r\n", 407, "answered 407 Login.*user:password@"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", 502, "could not reach the server"),
        (b"HTTP/1.1 503 \r\n\r\n", 503, "answered 503.*could not reach"),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", 504, "could not reach"),
        (b"HTTP/1.1 199 Odd\r\n\r\nHTTP/1.1 300 Odd\r\n\r\n", 300, "answered 300 Odd"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", 999, "answered 999 Odd"),
        (b"HTTP/1.1 500 " + b"x" * 5000 + b"\r\n\r\n", 500, "answered 500 x+"),
        (b"HTTP/1.1 500 \x1b[2J\r\n\r\n", 500, r"answered 500 \\x1b\[2J"),
    ],
)
def test_a_refusal_has_status_reason_and_hint(answer: bytes, status: int, words: str, talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match=words) as caught:
        talk.ask(answer)
    assert caught.value.status == status
    assert "http://proxy.example:3128" in caught.value.message
    assert len(str(caught.value)) < 600


def test_407_with_credentials_does_not_ask_for_some(talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match=r"407.*does not accept these credentials"):
        talk.ask(b"HTTP/1.1 407 Login\r\n\r\n", username="u", password=Secret("p"))


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mx ESMTP\r\n\r\n",
        b"\x05\x00\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"\r\n" + OK,
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
        b"HTTP/1.1 100 Continue\n\n" + OK,
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 65536 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * 65536,
        b"A" * 65536,
    ],
)
def test_what_is_no_http(answer: bytes, talk: Talk) -> None:
    talk.proxy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with pytest.raises(ProxyFailed, match=r"did not answer in HTTP: .") as caught:
        talk.ask(answer)
    assert caught.value.status is None
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n" * 400 + OK,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEADER + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEADER,
    ],
)
def test_all_header_fields_together_have_an_end(answer: bytes, talk: Talk) -> None:
    assert MAX_HEADER == 8192
    talk.proxy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with pytest.raises(ProxyFailed, match="more than 8 KiB of header"):
        talk.ask(answer)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\n", b"HTTP/2", b"220 mx", b"HTTP/1.1 200 OK\rX"])
def test_what_can_become_no_answer_is_refused_at_once(answer: bytes, talk: Talk) -> None:
    """Not only at the end of a header that may never come: the proxy keeps its connection open."""
    talk.proxy.sendall(answer)
    with pytest.raises(ProxyFailed, match="did not answer in HTTP"):
        http_connect(
            talk.stream, ProxyURL(scheme="http", host="proxy.example", port=1), TARGET, Deadline.after(1)
        )


@pytest.mark.parametrize("size", range(len(OK)))
def test_an_answer_cut_short(size: int, talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match="closed the connection"):
        talk.ask(OK[:size])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: b"HTTP/1.1 " + tail + b"\r\n\r\n"))
def test_no_answer_makes_anything_but_a_tunnel_or_proxy_failed(answer: bytes) -> None:
    talk = Talk()
    try:
        assert talk.ask(answer).startswith("CONNECT mx.example:587: 2")
    except ProxyFailed:
        pass
    finally:
        talk.close()


# ---- quotations


@pytest.mark.parametrize(
    "quoted",
    [
        "dXNlcjpwYXNzIHc6b3JkIQ==",
        "dXNlcjpwYXNz",  # cut short
        "user:pass w:ord!",
        "you said pass w:or",
        "pass%20w%3Aord%21",
    ],
)
def test_a_reason_that_quotes_credentials_is_masked(quoted: str, talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match=r"answered 403 \*\*\*") as caught:
        talk.ask(
            f"HTTP/1.1 403 No: {quoted}\r\n\r\n".encode(), username="user", password=Secret("pass w:ord!")
        )
    assert quoted not in str(caught.value)


def test_a_reason_that_does_not_is_shown(talk: Talk) -> None:
    with pytest.raises(ProxyFailed, match="answered 403 Forbidden for user"):
        talk.ask(b"HTTP/1.1 403 Forbidden for user\r\n\r\n", username="user", password=Secret("passw:ord"))


# ---- time


def test_the_deadline_is_one_for_all_reads(talk: Talk) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0  # each look at the clock is a second later, however fast the proxy drips
        return now[0]

    talk.deadline = Deadline.after(20, clock)

    class Dripping(Stream):
        def receive(self, deadline: Deadline, limit: int = 65536) -> bytes:
            if deadline.is_over:
                raise TimeoutError
            return super().receive(deadline, 1)

    talk.stream.__class__ = Dripping
    with pytest.raises(TimeoutError):
        talk.ask(OK)
