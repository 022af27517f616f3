"""The driver: steps on a real stream, time limits, end-of-file and what is counted."""

import logging
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from mailbridge.client.driver import Driver
from mailbridge.config.groups import Timeouts
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import NEVER, Clock, Deadline
from mailbridge.errors import ConnectionLost, DeadlineExceeded, InvalidMessage, ReplyTimeout
from mailbridge.logs import Log
from mailbridge.net.stream import Stream
from mailbridge.smtp import commands
from mailbridge.smtp.flows.steps import Look, ReadPiece, Transfer, WriteContent

Pair = tuple[Driver, socket.socket]


def driver_of(stream: Stream, timeouts: Timeouts, clock: Clock = time.monotonic) -> Driver:
    config = SMTPConfig(host="x", port=25, timeouts=timeouts)
    return Driver(stream, config, Log.of(config), connection_id="1", clock=clock)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    stream = Stream(ours)
    limits = Timeouts(command=0.2, greeting=0.2, data=0.2, final=0.2)
    yield driver_of(stream, limits), theirs
    stream.close()
    theirs.close()


async def one(step: Transfer | Look | WriteContent | ReadPiece) -> object:
    return await step


def test_transfer_writes_then_reads_and_counts_the_wait(pair: Pair) -> None:
    driver, server = pair
    server.sendall(b"250 ok\r\n")
    assert driver.run(one(Transfer(b"NOOP\r\n", (), "noop", "command", True)), NEVER) == b"250 ok\r\n"
    assert server.recv(100) == b"NOOP\r\n"
    assert driver.round_trips == 1
    assert driver.seconds["noop"] > 0


def test_a_reply_in_pieces_is_one_wait(pair: Pair) -> None:
    driver, server = pair
    server.sendall(b"250")
    driver.run(one(Transfer(b"NOOP\r\n", (), "noop", "command", True)), NEVER)
    server.sendall(b" ok\r\n")
    driver.run(one(Transfer(b"", (), "noop", "command", False)), NEVER)
    assert driver.round_trips == 1


def test_end_of_file_and_a_reset_are_no_bytes(pair: Pair) -> None:
    driver, server = pair
    server.close()
    assert driver.run(one(Transfer(b"", (), "noop", "command", True)), NEVER) == b""
    assert driver.run(one(Transfer(b"NOOP\r\n", (), "noop", "command", True)), NEVER) == b""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", None),
        (b"\r\n", None),
        (b"421 4.4.2 idle\r\n", "the server said '421 4.4.2 idle'"),
        (b"250 ok\r\n", "the server said '250 ok'"),
        (b"\xff", "the server said '\ufffd'"),
    ],
)
def test_whether_an_idle_connection_can_be_used_again(pair: Pair, said: bytes, reason: str | None) -> None:
    driver, server = pair
    server.sendall(said)
    assert driver.unusable_reason() == reason


def test_a_connection_that_ended_or_is_out_of_step_can_not_be_used_again(pair: Pair) -> None:
    driver, server = pair
    server.close()
    assert driver.unusable_reason() == "closed by the server"
    driver.wire.call(commands.NOOP)
    assert driver.unusable_reason() == "out of step"
    driver.hang_up()
    assert driver.unusable_reason() == "closed"


def test_what_the_server_said_before_it_hung_up_is_read_although_writing_fails(pair: Pair) -> None:
    driver, server = pair
    server.sendall(b"421 bye\r\n")
    server.close()
    assert driver.run(one(Transfer(b"NOOP\r\n", (), "noop", "command", True)), NEVER) == b"421 bye\r\n"


def test_silence_is_a_reply_timeout_with_its_stage(pair: Pair) -> None:
    with pytest.raises(ReplyTimeout) as caught:
        pair[0].run(one(Transfer(b"NOOP\r\n", (), "noop", "command", True)), NEVER)
    assert caught.value.stage == "noop"


def test_the_deadline_of_the_send_is_told_apart(pair: Pair) -> None:
    with pytest.raises(DeadlineExceeded):
        pair[0].run(one(Transfer(b"NOOP\r\n", (), "noop", "command", True)), Deadline.after(0.05))


def test_a_period_goes_on_over_several_reads(pair: Pair) -> None:
    """A peer that sends a byte now and then can't stretch the time limit."""
    ours, theirs = socket.socketpair()
    now = [0.0]
    driver = driver_of(Stream(ours), Timeouts(command=10), clock=lambda: now[0])
    whole = Deadline(clock=lambda: now[0])
    theirs.sendall(b"2")
    driver.run(one(Transfer(b"", (), "noop", "command", True)), whole)
    now[0] = 11.0
    with pytest.raises(ReplyTimeout):
        driver.run(one(Transfer(b"", (), "noop", "command", False)), whole)
    ours.close()
    theirs.close()


def test_content_stops_when_the_server_speaks(pair: Pair) -> None:
    driver, server = pair
    server.sendall(b"552 too big\r\n")
    assert driver.run(one(WriteContent(b"x" * 10_000_000, "content", stops_early=True)), NEVER) < 10_000_000


def test_content_that_nobody_reads_ends_with_its_time_limit(pair: Pair) -> None:
    with pytest.raises(ReplyTimeout):
        pair[0].run(one(WriteContent(b"x" * 10_000_000, "content", stops_early=True)), NEVER)


def test_small_content_is_written_whole(pair: Pair) -> None:
    driver, server = pair
    assert driver.run(one(WriteContent(b"x" * 100, "content", stops_early=True)), NEVER) == 100
    assert server.recv(200) == b"x" * 100


