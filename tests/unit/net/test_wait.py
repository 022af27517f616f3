"""Waiting: ends at the deadline, knows no limit on descriptors, works without poll()."""

import fcntl
import resource
import select
import socket
from collections.abc import Iterator

import pytest

from mailbridge.deadline import NEVER, Deadline
from mailbridge.net import wait


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=["poll", "select"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "select":
        monkeypatch.delattr(select, "poll")
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_tells_what_is_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert not wait.is_ready(ours, read=True)
    assert wait.is_ready(ours, write=True)
    theirs.sendall(b"x")
    assert wait.is_ready(ours, read=True)
    assert wait.ready([theirs, ours], read=True, write=False, seconds=None) == [ours]


@pytest.mark.usefixtures("way")
def test_end_of_file_is_readable(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    wait.wait(ours, read=True, deadline=NEVER)


@pytest.mark.usefixtures("way")
def test_ends_at_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        wait.wait(pair[0], read=True, deadline=Deadline.after(0.02))


def test_a_deadline_that_is_over_ends_the_wait_although_the_socket_is_ready(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(b"x")
    with pytest.raises(TimeoutError):
        wait.wait(ours, read=True, deadline=Deadline.after(0))


@pytest.mark.usefixtures("way")
def test_a_closed_socket_is_an_error_and_no_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    with pytest.raises(OSError, match="closed"):
        wait.wait(pair[0], read=True, deadline=NEVER)


def test_descriptors_beyond_1024_are_fine(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1500
    assert hard == resource.RLIM_INFINITY or hard > wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 100), hard))
    try:
        high = socket.socket(fileno=fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD, wanted))
        with high:
            assert high.fileno() >= wanted
            theirs.sendall(b"x")
            wait.wait(high, read=True, deadline=Deadline.after(5))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
