"""One message in as many transactions as its recipients need, and what becomes of those that fail."""

from collections.abc import Sequence
from typing import Any

import pytest

from mailbridge.errors import (
    ConnectionLost,
    InvalidMessage,
    MailbridgeError,
    RecipientsRefused,
    ReplyTimeout,
    SenderRefused,
)
from mailbridge.reply import Reply
from mailbridge.smtp.capabilities import Capabilities
from mailbridge.smtp.flows.connection import ConnectionState
from mailbridge.smtp.flows.steps import AskPermit, SayGoodbye
from mailbridge.smtp.flows.submission import Submission, is_one_too_many
from mailbridge.smtp.flows.transaction import Outcome, Transaction
from mailbridge.smtp.wire import Spent, Wire
from tests.unit.smtp.flows.dialogue import Dialogue, Performers, pipelined

A, B, C = "a@x.example", "b@y.example", "c@z.example"


class Sending:
    """Runs a submission to these groups of recipients. `asked` are the steps that it took of its caller."""

    def __init__(self, text: str, *groups: Sequence[str], limits: str = "", paced: bool = False) -> None:
        self.dialogue: Dialogue = pipelined(text, self.performers)
        self.groups = groups
        self.limits = Capabilities.parse(Reply(250, ("mx", f"LIMITS {limits}")))
        self.paced = paced
        self.begun = 0
        self.needs_reset = False
        self.asked: list[str] = []

    def performers(self) -> Performers:
        self.asked = []
        return {step: lambda step: self.asked.append(type(step).__name__) for step in (AskPermit, SayGoodbye)}

    async def flow(self, wire: Wire) -> Outcome:
        self.state = ConnectionState(
            capabilities=self.limits, transactions=self.begun, needs_reset=self.needs_reset
        )
        everybody = [address for group in self.groups for address in group]
        wanted = Transaction(
            sender="me@x.example", recipients=everybody, mail_parameters=[], content=b"Hi\r\n"
        )
        return await Submission(wire, self.state, self.paced, Spent()).run(wanted, self.groups)

    def run(self) -> Outcome:
        done: Outcome = self.dialogue.run(self.flow)
        return done


def flight(*recipients: str, reset: bool = False) -> str:
    lines = ["RSET"] * reset + ["MAIL FROM:<me@x.example>", *(f"RCPT TO:<{a}>" for a in recipients), "DATA"]
    return "\n".join(f"C: {line}" for line in lines) + "\n"


def said(*replies: str) -> str:
    return "\n".join(f"S: {reply}" for reply in replies) + "\n"


CONTENT = "C: Hi\nC: .\n"
OK = said("250 ok", "250 ok", "354 go") + CONTENT + said("250 queued")


def test_the_usual_group() -> None:
    sending = Sending(flight(A) + OK, [A], paced=True)
    assert sending.run().accepted == (A,)
    assert (sending.asked, sending.state.transactions, sending.state.needs_reset) == (["AskPermit"], 1, False)


def test_a_refused_message_has_the_next_one_begin_with_rset() -> None:
    sending = Sending(flight(A) + said("550 no", "503 no", "503 no"), [A])
    with pytest.raises(SenderRefused):
        sending.run()
    assert sending.state.needs_reset
    again = Sending(flight(A, reset=True) + said("250 reset") + OK, [A])
    again.needs_reset = True
    again.run()
    assert not again.state.needs_reset


TOO_MANY = flight(A, B, C) + said("250 ok", "250 ok", "452 4.5.3 enough", "452 4.5.3 enough", "354 go")


def test_recipients_above_the_limit_go_in_further_transactions() -> None:
    rest = flight(B, C) + said("250 ok", "250 ok", "550 5.1.1 nobody", "354 go") + CONTENT + said("250 two")
    sending = Sending(TOO_MANY + CONTENT + said("250 one") + rest, [A, B, C], paced=True)
    done = sending.run()
    assert (done.accepted, str(done.response)) == ((A, B), "250 one")
    assert {address: reply.code for address, reply in done.rejected.items()} == {C: 550}
    assert sending.asked == ["AskPermit"] * 2


REST = TOO_MANY + CONTENT + said("250 one") + flight(B, C)


@pytest.mark.parametrize(
    "end", ["S: <eof>", "S: 421 bye", "S: nonsense", said("550 no", "503 no", "503 no", "503 no")]
)
def test_recipients_above_the_limit_that_do_not_get_it_keep_their_reply(end: str) -> None:
    """An error would have the message sent to the first one again."""
    done = Sending(REST + end, [A, B, C]).run()
    assert done.accepted == (A,)
    assert {str(reply) for reply in done.rejected.values()} == {"452 4.5.3 enough"}


def test_doubt_about_the_rest_names_those_who_have_it() -> None:
    text = REST + said("250 ok", "250 ok", "250 ok", "354 go") + CONTENT + "S: <eof>"
    with pytest.raises(ConnectionLost, match=f"accepted before, for {A}") as caught:
        Sending(text, [A, B, C]).run()
    assert (caught.value.outcome_unknown, caught.value.accepted) == (True, (A,))


