"""Dialing: the race of addresses, its one deadline, and that no socket is left over."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError, ConnectFailed, ConnectTimeout, NameNotResolved
from mailbridge.net import dialer, wait
from mailbridge.net.dialer import ATTEMPT_DELAY_SECONDS, Target, dial
from tests.unit.net.conftest import Serve, wait_for_end


def row(ip: str, port: int) -> tuple[Any, ...]:
    if ":" in ip:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)


def answering(*rows: tuple[Any, ...]) -> Any:
    return lambda *question: list(rows)


def descriptors() -> set[str]:
    """The open descriptors; the one that lists them is closed again."""
    return {entry for entry in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{entry}")}


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    # Automatic fixtures are set up first and so torn down last, after all peers.
    before = descriptors()
    yield
    assert descriptors() <= before


@pytest.fixture
def silent(serve: Serve) -> int:
    """The port of a server on 127.0.0.1 that accepts and says nothing."""
    return serve(wait_for_end).port


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port that nothing listens on, kept from others by being bound on all loopback addresses."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.socket())
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        for family, ip in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
            other = stack.enter_context(socket.socket(family))
            other.bind((ip, port))
        yield port


@pytest.fixture(scope="module")
def black_hole() -> Iterator[int]:
    """A port on 127.0.0.1 whose queue is full, so that the kernel drops every further SYN."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(20):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            if not wait.ready([filler], read=False, write=True, seconds=0.2):
                break
        else:
            pytest.fail("the queue does not fill up")
        yield port


def test_a_given_socket_has_one_attempt(silent: int, closed_port: int, soon: Deadline) -> None:
    """A socket that has failed can't be used again; of which family it is, it says itself."""
    resolver = answering(row("::1", silent), row("127.0.0.1", closed_port), row("127.0.0.1", silent))
    sock = socket.socket()
    with pytest.raises(ConnectFailed, match=f"refused by 127.0.0.1:{closed_port} "):
        dial(Target(host="m.example", port=25), deadline=soon, getaddrinfo=resolver, given=sock)
    assert sock.fileno() == -1
    resolver = answering(row("127.0.0.1", silent), row("127.0.0.1", closed_port))
    with socket.socket() as sock:
        dialed = dial(Target(host="m.example", port=25), deadline=soon, getaddrinfo=resolver, given=sock)
        assert dialed.socket is sock
        assert (dialed.address, dialed.is_loopback) == (f"127.0.0.1:{silent}", True)


def test_connects_and_prepares_the_socket(silent: int, soon: Deadline) -> None:
    dialed = dial(Target(host="127.0.0.1", port=silent), deadline=soon)
    with dialed.socket as sock:
        assert sock.getpeername() == ("127.0.0.1", silent)
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert dialed.address == f"127.0.0.1:{silent}"
        assert dialed.is_loopback
        assert dialed.tried == ()
        assert dialed.dns_seconds >= 0
        assert dialed.connect_seconds >= 0


def test_the_next_address_is_tried_at_once_when_one_refuses(
    silent: int, closed_port: int, soon: Deadline
) -> None:
    resolver = answering(row("::1", closed_port), row("127.0.0.1", silent))
    began = time.monotonic()
    dialed = dial(Target(host="m.example", port=25), deadline=soon, getaddrinfo=resolver)
    with dialed.socket:
        assert time.monotonic() - began < ATTEMPT_DELAY_SECONDS
        assert dialed.address == f"127.0.0.1:{silent}"
        assert dialed.tried == (f"[::1]:{closed_port} refused",)


def test_a_dropped_first_address_costs_a_quarter_of_a_second(
    silent: int, black_hole: int, soon: Deadline
) -> None:
    resolver = answering(row("127.0.0.1", black_hole), row("127.0.0.1", silent))
    began = time.monotonic()
    dialed = dial(Target(host="m.example", port=25), deadline=soon, getaddrinfo=resolver)
    with dialed.socket:
        assert time.monotonic() - began >= ATTEMPT_DELAY_SECONDS
        assert dialed.address == f"127.0.0.1:{silent}"
        assert dialed.connect_seconds >= ATTEMPT_DELAY_SECONDS