def test_a_period_of_content_goes_on_over_several_pieces(pair: Pair) -> None:
    """A peer that takes a byte now and then can't stretch the time limit; the flow says where it begins."""
    ours, theirs = socket.socketpair()
    now = [0.0]
    driver = driver_of(Stream(ours), Timeouts(data=10), clock=lambda: now[0])
    whole = Deadline(clock=lambda: now[0])
    for at, is_new in ((0.0, True), (9.0, False), (9.5, True), (19.0, False)):
        now[0] = at
        step = WriteContent(b"x", "content", stops_early=True, is_new=is_new)
        assert driver.run(one(step), whole) == 1
    now[0] = 20.0
    with pytest.raises(ReplyTimeout):
        driver.run(one(WriteContent(b"x", "content", stops_early=True, is_new=False)), whole)
    ours.close()
    theirs.close()


def test_pieces_are_read_to_their_end(pair: Pair) -> None:
    pieces = iter([b"a", b"b"])
    assert [pair[0].run(one(ReadPiece(pieces)), NEVER) for _ in range(4)] == [b"a", b"b", None, None]


@pytest.mark.parametrize(
    "problem", [OSError(5, "Input/output error"), TimeoutError("disk"), ValueError("closed")]
)
def test_what_can_not_be_read_is_no_fault_of_the_server_s(pair: Pair, problem: Exception) -> None:
    def pieces() -> Iterator[bytes]:
        raise problem
        yield b""

    with pytest.raises(InvalidMessage, match="could not be read") as caught:
        pair[0].run(one(ReadPiece(pieces())), NEVER)
    assert (caught.value.stage, caught.value.__cause__) == ("content", problem)
    assert not isinstance(caught.value, TimeoutError)


def test_an_error_that_says_it_itself_is_kept(pair: Pair) -> None:
    def pieces() -> Iterator[bytes]:
        raise InvalidMessage("the file changed")
        yield b""

    with pytest.raises(InvalidMessage, match=r"\Athe file changed"):
        pair[0].run(one(ReadPiece(pieces())), NEVER)


def test_an_error_in_a_step_can_be_handled_by_the_flow(pair: Pair) -> None:
    async def careful() -> str:
        try:
            await Transfer(b"NOOP\r\n", (), "noop", "command", True)
        except ReplyTimeout:
            return "handled"
        return "not raised"

    assert pair[0].run(careful(), NEVER) == "handled"


@pytest.mark.parametrize("debug", [False, True])
def test_the_dialogue_is_logged_only_if_asked_for(debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ours, theirs = socket.socketpair()
    config = SMTPConfig(host="x", port=25, debug=debug)
    driver = Driver(Stream(ours), config, Log.of(config), connection_id="1")
    theirs.sendall(b"250 ok\r\n")
    driver.run(one(Transfer(b"NOOP\r\n", (commands.NOOP,), "noop", "command", True)), NEVER)
    driver.hang_up()
    theirs.close()
    assert [message for message in caplog.messages if "NOOP" in message or "250 ok" in message] == (
        ["[1] C: NOOP", "[1] S: 250 ok"] if debug else []
    )


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupt_between_two_steps_reaches_the_flow(pair: Pair, at: int) -> None:
    """The flow knows what is at stake: only it can mark the interrupt."""
    count = 0

    def interrupt(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        if event == "c_return" and frame.f_code is Driver.run.__code__ and argument.__name__ == "send":
            count += 1
            if count > at:
                sys.setprofile(None)
                raise KeyboardInterrupt

    async def flow() -> None:
        try:
            await Look()
            await Look()
            await Look()
        except KeyboardInterrupt as caught:
            caught.outcome_unknown = True  # type: ignore[attr-defined]
            raise

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            pair[0].run(flow(), NEVER)
    finally:
        sys.setprofile(None)
    assert caught.value.outcome_unknown  # type: ignore[attr-defined]
    assert not pair[0].stream.is_open


def test_a_flow_that_fails_is_closed(pair: Pair) -> None:
    closed: list[bool] = []

    async def failing() -> None:
        try:
            await Look()
            raise ConnectionLost("x")
        finally:
            closed.append(True)

    with pytest.raises(ConnectionLost):
        pair[0].run(failing(), NEVER)
    assert closed == [True]


@pytest.fixture
def patient(pair: Pair) -> Pair:
    """Every limit of its own is far away."""
    return driver_of(pair[0].stream, Timeouts()), pair[1]


MAIL = Transfer(b"MAIL\r\n", (), "mail_from", "command", True)


def test_commands_may_have_less_time_than_the_whole(patient: Pair) -> None:
    """The server is silent, the time for the send is not over: that tells on the server."""
    with pytest.raises(ReplyTimeout):
        patient[0].run(one(MAIL), Deadline.after(1).with_commands_within(0.05))


def test_once_content_is_written_the_whole_time_holds(patient: Pair) -> None:
    driver, server = patient

    async def content() -> object:
        await WriteContent(b"x", "content", stops_early=False)
        server.sendall(b"250 ok\r\n")
        return await Transfer(b"", (), "final", "final", True)

    assert driver.run(content(), Deadline.after(1).with_commands_within(-1)) == b"250 ok\r\n"
    with pytest.raises(ReplyTimeout):  # the next message begins anew
        driver.run(one(MAIL), Deadline.after(1).with_commands_within(-1))
