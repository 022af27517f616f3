"""LMTP (RFC 2033): an answer for each recipient, and what is known when not all of them come."""

import pytest

from mailbridge.errors import (
    ConnectionLost,
    MailbridgeError,
    MessageRefused,
    ProtocolViolation,
    RecipientsRefused,
)
from mailbridge.smtp.flows.transaction import Outcome, Transaction, transact
from mailbridge.smtp.wire import Wire
from tests.unit.smtp.flows.dialogue import Dialogue, pipelined

A, B, C = "a@x.example", "b@x.example", "c@x.example"


def transaction(*recipients: str, **more: object) -> Transaction:
    return Transaction(
        sender="me@x.example",
        recipients=recipients or (A, B, C),
        mail_parameters=[],
        content=b".Hi\r\n",
        lmtp=True,
        **more,  # type: ignore[arg-type]
    )


def with_data(*replies: str) -> str:
    """The dialogue up to what answers the dot, with these replies to RCPT."""
    asked = ["MAIL FROM:<me@x.example>", *(f"RCPT TO:<{address}>" for address in (A, B, C)), "DATA"]
    said = ["250 ok", *replies, "354 go"]
    return "\n".join(
        [f"C: {line}" for line in asked] + [f"S: {line}" for line in said] + ["C: ..Hi", "C: .", ""]
    )


def in_chunks(*replies: str) -> str:
    text = with_data(*replies).replace("C: DATA\n", "").replace("S: 354 go\n", "")
    return text.replace("C: ..Hi\nC: .\n", "C: BDAT 5 LAST\nC: .Hi\n")


ALL = ("250 ok", "250 ok", "250 ok")
WAYS = pytest.mark.parametrize(
    ("start", "chunking"), [(with_data, False), (in_chunks, True)], ids=["DATA", "BDAT"]
)


@WAYS
def test_each_recipient_has_an_answer(start: object, chunking: bool) -> None:
    text = start(*ALL) + "S: 250 2.1.5 <a> saved\nS: 452 4.2.2 <b> is over quota\nS: 250 ok"  # type: ignore[operator]
    dialogue = pipelined(text)
    done: Outcome = dialogue.run(lambda wire: _quietly(wire, transaction(chunking=chunking)))
    assert done.accepted == (A, C)
    assert {address: str(reply) for address, reply in done.rejected.items()} == {
        B: "452 4.2.2 <b> is over quota"
    }
    assert done.late == {B}
    assert str(done.response) == "250 2.1.5 <a> saved"


async def _quietly(wire: Wire, wanted: Transaction) -> Outcome:
    done = await transact(wire, wanted)
    assert wire.is_quiet
    assert not wire.in_doubt
    return done


@WAYS
def test_only_those_accepted_before_are_answered_for(start: object, chunking: bool) -> None:
    text = start("250 ok", "550 5.1.1 nobody", "250 ok") + "S: 250 a\nS: 554 not c"  # type: ignore[operator]
    done = pipelined(text).run(lambda wire: _quietly(wire, transaction(chunking=chunking)))
    assert done.accepted == (A,)
    assert {address: reply.code for address, reply in done.rejected.items()} == {B: 550, C: 554}
    assert done.late == {C}


def test_one_command_at_a_time_without_pipelining() -> None:
    text = f"""
        C: MAIL FROM:<me@x.example>
        S: 250 ok
        C: RCPT TO:<{A}>
        S: 250 ok
        C: RCPT TO:<{B}>
        S: 250 ok
        C: DATA
        S: 354 go
        C: ..Hi
        C: .
        S: 250 one
        S: 250 two
    """
    assert Dialogue(text).run(lambda wire: _quietly(wire, transaction(A, B))).accepted == (A, B)


@WAYS
def test_refused_for_everybody_after_the_content(start: object, chunking: bool) -> None:
    text = start("250 ok", "550 nobody", "250 ok") + "S: 452 full\nS: 554 never"  # type: ignore[operator]
    dialogue = pipelined(text)
    with pytest.raises(RecipientsRefused) as caught:
        dialogue.run(lambda wire: transact(wire, transaction(chunking=chunking)))
    assert caught.value.stage == "final"
    assert {address: reply.code for address, reply in caught.value.rejected.items()} == {
        A: 452,
        B: 550,
        C: 554,
    }
    assert (dialogue.is_usable, dialogue.is_in_doubt) == (True, False)


