"""The scripted proxy says what its script says, seen through plain sockets; and it leaves nothing behind."""

from __future__ import annotations

import base64
import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.servers.certificates import Certificates
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.process import free_port, wait_until
from tests.servers.proxy_faults import (
    CONNECT_FAULTS,
    FAULTS,
    HARMLESS,
    SOCKS5_FAULTS,
    Fault,
    Protocol,
    says,
    socks4_reply,
    socks5_reply,
)
from tests.servers.scripted_proxy import ScriptedProxy

SECONDS = 5.0
GREETING = b"220 mx.test ESMTP\r\n"
SUCCESS = {
    "connect": b"HTTP/1.1 200 Connection established\r\n\r\n",
    "socks4": socks4_reply(90),
    "socks5": b"\x05\x00" + socks5_reply(0),
}
PROTOCOLS: tuple[Protocol, ...] = ("connect", "socks4", "socks5")


def request(protocol: Protocol, host: str, port: int, fields: str = "") -> bytes:
    """All that a client says without a login; it need not wait for the answers."""
    ends = port.to_bytes(2, "big")
    name = host.encode()
    if protocol == "connect":
        return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{fields}\r\n".encode()
    if protocol == "socks4":
        return b"\x04\x01" + ends + b"\x00\x00\x00\x01me\x00" + name + b"\x00"
    return b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(name)]) + name + ends


def dial(proxy: ScriptedProxy) -> socket.socket:
    return socket.create_connection(proxy.address, timeout=SECONDS)


