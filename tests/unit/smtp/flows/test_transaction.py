"""One transaction: what is written in which flight, and what each answer makes of the message."""

import pytest

from mailbridge.errors import (
    ConnectionLost,
    MailbridgeError,
    MessageRefused,
    ProtocolViolation,
    RecipientsRefused,
    SenderRefused,
)
from mailbridge.smtp.flows.steps import ReadPiece, Step, Transfer, WriteContent
from mailbridge.smtp.flows.transaction import Outcome, Transaction, transact
from mailbridge.smtp.wire import WINDOW_BYTES, Wire
from tests.unit.smtp.flows.dialogue import Dialogue, Server, pipelined

A, B = "a@x.example", "b@y.example"


def transaction(
    *recipients: str, content: bytes = b"Hi\r\n", all_or_none: bool = False, resets_first: bool = False
) -> Transaction:
    return Transaction(
        sender="me@x.example",
        recipients=recipients or (A,),
        mail_parameters=[],
        content=content,
        all_or_none=all_or_none,
        resets_first=resets_first,
    )


def pipelining() -> Wire:
    return Wire(window=WINDOW_BYTES)


ACCEPTED = f"""
    C: MAIL FROM:<me@x.example>
    C: RCPT TO:<{A}>
    C: RCPT TO:<{B}>
    C: DATA
    S: 250 ok
    S: 250 ok
    S: 250 ok
    S: 354 go
    C: Hi
    C: .
    S: 250 2.0.0 queued as 1
"""


def test_two_flights_with_pipelining() -> None:
    done: Outcome = pipelined(ACCEPTED).run(lambda wire: transact(wire, transaction(A, B)))
    assert (done.accepted, done.rejected, done.response.code) == ((A, B), {}, 250)


def test_one_command_at_a_time_without() -> None:
    text = f"""
        C: MAIL FROM:<me@x.example>
        S: 250 ok
        C: RCPT TO:<{A}>
        S: 250 ok
        C: DATA
        S: 354 go
        C: Hi
        C: .
        S: 250 ok
    """
    assert Dialogue(text).run(lambda wire: transact(wire, transaction())).accepted == (A,)


def test_dots_are_stuffed() -> None:
    text = ACCEPTED.replace("C: Hi", "C: ..\n    C: ..x\n    C: y.")
    pipelined(text).run(lambda wire: transact(wire, transaction(A, B, content=b".\r\n.x\r\ny.\r\n")))


def test_parameters_stand_behind_the_sender() -> None:
    wanted = Transaction(
        sender="", recipients=[A], mail_parameters=["SIZE=4", "BODY=8BITMIME"], content=b"Hi\r\n"
    )
    text = ACCEPTED.replace("<me@x.example>", "<> SIZE=4 BODY=8BITMIME").replace(
        f"    C: RCPT TO:<{B}>\n", ""
    )
    text = text.replace("S: 250 ok\n", "", 1).replace("    \n", "")
    pipelined(text).run(lambda wire: transact(wire, wanted))


def test_parameters_of_recipients_stand_behind_them() -> None:
    wanted = Transaction(
        sender="me@x.example",
        recipients=[A, B],
        mail_parameters=[],
        recipient_parameters={B: ["NOTIFY=NEVER", "ORCPT=rfc822;b@y.example"]},
        content=b"Hi\r\n",
    )
    text = ACCEPTED.replace(f"<{B}>", f"<{B}> NOTIFY=NEVER ORCPT=rfc822;b@y.example")
    pipelined(text).run(lambda wire: transact(wire, wanted))


def test_a_failed_transaction_before_is_reset_in_the_same_flight() -> None:
    text = ACCEPTED.replace("C: MAIL", "C: RSET\n    C: MAIL", 1).replace(
        "S: 250 ok", "S: 250 reset\n    S: 250 ok", 1
    )
    pipelined(text).run(lambda wire: transact(wire, transaction(A, B, resets_first=True)))


REFUSED_RSET = {
    "one command at a time": "C: RSET\nS: 502 what",
    "a server that takes MAIL": f"""
        C: RSET
        C: MAIL FROM:<me@x.example>
        C: RCPT TO:<{B}>
        C: DATA
        S: 502 what
        S: 250 ok
        S: 250 ok
        S: 354 go on""",
    "a server that refuses all": f"""
        C: RSET
        C: MAIL FROM:<me@x.example>
        C: RCPT TO:<{B}>
        C: DATA
        S: 502 what
        S: 503 nested
        S: 250 ok
        S: 554 no""",
}


