"""Every step of BDAT and LMTP, every fault: what the caller is told, and what the server has.

The tables are the specification, as in the matrix of SMTP; opening and login are the same there and here.
Each case ends by sending another message, which must get through. Cases that take a time limit to its end
take it side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mailbridge import (
    ConnectionLost,
    MailbridgeError,
    Mailer,
    MessageRefused,
    ProtocolViolation,
    RecipientsRefused,
    ReplyTimeout,
    SenderRefused,
    SendResult,
    SMTPConnection,
)
from mailbridge.delivery.breakers import FIRST_COOLDOWN_AFTER_WAITING
from mailbridge.testing import DEFAULT_KEYWORDS, Dialogue, Fault, ScriptedServer
from tests.acceptance.crowd import side_by_side
from tests.acceptance.sending import (
    MARGIN,
    ShiftedClock,
    committed,
    config_for,
    connection_of,
    envelope,
    mailer_for,
    message,
)

pytestmark = pytest.mark.campaign

KINDS = {"lost": ConnectionLost, "goodbye": ConnectionLost, "late": ReplyTimeout, "bad": ProtocolViolation}
REFUSALS = {
    "mail": SenderRefused,
    "rcpt": RecipientsRefused,
    "chunk": MessageRefused,
    "content": MessageRefused,
    "final": MessageRefused,
}
# "?": the outcome is unknown. "no": the server says no and is quoted; "no,kept": the session lives on, which
# a refusal in the midst of content leaves to chance: it depends on how much of a chunk has been written.
CHUNKS = """
step       close    reset    421      4yz      5yz      silence  half     garbage  endless  drip
mail       lost     lost     goodbye  no,kept  no,kept  late     late     bad      bad      late
rcpt       lost     lost     goodbye  no,kept  no,kept  late     late     bad      bad      late
chunk      lost     lost     goodbye  no       no       late     late     bad      bad      late
content    lost     lost     goodbye  no       no       late     late     bad      bad      late
final      ?lost    ?lost    goodbye  no,kept  no,kept  ?late    ?late    ?bad     ?bad     ?late
"""
# The fault is the answer about one of three recipients. 421 is an answer, but leaves the next ones without.
RECIPIENTS = """
step       close    reset    421      4yz      5yz      silence  half     garbage  endless  drip
first      ?lost    ?lost    ?lost    other    other    ?late    ?late    ?bad     ?bad     ?late
second     ?lost    ?lost    ?lost    other    other    ?late    ?late    ?bad     ?bad     ?late
third      ?lost    ?lost    other    other    other    ?late    ?late    ?bad     ?bad     ?late
"""
REPLIES = {"421": "421 4.3.2 Closing", "4yz": "450 4.7.1 Not now", "5yz": "550 5.7.1 Never"}
TAKES_ALL_ITS_TIME = ("silence", "half", "drip")
LIMIT = 0.8  # seconds, for the stage of a case that takes all its time
PATIENT = 10.0
LARGE = 3 << 20  # four chunks
THREE = ("one@b.example", "two@b.example", "three@b.example")


Case = tuple[str, str, str]


def cases(table: str) -> list[Case]:
    (_, *faults), *rows = (line.split() for line in table.strip().splitlines())
    return [(step, how, word) for step, *words in rows for how, word in zip(faults, words, strict=True)]


def ending_at_once(table: str) -> Any:
    return [
        pytest.param(*case, id=f"{case[0]}-{case[1]}")
        for case in cases(table)
        if case[1] not in TAKES_ALL_ITS_TIME
    ]


def ending_in_time(table: str) -> Any:
    """The others, by step."""
    others = [case for case in cases(table) if case[1] in TAKES_ALL_ITS_TIME]
    steps = dict.fromkeys(case[0] for case in others)
    return [pytest.param([case for case in others if case[0] == step], id=step) for step in steps]


def fault_at(stage: str, how: str, occurrence: int = 1) -> Fault:
    options: dict[str, object] = {"occurrence": occurrence}
    if how in REPLIES:
        return Fault(stage, "reply", reply=REPLIES[how], occurrence=occurrence)  # type: ignore[arg-type]
    if how == "drip":
        options["interval"] = LIMIT / 8
    if stage == "final":
        options["commit"] = True  # the worst case: the server has it, and the caller is not told
    return Fault(stage, how, **options)  # type: ignore[arg-type]


@contextmanager
def served(
    fault: Fault, how: str, *, pipelining: bool, lmtp: bool = False, **options: object
) -> Iterator[tuple[ScriptedServer, Mailer, ShiftedClock]]:
    clock = ShiftedClock()
    offered = [k for k in (*DEFAULT_KEYWORDS, "CHUNKING") if pipelining or k != "PIPELINING"]
    # Nothing but the time limit of the stage that fails can run out.
    timeouts = dict.fromkeys(("connect", "greeting", "command", "data", "final"), PATIENT)
    if how in TAKES_ALL_ITS_TIME:
        timeouts["final" if fault.stage == "final" else "command"] = LIMIT
    with (
        ScriptedServer(faults=[fault], keywords=offered, lmtp=lmtp) as server,
        mailer_for(
            server, clock=clock, timeouts=timeouts, protocol="lmtp" if lmtp else "smtp", **options
        ) as mailer,
    ):
        yield server, mailer, clock
        assert server.unfired == ()


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("is_reused", [False, True], ids=["new", "reused"])
@pytest.mark.parametrize(("step", "how", "word"), ending_at_once(CHUNKS))
def test_chunks(step: str, how: str, word: str, is_reused: bool, pipelining: bool) -> None:
    check_chunks(step, how, word, is_reused, pipelining)


@pytest.mark.parametrize("is_reused", [False, True], ids=["new", "reused"])
@pytest.mark.parametrize("found", ending_in_time(CHUNKS))
def test_chunks_without_an_answer(found: list[Case], is_reused: bool) -> None:
    side_by_side(check_chunks, [(*case, is_reused, way) for case in found for way in (True, False)])


def check_chunks(step: str, how: str, word: str, is_reused: bool, pipelining: bool) -> None:
    is_unknown, kind = word.startswith("?"), word.lstrip("?").partition(",")[0]
    # Lost before the commit, a message goes on a fresh session unseen.
    is_replayed = is_reused and kind in ("lost", "goodbye", "late") and step != "final"
    # Of a large message before, the answers to its chunks count too; a small one has none.
    occurrence = 1 if step == "chunk" or not is_reused else 2
    fault = fault_at(step, how, occurrence)
    large = LARGE if step in ("chunk", "content", "final") else 0
    with served(fault, how, pipelining=pipelining, partial="all-or-none") as (
        server,
        mailer,
        clock,
    ):
        if is_reused:
            mailer.send(message(1), envelope=envelope())
        began = time.monotonic()
        (outcome,) = mailer.send_many([(message(2, size=large), envelope())])
        assert time.monotonic() - began < MARGIN + LIMIT
        if is_replayed:
            assert isinstance(outcome, SendResult), outcome
        else:
            assert isinstance(outcome, MailbridgeError), outcome
            assert type(outcome) is (REFUSALS[step] if kind == "no" else KINDS[kind]), repr(outcome)
            assert outcome.outcome_unknown is is_unknown
            assert outcome.is_transient is (not is_unknown and how != "5yz")
            assert (outcome.reply is not None) is (kind in ("no", "goodbye"))

        clock.ahead += FIRST_COOLDOWN_AFTER_WAITING  # a server that was silent is left alone for so long
        mailer.send(message(3), envelope=envelope())
        last = connection_of(server, 3)
        if word == "no,kept" or (kind == "no" and step == "chunk" and not pipelining):
            assert last == 1
        elif kind != "no":
            assert last == 2
        expected = {3: 1} | ({1: 1} if is_reused else {}) | ({2: 1} if is_unknown or is_replayed else {})
        assert committed(server) == expected
        assert all(m.chunks for m in server.messages)


WAYS = {"DATA": (True, False), "DATA in lockstep": (False, False), "BDAT": (True, True)}


@pytest.mark.parametrize(("pipelining", "chunking"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("step", "how", "word"), ending_at_once(RECIPIENTS))
def test_recipients(step: str, how: str, word: str, pipelining: bool, chunking: bool) -> None:
    check_recipients(step, how, word, pipelining, chunking)


@pytest.mark.parametrize("found", ending_in_time(RECIPIENTS))
def test_recipients_without_an_answer(found: list[Case]) -> None:
    side_by_side(check_recipients, [(*case, *way) for case in found for way in WAYS.values()])


def check_recipients(step: str, how: str, word: str, pipelining: bool, chunking: bool) -> None:
    position = ["first", "second", "third"].index(step)
    fault = fault_at("final", how, position + 1)
    partial = "all-or-none" if chunking else "deliver"
    with served(fault, how, pipelining=pipelining, lmtp=True, partial=partial) as (server, mailer, _):
        (outcome,) = mailer.send_many([(message(1), envelope(*THREE))])
        if isinstance(outcome, MailbridgeError):  # the client has left, and the server goes on for a moment
            server.wait_for(lambda: server.connections[0].is_closed)
        has_it = [m.recipients[0] for m in server.messages]
        if word == "other":
            others = tuple(name for name in THREE if name != THREE[position])
            assert isinstance(outcome, SendResult), outcome
            assert outcome.accepted == others == tuple(has_it)
            assert {a: str(reply) for a, reply in outcome.rejected.items()} == {THREE[position]: REPLIES[how]}
        else:
            assert type(outcome) is KINDS[word[1:]], repr(outcome)
            assert outcome.outcome_unknown
            assert not outcome.is_transient
            assert outcome.accepted == THREE[:position]
            # After garbage the server goes on; what it has then nobody was told.
            assert has_it == list(THREE[: {"421": position, "garbage": 3}.get(how, position + 1)])

        mailer.send(message(2), envelope=envelope(*THREE))
        assert connection_of(server, 2) == (1 if how in ("4yz", "5yz") else 2)
        assert [m.recipients[0] for m in server.messages[len(has_it) :]] == list(THREE)


@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
def test_an_answer_too_many_for_the_last_recipient(chunking: bool) -> None:
    partial = "all-or-none" if chunking else "deliver"
    fault = Fault("final", "double", occurrence=3)
    with served(fault, "double", pipelining=True, lmtp=True, partial=partial) as (server, mailer, _):
        assert mailer.send(message(1), envelope=envelope(*THREE)).accepted == THREE
        mailer.send(message(2), envelope=envelope(*THREE))
        assert connection_of(server, 2) == 2


# ---- servers that are odd, and no danger

ODD = {
    "several lines to everything": """
        S: 220-mx
        S: 220-
        S: 220 welcome
        C: EHLO .*
        S: 250-mx
        S: 250-pipelining
        S: 250
        C: MAIL FROM:.*
        C: RCPT TO:.*
        C: DATA
        S: 250-2.1.0
        S: 250 ok
        S: 250-
        S: 250
        S: 354-go
        S: 354
        C: ...
        C: .
        S: 250-
        S: 250 ok
        C: QUIT
        S: 221
    """,
    "not a word to anything": """
        S: 220
        C: EHLO .*
        S: 250
        C: MAIL FROM:.*
        S: 250
        C: RCPT TO:.*
        S: 250
        C: DATA
        S: 354
        C: ...
        C: .
        S: 250
        C: QUIT
        S: 221
    """,
    "neither EHLO nor anything else": """
        S: 220 mx
        C: EHLO .*
        S: 502 what
        C: HELO .*
        S: 250 mx
        C: MAIL FROM:.*
        S: 250 ok
        C: RCPT TO:.*
        S: 251 will forward
        C: DATA
        S: 354 go
        C: ...
        C: .
        S: 250 ok
        C: QUIT
        S: 221
    """,
}


def with_each_line(text: str, before: bytes = b"", end: bytes = b"\r\n") -> Dialogue:
    """The dialogue, with what the server sends around each of its lines."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return Dialogue(
        *(b"S- " + before + line[3:].encode() + end if line.startswith("S:") else line for line in lines)
    )


