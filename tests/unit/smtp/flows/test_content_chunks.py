"""BDAT (RFC 3030): what is written in which flight, which answer ends what, and what is in doubt."""

import pytest

from mailbridge.errors import (
    ConnectionLost,
    MailbridgeError,
    MessageRefused,
    ProtocolViolation,
    RecipientsRefused,
)
from mailbridge.smtp.flows.content import Pieces
from mailbridge.smtp.flows.transaction import Outcome, Transaction, transact
from mailbridge.smtp.wire import WINDOW_BYTES, Wire
from tests.unit.smtp.flows.dialogue import CUTS, Dialogue, pipelined
from tests.unit.smtp.flows.large import LARGE, ChunkServer, Parts

A, B = "a@x.example", "b@y.example"


def transaction(*recipients: str, content: bytes | Pieces = b".Hi\r\n", **more: object) -> Transaction:
    return Transaction(
        sender="me@x.example",
        recipients=recipients or (A, B),
        mail_parameters=["BODY=BINARYMIME"],
        content=content,
        chunking=True,
        **more,  # type: ignore[arg-type]
    )


def pipelining() -> Wire:
    return Wire(window=WINDOW_BYTES)


ENVELOPE = f"""
    C: MAIL FROM:<me@x.example> BODY=BINARYMIME
    C: RCPT TO:<{A}>
    C: RCPT TO:<{B}>
    S: 250 ok
    S: 250 ok
    S: 250 ok
"""
LAST = ENVELOPE + "    C: BDAT 5 LAST\n    C: .Hi\n"


def test_two_flights_and_no_dot_is_stuffed() -> None:
    """The envelope in one, content and its end in the other, in one write."""
    dialogue = pipelined(LAST + "S: 250 2.0.0 queued")
    done: Outcome = dialogue.run(lambda wire: transact(wire, transaction()))
    assert (done.accepted, done.rejected, done.response.text) == ((A, B), {}, "2.0.0 queued")
    assert dialogue.written[-1] == b"BDAT 5 LAST\r\n.Hi\r\n"


def test_rfc_3030_section_4_1() -> None:
    text = """
        C: MAIL FROM:<Sam@Random.com>
        S: 250 <Sam@Random.com>... Sender ok
        C: RCPT TO:<Susan@Random.com>
        S: 250 <Susan@random.com>... Recipient ok
        C: BDAT 86 LAST
        C: To: Susan@random.com
        C: From: Sam@random.com
        C: Subject: This is a bodyless test message
        S: 250 Message OK, 86 octets received
    """
    wanted = Transaction(
        sender="Sam@Random.com",
        recipients=["Susan@Random.com"],
        mail_parameters=[],
        content=b"To: Susan@random.com\r\nFrom: Sam@random.com\r\n"
        b"Subject: This is a bodyless test message\r\n",
        chunking=True,
    )
    assert Dialogue(text).run(lambda wire: transact(wire, wanted)).response.code == 250


def test_content_without_a_byte() -> None:
    text = ENVELOPE + "C: BDAT 0 LAST\nS: 250 ok"
    assert pipelined(text).run(lambda wire: transact(wire, transaction(content=b""))).accepted == (A, B)


def test_some_recipients_refused() -> None:
    text = (LAST + "S: 250 ok").replace("S: 250 ok\n    C: BDAT", "S: 550 no\n    C: BDAT")
    done = pipelined(text).run(lambda wire: transact(wire, transaction()))
    assert (done.accepted, list(done.rejected)) == ((A,), [B])


def test_no_byte_of_content_before_all_or_none_is_decided() -> None:
    text = ENVELOPE.rpartition("S: 250 ok")[0] + "S: 550 no"
    dialogue = pipelined(text)
    with pytest.raises(RecipientsRefused):
        dialogue.run(lambda wire: transact(wire, transaction(all_or_none=True)))
    assert dialogue.is_usable


