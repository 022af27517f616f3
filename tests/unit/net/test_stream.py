"""Streams: whole sends, absolute deadlines, early answers, TLS that starts clean, closing and forking."""

import contextlib
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailbridge.config.groups import TLSOptions
from mailbridge.deadline import NEVER, Deadline
from mailbridge.errors import ConfigurationError
from mailbridge.net.layers import KEPT_FIRST_BYTES
from mailbridge.net.stream import PlaintextBeforeTLS, Stream
from mailbridge.net.tls.context import context_for
from tests.servers.certificates import Certificates
from tests.unit.net.conftest import (
    PATIENCE,
    Connect,
    MemoryServer,
    Serve,
    echo,
    receive_all,
    reset,
    server_context,
    tls_talk,
    wait_for_end,
)

MemoryPair = Callable[..., tuple[Stream, MemoryServer]]
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.fixture
def pair() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    with theirs:
        stream = Stream(ours)
        yield stream, theirs
        stream.close()


@pytest.fixture
def trusting(identities: Certificates) -> ssl.SSLContext:
    return context_for(TLSOptions(ca_file=str(identities.ca_file)))


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece
        data += piece
    return data


def read_exactly(stream: Stream, count: int, deadline: Deadline) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.receive(deadline)
        assert piece
        data += piece
    return data


# In clear text


def test_bytes_both_ways(pair: tuple[Stream, socket.socket], soon: Deadline) -> None:
    stream, peer = pair
    assert stream.send(b"EHLO x\r\n", soon) == 8
    assert peer.recv(100) == b"EHLO x\r\n"
    peer.sendall(b"250 ok\r\n")
    assert stream.receive(soon, 3) == b"250"
    assert stream.receive(soon) == b" ok\r\n"
    peer.close()
    assert stream.receive(soon) == b""
    assert not stream.secure
    assert stream.tls is None
    assert stream.tls_session is None
    assert stream.ssl_object is None


def test_who_talks_to_whom(serve: Serve, connect: Connect) -> None:
    peer = serve(wait_for_end)
    stream = connect(peer)
    assert stream.peername == f"127.0.0.1:{peer.port}"
    assert stream.sockname.startswith("127.0.0.1:")
    assert repr(stream) == f"<Stream to 127.0.0.1:{peer.port}, clear, open>"


def test_addresses_of_ipv6_and_unix(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    peer = serve(wait_for_end, host="::1")
    assert connect(peer).peername == f"[::1]:{peer.port}"
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as sock:
        listener.bind(path)
        listener.listen()
        sock.connect(path)
        assert Stream(sock).peername == path
        assert Stream(sock).sockname == ""
    with socket.socket() as unconnected:
        assert Stream(unconnected).peername == ""


def test_a_socket_that_somebody_else_secured(pair: tuple[Stream, socket.socket]) -> None:
    assert Stream(pair[1], secured=True).secure


def test_nothing_is_received_after_the_deadline_though_it_is_there(
    pair: tuple[Stream, socket.socket],
) -> None:
    """A peer that always has more to say would hold its reader for ever."""
    stream, peer = pair
    peer.sendall(b"x")
    with pytest.raises(TimeoutError):
        stream.receive(Deadline.after(0))
    assert stream.receive_now() == b"x"
    stream.unread(b"y")  # was received in time
    assert stream.receive(Deadline.after(0)) == b"y"


def test_nothing_is_sent_after_the_deadline(pair: tuple[Stream, socket.socket]) -> None:
    stream, peer = pair
    with pytest.raises(TimeoutError):
        stream.send(b"x", Deadline.after(0))
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)