def test_the_rest_is_left_where_the_connection_takes_no_more() -> None:
    done = Sending(TOO_MANY + CONTENT + said("250 one"), [A, B, C], limits="MAILMAX=1").run()
    assert (done.accepted, list(done.rejected)) == ((A,), [B, C])


GROUPS = ([A], [B])


def test_groups_stand_for_themselves() -> None:
    refused = said("250 ok", "550 5.1.1 nobody", "554 none")
    done = Sending(flight(A) + refused + flight(B, reset=True) + said("250 ok") + OK, *GROUPS).run()
    assert (done.accepted, list(done.rejected)) == ((B,), [A])
    done = Sending(flight(A) + OK + flight(B) + refused, *GROUPS).run()
    assert (done.accepted, list(done.rejected)) == ((A,), [B])
    text = flight(A) + refused + flight(B, reset=True) + said("250 ok") + refused
    with pytest.raises(RecipientsRefused) as caught:
        Sending(text, *GROUPS).run()
    assert list(caught.value.rejected) == [A, B]


def test_a_connection_that_is_lost_between_groups() -> None:
    done = Sending(flight(A) + OK + flight(B) + "S: <eof>", *GROUPS).run()
    assert (done.accepted, done.rejected[B].code) == ((A,), 451)
    with pytest.raises(ConnectionLost) as caught:
        Sending(flight(A) + "S: <eof>", *GROUPS).run()
    assert (caught.value.outcome_unknown, caught.value.accepted) == (False, ())


LOST_AT_B = [
    said("250 ok") + "S: <eof>",
    said("421 bye"),
    said("250 ok", "354 what", "354 go"),  # whose content would all that follows be?
    said("nonsense"),
]


@pytest.mark.parametrize("end", LOST_AT_B)
def test_nothing_more_is_said_on_a_connection_that_a_group_has_ended(end: str) -> None:
    sending = Sending(flight(A) + OK + flight(B) + end, [A], [B], [C])
    done = sending.run()
    assert (done.accepted, list(done.rejected)) == ((A,), [B, C])
    assert not sending.dialogue.is_usable


def test_no_more_groups_after_a_reply_too_many() -> None:
    done = Sending(flight(A) + OK + said("250 again"), *GROUPS).run()
    assert (done.accepted, done.rejected[B].code) == ((A,), 451)


def test_doubt_about_a_group_is_raised() -> None:
    text = flight(A) + OK + flight(B) + said("250 ok", "250 ok", "354 go") + CONTENT + "S: <eof>"
    with pytest.raises(ConnectionLost) as caught:
        Sending(text, *GROUPS).run()
    assert (caught.value.outcome_unknown, caught.value.accepted) == (True, (A,))


@pytest.mark.parametrize("begun", [0, 1])
def test_more_transactions_than_a_connection_takes(begun: int) -> None:
    sending = Sending("", [A], [B], [C], limits="MAILMAX=2")
    sending.begun = begun
    with pytest.raises(InvalidMessage, match="needs 3 transactions"):
        sending.run()
    assert sending.asked == []


def test_more_transactions_than_are_left_need_a_fresh_connection() -> None:
    sending = Sending("", *GROUPS, limits="MAILMAX=2")
    sending.begun = 1
    with pytest.raises(ConnectionLost) as caught:
        sending.run()
    assert (sending.asked, caught.value.stage) == (["SayGoodbye"], "mail_from")


@pytest.mark.parametrize("groups", [GROUPS, ([A, B, C],)], ids=["groups", "rest"])
@pytest.mark.parametrize("problem", [KeyboardInterrupt(), ReplyTimeout("late")])
def test_a_permit_that_does_not_come(groups: Any, problem: BaseException) -> None:
    """The first transaction has been accepted: an interrupt can't say so, and a timeout is no news."""
    text = flight(A) + OK if groups is GROUPS else TOO_MANY + CONTENT + said("250 one")
    sending = Sending(text, *groups, paced=True)

    def performers() -> Performers:
        count = iter(range(9))

        def permit(_: AskPermit) -> None:
            if next(count):
                raise problem

        return {AskPermit: permit}

    sending.dialogue = pipelined(text, performers)
    if isinstance(problem, MailbridgeError):
        assert sending.run().accepted == (A,)
        return
    with pytest.raises(KeyboardInterrupt) as caught:
        sending.run()
    assert caught.value.outcome_unknown  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "enhanced", "accepted", "expected"),
    [
        (452, (4, 5, 3), 1, True),  # Postfix
        (552, (5, 5, 3), 1, True),
        (452, None, 1, True),  # Exim
        (552, None, 100, True),  # RFC 821's code, from a server that has taken what it must
        (552, None, 99, False),
        (452, (4, 2, 2), 100, False),  # that mailbox is full
        (452, (4, 3, 1), 100, False),  # the server's disk is
        (552, (5, 2, 2), 100, False),
        (450, None, 100, False),
        (550, (5, 5, 3), 100, False),
    ],
)
def test_one_too_many(
    code: int, enhanced: tuple[int, int, int] | None, accepted: int, expected: bool
) -> None:
    assert is_one_too_many(Reply(code, ("said",), enhanced), accepted) is expected