def test_a_refusal_ends_the_pause_also_while_another_attempt_is_under_way(
    silent: int, black_hole: int, closed_port: int, soon: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    delay = 0.6  # long enough to tell one from two on a busy machine
    monkeypatch.setattr(dialer, "ATTEMPT_DELAY_SECONDS", delay)
    places = (black_hole, closed_port, silent)
    resolver = answering(*(row("127.0.0.1", port) for port in places))
    dialed = dial(Target(host="m.example", port=25), deadline=soon, getaddrinfo=resolver)
    with dialed.socket:
        assert dialed.address == f"127.0.0.1:{silent}"
        assert delay <= dialed.connect_seconds < 2 * delay


def test_families_alternate_beginning_with_the_resolvers_first(closed_port: int, soon: Deadline) -> None:
    ips = ["127.0.0.1", "127.0.0.2", "::1"]
    resolver = answering(*(row(ip, closed_port) for ip in ips))
    with pytest.raises(ConnectFailed) as caught:
        dial(Target(host="m.example", port=25), deadline=soon, getaddrinfo=resolver)
    p = closed_port
    assert caught.value.message == f"Connection refused by 127.0.0.1:{p} and [::1]:{p} and 127.0.0.2:{p}"


def test_a_refusal_is_told_with_its_number_and_a_hint(closed_port: int, soon: Deadline) -> None:
    with pytest.raises(ConnectFailed) as caught:
        dial(Target(host="127.0.0.1", port=closed_port), deadline=soon)
    error = caught.value
    assert error.message == f"Connection refused by 127.0.0.1:{closed_port}"
    assert error.errno == errno.ECONNREFUSED
    assert error.stage == "tcp"
    assert error.server == f"127.0.0.1:{closed_port}"
    assert "Nothing listens there" in error.hint
    assert error.is_transient


def test_different_failures_are_all_told(closed_port: int, soon: Deadline) -> None:
    resolver = answering(row("127.0.0.1", closed_port), row("8.8.8.8", 25))
    # From a loopback address Linux refuses to go anywhere else, without sending a packet.
    target = Target(host="m.example", port=25, source_address="127.0.0.1")
    with pytest.raises(ConnectFailed) as caught:
        dial(target, deadline=soon, getaddrinfo=resolver)
    assert (
        caught.value.message == f"Connection refused by 127.0.0.1:{closed_port}; Invalid argument: 8.8.8.8:25"
    )
    assert caught.value.errno is None


def test_one_deadline_over_all_addresses(black_hole: int, closed_port: int) -> None:
    resolver = answering(row("127.0.0.1", black_hole), row("::1", closed_port))
    began = time.monotonic()
    with pytest.raises(ConnectTimeout) as caught:
        dial(Target(host="m.example", port=25), deadline=Deadline.after(0.4), getaddrinfo=resolver)
    assert 0.4 <= time.monotonic() - began < 2
    assert caught.value.stage == "tcp"
    assert f"refused by [::1]:{closed_port}" in caught.value.message
    assert "587" in caught.value.hint


def test_a_deadline_that_is_over_connects_to_nothing(serve: Serve) -> None:
    peer = serve(wait_for_end)
    with pytest.raises(ConnectTimeout):
        dial(Target(host="127.0.0.1", port=peer.port), deadline=Deadline.after(0))
    assert peer.connections == 0


def test_the_look_up_has_a_limit_of_its_own(soon: Deadline) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectTimeout, match="DNS") as caught:
        dial(
            Target(host="m.example", port=25),
            dns_timeout=0.05,
            deadline=soon,
            getaddrinfo=lambda *question: time.sleep(0.3) or [],
        )
    assert caught.value.stage == "dns"
    assert time.monotonic() - began < 0.3


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_no_socket(
    interruption: type[BaseException], black_hole: int, soon: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **options: object) -> Any:
        raise interruption

    before = descriptors()
    monkeypatch.setattr(wait, "ready", interrupted)
    with pytest.raises(interruption) as caught:
        dial(Target(host="127.0.0.1", port=black_hole), deadline=soon)
    # Looked at while the traceback still holds every frame: closed, not just collected.
    assert descriptors() == before
    assert caught.tb is not None


def test_losers_are_closed(
    silent: int, black_hole: int, soon: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Recorded)
    resolver = answering(row("127.0.0.1", black_hole), row("127.0.0.1", silent))
    dialed = dial(Target(host="m.example", port=25), deadline=soon, getaddrinfo=resolver)
    with dialed.socket:
        loser, winner = made[:2]
        assert winner is dialed.socket
        assert loser.fileno() == -1
        assert winner.fileno() >= 0


def test_source_address_is_bound_and_decides_the_family(
    silent: int, closed_port: int, soon: Deadline
) -> None:
    asked: list[Any] = []

    def getaddrinfo(*question: Any) -> Any:
        asked.append(question[2])
        return [row("::1", closed_port), row("127.0.0.1", silent)]

    target = Target(host="m.example", port=25, source_address="127.0.0.5")
    with dial(target, deadline=soon, getaddrinfo=getaddrinfo).socket as sock:
        assert sock.getsockname()[0] == "127.0.0.5"
    assert asked == [socket.AF_INET]


def test_a_source_address_of_another_machine(silent: int, soon: Deadline) -> None:
    with pytest.raises(ConnectFailed, match="Cannot assign requested address") as caught:
        dial(Target(host="127.0.0.1", port=silent, source_address="203.0.113.9"), deadline=soon)
    assert "source_address" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "family"), [("mail.example", "any"), ("::1", "ipv4"), ("127.0.0.1", "ipv6")]
)
def test_a_source_address_that_cannot_work(source: str, family: Any, soon: Deadline) -> None:
    with pytest.raises(ConfigurationError, match="source_address"):
        dial(Target(host="localhost", port=25, family=family, source_address=source), deadline=soon)


