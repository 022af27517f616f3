"""The relay counts changes of direction exactly, whatever the client does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.servers.fixtures import StartRelay
from tests.servers.process import wait_until
from tests.servers.relay import Relay

SECONDS = 5.0


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that greets and then answers each line with the same line."""

    def serve(peer: socket.socket) -> None:
        with closing(peer), peer.makefile("rb") as lines:
            try:
                peer.sendall(b"hello\n")
                for line in lines:
                    peer.sendall(line)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(SECONDS)


def connect(relay: Relay) -> socket.socket:
    client = socket.create_connection(relay.address, timeout=SECONDS)
    assert receive(client, 6) == b"hello\n"
    return client


def receive(client: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count and (piece := client.recv(count - len(received))):
        received += piece
    return received


def test_greeting_is_no_round_trip(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo)
    with connect(proxy):
        [connection] = proxy.connections
        assert (connection.round_trips, connection.client_bytes, connection.server_bytes) == (0, 0, 6)


def test_each_question_that_waits_for_its_answer_is_one_round_trip(
    relay: StartRelay, echo: tuple[str, int]
) -> None:
    proxy = relay(echo)
    with connect(proxy) as client:
        for number in range(1, 51):
            client.sendall(b"x\n")
            assert receive(client, 2) == b"x\n"
            assert proxy.round_trips == number
    assert proxy.connections[0].client_bytes == 100
    assert proxy.connections[0].server_bytes == 106


def test_a_flight_of_questions_is_one_round_trip_however_it_is_cut(
    relay: StartRelay, echo: tuple[str, int]
) -> None:
    proxy = relay(echo)
    with connect(proxy) as client:
        client.sendall(b"x\n" * 4000)
        assert receive(client, 8000) == b"x\n" * 4000
        assert proxy.round_trips == 1
        client.sendall(b"half of ")
        client.sendall(b"a line\n")
        assert receive(client, 15) == b"half of a line\n"
        assert proxy.round_trips == 2


def test_connections_are_counted_apart(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo)
    with connect(proxy) as first, connect(proxy):
        first.sendall(b"x\n")
        receive(first, 2)
        assert [connection.round_trips for connection in proxy.connections] == [1, 0]
        assert [connection.is_open for connection in proxy.connections] == [True, True]
    assert wait_until(lambda: not any(connection.is_open for connection in proxy.connections), SECONDS)


def test_large_content_passes_unchanged_both_ways(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo)
    line = bytes(range(11, 256)) * 4000 + b"\n"
    with connect(proxy) as client:
        received = []
        reader = threading.Thread(target=lambda: received.append(receive(client, len(line))))
        reader.start()
        client.sendall(line)
        reader.join(SECONDS)
        assert received == [line]


def test_delay_holds_bytes_back_each_way(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo, delay=0.05)
    with connect(proxy) as client:
        start = time.monotonic()
        client.sendall(b"x\n")
        assert receive(client, 2) == b"x\n"
        assert time.monotonic() - start >= 0.1
        assert proxy.round_trips == 1


def test_end_of_file_passes_in_one_direction(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo)
    with connect(proxy) as client:
        client.sendall(b"last\n")
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 100) == b"last\n"


def test_cut_ends_open_connections_and_later_ones_work(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo)
    with connect(proxy) as client:
        proxy.cut()
        assert client.recv(1) == b""
        assert not proxy.connections[0].is_open
    with connect(proxy):
        assert len(proxy.connections) == 2


def test_cut_can_reset(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo)
    with connect(proxy) as client:
        proxy.cut(reset=True)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_cut_before_an_answer_keeps_it_from_the_client(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo, cut_before=b"secret")
    with connect(proxy) as client:
        client.sendall(b"open\n")
        assert receive(client, 5) == b"open\n"
        client.sendall(b"secret\n")
        assert client.recv(100) == b""
        assert proxy.connections[0].server_bytes == len(b"hello\nopen\nsecret\n")


def test_refuse_leaves_open_connections_alone(relay: StartRelay, echo: tuple[str, int]) -> None:
    proxy = relay(echo)
    with connect(proxy) as client:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, timeout=SECONDS)
        client.sendall(b"x\n")
        assert receive(client, 2) == b"x\n"


def test_a_target_that_is_not_there_ends_the_connection(relay: StartRelay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    proxy = relay(address)
    with socket.create_connection(proxy.address, timeout=SECONDS) as client:
        assert client.recv(1) == b""
