"""Handlers of the user's own: what they get, what they may give, and that none holds up a send."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mailbridge import ConnectTimeout, ProxyFailed, ProxyURL
from mailbridge.config.proxies import parse_proxies
from mailbridge.deadline import Deadline
from mailbridge.net.dialer import Target
from mailbridge.net.proxy import route
from mailbridge.net.proxy.route import Reached, reach
from tests.servers.certificates import Certificates
from tests.servers.fixtures import StartScriptedProxy

BEYOND = "mx.beyond.test"  # a name that exists nowhere
GREETING = b"220 mx.test ESMTP\r\n"
SOON = 10.0  # seconds; reaching it is a failure


def way(proxy: Any, *, seconds: float | None = SOON) -> Reached:
    proxies = parse_proxies(proxy, host=BEYOND)
    return reach(Target(host=BEYOND, port=25), proxies, deadline=Deadline.after(seconds))


def greeting_of(reached: Reached) -> bytes:
    """What the server says first; the stream is closed then."""
    data = b""
    try:
        while not data.endswith(b"\r\n") and (piece := reached.stream.receive(Deadline.after(SOON))):
            data += piece
    finally:
        reached.stream.close()
    return data


Handler = Callable[[ProxyURL, tuple[str, int], Deadline], Any]


def by(handler: Handler, *more: str) -> list[Any]:
    return [{"url": "gate://user:password@gate.test:7", "handler": handler}, *more]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(SOON)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_a_handler_gets_proxy_target_and_deadline_and_gives_a_socket(pair: Pair) -> None:
    got: list[Any] = []

    def handler(proxy: ProxyURL, target: tuple[str, int], deadline: Deadline) -> socket.socket:
        got.extend([str(proxy), proxy.username, target, deadline.remaining])
        return pair[0]

    reached = way(by(handler))
    pair[1].sendall(GREETING)
    assert (reached.dialed, reached.is_loopback, reached.stream.secure) == (None, False, False)
    assert got[:3] == ["gate://gate.test:7", "user", (BEYOND, 25)]
    assert 0 < got[3] <= SOON
    assert set(reached.seconds) == {"proxy"}
    assert "handler" in reached.said[0]
    assert greeting_of(reached) == GREETING


@pytest.mark.parametrize("secured", [True, False])
def test_a_handler_says_whether_its_socket_is_encrypted_already(secured: bool, pair: Pair) -> None:
    reached = way(by(lambda *_: (pair[0], secured)))
    assert reached.stream.secure is secured
    reached.stream.close()


def test_a_handlers_own_ssl_socket(identities: Certificates) -> None:
    ours, theirs = socket.socketpair()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(identities.good.cert_file, identities.good.key_file)
    big = b"x" * 300_000 + b"\r\n"

    def serve() -> None:
        with theirs, server.wrap_socket(theirs, server_side=True) as tls:
            tls.sendall(GREETING)
            received = b""
            while len(received) < len(big) and (piece := tls.recv(65536)):
                received += piece
            tls.sendall(received)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def handler(*_: object) -> tuple[ssl.SSLSocket, bool]:
        context = ssl.create_default_context(cafile=str(identities.ca_file))
        return context.wrap_socket(ours, server_hostname="localhost"), True

    reached = way(by(handler))
    assert reached.stream.secure
    assert reached.stream.receive(Deadline.after(SOON)) == GREETING
    assert reached.stream.send(big, Deadline.after(SOON)) == len(big)
    assert greeting_of(reached) == big
    thread.join(SOON)
    assert not thread.is_alive()


@pytest.mark.needs("socks")
def test_a_handler_may_be_the_first_of_a_chain(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("socks5", greeting=GREETING)
    targets = []

    def handler(_: ProxyURL, target: tuple[str, int], deadline: Deadline) -> socket.socket:
        targets.append(target)
        return socket.create_connection(proxy.address, deadline.remaining)

    assert greeting_of(way(by(handler, "socks5://second.test"))) == GREETING
    assert targets == [("second.test", 1080)]
    assert proxy.targets == [f"{BEYOND}:25"]


def test_a_handler_that_never_answers_meets_the_deadline_and_its_late_socket_is_closed(pair: Pair) -> None:
    may_go_on = threading.Event()

    def handler(*_: object) -> tuple[socket.socket, bool]:
        assert may_go_on.wait(SOON)
        return pair[0], True

    began = time.monotonic()
    with pytest.raises(ConnectTimeout, match=r"handler of gate://gate.test:7 did not come back") as caught:
        way(by(handler), seconds=0.2)
    assert time.monotonic() - began < SOON / 2
    assert caught.value.stage == "proxy"
    assert caught.value.server == f"{BEYOND}:25"
    may_go_on.set()
    assert pair[1].recv(1) == b"", "the late socket is closed"
    assert pair[0].fileno() == -1


@pytest.mark.parametrize(
    "error", [OSError(5, "no way"), ValueError("no way"), TimeoutError("no way"), SystemExit("no way")]
)
def test_a_handler_that_raises(error: BaseException) -> None:
    def handler(*_: object) -> socket.socket:
        raise error

    with pytest.raises(ProxyFailed, match=r"gate://gate.test:7 failed: .*no way") as caught:
        way(by(handler))
    assert caught.value.__cause__ is error
    assert (caught.value.stage, caught.value.server) == ("proxy", f"{BEYOND}:25")
    assert "password" not in str(caught.value)


def test_an_error_of_mailbridges_own_goes_through() -> None:
    def handler(*_: object) -> socket.socket:
        raise ProxyFailed("The gate is closed", status=9, hint="Come back on Monday.")

    with pytest.raises(ProxyFailed, match=r"The gate is closed.*Monday") as caught:
        way(by(handler))
    assert (caught.value.stage, caught.value.status) == ("proxy", 9)


def closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


@pytest.mark.parametrize("garbage", [None, 5, "x", (), (None,), (1, 2, 3), (None, True), object(), [1, 2]])
def test_a_handler_that_gives_no_socket(garbage: object) -> None:
    with pytest.raises(ProxyFailed, match="gave no socket"):
        way(by(lambda *_: garbage))


def test_a_handler_that_gives_a_closed_socket() -> None:
    with pytest.raises(ProxyFailed, match="closed") as caught:
        way(by(lambda *_: closed_socket()))
    assert caught.value.stage == "proxy"


def test_a_handler_that_came_too_late_is_not_said_to_have_given_nothing(pair: Pair) -> None:
    """Its thread may end between the end of the wait and the look at what it gave."""
    (proxy,) = parse_proxies(by(lambda *_: pair[0]), host=BEYOND)
    call = route._Call(proxy, (BEYOND, 25), Deadline.after(SOON))

    class Ended:
        """As a thread that outlived the wait, left its result to nobody, and has ended since."""

        def start(self) -> None: ...

        def join(self, timeout: float | None) -> None: ...

        def is_alive(self) -> bool:
            return False

    call._thread = Ended()  # type: ignore[assignment]
    assert not call.wait(Deadline.after(0))


def test_an_interrupt_while_a_handler_works_closes_what_it_gives_later(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()

    def handler(*_: object) -> socket.socket:
        assert may_go_on.wait(SOON)
        return pair[0]

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            way(by(handler))
    may_go_on.set()
    assert pair[1].recv(1) == b""
