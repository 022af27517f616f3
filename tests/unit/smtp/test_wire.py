"""The wire: the window, counting replies to calls, and doubt."""

import pytest

from mailbridge.smtp import commands
from mailbridge.smtp.wire import OpenTransaction, Wire


def lines(wire: Wire) -> list[bytes]:
    return [command.line for command in wire.outgoing()]


def test_one_command_at_a_time_without_a_window() -> None:
    wire = Wire()
    wire.call(commands.RSET)
    wire.call(commands.mail_from("a@x.example"))
    assert lines(wire) == [b"RSET"]
    assert lines(wire) == []
    wire.feed(b"250 ok\r\n")
    assert lines(wire) == [b"MAIL FROM:<a@x.example>"]


def test_a_window_releases_until_it_is_full_of_bytes() -> None:
    wire = Wire(window=20)
    for _ in range(5):
        wire.call(commands.RSET)  # 6 bytes each
    assert len(lines(wire)) == 3
    wire.feed(b"250 ok\r\n")
    assert len(lines(wire)) == 1


def test_a_command_longer_than_the_window_goes_alone() -> None:
    wire = Wire(window=10)
    wire.call(commands.RSET)
    wire.call(commands.mail_from("somebody@x.example"))
    assert lines(wire) == [b"RSET"]
    wire.feed(b"250 ok\r\n")
    assert len(lines(wire)) == 1


def test_nothing_is_released_behind_the_end_of_a_group() -> None:
    wire = Wire(window=1000)
    wire.call(commands.DATA)
    wire.call(commands.RSET)
    assert lines(wire) == [b"DATA"]
    wire.feed(b"503 no\r\n")
    assert lines(wire) == [b"RSET"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_replies_answer_calls_in_order_however_they_are_cut(size: int) -> None:
    wire = Wire(window=1000)
    calls = [wire.call(commands.RSET), wire.call(commands.mail_from("")), wire.call(commands.DATA)]
    wire.outgoing()
    said = b"250-a\r\n250 b\r\n550 5.1.1 no\r\n354 go\r\n"
    for start in range(0, len(said), size):
        wire.feed(said[start : start + size])
    assert [call.reply.code for call in calls if call.reply] == [250, 550, 354]
    assert wire.last_reply is calls[-1].reply
    assert wire.is_quiet


def test_cancelled_calls_never_go_out() -> None:
    wire = Wire()
    transaction = wire.begin()
    wire.call(commands.RSET, transaction)
    later = wire.call(commands.DATA, transaction)
    of_another = wire.call(commands.RSET, wire.begin())
    wire.outgoing()
    transaction.cancel_queued()
    wire.feed(b"250 ok\r\n")
    assert lines(wire) == [b"RSET"]
    assert (later.is_released, of_another.is_released) == (False, True)


def test_a_reply_too_many_stays_unread_and_is_not_quiet() -> None:
    wire = Wire()
    wire.call(commands.RSET)
    wire.outgoing()
    wire.feed(b"250 ok\r\n250 again\r\n")
    assert not wire.is_quiet


def test_a_malformed_reply_has_the_stage_of_the_call_it_should_have_answered() -> None:
    wire = Wire(window=1000)
    wire.call(commands.mail_from(""))
    wire.call(commands.DATA)
    wire.outgoing()
    wire.feed(b"250 ok\r\nnonsense\r\n")
    assert wire.violation is not None
    assert wire.violation.stage == "data"


def committed(wire: Wire, answers: int = 1) -> OpenTransaction:
    transaction = wire.begin()
    ends = [wire.expect(commands.CONTENT, transaction) for _ in range(answers)]
    assert not transaction.is_in_doubt
    transaction.commit(ends, commands.END_OF_CONTENT)
    assert transaction.is_in_doubt
    return transaction


def test_doubt_begins_with_the_commit_and_ends_with_a_clear_answer() -> None:
    for reply, in_doubt in ((b"250 ok\r\n", False), (b"554 no\r\n", False), (b"354 go\r\n", True)):
        wire = Wire()
        transaction = committed(wire)
        wire.feed(reply)
        assert transaction.is_in_doubt is in_doubt


def test_doubt_lasts_until_every_recipient_has_an_answer() -> None:
    """In LMTP there are several calls that commit; a good-bye is no answer."""
    for replies, in_doubt in (
        (b"250 a\r\n", True),
        (b"250 a\r\n450 b\r\n", False),
        (b"250 a\r\n221 b\r\n", True),
    ):
        wire = Wire()
        transaction = committed(wire, answers=2)
        wire.feed(replies)
        assert transaction.is_in_doubt is in_doubt


def test_the_wire_tells_which_transactions_are_in_doubt() -> None:
    """Three are committed: two are sent, the last one waits for the window, and was not sent."""
    wire = Wire(window=110)
    first, second, third = transactions = [wire.begin() for _ in range(3)]
    for transaction in transactions:
        wire.call(commands.mail_from(""), transaction)
        wire.call(commands.rcpt_to("a@x.example"), transaction)
        last = commands.bdat(5, last=True)
        transaction.commit([wire.call(last, transaction)], last)
    assert wire.in_doubt == ()
    assert sum(line.line == b"BDAT 5 LAST" for line in wire.outgoing()) == 2
    assert wire.in_doubt == (first, second)
    wire.feed(b"250 ok\r\n" * 3)
    assert wire.in_doubt == (second,)
    third.cancel_queued()
    wire.feed(b"250 ok\r\n250 ok\r\n554 no\r\n")
    assert wire.in_doubt == ()


def test_empty_lines_are_nothing_that_was_said() -> None:
    wire = Wire()
    wire.parser.feed(b"\r\n\r\n")
    assert wire.is_quiet
    wire.parser.feed(b"\r\n" * 100)
    assert not wire.is_quiet