@pytest.mark.parametrize("odd", ODD)
def test_odd_servers(odd: str) -> None:
    _reaches_a_server(Dialogue(ODD[odd]))


@pytest.mark.parametrize("odd", ODD)
def test_bare_line_feeds(odd: str) -> None:
    _reaches_a_server(with_each_line(ODD[odd], end=b"\n"))


@pytest.mark.parametrize("feed", ["behind", "ahead", "both"])
def test_empty_lines_between_replies(feed: str) -> None:
    """They answer nothing, so they bring nobody out of step; many of them would be another matter."""
    before = b"\r\n\n" if feed != "behind" else b""
    end = b"\r\n\r\n" if feed != "ahead" else b"\r\n"
    _reaches_a_server(with_each_line(ODD["neither EHLO nor anything else"], before, end))


def _reaches_a_server(dialogue: Dialogue) -> None:
    with ScriptedServer([dialogue]) as server, mailer_for(server, timeout=PATIENT) as mailer:
        assert mailer.send(message(1), envelope=envelope()).accepted
        mailer.close()
        server.wait_for(lambda: server.connections[0].is_closed)
        assert committed(server) == {1: 1}


def test_empty_lines_without_an_end() -> None:
    flood = Dialogue(b"S- " + b"\r\n" * 100)
    with (
        ScriptedServer([flood], after_dialogues="serve", strict=False) as server,
        mailer_for(server, timeout=PATIENT) as mailer,
    ):
        with pytest.raises(ProtocolViolation, match="empty lines"):
            mailer.send(message(1), envelope=envelope())
        mailer.send(message(2), envelope=envelope())
        assert committed(server) == {2: 1}


