"""A stream as a file: exact reads, whole writes, one deadline, and a stream that outlives it."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import pytest

from mailbridge.deadline import Deadline
from mailbridge.net.stream import Stream, StreamFile

SOON = 10.0  # seconds; reaching it is a failure
Pair = tuple[Stream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    stream = Stream(ours)
    with theirs:
        yield stream, theirs
        stream.close()


def test_it_reads_no_more_than_asked_for(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abcdef")
    file = StreamFile(stream, Deadline.after(SOON))
    assert (file.read(2), file.read(1)) == (b"ab", b"c")
    assert stream.receive(Deadline.after(SOON)) == b"def"


def test_it_reads_what_was_given_back_first(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"cd")
    stream.unread(b"ab")
    file = StreamFile(stream, Deadline.after(SOON))
    assert (file.read(1), file.read(9), file.read(9)) == (b"a", b"b", b"cd")


def test_the_end_of_the_stream_is_the_end_of_the_file(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"last\nline")
    peer.shutdown(socket.SHUT_WR)
    with io.BufferedReader(StreamFile(stream, Deadline.after(SOON))) as reader:
        assert reader.readlines() == [b"last\n", b"line"]


def test_it_writes_all_of_it(pair: Pair) -> None:
    stream, peer = pair
    with io.BufferedWriter(StreamFile(stream, Deadline.after(SOON))) as writer:
        writer.write(b"ab")
        writer.write(b"cd")
    assert peer.recv(9) == b"abcd"


def test_closing_it_leaves_the_stream_open(pair: Pair) -> None:
    stream, peer = pair
    StreamFile(stream, Deadline.after(SOON)).close()
    assert stream.is_open
    stream.send(b"still here", Deadline.after(SOON))
    assert peer.recv(99) == b"still here"


def test_reads_and_writes_end_at_the_deadline(pair: Pair) -> None:
    stream, _ = pair
    file = StreamFile(stream, Deadline.after(0))
    with pytest.raises(TimeoutError):
        file.read(1)
    with pytest.raises(TimeoutError):
        file.write(b"x")


def test_it_is_for_both_ways(pair: Pair) -> None:
    file = StreamFile(pair[0], Deadline.after(0))
    assert file.readable()
    assert file.writable()
    assert not file.seekable()
