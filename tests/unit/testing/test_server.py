"""Listening, many connections, live control, waiting, and an end that is always quick and clean."""

from __future__ import annotations

import os
import select
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import mailbridge.testing
from mailbridge.testing import Fault, ScriptedServer
from mailbridge.testing.faults import Stage

from .conftest import PATIENCE, Certificate, Dial


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads_of_servers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("scripted-smtp")]


def test_it_takes_nothing_from_the_rest_of_mailbridge() -> None:
    code = (
        "import sys, mailbridge.testing as t;"
        "ours = [m for m in sys.modules if m.startswith('mailbridge.') and not m.startswith(t.__name__)];"
        "assert not ours, ours"
    )
    # With an empty parent package: what mailbridge/__init__.py imports is not the question here.
    stub = "import sys, types; p = types.ModuleType('mailbridge');"
    folder = Path(mailbridge.testing.__file__).parents[1]
    stub += f"p.__path__ = [{str(folder)!r}]; sys.modules['mailbridge'] = p;"
    subprocess.run([sys.executable, "-W", "error", "-c", stub + code], check=True, timeout=30)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses(host: str, dial: Dial) -> None:
    with ScriptedServer(host=host) as server:
        assert server.address == (host, server.port)
        dial(server).greet()


def test_unix_socket(tmp_path: Path, dial: Dial) -> None:
    path = tmp_path / "smtp"
    with ScriptedServer(unix_path=path) as server:
        assert server.address == str(path)
        dial(server).greet()
    assert not path.exists()


@pytest.mark.parametrize("kind", [{"tls": "sometimes"}, {"tls": "starttls"}, {"client_ca": "x"}])
def test_options_that_contradict(kind: dict[str, Any], certificate: Certificate) -> None:
    with ScriptedServer(certfile=certificate.certfile, keyfile=certificate.keyfile) as server:
        context = server._behaviour.context
    if "client_ca" in kind:
        kind = {**kind, "ssl_context": context}
    with pytest.raises(ValueError, match=r"tls|ssl_context"):
        ScriptedServer(**kind)


def test_a_port_that_is_taken_leaks_nothing(dial: Dial) -> None:
    with ScriptedServer() as server:
        dial(server).greet()  # the accepting thread has opened all it needs
        before = open_files()
        with pytest.raises(OSError, match="in use"):
            ScriptedServer(port=server.port).start()
        assert open_files() == before


def test_hundreds_of_connections_one_after_the_other(dial: Dial) -> None:
    with ScriptedServer() as server:
        dial(server).greet()  # the accepting thread has opened all it needs
        before, staying = open_files(), threads_of_servers()
        for _ in range(300):
            with smtplib.SMTP(server.host, server.port, timeout=5) as client:
                client.sendmail("a@x", ["b@y"], "t")
        server.wait_for(lambda: all(record.is_closed for record in server.connections[1:]))
        assert len(server.messages) == 300
        assert len(server.connections) == 301
        for thread in threading.enumerate():
            if thread.name in threads_of_servers() and thread.name not in staying:
                thread.join(timeout=5)
        assert open_files() <= before