def read(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end."""
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def read_all(sock: socket.socket) -> bytes:
    return read(sock, 1 << 30)


def exchange(proxy: ScriptedProxy, said: bytes) -> bytes:
    """All that the proxy says to this before it ends the connection."""
    with dial(proxy) as sock:
        sock.sendall(said)
        return read_all(sock)


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Greets, then gives back what it gets; ends with its client."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):  # a client may leave without reading
            sock.sendall(GREETING)
            while data := sock.recv(65536):
                sock.sendall(data)

    def accept() -> None:
        threads = []
        while True:
            sock, _ = listening.accept()
            if ending.is_set():
                sock.close()
                break
            threads.append(threading.Thread(target=serve, args=(sock,)))
            threads[-1].start()
        for thread in threads:
            thread.join(SECONDS)

    ending = threading.Event()
    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listening.getsockname()
    ending.set()
    socket.create_connection(listening.getsockname()).close()
    accepting.join(SECONDS)
    listening.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestTunnel:
    def test_forwards_to_where_the_client_asked(
        self, scripted_proxy: StartScriptedProxy, server: tuple[str, int], protocol: Protocol
    ) -> None:
        proxy = scripted_proxy(protocol)
        with dial(proxy) as sock:
            sock.sendall(request(protocol, "localhost", server[1]))
            assert read(sock, len(SUCCESS[protocol] + GREETING)) == SUCCESS[protocol] + GREETING
            large = bytes(range(256)) * 4096
            sock.sendall(large)
            assert read(sock, len(large)) == large
            assert proxy.open_connections == 1
        assert proxy.targets == [f"localhost:{server[1]}"]
        assert proxy.requests == [request(protocol, "localhost", server[1])]
        assert proxy.connections[0].payload == large[:65536]
        assert wait_until(lambda: proxy.open_connections == 0, SECONDS)

    def test_forwards_to_the_target_it_was_given(
        self, scripted_proxy: StartScriptedProxy, server: tuple[str, int], protocol: Protocol
    ) -> None:
        proxy = scripted_proxy(protocol, target=server)
        with dial(proxy) as sock:
            sock.sendall(request(protocol, "mx.nowhere.test", 25))
            assert read(sock, len(SUCCESS[protocol] + GREETING)).endswith(GREETING)
        assert proxy.targets == ["mx.nowhere.test:25"]

    def test_knows_the_given_names_only(
        self, scripted_proxy: StartScriptedProxy, server: tuple[str, int], protocol: Protocol
    ) -> None:
        proxy = scripted_proxy(protocol, names={"mx.nowhere.test": "127.0.0.1"})
        with dial(proxy) as sock:
            sock.sendall(request(protocol, "mx.nowhere.test", server[1]))
            assert read(sock, len(SUCCESS[protocol] + GREETING)).endswith(GREETING)
        refusal = exchange(proxy, request(protocol, "localhost", server[1]))
        assert refusal.removeprefix(b"\x05\x00")[:12] in (b"HTTP/1.1 502", socks4_reply(91), socks5_reply(5))

    def test_refuses_what_it_cannot_reach(
        self, scripted_proxy: StartScriptedProxy, protocol: Protocol
    ) -> None:
        proxy = scripted_proxy(protocol)
        refusal = exchange(proxy, request(protocol, "localhost", free_port().port))
        assert refusal.removeprefix(b"\x05\x00")[:12] in (b"HTTP/1.1 502", socks4_reply(91), socks5_reply(5))

    @pytest.mark.parametrize("option", [{"greeting": GREETING}, {"coalesces": True}])
    def test_greeting_in_the_same_segment(
        self,
        scripted_proxy: StartScriptedProxy,
        server: tuple[str, int],
        protocol: Protocol,
        option: dict[str, Any],
    ) -> None:
        proxy = scripted_proxy(protocol, **option)
        with dial(proxy) as sock:
            said = request(protocol, "localhost", server[1])
            if protocol == "socks5":  # else the two answers could come together
                sock.sendall(said[:3])
                assert read(sock, 2) == b"\x05\x00"
                said = said[3:]
            sock.sendall(said)
            assert sock.recv(65536) == SUCCESS[protocol].removeprefix(b"\x05\x00") + GREETING
            sock.sendall(b"EHLO me\r\n")
            assert wait_until(lambda: proxy.connections[0].payload == b"EHLO me\r\n", SECONDS)

    def test_byte_by_byte(
        self, scripted_proxy: StartScriptedProxy, server: tuple[str, int], protocol: Protocol
    ) -> None:
        proxy = scripted_proxy(protocol, byte_by_byte=True, coalesces=True)
        with dial(proxy) as sock:
            sock.sendall(request(protocol, "localhost", server[1]))
            wanted = SUCCESS[protocol] + GREETING
            pieces: list[bytes] = []
            while len(b"".join(pieces)) < len(wanted):
                pieces.append(sock.recv(65536))
        assert b"".join(pieces) == wanted
        assert len(pieces) > len(wanted) / 4  # a busy reader may get two at once

    def test_tls(
        self,
        scripted_proxy: StartScriptedProxy,
        server: tuple[str, int],
        certificates: Certificates,
        protocol: Protocol,
    ) -> None:
        proxy = scripted_proxy(protocol, identity=certificates.good)
        context = ssl.create_default_context(cafile=str(certificates.ca_file))
        with dial(proxy) as raw, context.wrap_socket(raw, server_hostname="mail.lab.test") as sock:
            sock.sendall(request(protocol, "localhost", server[1]))
            assert read(sock, len(SUCCESS[protocol] + GREETING)) == SUCCESS[protocol] + GREETING
            large = bytes(range(256)) * 4096
            sock.sendall(large[:100_000])
            assert read(sock, 100_000) == large[:100_000]
        assert proxy.connections[0].server_name == "mail.lab.test"
        assert proxy.connections[0].tls_error is None

    def test_tls_that_the_client_does_not_trust(
        self, scripted_proxy: StartScriptedProxy, certificates: Certificates, protocol: Protocol
    ) -> None:
        proxy = scripted_proxy(protocol, identity=certificates.expired)
        context = ssl.create_default_context(cafile=str(certificates.ca_file))
        with dial(proxy) as raw, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            context.wrap_socket(raw, server_hostname="localhost")
        assert wait_until(lambda: proxy.open_connections == 0, SECONDS)
        assert "alert" in (proxy.connections[0].tls_error or "")
        assert proxy.requests == [b""]


class TestLogin:
    def test_connect(self, scripted_proxy: StartScriptedProxy) -> None:
        proxy = scripted_proxy("connect", username="pu", password="p:w", greeting=GREETING)

        def said(credentials: bytes | None) -> bytes:
            token = base64.b64encode(credentials or b"").decode()
            field = "" if credentials is None else f"Proxy-Authorization: Basic {token}\r\n"
            return request("connect", "localhost", 25, field)

        for credentials in (None, b"pu:wrong", b"\xff"):
            assert exchange(proxy, said(credentials)).startswith(b"HTTP/1.1 407 ")
        with dial(proxy) as sock:
            sock.sendall(said(b"pu:p:w"))
            assert sock.recv(65536).endswith(GREETING)
        assert proxy.credentials == [None, ("pu", "wrong"), None, ("pu", "p:w")]

    def test_socks4(self, scripted_proxy: StartScriptedProxy) -> None:
        said = request("socks4", "localhost", 25)
        assert exchange(scripted_proxy("socks4", username="you"), said) == socks4_reply(93)
        proxy = scripted_proxy("socks4", username="me", greeting=GREETING)
        with dial(proxy) as sock:
            sock.sendall(said)
            assert sock.recv(65536) == socks4_reply(90) + GREETING
        assert proxy.credentials == [("me", "")]

    def test_socks5(self, scripted_proxy: StartScriptedProxy) -> None:
        proxy = scripted_proxy("socks5", username="su", password="pw", greeting=GREETING)
        assert exchange(proxy, b"\x05\x01\x00") == b"\x05\xff"
        assert exchange(proxy, b"\x05\x02\x00\x02\x01\x02su\x02pp") == b"\x05\x02\x01\x01"
        with dial(proxy) as sock:
            sock.sendall(b"\x05\x02\x00\x02\x01\x02su\x02pw\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x19")
            wanted = b"\x05\x02\x01\x00" + socks5_reply(0) + GREETING
            assert read(sock, len(wanted)) == wanted
        assert proxy.credentials == [None, ("su", "pp"), ("su", "pw")]
        assert proxy.targets[-1] == "127.0.0.1:25"


@pytest.mark.parametrize(
    ("protocol", "said", "answer"),
    [
        ("connect", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 "),
        ("connect", b"CONNECT localhost:25 HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        ("connect", b"CONNECT a\rb:25 HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 "),
        ("connect", b"CONNECT a@b:25 HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 "),
        ("connect", b"CONNECT a/b:25 HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 "),
        ("connect", b"CONNECT a b:25 HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 "),
        ("connect", b"CONNECT localhost:25 HTTP/1.1\r\nHost: x\r\n X: folded\r\n\r\n", b"HTTP/1.1 400 "),
        ("connect", b"CONNECT localhost:25 HTTP/1.1\nHost: x\r\n\r\n", b"HTTP/1.1 400 "),
        ("socks4", b"\x04\x02\x00\x19\x7f\x00\x00\x01\x00", socks4_reply(91)),
        ("socks5", b"\x04\x01\x00", b"\x05\xff"),
        ("socks5", b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x19", b"\x05\x00\x05\x07"),
    ],
)
def test_sloppy_requests_are_refused(
    scripted_proxy: StartScriptedProxy, protocol: Protocol, said: bytes, answer: bytes
) -> None:
    assert exchange(scripted_proxy(protocol), said).startswith(answer)


class TestTargets:
    def test_address_in_socks4(self, scripted_proxy: StartScriptedProxy) -> None:
        proxy = scripted_proxy("socks4", greeting=GREETING)
        with dial(proxy) as sock:
            sock.sendall(b"\x04\x01\x00\x19\x7f\x00\x00\x01\x00")
            assert sock.recv(65536) == socks4_reply(90) + GREETING
        assert proxy.targets == ["127.0.0.1:25"]

    @pytest.mark.parametrize("protocol", ["connect", "socks5"])
    def test_ipv6_address(self, scripted_proxy: StartScriptedProxy, protocol: Protocol) -> None:
        proxy = scripted_proxy(protocol, greeting=GREETING)
        said = request("connect", "[::1]", 25)
        if protocol == "socks5":
            said = b"\x05\x01\x00\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x19"
        with dial(proxy) as sock:
            sock.sendall(said)
            assert read(sock, len(SUCCESS[protocol])) == SUCCESS[protocol]
        assert proxy.targets == ["[::1]:25"]


EVERY_FAULT = [(protocol, name) for protocol in PROTOCOLS for name in FAULTS[protocol]]
ENDLESS = {"endless headers", "one huge line", "endless 1xx", "drip", "drip of headers"}


def login_for(fault: Fault) -> dict[str, Any]:
    return {"username": "su", "password": "pw"} if fault.stage == "auth" else {}


@pytest.mark.parametrize(("protocol", "name"), EVERY_FAULT)
class TestFaults:
    def test_says_what_is_in_the_table(
        self, scripted_proxy: StartScriptedProxy, protocol: Protocol, name: str
    ) -> None:
        """All of it, or the first pieces where there is no end or each takes its time."""
        fault = FAULTS[protocol][name]
        proxy = scripted_proxy(protocol, fault=name, greeting=GREETING, **login_for(fault))
        said = request(protocol, "localhost", 25)
        if fault.stage == "auth":
            said = b"\x05\x01\x02\x01\x02su\x02pw" + said[3:]
        wanted = b""
        if protocol == "socks5":
            wanted = {"reply": b"\x05\x00", "auth": b"\x05\x02"}.get(fault.stage, b"")
        wanted += b"".join(itertools.islice(fault.pieces(said), 3 if fault.every else 100))
        if fault.then == "reset":
            with pytest.raises(ConnectionResetError):
                exchange(proxy, said if fault.stage != "accept" else b"")
        else:
            with dial(proxy) as sock:
                sock.sendall(said)
                assert read(sock, len(wanted)) == wanted
                if fault.then == "close" and name not in ENDLESS:
                    assert sock.recv(1) == b""
        assert wait_until(lambda: proxy.open_connections == 0, SECONDS)

    def test_is_gone_when_the_proxy_is_closed(self, protocol: Protocol, name: str) -> None:
        with ScriptedProxy(protocol, fault=name, **login_for(FAULTS[protocol][name])) as proxy:
            sock = socket.socket()
            sock.settimeout(SECONDS)
            with suppress(ConnectionError):  # some faults are faster than this
                sock.connect(proxy.address)
                sock.sendall(request(protocol, "localhost", 25))
            begin = time.monotonic()
        with sock:
            assert time.monotonic() - begin < SECONDS
            assert not [thread for thread in threading.enumerate() if thread.name == "scripted-proxy"]
            with pytest.raises(ConnectionRefusedError):
                dial(proxy)


class TestUseOfFaults:
    def test_silence_remembers_what_the_client_still_says(self, scripted_proxy: StartScriptedProxy) -> None:
        proxy = scripted_proxy("connect", fault="silence")
        said = request("connect", "localhost", 25)
        with dial(proxy) as sock:
            sock.sendall(said)
            sock.sendall(b"EHLO me\r\n")
        assert wait_until(lambda: proxy.requests == [said + b"EHLO me\r\n"], SECONDS)

    def test_drip_takes_its_time(self, scripted_proxy: StartScriptedProxy) -> None:
        proxy = scripted_proxy("connect", fault="drip")
        with dial(proxy) as sock:
            sock.sendall(request("connect", "localhost", 25))
            begin = time.monotonic()
            assert read(sock, 4) == b"HTTP"
            assert time.monotonic() - begin >= 0.29

    def test_holds_for_later_connections_until_it_is_changed(
        self, scripted_proxy: StartScriptedProxy
    ) -> None:
        proxy = scripted_proxy("connect", greeting=GREETING, fault="403")
        said = request("connect", "localhost", 25)
        assert exchange(proxy, said).startswith(b"HTTP/1.1 403 ")
        assert exchange(proxy, said).startswith(b"HTTP/1.1 403 ")
        proxy.fault = None
        with dial(proxy) as sock:
            sock.sendall(said)
            assert sock.recv(65536).endswith(GREETING)

    def test_own_fault(self, scripted_proxy: StartScriptedProxy) -> None:
        proxy = scripted_proxy("connect", fault=says(b"HTTP/1.1 418 Teapot\r\n\r\n"))
        assert exchange(proxy, request("connect", "x", 1)) == b"HTTP/1.1 418 Teapot\r\n\r\n"

    def test_echo_quotes_the_request(self, scripted_proxy: StartScriptedProxy) -> None:
        answer = exchange(
            scripted_proxy("connect", fault="echo"),
            request("connect", "x", 1, "Proxy-Authorization: Basic c2VjcmV0\r\n"),
        )
        assert answer.count(b"Basic c2VjcmV0") == 3

    def test_what_can_never_happen_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no stage 'method'"):
            ScriptedProxy("connect", fault=SOCKS5_FAULTS["no acceptable method"])
        with pytest.raises(ValueError, match="asked to log in"):
            ScriptedProxy("socks5", fault="authentication failed")
        with pytest.raises(KeyError):
            ScriptedProxy("socks4", fault="LF only")

    def test_harmless_ones_exist(self) -> None:
        assert set(CONNECT_FAULTS | SOCKS5_FAULTS) >= HARMLESS

    def test_refuse(self, scripted_proxy: StartScriptedProxy) -> None:
        proxy = scripted_proxy("connect")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
