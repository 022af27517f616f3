"""Content in pieces: never a truncated message, never a dot in the wrong place, and progress."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import InvalidMessage, MessageRefused, RecipientsRefused
from mailbridge.rendering.lines import canonical
from mailbridge.smtp.dot_stuffing import dot_stuffed
from mailbridge.smtp.flows.steps import Step, Transfer, WriteContent
from mailbridge.smtp.flows.transaction import Transaction, transact
from mailbridge.smtp.wire import WINDOW_BYTES, Wire
from tests.unit.smtp.flows.large import LARGE, ChunkServer, DataServer, Parts

A = "a@x.example"
CLEAN = canonical(b"".join(random.Random(2).choices([b".", b"\r\n", b"\r\n.", b"x" * 70], k=100_000)))


def pipelining() -> Wire:
    return Wire(window=WINDOW_BYTES)


def transaction(content: object, **more: object) -> Transaction:
    return Transaction(sender="", recipients=[A], mail_parameters=[], content=content, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [None, 1, 100, 65_535, 300_000])
def test_dots_are_stuffed_wherever_pieces_end(step: int | None) -> None:
    content = CLEAN if step != 1 else CLEAN[:5000] + b"\r\n"
    server = DataServer()
    server.run(transact(pipelining(), transaction(content if step is None else Parts(content, step))))
    assert bytes(server.raw) == dot_stuffed(content) + b".\r\n"
    assert server.sizes[-1] <= 16 * 1024 + 3, "what may leave the outcome in doubt is one short write"


@given(st.lists(st.sampled_from([b".", b"\r\n", b"x", b"..", b"\r\n."]), max_size=30), st.integers(1, 7))
def test_any_content_in_any_pieces(parts: list[bytes], step: int) -> None:
    content = canonical(b"".join(parts))
    server = DataServer()
    server.run(transact(pipelining(), transaction(Parts(content, step))))
    assert bytes(server.raw) == dot_stuffed(content) + b".\r\n"


def test_memory_holds_some_pieces_and_not_the_message() -> None:
    """The largest write is a piece, not the content; small pieces are joined."""
    server = DataServer()
    server.run(transact(pipelining(), transaction(Parts(CLEAN, 1000))))
    assert 64 * 1024 <= max(server.sizes) < 128 * 1024
    server = DataServer()
    server.run(transact(pipelining(), transaction(LARGE + b"\r\n")))
    assert max(server.sizes) < 2 * 1024 * 1024


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (Parts(LARGE, 100_000, announced=len(LARGE) + 1), "3300000 bytes, not 3300001"),
        (Parts(LARGE, 100_000, announced=len(LARGE) - 1), "at least 3300000 bytes, not 3299999"),
        (Parts(LARGE, 100_000, announced=1000), "at least 100000 bytes, not 1000"),
        (Parts(b"", 1, announced=1), "0 bytes, not 1"),
        (Parts(b"Hi\r\n", 4, error=InvalidMessage("gone")), "gone"),
    ],
    ids=["shorter", "longer", "much longer", "empty", "unreadable"],
)
def test_content_that_is_not_as_announced_is_never_committed(
    content: Parts, problem: str, chunking: bool
) -> None:
    wire = pipelining()
    server = ChunkServer(eager=False) if chunking else DataServer()
    with pytest.raises(InvalidMessage, match=problem):
        server.run(transact(wire, transaction(content, chunking=chunking)))
    assert not wire.in_doubt
    assert not server.is_committed
    assert chunking or not wire.is_quiet, "content has begun: the session can't be used again"


@pytest.mark.parametrize("chunking", [True, False])
def test_progress(chunking: bool) -> None:
    """Nothing at first, then ever more; the end is told by who knows that it was accepted."""
    told: list[tuple[int, int]] = []
    content = Parts(CLEAN, 65_536)
    server = ChunkServer(eager=False) if chunking else DataServer()
    wanted = transaction(content, chunking=chunking, progress=lambda *so_far: told.append(so_far))
    server.run(transact(pipelining(), wanted))
    assert told[0] == (0, len(CLEAN))
    assert len(told) > 10
    assert told == sorted(set(told))
    assert all(sent < size == len(CLEAN) for sent, size in told)


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("least", [0, 1])
def test_what_progress_raises_ends_the_message_before_its_commit(least: int, chunking: bool) -> None:
    def refuse(sent: int, size: int) -> None:
        if sent >= least:
            raise KeyError("changed my mind")

    wire = pipelining()
    server = ChunkServer(eager=False) if chunking else DataServer()
    with pytest.raises(KeyError):
        server.run(transact(wire, transaction(CLEAN * 3, chunking=chunking, progress=refuse)))
    assert not wire.in_doubt
    assert not server.is_committed


def test_a_refusal_in_the_middle_stops_the_reading_too() -> None:
    class Refusing(DataServer):
        def perform(self, step: Step) -> object:
            if isinstance(step, WriteContent) and len(self.raw) > 500_000:
                self.ready += b"552 5.3.4 too big\r\n"
                return 0
            return super().perform(step)

    wire, content = pipelining(), Parts(CLEAN, 65_536)
    server = Refusing()
    with pytest.raises(MessageRefused) as caught:
        server.run(transact(wire, transaction(content)))
    assert (caught.value.stage, caught.value.smtp_code) == ("content", 552)
    assert not server.is_committed
    assert not wire.is_quiet


def test_the_time_limit_begins_anew_with_every_32_megabytes() -> None:
    class Timed(DataServer):
        starts: list[int] = []  # noqa: RUF012

        def perform(self, step: Step) -> object:
            if isinstance(step, WriteContent) and step.is_new:
                self.starts.append(len(self.raw))
            return super().perform(step)

    server = Timed()
    server.run(transact(pipelining(), transaction(Parts(bytes((70 << 20) - 2) + b"\r\n", 1 << 20))))
    assert server.starts == [0, 32 << 20, 64 << 20, (70 << 20) - 16 * 1024 + 3]


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("window", [0, WINDOW_BYTES])
def test_nothing_is_even_read_before_a_recipient_is_accepted(window: int, chunking: bool) -> None:
    class Unread:
        size = 100_000

        def pieces(self) -> Iterator[bytes]:
            raise AssertionError("asked for the content")

    class Refusing(DataServer):
        def perform(self, step: Step) -> object:
            assert not isinstance(step, WriteContent)
            if isinstance(step, Transfer):
                refusals = (line[:4] in (b"RCPT", b"DATA") for line in step.data.splitlines())
                return b"".join(b"550 no\r\n" if refused else b"250 ok\r\n" for refused in refusals)
            return super().perform(step)

    with pytest.raises(RecipientsRefused):
        Refusing().run(transact(Wire(window=window), transaction(Unread(), chunking=chunking)))