@pytest.mark.parametrize("case", REFUSED_RSET)
def test_a_refused_rset_is_no_place_to_go_on_from(case: str) -> None:
    dialogue = (Dialogue if case == "one command at a time" else pipelined)(REFUSED_RSET[case])
    with pytest.raises(ConnectionLost) as caught:
        dialogue.run(lambda wire: transact(wire, transaction(B, resets_first=True)))
    assert (caught.value.stage, len(dialogue.written)) == ("rset", 1)
    assert (dialogue.is_in_doubt, dialogue.is_usable) == (False, False)


def test_thousands_of_recipients_go_out_in_windows() -> None:
    """Never more than the window unanswered, or both sides would wait for the other to read."""
    recipients = [f"user{n}@y.example" for n in range(3000)]
    server = CountingServer()
    done = server.run(transact(pipelining(), transaction(*recipients)))
    assert len(done.accepted) == 3000
    assert server.flights > 10


class CountingServer(Server):
    """Accepts everything, one reply a read, and sees that no flight is longer than the window."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.flights = 0

    def perform(self, step: Step) -> object:
        if isinstance(step, Transfer):
            assert len(step.data) <= WINDOW_BYTES
            self.flights += bool(step.data)
            self.replies += [
                b"354 go\r\n" if line == b"DATA" else b"250 ok\r\n" for line in step.data.splitlines()
            ]
            return self.replies.pop(0) if self.replies else b"250 sent\r\n"
        if isinstance(step, ReadPiece):
            return next(step.pieces, None)
        return len(step.content) if isinstance(step, WriteContent) else None


def test_some_recipients_refused() -> None:
    text = ACCEPTED.replace("S: 250 ok\n    S: 354", "S: 550 5.1.1 nobody\n    S: 354")
    done: Outcome = pipelined(text).run(lambda wire: transact(wire, transaction(A, B)))
    assert done.accepted == (A,)
    assert {address: reply.code for address, reply in done.rejected.items()} == {B: 550}


REFUSED_ALL = f"""
    C: MAIL FROM:<me@x.example>
    C: RCPT TO:<{A}>
    C: RCPT TO:<{B}>
    C: DATA
    S: 250 ok
    S: 550 5.1.1 nobody
    S: 450 4.2.0 later
"""


def test_all_recipients_refused() -> None:
    dialogue = pipelined(REFUSED_ALL + "S: 554 5.5.1 no valid recipients")
    with pytest.raises(RecipientsRefused) as caught:
        dialogue.run(lambda wire: transact(wire, transaction(A, B)))
    assert {address: reply.code for address, reply in caught.value.rejected.items()} == {A: 550, B: 450}
    assert caught.value.is_transient
    assert dialogue.is_usable


def test_354_without_a_recipient_is_answered_with_a_lone_dot() -> None:
    """RFC 2920 section 3.1: the client can't take DATA back, only send nothing."""
    dialogue = pipelined(REFUSED_ALL + "S: 354 go\nC: .\nS: 554 5.5.1 no valid recipients")
    with pytest.raises(RecipientsRefused):
        dialogue.run(lambda wire: transact(wire, transaction(A, B)))
    assert dialogue.is_usable


def test_a_refusal_counts_more_than_the_end_of_file_behind_it() -> None:
    dialogue = pipelined(REFUSED_ALL + "S: <eof>")
    with pytest.raises(RecipientsRefused):
        dialogue.run(lambda wire: transact(wire, transaction(A, B)))
    assert not dialogue.is_usable


def test_sender_refused_with_pipelining() -> None:
    text = f"""
        C: MAIL FROM:<me@x.example>
        C: RCPT TO:<{A}>
        C: DATA
        S: 550 5.7.1 not you
        S: 503 5.5.1 need MAIL
        S: 503-5.5.1 need
        S: 503 5.5.1 RCPT
    """
    dialogue = pipelined(text)
    with pytest.raises(SenderRefused) as caught:
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert (caught.value.sender, caught.value.smtp_code) == ("me@x.example", 550)
    assert dialogue.is_usable


def test_sender_refused_without_pipelining_ends_the_flight() -> None:
    dialogue = Dialogue("C: MAIL FROM:<me@x.example>\nS: 550 no")
    with pytest.raises(SenderRefused):
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert dialogue.is_usable


def test_354_after_a_refused_sender_never_gets_a_dot() -> None:
    """An earlier transaction may be open: the dot would send its recipients an empty message."""
    text = f"C: MAIL FROM:<me@x.example>\nC: RCPT TO:<{A}>\nC: DATA\nS: 503 nested\nS: 250 ok\nS: 354 go"
    dialogue = pipelined(text)
    with pytest.raises(SenderRefused):
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert not dialogue.is_usable