def test_a_peer_that_is_silent(pair: tuple[Stream, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        pair[0].receive(Deadline.after(0.05))


def test_a_peer_that_does_not_read(pair: tuple[Stream, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        pair[0].send(b"x" * 50_000_000, Deadline.after(0.1))


def test_a_peer_that_reads_slowly_cannot_stretch_the_deadline(serve: Serve, connect: Connect) -> None:
    def sip(connection: socket.socket) -> None:
        for _ in range(1000):
            connection.recv(20_000)
            time.sleep(0.01)

    stream = connect(serve(sip))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.send(b"x" * 100_000_000, Deadline.after(0.3))
    assert time.monotonic() - began < 3


def test_looking_without_waiting(pair: tuple[Stream, socket.socket]) -> None:
    stream, peer = pair
    assert stream.receive_now() is None
    peer.sendall(b"421 bye\r\n")
    assert stream.receive_now(3) == b"421"
    assert stream.receive_now() == b" bye\r\n"
    assert stream.receive_now() is None
    peer.close()
    assert stream.receive_now() == b""


def test_a_reset_is_end_of_file_to_a_look_and_an_error_to_a_read(
    serve: Serve, connect: Connect, soon: Deadline
) -> None:
    def go(connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    peer = serve(go)
    for look in (True, False):
        stream = connect(peer)
        stream.send(b"x", soon)
        wait_until_readable(stream)
        if look:
            assert stream.receive_now() == b""
        else:
            with pytest.raises(ConnectionResetError):
                stream.receive(soon)


def wait_until_readable(stream: Stream) -> None:
    waiter = select.poll()
    waiter.register(stream.fileno(), select.POLLIN)
    assert waiter.poll(PATIENCE * 1000)


# Early answers


@pytest.fixture(params=["clear", "tls"])
def early(
    request: pytest.FixtureRequest, serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> Callable[[Callable[[socket.socket], None]], Stream]:
    """A stream to a server that does what is given, in clear text and under TLS."""

    def start(talk: Callable[[socket.socket], None]) -> Stream:
        if request.param == "clear":
            return connect(serve(talk))
        stream = connect(serve(tls_talk(server_context(identities.good), talk)))
        context = context_for(TLSOptions(ca_file=str(identities.ca_file)))
        stream.start_tls(context, "localhost", soon)
        return stream

    return start


def test_an_early_answer_stops_the_sending(
    early: Callable[[Callable[[socket.socket], None]], Stream], soon: Deadline
) -> None:
    def refuse(connection: socket.socket) -> None:
        exactly(connection, 100_000)
        connection.sendall(b"552 too big\r\n")
        wait_for_end(connection)

    stream = early(refuse)
    content = b"x" * 200_000_000
    count = stream.send(content, soon, stop_when_readable=True)
    assert 100_000 <= count < len(content)
    assert stream.receive(soon) == b"552 too big\r\n"


def test_an_early_answer_to_a_sender_that_is_stuck(
    early: Callable[[Callable[[socket.socket], None]], Stream], soon: Deadline
) -> None:
    stuck, seen = threading.Event(), threading.Event()

    def refuse(connection: socket.socket) -> None:
        exactly(connection, 1)
        stuck.wait(PATIENCE)
        connection.sendall(b"552 too big\r\n")
        seen.wait(PATIENCE)

    stream = early(refuse)
    threading.Timer(0.2, stuck.set).start()  # by then the buffers are full; if not, the test is easier
    content = b"x" * 50_000_000
    try:
        assert stream.send(content, soon, stop_when_readable=True) < len(content)
        assert stream.receive(soon) == b"552 too big\r\n"
    finally:
        seen.set()


def test_an_early_answer_followed_by_a_reset(serve: Serve, connect: Connect, soon: Deadline) -> None:
    def refuse(connection: socket.socket) -> None:
        exactly(connection, 100_000)
        connection.sendall(b"552 too big\r\n")
        reset(connection)

    stream = connect(serve(refuse))
    assert stream.send(b"x" * 200_000_000, soon, stop_when_readable=True) < 200_000_000
    assert stream.receive(soon) == b"552 too big\r\n"


def test_after_a_failed_send_the_last_words_can_be_read(
    serve: Serve, connect: Connect, soon: Deadline
) -> None:
    def refuse(connection: socket.socket) -> None:
        exactly(connection, 100_000)
        connection.sendall(b"421 going down\r\n")
        reset(connection)

    stream = connect(serve(refuse))
    with pytest.raises(ConnectionError):
        stream.send(b"x" * 200_000_000, soon)
    assert stream.receive_now() == b"421 going down\r\n"


def test_a_server_that_hangs_up_while_content_is_sent(
    early: Callable[[Callable[[socket.socket], None]], Stream], soon: Deadline
) -> None:
    stream = early(lambda connection: connection.shutdown(socket.SHUT_WR) or wait_for_end(connection))
    wait_until_readable(stream)
    # Under TLS 1.3 the first thing readable may be a ticket, after which it goes on.
    assert stream.send(b"x" * 200_000_000, soon, stop_when_readable=True) < 200_000_000
    assert stream.receive(soon) == b""


def test_what_has_come_before_stops_the_first_byte(
    pair: tuple[Stream, socket.socket], soon: Deadline
) -> None:
    stream, peer = pair
    peer.sendall(b"421 bye\r\n")
    assert stream.send(b"content", soon, stop_when_readable=True) == 0
    assert stream.send(b"content", soon, stop_when_readable=True) == 0
    assert stream.receive(soon, 4) == b"421 "
    assert stream.receive_now() == b"bye\r\n"
    assert stream.send(b"content", soon, stop_when_readable=True) == 7


def test_an_answer_that_waits_does_not_stop_an_ordinary_send(
    pair: tuple[Stream, socket.socket], soon: Deadline
) -> None:
    stream, peer = pair
    peer.sendall(b"250 ok\r\n")
    assert stream.send(b"RSET\r\n", soon) == 6
    assert peer.recv(100) == b"RSET\r\n"


# Under TLS


@VERSIONS
@pytest.mark.parametrize("size", [1, 65536, 65537, 3_000_000])
def test_everything_arrives_as_it_was_sent(
    version: ssl.TLSVersion,
    size: int,
    serve: Serve,
    connect: Connect,
    identities: Certificates,
    trusting: ssl.SSLContext,
    soon: Deadline,
) -> None:
    received: list[bytes] = []

    def take(connection: ssl.SSLSocket) -> None:
        received.append(exactly(connection, size))
        connection.sendall(received[0])

    stream = connect(serve(tls_talk(server_context(identities.good, version=version), take)))
    stream.start_tls(trusting, "localhost", soon)
    content = memoryview(os.urandom(size))
    assert stream.send(content, soon) == size
    assert read_exactly(stream, size, soon) == content
    assert received == [content]
    assert stream.secure
    assert stream.tls is not None
    assert stream.tls.verified


def test_a_sender_and_a_reader_that_both_stall_keep_the_bytes_in_order(
    serve: Serve, connect: Connect, identities: Certificates, trusting: ssl.SSLContext, soon: Deadline
) -> None:
    received: list[bytes] = []

    def sip(connection: ssl.SSLSocket) -> None:
        pieces = []
        for _ in range(20):  # slower than the sender, whose socket is full again and again
            pieces.append(exactly(connection, 1000))
            time.sleep(0.002)
        received.append(b"".join(pieces) + receive_all(connection))

    peer = serve(tls_talk(server_context(identities.good), sip))
    stream = connect(peer)
    stream.start_tls(trusting, "localhost", soon)
    content = b"".join(struct.pack(">I", n) for n in range(1_000_000))
    stream.send(content, soon)
    stream.close()
    peer.wait_for_talk()
    assert received == [content]


def test_what_a_send_reports_as_sent_has_left(memory_pair: MemoryPair) -> None:
    stream, server = memory_pair()
    whole_sends = 0
    with suppress(TimeoutError):
        while True:
            stream.send(b"x" * 40_000, Deadline.after(0.1))
            whole_sends += 1
    server.socket.setblocking(False)
    received = 0
    with suppress(BlockingIOError):
        while data := server.receive():
            received += len(data)
    assert whole_sends > 0
    assert received >= whole_sends * 40_000


def test_tickets_are_nothing(
    serve: Serve, connect: Connect, identities: Certificates, trusting: ssl.SSLContext, soon: Deadline
) -> None:
    stream = connect(serve(tls_talk(server_context(identities.good), wait_for_end)))
    stream.start_tls(trusting, "localhost", soon)
    wait_until_readable(stream)  # TLS 1.3: the tickets
    assert stream.receive_now() is None
    with pytest.raises(TimeoutError):
        stream.receive(Deadline.after(0.05))


@VERSIONS
def test_a_peer_that_says_goodbye_and_one_that_does_not(
    version: ssl.TLSVersion, memory_pair: MemoryPair
) -> None:
    stream, server = memory_pair(version)
    server.tls.write(b"221 bye\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    server.socket.sendall(server.outgoing.read())
    assert stream.receive(Deadline.after(PATIENCE)) == b"221 bye\r\n"
    assert stream.receive(Deadline.after(PATIENCE)) == b""
    assert stream.receive_now() == b""

    stream, server = memory_pair(version)
    server.socket.close()
    assert stream.receive_now() == b""
    assert stream.receive(Deadline.after(PATIENCE)) == b""


def test_garbage_under_tls_is_an_error_to_a_read_and_the_end_to_a_look(memory_pair: MemoryPair) -> None:
    for look in (True, False):
        stream, server = memory_pair()
        server.socket.sendall(b"421 this is clear text\r\n")
        if look:
            assert stream.receive_now() == b""
        else:
            with pytest.raises(ssl.SSLError):
                stream.receive(Deadline.after(PATIENCE))


@pytest.mark.parametrize("early_bytes", [b"220 mail.example ESMTP\r\n", b"250-AUTH PLAIN\r\n", b"2"])
def test_clear_text_before_the_handshake_stops_it(
    early_bytes: bytes, pair: tuple[Stream, socket.socket], trusting: ssl.SSLContext, soon: Deadline
) -> None:
    stream, peer = pair
    peer.sendall(early_bytes)
    with pytest.raises(PlaintextBeforeTLS) as caught:
        stream.start_tls(trusting, "localhost", soon)
    assert caught.value.first_bytes == early_bytes
    assert not stream.secure
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)  # no ClientHello


def test_clear_text_that_was_read_ahead_stops_the_handshake_too(
    pair: tuple[Stream, socket.socket], trusting: ssl.SSLContext, soon: Deadline
) -> None:
    stream, peer = pair
    peer.sendall(b"220 go\r\n250-AUTH PLAIN\r\n")
    stream.send(b"x", soon, stop_when_readable=True)
    assert stream.receive(soon, 8) == b"220 go\r\n"
    with pytest.raises(PlaintextBeforeTLS):
        stream.start_tls(trusting, "localhost", soon)


def test_clear_text_in_answer_to_the_handshake_is_kept_for_the_error(
    serve: Serve, connect: Connect, trusting: ssl.SSLContext, soon: Deadline
) -> None:
    def greet_late(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"220 mail.example " + b"x" * 1000 + b"\r\n")
        wait_for_end(connection)

    stream = connect(serve(greet_late))
    with pytest.raises(ssl.SSLError):
        stream.start_tls(trusting, "localhost", soon)
    assert stream.handshake_bytes.startswith(b"220 mail.example x")
    assert len(stream.handshake_bytes) <= KEPT_FIRST_BYTES
    assert not stream.secure


def test_after_a_failed_handshake_nothing_goes_out_in_clear(
    serve: Serve, connect: Connect, identities: Certificates, trusting: ssl.SSLContext, soon: Deadline
) -> None:
    heard: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        server = MemoryServer(connection, server_context(identities.expired))
        with suppress(OSError):  # the client's alert, or its end
            server.shake_hands()
            server.receive()
        heard.append(receive_all(connection))

    peer = serve(listen)
    stream = connect(peer)
    with pytest.raises(ssl.SSLCertVerificationError):
        stream.start_tls(trusting, "localhost", soon)
    with pytest.raises((OSError, ssl.SSLError)):
        stream.send(b"AUTH PLAIN secret\r\n", soon)
    stream.close()
    peer.wait_for_talk()
    assert b"secret" not in b"".join(heard)


def drip(connection: socket.socket) -> None:
    """The header of a long handshake record, then a byte of it now and then."""
    connection.recv(65536)
    connection.sendall(b"\x16\x03\x03\x40\x00")
    for _ in range(500):
        connection.sendall(b"\x02")
        time.sleep(0.02)


@pytest.mark.parametrize("talk", [drip, wait_for_end])
def test_the_deadline_holds_for_the_whole_handshake(
    talk: Callable[[socket.socket], None], serve: Serve, connect: Connect, trusting: ssl.SSLContext
) -> None:
    stream = connect(serve(talk))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.start_tls(trusting, "localhost", Deadline.after(0.2))
    assert time.monotonic() - began < 2


def test_the_deadline_holds_for_a_record_that_drips(memory_pair: MemoryPair) -> None:
    stream, server = memory_pair()
    record = server.encrypted(b"x" * 1000)
    ended = threading.Event()

    def drip_record() -> None:
        for byte in record:
            server.socket.sendall(bytes([byte]))
            if ended.wait(0.01):
                return

    thread = threading.Thread(target=drip_record)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            stream.receive(Deadline.after(0.2))
        assert time.monotonic() - began < 2
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("name", "asked_for"),
    [
        ("localhost", "localhost"),
        ("mail.lab.test.", "mail.lab.test"),
        ("MAIL.lab.test", "MAIL.lab.test"),
        ("127.0.0.1", None),
        ("[::1]", None),
    ],
)
def test_the_name_that_is_asked_for_and_verified(
    name: str,
    asked_for: str | None,
    serve: Serve,
    connect: Connect,
    identities: Certificates,
    trusting: ssl.SSLContext,
    soon: Deadline,
) -> None:
    asked: list[str | None] = []
    context = server_context(identities.good)
    context.sni_callback = lambda sock, sni, ctx: asked.append(sni)
    stream = connect(serve(tls_talk(context, echo)))
    stream.start_tls(trusting, name, soon)
    assert asked == [asked_for]
    stream.send(b"x", soon)
    assert stream.receive(soon) == b"x"


@pytest.mark.parametrize("name", ["localhost.example", "127.0.0.2", "lab.test"])
def test_a_certificate_for_other_names(
    name: str,
    serve: Serve,
    connect: Connect,
    identities: Certificates,
    trusting: ssl.SSLContext,
    soon: Deadline,
) -> None:
    stream = connect(serve(tls_talk(server_context(identities.good), echo)))
    with pytest.raises(ssl.SSLCertVerificationError):
        stream.start_tls(trusting, name, soon)


def test_without_a_name_nothing_can_be_verified(
    pair: tuple[Stream, socket.socket], trusting: ssl.SSLContext, soon: Deadline
) -> None:
    with pytest.raises(ConfigurationError, match=r"tls\.server_hostname"):
        pair[0].start_tls(trusting, None, soon)


def test_tls_through_the_tls_of_a_proxy(
    serve: Serve, connect: Connect, identities: Certificates, trusting: ssl.SSLContext, soon: Deadline
) -> None:
    inner = serve(tls_talk(server_context(identities.good), echo))

    def forward(connection: ssl.SSLSocket) -> None:
        with socket.create_connection(("127.0.0.1", inner.port), PATIENCE) as behind:

            def back() -> None:
                with contextlib.suppress(OSError):  # the client has left
                    while data := behind.recv(65536):
                        connection.sendall(data)

            thread = threading.Thread(target=back)
            thread.start()
            try:
                while data := connection.recv(65536):
                    behind.sendall(data)
            finally:
                behind.shutdown(socket.SHUT_RDWR)
                thread.join()

    stream = connect(serve(tls_talk(server_context(identities.wrong_host), forward)))
    stream.start_tls(trusting, "other.lab.test", soon, to_proxy=True)
    assert not stream.secure
    assert stream.tls is None
    stream.start_tls(trusting, "localhost", soon)
    assert stream.secure
    assert stream.tls is not None
    assert stream.tls.subject == "localhost"
    content = os.urandom(300_000)
    for start in range(0, len(content), 30_000):
        piece = content[start : start + 30_000]
        stream.send(piece, soon)
        assert read_exactly(stream, len(piece), soon) == piece


# Closing


def test_closing_says_goodbye_and_does_not_wait(memory_pair: MemoryPair) -> None:
    stream, server = memory_pair(ssl.TLSVersion.TLSv1_2)
    stream.close()
    stream.close()
    assert server.receive() == b""  # close_notify; an end of file without it would be an error here
    assert not stream.is_open
    assert "closed" in repr(stream)


def test_closing_does_not_push_out_what_was_given_up(memory_pair: MemoryPair) -> None:
    stream, server = memory_pair()
    assert stream.receive_now() is None  # takes the tickets: unread ones would make a reset of the end
    with pytest.raises(TimeoutError):
        stream.send(b"x" * 50_000_000, Deadline.after(0.1))
    server.socket.setblocking(False)
    with suppress(BlockingIOError):
        while server.socket.recv(65536):
            pass
    stream.close()
    assert server.socket.recv(65536) == b""


def test_a_closed_stream_refuses_everything(pair: tuple[Stream, socket.socket], soon: Deadline) -> None:
    stream, peer = pair
    peer.sendall(b"x")
    stream.close()
    with pytest.raises(OSError, match="closed"):
        stream.receive(soon)
    with pytest.raises(OSError, match="closed"):
        stream.send(b"x", soon)
    assert stream.receive_now() == b""


@VERSIONS
def test_a_child_that_abandons_leaves_the_parents_session_alone(
    version: ssl.TLSVersion, memory_pair: MemoryPair, soon: Deadline
) -> None:
    stream, server = memory_pair(version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: other tests' threads may live on
        child = os.fork()
    if child == 0:
        try:
            stream.abandon()
            stream.abandon()
            del stream
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    server.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.socket.recv(1)
    server.socket.settimeout(PATIENCE)
    stream.send(b"NOOP\r\n", soon)
    assert server.receive() == b"NOOP\r\n"
    server.socket.sendall(server.encrypted(b"250 ok\r\n"))
    assert stream.receive(soon) == b"250 ok\r\n"


# Properties

PIECES = st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8)
CUTS = st.lists(st.integers(1, 97), min_size=1, max_size=10)


def received_in_pieces(
    stream: Stream, peer: socket.socket, wire: bytes, cuts: list[int], limit: int
) -> bytes:
    """What `stream` receives of `wire`, which arrives cut up, with a look after each cut."""
    received = b""
    turn = 0
    while wire:
        size = cuts[turn % len(cuts)]
        peer.sendall(wire[:size])
        wire = wire[size:]
        turn += 1
        while (data := stream.receive_now(limit)) is not None:
            assert 0 < len(data) <= limit
            received += data
    return received


@given(pieces=PIECES, cuts=CUTS, limit=st.integers(1, 300))
def test_however_it_is_split_the_bytes_are_the_same(pieces: list[bytes], cuts: list[int], limit: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        stream = Stream(ours)
        try:
            assert received_in_pieces(stream, theirs, b"".join(pieces), cuts, limit) == b"".join(pieces)
        finally:
            stream.close()


@VERSIONS
def test_however_records_are_split_the_bytes_are_the_same(
    version: ssl.TLSVersion, memory_pair: MemoryPair
) -> None:
    stream, server = memory_pair(version)

    @settings(deadline=None)
    @given(pieces=PIECES, cuts=CUTS, limit=st.integers(1, 300))
    def check(pieces: list[bytes], cuts: list[int], limit: int) -> None:
        wire = b"".join(server.encrypted(piece) for piece in pieces)
        assert received_in_pieces(stream, server.socket, wire, cuts, limit) == b"".join(pieces)

    check()


# gevent

GEVENT = """
from gevent import monkey
monkey.patch_all()
import socket, ssl, sys, threading
from mailbridge.deadline import Deadline
from mailbridge.net.dialer import Target, dial
from mailbridge.net.stream import Stream
from mailbridge.net.tls.context import context_for
from mailbridge.config.groups import TLSOptions

ca, certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))

def serve():
    connection, _ = listener.accept()
    with context.wrap_socket(connection, server_side=True) as secured:
        while data := secured.recv(100):
            secured.sendall(data)

server = threading.Thread(target=serve)  # a greenlet: it runs only while the client waits
server.start()
soon = Deadline.after(20)
dialed = dial(Target(host="localhost", port=listener.getsockname()[1], family="ipv4"), deadline=soon)
stream = Stream(dialed.socket)
stream.start_tls(context_for(TLSOptions(ca_file=ca)), "localhost", soon)
for _ in range(3):
    stream.send(b"hello", soon)
    assert stream.receive(soon) == b"hello"
stream.close()
server.join()
listener.close()
print("done")
"""


def test_gevents_hub_runs_while_a_stream_waits(identities: Certificates) -> None:
    pytest.importorskip("gevent", reason="gevent is not part of every environment")
    files = (identities.ca_file, identities.good.cert_file, identities.good.key_file)
    command = [sys.executable, "-c", GEVENT, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "done\n", done.stderr


def test_never_is_a_deadline_too(pair: tuple[Stream, socket.socket]) -> None:
    stream, peer = pair
    peer.sendall(b"x")
    assert stream.receive(NEVER) == b"x"
    assert stream.send(b"y", NEVER) == 1
