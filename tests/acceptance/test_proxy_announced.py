"""The option proxy_protocol: the header goes out first, with the socket's own ends or nobody's."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from mailbridge import ConnectionLost, MailbridgeError, Mailer, SMTPConfig, SMTPConnection
from mailbridge.deadline import Deadline
from mailbridge.proxy_protocol import header as proxy_header
from mailbridge.proxy_protocol.value import ProxyHeader
from mailbridge.testing import ScriptedServer
from tests.acceptance.sending import envelope, message
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.proxy_faults import Protocol


def mailer(**options: Any) -> Mailer:
    return Mailer(SMTPConfig.from_mapping({"host": "mail.lab.test", "port": 2525, "timeout": 5, **options}))


LOCAL = b"\r\n\r\n\0\r\nQUIT\n" + b"\x20\x00\x00\x00"


def first_bytes(connection: SMTPConnection, listening: socket.socket, size: int = 4096) -> bytes:
    """What the server hears before it says anything; the connection's own error is of no interest."""
    heard: list[bytes] = []

    def serve() -> None:
        sock, _ = listening.accept()
        with sock:
            sock.settimeout(5)
            heard.append(sock.recv(size))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(MailbridgeError):
        connection.connect(Deadline.after(5))
    thread.join(5)
    return heard[0]


@pytest.mark.parametrize("version", [1, 2])
def test_the_header_names_the_sockets_own_ends(version: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        connection = SMTPConnection(
            SMTPConfig(host="127.0.0.1", port=port, security="none", proxy_protocol=version)
        )
        heard = first_bytes(connection, listening)
    if version == 1:
        assert heard.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        assert heard.endswith(f" {port}\r\n".encode())
    header, size = decoded(heard)
    assert size == len(heard), "nothing else before the greeting"
    assert header.source is not None
    assert header.source[0] == "127.0.0.1"
    assert header.destination == ("127.0.0.1", port)


@pytest.mark.parametrize("version", [1, 2])
def test_the_header_goes_before_tls(version: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        config = SMTPConfig(host="127.0.0.1", port=port, security="tls", proxy_protocol=version)
        heard = first_bytes(SMTPConnection(config), listening, 12)
    assert heard == (b"PROXY TCP4 1" if version == 1 else b"\r\n\r\n\0\r\nQUIT\n")


@pytest.mark.parametrize(("version", "expected"), [(1, b"PROXY UNKNOWN\r\n"), (2, None)])
def test_the_header_on_a_unix_socket_names_nobody(
    version: Any, expected: bytes | None, tmp_path: Path
) -> None:
    path = str(tmp_path / "smtp")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        config = SMTPConfig(host=f"unix:{path}", proxy_protocol=version)
        heard = first_bytes(SMTPConnection(config), listening)
    assert heard == (expected or LOCAL)


@pytest.mark.parametrize(("version", "expected"), [(1, b"PROXY UNKNOWN\r\n"), (2, LOCAL)])
@pytest.mark.parametrize(("scheme", "protocol"), [("http", "connect"), ("socks5", "socks5")])
def test_the_header_through_a_proxy_names_nobody(
    version: Any, expected: bytes, scheme: str, protocol: Protocol, scripted_proxy: StartScriptedProxy
) -> None:
    """Our ends are those of the connection to the proxy; the server never saw them."""
    proxy = scripted_proxy(protocol, greeting=b"220 mx.test\r\n")
    options: dict[str, Any] = {"proxy_protocol": version, "security": "none"}
    with (
        mailer(proxy=f"{scheme}://127.0.0.1:{proxy.port}", timeouts={"command": 0.2}, **options) as sender,
        pytest.raises(MailbridgeError),
    ):
        sender.send(message(1), envelope=envelope())
    (connection,) = proxy.connections
    assert connection.payload.startswith(expected + b"EHLO ")


def decoded(data: bytes) -> tuple[ProxyHeader, int]:
    found = proxy_header.decode(data)
    assert found is not None, data
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_the_header_costs_no_round_trip(version: Any) -> None:
    trips = []
    with ScriptedServer(strict=False) as server:
        for proxy_protocol in (None, version):
            with Stripping(server.port) as front:
                options = {"host": "127.0.0.1", "port": front.port, "security": "none"}
                with mailer(proxy_protocol=proxy_protocol, **options) as sender:
                    trips.append(sender.send(message(1), envelope=envelope()).round_trips)
    assert trips[0] == trips[1]


class Stripping:
    """Takes a PROXY header away where there is one, and carries the rest to a server and back."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stripping:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        client, _ = self._listening.accept()
        with (
            client,
            socket.create_connection(("127.0.0.1", self._to), 5) as server,
            contextlib.suppress(ConnectionError),  # either side may leave as it likes
        ):
            while True:
                for source in select.select([client, server], [], [], 5)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and data.startswith((b"PROXY ", b"\r\n\r\n\0")):
                        data = data[decoded(data)[1] :]
                    if data:
                        (server if source is client else client).sendall(data)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "Reset")])
def test_a_server_that_is_gone_before_the_header_is_a_lost_connection(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(self: object, data: bytes, deadline: Deadline, **_: Any) -> int:
        raise error

    monkeypatch.setattr("mailbridge.net.stream.Stream.send", send)
    with ScriptedServer(strict=False) as server:
        config = SMTPConfig(host="127.0.0.1", port=server.port, security="none", proxy_protocol=1)
        with pytest.raises(ConnectionLost) as caught:
            SMTPConnection(config).connect()
    assert caught.value.server == f"127.0.0.1:{server.port}"


def test_a_deadline_that_ends_before_the_header_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: object, data: bytes, deadline: Deadline, **_: Any) -> int:
        raise TimeoutError(110, "The time limit ran out")

    monkeypatch.setattr("mailbridge.net.stream.Stream.send", send)
    with ScriptedServer(strict=False) as server:
        config = SMTPConfig(host="127.0.0.1", port=server.port, security="none", proxy_protocol=2)
        with pytest.raises(MailbridgeError) as caught:
            SMTPConnection(config).connect()
    assert isinstance(caught.value, TimeoutError)