@pytest.mark.parametrize(
    ("end", "kind", "stage", "in_doubt", "is_quiet"),
    [
        ("S: 451 later", MessageRefused, "final", False, True),
        ("S: 554 spam", MessageRefused, "final", False, True),
        ("S: 503 no", MessageRefused, "final", False, True),
        ("S: 421 bye", ConnectionLost, "final", False, False),
        ("S: <eof>", ConnectionLost, "final", True, False),
        ("S: 250-ok\nS: <eof>", ConnectionLost, "final", True, False),
        ("S: nonsense", ProtocolViolation, "final", True, False),
        ("S: 354 go on", ProtocolViolation, "final", True, False),
        ("S: 250-ok\nS: 550 no", ProtocolViolation, "final", True, False),
    ],
)
def test_ends_after_the_last_chunk(
    end: str, kind: type[MailbridgeError], stage: str, in_doubt: bool, is_quiet: bool
) -> None:
    dialogue = pipelined(LAST + end)
    with pytest.raises(MailbridgeError) as caught:
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert (type(caught.value), caught.value.stage) == (kind, stage)
    assert (dialogue.is_in_doubt, dialogue.is_usable) == (in_doubt, is_quiet)


def test_an_empty_line_before_the_content_is_nothing() -> None:
    text = LAST.replace("    C: BDAT", "    ...\n    S: \n    C: BDAT") + "S: 250 ok"
    assert pipelined(text).run(lambda wire: transact(wire, transaction())).accepted == (A, B)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("S: <eof>", ConnectionLost),
        ("S: 421 bye", ConnectionLost),
        ("S: 250 what", ProtocolViolation),
        ("S: nonsense", ProtocolViolation),
    ],
)
def test_said_before_the_content(said: str, kind: type[MailbridgeError]) -> None:
    """An answer to nothing: no byte of the message goes out."""
    dialogue = pipelined(ENVELOPE + "...\n" + said)
    with pytest.raises(kind):
        dialogue.run(lambda wire: transact(wire, transaction()))
    assert (dialogue.is_in_doubt, dialogue.is_usable) == (False, False)


# ---- several chunks


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("window", [0, WINDOW_BYTES])
@pytest.mark.parametrize("step", [None, 1000, 65_537, 2_000_000])
def test_large_content_in_chunks(window: int, step: int | None, eager: bool) -> None:
    server = ChunkServer(eager=eager)
    content = LARGE if step is None else Parts(LARGE, step)
    done = server.run(transact(Wire(window=window), transaction(content=content)))
    assert done.accepted == (A, B)
    assert bytes(server.content) == LARGE
    assert [last for _, last in server.chunks] == [False] * (len(server.chunks) - 1) + [True]
    assert server.chunks[0][0] <= 16_384, "the first one is small, so that a refusal comes early"
    assert len(server.chunks) > 2
    if eager or window == 0:
        assert server.most_unanswered == 1
    elif step != 2_000_000:
        assert 1 < server.most_unanswered <= 8


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("window", [0, WINDOW_BYTES])
@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [("552 5.3.4 too big", MessageRefused), ("354 what", ProtocolViolation), ("421 bye", ConnectionLost)],
)
def test_a_refused_chunk_stops_the_rest(
    answer: str, kind: type[MailbridgeError], number: int, eager: bool, window: int, cut: str
) -> None:
    """The message is never committed, whichever chunk it is and however much is under way."""
    wire = Wire(window=window)
    refusals = dict.fromkeys(range(number + 1, 20), "503 5.5.1 no")
    server = ChunkServer({number: answer} | refusals, eager=eager, cut=cut)
    with pytest.raises(kind) as caught:
        server.run(transact(wire, transaction(content=Parts(LARGE, 200_000))))
    assert caught.value.stage == "content"
    assert caught.value.reply is not None
    assert str(caught.value.reply) == answer
    assert not any(last for _, last in server.chunks)
    assert not wire.in_doubt
    if kind is MessageRefused and not (eager and window):
        assert wire.is_quiet, "all that was announced is written and answered: the session lives on"
    if window == 0:
        assert len(server.chunks) == number


def test_silence_in_the_middle_is_no_commit() -> None:
    wire = pipelining()
    with pytest.raises(ConnectionLost):
        ChunkServer({3: ""}, eager=False).run(transact(wire, transaction(content=Parts(LARGE, 200_000))))
    assert not wire.in_doubt
