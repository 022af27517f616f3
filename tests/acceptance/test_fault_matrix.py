"""Every step of the dialogue, every fault: what the caller is told, and what the server has.

The tables are the specification, written down from the delivery rules and not from the code: a row is
the step at which the server fails, a column how it fails. Each case opens with STARTTLS and AUTH, so
that all steps happen, and ends by sending another message, which must get through. Cases that take a
time limit to its end take it side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from mailbridge import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    GreetingRefused,
    MailbridgeError,
    Mailer,
    MessageRefused,
    NotSupported,
    ProtocolViolation,
    RecipientsRefused,
    ReplyTimeout,
    SenderRefused,
    SendResult,
    TLSFailed,
    TLSModeMismatch,
)
from mailbridge.delivery.breakers import COOLDOWN
from mailbridge.testing import DEFAULT_KEYWORDS, Fault, ScriptedServer
from tests.acceptance.crowd import side_by_side
from tests.acceptance.fault_cases import (
    BIG,
    PATIENT,
    REPLIES,
    SMALL,
    both_ways,
    ending_at_once,
    ending_in_time,
    fault_at,
    time_limit,
    timeouts,
)
from tests.acceptance.sending import (
    MARGIN,
    PASSWORD,
    USER,
    ShiftedClock,
    committed,
    connection_of,
    envelope,
    mailer_for,
    message,
)
from tests.servers.certificates import Certificates

pytestmark = pytest.mark.campaign


@dataclass(frozen=True)
class Told:
    """What the caller is to be told. `lives_on`: the session is kept and carries the next message."""

    kind: type[MailbridgeError]
    is_transient: bool = True
    outcome_unknown: bool = False
    has_reply: bool = False
    lives_on: bool = False


LOST = Told(ConnectionLost)  # the connection ended
GOODBYE = Told(ConnectionLost, has_reply=True)  # the server ended it with 421
LATE = Told(ReplyTimeout)
BAD = Told(ProtocolViolation)
WORDS = {
    "lost": LOST,
    "goodbye": GOODBYE,
    "late": LATE,
    "bad": BAD,
    "hung-up": Told(TLSFailed),
    "no-time": Told(ConnectTimeout),
    "mode": Told(TLSModeMismatch, is_transient=False),
}
# "no": the server says no and is quoted, transient if it says 4yz; "no,kept": the session lives on.
REFUSALS: dict[str, type[MailbridgeError]] = {
    "greeting": GreetingRefused,
    "ehlo": GreetingRefused,
    "starttls": NotSupported,
    "ehlo_tls": GreetingRefused,
    "challenge": AuthenticationFailed,
    "verdict": AuthenticationFailed,
    "mail": SenderRefused,
    "rcpt": RecipientsRefused,
    "data": MessageRefused,
    "content": MessageRefused,
    "final": MessageRefused,
}
# In "?lost" the outcome is unknown, so that nothing is transient. "-": nothing of the kind is possible there.
OPENING = """
step       close    reset    421      4yz      5yz      silence  half     garbage  endless  drip
connect    lost     lost     -        -        -        late     -        bad      bad      late
greeting   lost     lost     no       no       no       late     late     bad      bad      late
ehlo       lost     lost     goodbye  no       no       late     late     bad      bad      late
starttls   lost     lost     goodbye  no       no       late     late     bad      bad      late
tls        hung-up  hung-up  bad      bad      bad      no-time  no-time  bad      bad      no-time
implicit   hung-up  hung-up  mode     mode     mode     no-time  no-time  mode     mode     no-time
ehlo_tls   lost     lost     goodbye  no       no       late     late     bad      bad      late
challenge  lost     lost     goodbye  no       no       late     late     bad      bad      late
verdict    lost     lost     goodbye  no       no       late     late     bad      bad      late
"""
# Before "connect" is over there is no reply yet; one sent there is the greeting's business. At "tls" the
# ServerHello is due and clear text comes: somebody may be injecting replies. At "implicit" TLS is due from
# the start: clear text there is the wrong port.

# A refused message leaves the session usable, but not one that was refused in the middle of its content.
MESSAGE = """
step       close    reset    421      4yz      5yz      silence  half     garbage  endless  drip
mail       lost     lost     goodbye  no,kept  no,kept  late     late     bad      bad      late
rcpt       lost     lost     goodbye  no,kept  no,kept  late     late     bad      bad      late
data       lost     lost     goodbye  no,kept  no,kept  late     late     bad      bad      late
content    lost     lost     goodbye  no       no       late     late     bad      bad      late
"""
# After the dot a whole reply of class 4 or 5 is an answer, 421 too; everything else leaves it open.
AFTER_THE_DOT = """
step       close    reset    421      4yz      5yz      silence  half     garbage  endless  drip
final      ?lost    ?lost    goodbye  no,kept  no,kept  ?late    ?late    ?bad     ?bad     ?late
"""


def told(word: str, step: str, how: str) -> Told:
    """What a word of the tables means at its place."""
    if word.startswith("no") and word != "no-time":
        return Told(
            REFUSALS[step], is_transient=how != "5yz", has_reply=True, lives_on=word.endswith(",kept")
        )
    if word.startswith("?"):
        return replace(WORDS[word[1:]], outcome_unknown=True, is_transient=False)
    return WORDS[word]


Case = tuple[str, str, Told]


def cases(*tables: str) -> list[Case]:
    found = []
    for table in tables:
        (_, *faults), *rows = (line.split() for line in table.strip().splitlines())
        for step, *words in rows:
            for how, word in zip(faults, words, strict=True):
                if word != "-":
                    found.append((step, how, told(word, step, how)))
    return found


@contextmanager
def served(
    certificates: Certificates, fault: Fault, *, step: str, pipelining: bool, how: str = ""
) -> Iterator[tuple[ScriptedServer, Mailer, ShiftedClock]]:
    """A server with the fault, and a mailer that uses TLS and logs in."""
    keywords = [k for k in DEFAULT_KEYWORDS if pipelining or k != "PIPELINING"]
    clock = ShiftedClock()
    with (
        ScriptedServer(
            faults=[fault],
            tls="implicit" if step == "implicit" else "starttls",
            certfile=certificates.good.cert_file,
            keyfile=certificates.good.key_file,
            users={USER: PASSWORD},
            keywords=keywords,
        ) as server,
        mailer_for(
            server,
            clock=clock,
            security="tls" if step == "implicit" else "starttls",
            tls={"ca_file": str(certificates.ca_file)},
            username=USER,
            password=PASSWORD,
            timeouts=timeouts(step, how),
        ) as mailer,
    ):
        yield server, mailer, clock


def check_told(error: MailbridgeError, told: Told, how: str) -> None:
    assert type(error) is told.kind, repr(error)
    assert error.outcome_unknown is told.outcome_unknown, error
    assert error.is_transient is told.is_transient, error
    if told.has_reply:
        assert error.reply is not None, error
        assert error.reply.code == int(REPLIES[how][:3])
    else:
        assert error.reply is None, error


NEW, REUSED = (OPENING, MESSAGE, AFTER_THE_DOT), (MESSAGE, AFTER_THE_DOT)


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize(("step", "how", "expected"), ending_at_once(cases(*NEW)))
def test_new_session(
    certificates: Certificates, step: str, how: str, expected: Told, pipelining: bool
) -> None:
    check_new_session(certificates, step, how, expected, pipelining)


@pytest.mark.parametrize("found", ending_in_time(cases(*NEW)))
def test_new_session_that_gets_no_answer(certificates: Certificates, found: list[Case]) -> None:
    side_by_side(check_new_session, both_ways(certificates, found))


def check_new_session(
    certificates: Certificates, step: str, how: str, expected: Told, pipelining: bool
) -> None:
    limit = time_limit(step, how)
    size = BIG if step == "content" else SMALL
    with served(certificates, fault_at(step, how), step=step, pipelining=pipelining, how=how) as (
        server,
        mailer,
        clock,
    ):
        began = time.monotonic()
        with pytest.raises(MailbridgeError) as caught:
            mailer.send(message(1, size=size), envelope=envelope())
        assert time.monotonic() - began < limit + MARGIN
        check_told(caught.value, expected, how)
        assert server.unfired == ()

        # A refused login is not tried again at once; see the tests of the breaker.
        clock.ahead += COOLDOWN
        began = time.monotonic()
        assert mailer.send(message(2), envelope=envelope()).attempts == 1
        assert time.monotonic() - began < MARGIN
        assert connection_of(server, 2) == (1 if expected.lives_on else 2)
        assert committed(server) == ({1: 1, 2: 1} if expected.outcome_unknown else {2: 1})


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize(("step", "how", "expected"), ending_at_once(cases(*REUSED)))
def test_reused_session(
    certificates: Certificates, step: str, how: str, expected: Told, pipelining: bool
) -> None:
    check_reused_session(certificates, step, how, expected, pipelining)


@pytest.mark.parametrize("found", ending_in_time(cases(*REUSED)))
def test_reused_session_that_gets_no_answer(certificates: Certificates, found: list[Case]) -> None:
    side_by_side(check_reused_session, both_ways(certificates, found))


def check_reused_session(
    certificates: Certificates, step: str, how: str, expected: Told, pipelining: bool
) -> None:
    """The second message on a session. Lost before the commit, it goes on a fresh one unseen."""
    is_replayed = not expected.outcome_unknown and expected in (LOST, GOODBYE, LATE) and step != "final"
    limit = time_limit(step, how)
    size = BIG if step == "content" else SMALL
    fault = fault_at(step, how, occurrence=2)
    with served(certificates, fault, step=step, pipelining=pipelining, how=how) as (
        server,
        mailer,
        _,
    ):
        mailer.send(message(1), envelope=envelope())
        began = time.monotonic()
        (outcome,) = mailer.send_many([(message(2, size=size), envelope())])
        assert time.monotonic() - began < limit + MARGIN
        assert server.unfired == ()
        if is_replayed:
            assert isinstance(outcome, SendResult), outcome
            assert (outcome.attempts, outcome.connection_reused) == (1, False)
        else:
            assert isinstance(outcome, MailbridgeError), outcome
            check_told(outcome, expected, how)

        mailer.send(message(3), envelope=envelope())
        assert connection_of(server, 3) == (1 if expected.lives_on else 2)
        has_it = is_replayed or expected.outcome_unknown
        assert committed(server) == ({1: 1, 2: 1, 3: 1} if has_it else {1: 1, 3: 1})


# ---- replies that are whole, and out of step

OUT_OF_STEP = {
    "two codes in one reply": {"kind": "mixed"},
    "999": {"kind": "wrong_code"},
    "four digits": {"kind": "four_digits"},
    "a line without end": {"kind": "endless_line"},
}
STEPS = ("greeting", "ehlo", "starttls", "ehlo_tls", "challenge", "verdict", "mail", "rcpt", "data", "final")


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("how", OUT_OF_STEP)
@pytest.mark.parametrize("step", STEPS)
def test_no_reply_of_smtp(certificates: Certificates, step: str, how: str, pipelining: bool) -> None:
    fault = replace(fault_at(step, "garbage"), **OUT_OF_STEP[how])  # type: ignore[arg-type]
    check_bad(certificates, fault, step, pipelining)


# What each command may not be answered with (RFC 5321 section 4.3.2), though it is a whole reply.
WRONG_CLASS = {
    "greeting": "354 What?",
    "ehlo": "354 What?",
    "ehlo_tls": "354 What?",
    "mail": "354 What?",
    "rcpt": "354 What?",
    "data": "250 Ok",
    "final": "354 Go on",
}


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "final"])
def test_reply_of_a_wrong_class(certificates: Certificates, step: str, pipelining: bool) -> None:
    fault = replace(fault_at(step, "garbage"), kind="reply", reply=WRONG_CLASS[step])
    check_bad(certificates, fault, step, pipelining)


@pytest.mark.parametrize("step", ["greeting", "ehlo", "ehlo_tls"])
def test_opening_reply_of_a_wrong_class(certificates: Certificates, step: str) -> None:
    """Not 220 or 250: the server does not open a session, whatever it means by it."""
    fault = replace(fault_at(step, "garbage"), kind="reply", reply=WRONG_CLASS[step])
    with served(certificates, fault, step=step, pipelining=True) as (server, mailer, _):
        with pytest.raises(GreetingRefused):
            mailer.send(message(1), envelope=envelope())
        mailer.send(message(2), envelope=envelope())
        assert committed(server) == {2: 1}


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("step", [step for step in STEPS if step != "final"])
def test_a_reply_too_many(certificates: Certificates, step: str, pipelining: bool) -> None:
    check_bad(certificates, replace(fault_at(step, "garbage"), kind="double"), step, pipelining)


def check_bad(certificates: Certificates, fault: Fault, step: str, pipelining: bool) -> None:
    is_after_the_dot = step == "final"
    with served(certificates, fault, step=step, pipelining=pipelining) as (
        server,
        mailer,
        _,
    ):
        with pytest.raises(MailbridgeError) as caught:
            mailer.send(message(1), envelope=envelope())
        assert type(caught.value) is ProtocolViolation, repr(caught.value)
        assert caught.value.outcome_unknown is is_after_the_dot
        assert server.unfired == ()
        mailer.send(message(2), envelope=envelope())
        assert connection_of(server, 2) == 2
        assert committed(server) == ({1: 1, 2: 1} if is_after_the_dot else {2: 1})


@pytest.mark.parametrize(
    "extra", ["250 2.0.0 Ok: queued", "550 5.7.1 Never", "\x00garbage", "421 4.3.2 Closing"]
)
def test_more_behind_the_answer_to_the_dot(certificates: Certificates, extra: str) -> None:
    """The first whole reply is the answer, however the bytes are cut; but the session is out of step."""
    fault = Fault("final", "extra", reply=extra)
    with served(certificates, fault, step="final", pipelining=True) as (server, mailer, _):
        assert mailer.send(message(1), envelope=envelope()).response.code == 250
        mailer.send(message(2), envelope=envelope())
        assert connection_of(server, 2) == 2
        assert committed(server) == {1: 1, 2: 1}


def test_nobody_listens() -> None:
    with ScriptedServer() as server, mailer_for(server) as mailer:
        server.refuse()
        with pytest.raises(ConnectFailed) as caught:
            mailer.send(message(1), envelope=envelope())
        assert (caught.value.stage, caught.value.outcome_unknown) == ("tcp", False)
        assert caught.value.is_transient
        server.resume()
        mailer.send(message(2), envelope=envelope())
        assert committed(server) == {2: 1}


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("is_reused", [False, True], ids=["new", "reused"])
def test_closed_right_after_354(how: str, is_reused: bool) -> None:
    """A small message and its dot leave in one write, so who is faster decides whether that is in doubt.

    Either answer is honest, since the server did not take it; what must not happen is a "sent" that
    it has not, or a second copy of what may have been taken.
    """
    fault = Fault("data", "reply", reply="354 Go ahead", then=how, occurrence=2 if is_reused else 1)  # type: ignore[arg-type]
    with ScriptedServer(faults=[fault]) as server, mailer_for(server, timeout=PATIENT) as mailer:
        if is_reused:
            mailer.send(message(0), envelope=envelope())
        (outcome,) = mailer.send_many([(message(1), envelope())])
        was_sent = isinstance(outcome, SendResult)
        if isinstance(outcome, MailbridgeError):
            assert type(outcome) is ConnectionLost
            assert outcome.outcome_unknown or not is_reused, "a reused session is replaced while that is safe"
        assert server.unfired == ()
        assert committed(server)[1] == was_sent
        assert is_reused or not was_sent
        mailer.send(message(2), envelope=envelope())
        assert committed(server)[2] == 1