@WAYS
@pytest.mark.parametrize(
    ("end", "kind", "accepted"),
    [
        ("S: <eof>", ConnectionLost, ()),
        ("S: nonsense", ProtocolViolation, ()),
        ("S: 250 a\nS: <eof>", ConnectionLost, (A,)),
        ("S: 250 a\nS: nonsense", ProtocolViolation, (A,)),
        ("S: 250 a\nS: 354 go on", ProtocolViolation, (A,)),
        ("S: 452 not a\nS: <eof>", ConnectionLost, ()),
        ("S: 250 a\nS: 452 not b\nS: <eof>", ConnectionLost, (A,)),
        ("S: 250 a\nS: 250 b\nS: 250-c\nS: <eof>", ConnectionLost, (A, B)),
        ("S: 250 a\nS: 421 bye\nS: <eof>", ConnectionLost, (A,)),
        ("S: 250 a\nS: 221 bye", ConnectionLost, (A,)),
        ("S: 250 a\nS: 250 b\nS: 221 bye", ConnectionLost, (A, B)),
    ],
)
def test_the_session_ends_between_the_answers(
    end: str,
    kind: type[MailbridgeError],
    accepted: tuple[str, ...],
    start: object,
    chunking: bool,
) -> None:
    """What was answered is known, and said; the rest is in doubt."""
    dialogue = pipelined(start(*ALL) + end)  # type: ignore[operator]
    with pytest.raises(kind) as caught:
        dialogue.run(lambda wire: transact(wire, transaction(chunking=chunking)))
    assert dialogue.is_in_doubt
    assert caught.value.stage == "final"
    assert caught.value.accepted == accepted
    assert all(address in str(caught.value) for address in accepted)


def test_an_answer_too_many_ends_the_session() -> None:
    text = with_data(*ALL) + "S: 250 a\nS: 250 b\nS: 250 c\nS: 250 d"
    dialogue = pipelined(text)
    assert dialogue.run(lambda wire: transact(wire, transaction())).accepted == (A, B, C)
    assert (dialogue.is_usable, dialogue.is_in_doubt) == (False, False)


def test_a_good_bye_is_the_last_recipients_answer() -> None:
    """All is known of the message; only the session is over."""
    text = with_data(*ALL) + "S: 250 a\nS: 250 b\nS: 421 4.3.2 bye"
    dialogue = pipelined(text)
    done = dialogue.run(lambda wire: transact(wire, transaction()))
    assert (done.accepted, list(done.rejected)) == ((A, B), [C])
    assert (dialogue.is_usable, dialogue.is_in_doubt) == (False, False)


def test_354_without_a_recipient_ends_the_session() -> None:
    """RFC 2033 section 4.2 has a 503 there. A lone dot would have as many answers as recipients: none."""
    text = with_data("550 no", "550 no", "550 no").partition("C: ..Hi")[0]
    dialogue = pipelined(text)
    with pytest.raises(RecipientsRefused) as caught:
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert caught.value.stage == "rcpt_to"
    assert not dialogue.is_usable


def test_refused_before_the_dot() -> None:
    text = with_data(*ALL).partition("C: ..Hi")[0] + "...\nS: 552 5.3.4 too big"
    dialogue = pipelined(text)
    with pytest.raises(MessageRefused) as caught:
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert caught.value.stage == "content"
    assert (dialogue.is_usable, dialogue.is_in_doubt) == (False, False)


def test_all_or_none_holds_as_far_as_rcpt() -> None:
    text = f"""
        C: MAIL FROM:<me@x.example>
        C: RCPT TO:<{A}>
        C: RCPT TO:<{B}>
        S: 250 ok
        S: 250 ok
        S: 450 no
    """
    dialogue = pipelined(text)
    with pytest.raises(RecipientsRefused):
        dialogue.run(lambda wire: transact(wire, transaction(A, B, all_or_none=True)))
    assert dialogue.is_usable