def test_a_source_address_of_the_other_family_than_the_host(soon: Deadline) -> None:
    with pytest.raises(NameNotResolved, match="no IPv4 address"):
        dial(Target(host="::1", port=25, source_address="127.0.0.1"), deadline=soon)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
def test_internal_addresses_are_refused_before_they_are_dialled(
    host: str, serve: Serve, soon: Deadline
) -> None:
    peer = serve(wait_for_end)
    target = Target(host=host, port=peer.port, family="ipv4", allow_internal_networks=False)
    with pytest.raises(ConnectFailed, match=r"is internal \(127.0.0.1\).*allow_internal_networks") as caught:
        dial(target, deadline=soon)
    assert caught.value.stage == "tcp"
    assert peer.connections == 0


def test_the_address_that_was_checked_is_the_one_dialled(serve: Serve, soon: Deadline) -> None:
    peer = serve(wait_for_end)
    answers = [[row("8.8.8.8", 25)], [row("127.0.0.1", peer.port)]]
    target = Target(host="m.example", port=25, source_address="127.0.0.1", allow_internal_networks=False)
    with pytest.raises(ConnectFailed, match=r"Invalid argument: 8\.8\.8\.8:25"):
        dial(target, deadline=soon, getaddrinfo=lambda *question: answers.pop(0))
    assert len(answers) == 1, "the resolver must be asked once"
    with pytest.raises(ConnectFailed, match="is internal"):
        dial(target, deadline=soon, getaddrinfo=lambda *question: answers.pop(0))
    assert peer.connections == 0


def test_internal_addresses_among_public_ones_are_passed_over(serve: Serve, soon: Deadline) -> None:
    peer = serve(wait_for_end)
    resolver = answering(row("127.0.0.1", peer.port), row("8.8.8.8", 25))
    target = Target(host="m.example", port=25, source_address="127.0.0.1", allow_internal_networks=False)
    with pytest.raises(ConnectFailed, match=rf"Internal address: 127.0.0.1:{peer.port}; Invalid argument: 8"):
        dial(target, deadline=soon, getaddrinfo=resolver)
    assert peer.connections == 0


def test_unix_sockets(tmp_path: Path, soon: Deadline) -> None:
    path = str(tmp_path / "smtp.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        dialed = dial(Target(unix_path=path), deadline=soon)
        with dialed.socket as sock:
            assert sock.getpeername() == path
            assert not sock.getblocking()
            assert dialed.address == f"unix:{path}"
            assert dialed.is_loopback
    with pytest.raises(ConnectFailed, match=f"Connection refused: {path}") as caught:
        dial(Target(unix_path=path), deadline=soon)
    assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize(("place", "code"), [("nothing", errno.ENOENT), ("file/socket", errno.ENOTDIR)])
def test_unix_sockets_that_are_not_there(place: str, code: int, tmp_path: Path, soon: Deadline) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / place)
    with pytest.raises(ConnectFailed, match=path) as caught:
        dial(Target(unix_path=path), deadline=soon)
    assert caught.value.errno == code
    assert caught.value.server == f"unix:{path}"


def test_a_unix_socket_without_permission(tmp_path: Path, soon: Deadline) -> None:
    path = tmp_path / "smtp.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        if os.geteuid() == 0:  # to whom no file is closed
            dial(Target(unix_path=str(path)), deadline=soon).socket.close()
        else:
            with pytest.raises(ConnectFailed, match="Permission denied"):
                dial(Target(unix_path=str(path)), deadline=soon)


@pytest.mark.parametrize("path", ["/x" * 200, "/x/a\0b"])
def test_unix_paths_that_cannot_be(path: str, soon: Deadline) -> None:
    with pytest.raises(ConfigurationError, match="UNIX socket path"):
        dial(Target(unix_path=path), deadline=soon)


def test_a_unix_socket_with_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.sock")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        while True:
            filler = stack.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            if filler.connect_ex(path) == errno.EAGAIN:
                break
        with pytest.raises(ConnectTimeout):
            dial(Target(unix_path=path), deadline=Deadline.after(0.05))


def test_a_unix_socket_is_internal(tmp_path: Path, soon: Deadline) -> None:
    with pytest.raises(ConnectFailed, match="allow_internal_networks"):
        dial(Target(unix_path=str(tmp_path / "x"), allow_internal_networks=False), deadline=soon)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (Target(host="m.example", port=25), "m.example:25"),
        (Target(host="::1", port=25), "[::1]:25"),
        (Target(host="[::1]", port=25), "[::1]:25"),
        (Target(unix_path="/run/smtp"), "unix:/run/smtp"),
    ],
)
def test_how_a_target_is_written(target: Target, shown: str) -> None:
    assert str(target) == shown