def test_rset_unknown_after_a_success() -> None:
    """No delivery error (RFC 5321 section 4.5.1 demands RSET; some lack it): the session goes on."""
    fault = Fault("rset", "reply", reply="502 what", occurrence=None)
    with ScriptedServer(faults=[fault]) as server, SMTPConnection(config_for(server)) as connection:
        connection.send(envelope(), message(1))
        assert connection.reset().code == 502
        assert connection.is_open
        connection.send(envelope(), message(2))
        assert committed(server)[1] == 1


@pytest.mark.parametrize("reply", ["421 4.3.2 closing", "451 4.4.2 timeout", "221 bye"])
@pytest.mark.parametrize("when", ["idle", "mail"])
def test_good_byes_between_messages(when: str, reply: str) -> None:
    """Said on an idle session or in the place of the answer to MAIL: the message goes on a fresh one."""
    fault = Fault(when, "reply", reply=reply, then="close", occurrence=1 if when == "idle" else 2)  # type: ignore[arg-type]
    with ScriptedServer(faults=[fault]) as server, mailer_for(server) as mailer:
        mailer.send(message(1), envelope=envelope())
        if when == "idle":
            server.wait_for(lambda: server.connections[0].is_closed)
        mailer.send(message(2), envelope=envelope())
        assert committed(server) == {1: 1, 2: 1}
        assert connection_of(server, 2) == 2