ALL_OR_NONE = f"""
    C: MAIL FROM:<me@x.example>
    C: RCPT TO:<{A}>
    C: RCPT TO:<{B}>
    S: 250 ok
    S: 250 ok
"""


def test_all_or_none_waits_for_the_recipients_before_data() -> None:
    dialogue = pipelined(ALL_OR_NONE + "S: 550 no")
    with pytest.raises(RecipientsRefused) as caught:
        dialogue.run(lambda wire: transact(wire, transaction(A, B, all_or_none=True)))
    assert list(caught.value.rejected) == [B]
    assert dialogue.is_usable


def test_all_or_none_with_all() -> None:
    text = ALL_OR_NONE + "S: 250 ok\nC: DATA\nS: 354 go\nC: Hi\nC: .\nS: 250 ok"
    wanted = transaction(A, B, all_or_none=True)
    assert pipelined(text).run(lambda wire: transact(wire, wanted)).accepted == (A, B)


BEFORE_DATA_REPLY = f"C: MAIL FROM:<me@x.example>\nC: RCPT TO:<{A}>\nC: DATA\nS: 250 ok\nS: 250 ok\n"
BEFORE_CONTENT = BEFORE_DATA_REPLY + "S: 354 go\n"
AFTER_DOT = BEFORE_CONTENT + "C: Hi\nC: .\n"


@pytest.mark.parametrize(
    ("end", "kind", "stage", "in_doubt"),
    [
        ("S: 451 later", MessageRefused, "data", False),
        ("S: 250 what", ProtocolViolation, "data", False),
        ("S: 421 bye", ConnectionLost, "data", False),
        ("S: 221 bye", ConnectionLost, "data", False),
        ("S: <eof>", ConnectionLost, "data", False),
        ("S: 35", ProtocolViolation, "data", False),
        ("S: 354 go\nS: 354 go", ProtocolViolation, "content", False),
        ("S: 354 go\nS: 250 ok", ProtocolViolation, "content", False),
        ("S: 354 go\nS: 552 5.3.4 too big", MessageRefused, "content", False),
        ("S: 354 go\nS: 421 shutting down", ConnectionLost, "content", False),
        ("S: 354 go\nS: nonsense", ProtocolViolation, "content", False),
    ],
)
def test_ends_at_data(end: str, kind: type[MailbridgeError], stage: str, in_doubt: bool) -> None:
    _ends(BEFORE_DATA_REPLY + end, kind, stage, in_doubt)


@pytest.mark.parametrize(
    ("end", "kind", "stage", "in_doubt"),
    [
        ("S: <eof>", ConnectionLost, "content", False),
        ("S: 552 5.3.4 too big", MessageRefused, "content", False),
        ("S: 421 shutting down", ConnectionLost, "content", False),
        ("S: 250 already", ProtocolViolation, "content", False),
    ],
)
def test_ends_before_the_dot(end: str, kind: type[MailbridgeError], stage: str, in_doubt: bool) -> None:
    _ends(BEFORE_CONTENT + "...\n" + end, kind, stage, in_doubt)


@pytest.mark.parametrize(
    ("end", "kind", "stage", "in_doubt"),
    [
        ("S: 451 later", MessageRefused, "final", False),
        ("S: 554 spam", MessageRefused, "final", False),
        ("S: 421 bye", ConnectionLost, "final", False),
        ("S: 221 bye", ConnectionLost, "final", True),
        ("S: <eof>", ConnectionLost, "final", True),
        ("S: 250-ok\nS: <eof>", ConnectionLost, "final", True),
        ("S: 2500 ok", ProtocolViolation, "final", True),
        ("S: 999 ok", ProtocolViolation, "final", True),
        ("S: nonsense", ProtocolViolation, "final", True),
        ("S: 250-ok\nS: 550 no", ProtocolViolation, "final", True),
        ("S: 354 go on", ProtocolViolation, "final", True),
    ],
)
def test_ends_after_the_dot(end: str, kind: type[MailbridgeError], stage: str, in_doubt: bool) -> None:
    _ends(AFTER_DOT + end, kind, stage, in_doubt)


def _ends(text: str, kind: type[MailbridgeError], stage: str, in_doubt: bool) -> None:
    dialogue = pipelined(text)
    with pytest.raises(MailbridgeError) as caught:
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert (type(caught.value), caught.value.stage) == (kind, stage)
    assert dialogue.is_in_doubt == in_doubt


def test_a_sent_message_stays_sent_whatever_follows() -> None:
    """A doubled reply: the message is accepted, the session is not to be used again."""
    dialogue = pipelined(AFTER_DOT + "S: 250 ok\nS: 250 ok")
    assert dialogue.run(lambda wire: transact(wire, transaction())).response.code == 250
    assert not dialogue.is_usable