def test_many_connections_at_once(dial: Dial) -> None:
    with ScriptedServer() as server:
        clients = [dial(server) for _ in range(50)]
        for client in clients:
            client.greet().say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA")
        for client in clients:
            assert client.say(b"t\r\n.").startswith(b"250")
        assert {message.connection for message in server.messages} == set(range(1, 51))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("greeting", "silence"),
        Fault("greeting", "stall"),
        Fault("greeting", "half"),
        Fault("greeting", "endless"),
        Fault("greeting", "endless_line"),
        Fault("greeting", "drip"),
        Fault("greeting", "late", delay=60),
        Fault("connect", "silence"),
        Fault("tls", "silence"),
        Fault("tls", "drip", interval=60),
        Fault("idle", "close", connection=2),
    ],
    ids=lambda fault: f"{fault.stage}-{fault.kind}",
)
def test_the_end_is_quick_whatever_happens(fault: Fault, certificate: Certificate) -> None:
    before = open_files()
    server = ScriptedServer(
        faults=[fault],
        tls="implicit" if fault.stage == "tls" else None,
        certfile=certificate.certfile,
        keyfile=certificate.keyfile,
    ).start()
    assert isinstance(server.address, tuple)
    with socket.create_connection(server.address, timeout=5) as client:
        if fault.stage == "tls":
            # A ClientHello that says nothing useful but is one.
            client.sendall(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
        server.wait_for(lambda: server.connections)
        start = time.monotonic()
        server.close()
        assert time.monotonic() - start < 2.5  # it would raise RuntimeError after 3
        server.close()
    assert open_files() == before
    assert threads_of_servers() == []
    with pytest.raises(RuntimeError, match="started again"):
        server.start()


def test_nobody_else_gets_the_port_meanwhile() -> None:
    with ScriptedServer() as server:
        server.refuse()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        server.resume()
    with socket.socket() as other:
        other.bind(("127.0.0.1", server.port))


def test_refuse_and_resume(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(server)
        assert client.say(b"NOOP").startswith(b"250")
        server.resume()
        dial(server).greet()
        assert len(server.connections) == 2


def test_push(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        server.connections[0].push(b"421 4.4.2 idle\r\n")
        assert client.read_reply() == b"421 4.4.2 idle\r\n"
        server.connections[0].hang_up()
        # It is there when hang_up() returns.
        assert select.select([client.sock], [], [], 0)[0]
        assert server.connections[0].is_closed
        assert client.read_to_end() == b""
        assert server.connections[0].closed_by == "test"
        with pytest.raises(ConnectionError):
            server.connections[0].push(b"x")


def test_reset_from_the_test(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        server.connections[0].reset()
        with pytest.raises(ConnectionResetError):
            client.read_to_end()


@pytest.mark.parametrize("politely", [True, False])
def test_hanging_up_under_tls(politely: bool, certificate: Certificate, dial: Dial) -> None:
    with ScriptedServer(tls="implicit", certfile=certificate.certfile, keyfile=certificate.keyfile) as server:
        client = dial(server)
        client.start_tls(certificate.client_context())
        client.greet()
        server.connections[0].push(b"421 bye\r\n")
        assert client.read_line() == b"421 bye\r\n"
        server.connections[0].hang_up(politely=politely)
        if politely:
            assert client.sock.recv(100) == b""
        else:
            with pytest.raises(OSError, match="EOF"):
                client.sock.recv(100)


def test_clients_that_leave(dial: Dial) -> None:
    with ScriptedServer() as server:
        dial(server).greet().close()
        server.wait_for(lambda: server.connections[0].closed_by == "client")
        client = dial(server).greet()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        server.wait_for(lambda: server.connections[1].closed_by == "client reset")


def test_goodbye_of_a_client_under_tls(certificate: Certificate, dial: Dial) -> None:
    with ScriptedServer(tls="implicit", certfile=certificate.certfile, keyfile=certificate.keyfile) as server:
        client = dial(server)
        client.start_tls(certificate.client_context())
        client.greet()
        assert isinstance(client.sock, ssl.SSLSocket)
        client.sock = client.sock.unwrap()  # waits for the server's close_notify
        server.wait_for(lambda: server.connections[0].closed_by == "client")


def test_a_fault_wakes_who_waits_for_it(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else happens behind it that would."""
    with ScriptedServer(faults=[Fault("noop", "silence")]) as server:
        take, has_looked = server._plan.take, threading.Event()

        def take_after_the_look(stage: Stage, connection: int) -> Fault | None:
            if stage == "noop":
                assert has_looked.wait(PATIENCE)
            return take(stage, connection)

        def has_fired() -> bool:
            if server.connections and "NOOP" in server.connections[0].verbs:
                has_looked.set()
            return bool(server.fired)

        monkeypatch.setattr(server._plan, "take", take_after_the_look)
        waiting = threading.Thread(target=server.wait_for, args=(has_fired, 4 * PATIENCE))
        waiting.start()
        dial(server).greet().send(b"NOOP\r\n")
        waiting.join(PATIENCE)
        assert not waiting.is_alive()


def test_wait_for_tells_what_it_saw(dial: Dial) -> None:
    with ScriptedServer() as server:
        dial(server).greet()
        assert server.wait_for(lambda: True)
        with pytest.raises(AssertionError, match=r"not within 0.01 s(?s:.*)EHLO client.example"):
            server.wait_for(lambda: server.messages, timeout=0.01)


def test_a_failing_test_is_told_what_the_server_saw(dial: Dial) -> None:
    with pytest.raises(KeyError) as caught, ScriptedServer() as server:  # noqa: PT012 - and so does the test
        dial(server).greet()
        raise KeyError("the test's own")
    assert "EHLO client.example" in caught.value.__notes__[0]


def test_a_callable_that_fails_is_not_hidden(dial: Dial) -> None:
    def broken(sender: str) -> str | None:
        raise LookupError(f"nothing about {sender}")

    server = ScriptedServer(mail_replies=broken)
    wanted = r"the server itself failed(?s:.*)nothing about a@x"
    with pytest.raises(AssertionError, match=wanted), server:  # noqa: PT012 - leaving the context raises
        client = dial(server).greet()
        client.send(b"MAIL FROM:<a@x>\r\n")
        assert client.read_to_end() == b""
