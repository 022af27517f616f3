"""What becomes of a message, beyond a single fault: refusals, batches, retries, sessions that died idle.

The server is the judge. What it has committed must be what the caller was told, each recipient once.
"""

from __future__ import annotations

import time
from collections import Counter
from email.message import EmailMessage
from typing import Any

import pytest

from mailbridge import (
    ConnectionLost,
    MailbridgeError,
    Mailer,
    MessageRefused,
    NobodyListens,
    RecipientsRefused,
    SenderRefused,
    SendResult,
)
from mailbridge.testing import DEFAULT_KEYWORDS, Fault, ScriptedServer
from tests.acceptance.sending import (
    MARGIN,
    RECIPIENT,
    SENDER,
    committed,
    config_for,
    connection_of,
    envelope,
    mailer_for,
    message,
    number_of,
)

PIPELINED = list(DEFAULT_KEYWORDS)
LOCKSTEP = [keyword for keyword in DEFAULT_KEYWORDS if keyword != "PIPELINING"]
both_ways = pytest.mark.parametrize("keywords", [PIPELINED, LOCKSTEP], ids=["pipelined", "lockstep"])
GOOD, BAD, LATER = "good@b.example", "bad@b.example", "later@b.example"
BIG = 8 << 20  # more than the buffers of both sides hold


def send(mailer: Mailer, number: int, *recipients: str, size: int = 0) -> SendResult:
    return mailer.send(message(number, size=size), envelope=envelope(*recipients))


def refused(mailer: Mailer, number: int, *recipients: str, size: int = 0) -> MailbridgeError:
    with pytest.raises(MailbridgeError) as caught:
        send(mailer, number, *recipients, size=size)
    assert not caught.value.outcome_unknown
    return caught.value


# ---- refusals, and 354 all the same (RFC 2920 section 3.1)


@pytest.mark.parametrize("final", ["554 5.5.1 No valid recipients", "250 2.0.0 Ok"])
def test_354_although_every_recipient_was_refused(final: str) -> None:
    """A lone dot: the server gets an empty message for nobody, and nothing of ours."""
    got: list[bytes] = []

    def note(received: Any) -> str | None:
        got.append(received.raw)
        return final if not received.recipients else None

    with (
        ScriptedServer(
            rcpt_replies={BAD: "550 5.1.1 No"}, data_reply=lambda _: "354 Go", final_replies=note
        ) as server,
        mailer_for(server) as mailer,
    ):
        error = refused(mailer, 1, BAD)
        assert isinstance(error, RecipientsRefused)
        assert got == [b".\r\n"]
        assert all(not m.recipients and not m.content for m in server.messages)
        assert send(mailer, 2, GOOD).connection_reused
        assert [m.recipients for m in server.messages if m.content] == [(GOOD,)]


def test_354_although_the_sender_was_refused() -> None:
    """No dot: an earlier transaction may be open, and its recipients would get an empty message."""
    faults = [Fault("data", "reply", reply="354 Go")]
    with (
        ScriptedServer(mail_replies={SENDER: "550 5.7.1 No"}, faults=faults) as server,
        mailer_for(server) as mailer,
    ):
        error = refused(mailer, 1)
        assert isinstance(error, SenderRefused)
        server.wait_for(lambda: server.connections[0].is_closed)
        assert (server.unfired, server.messages) == ((), ())
        assert server.connections[0].verbs[-1] == "DATA"
        mailer.send(message(2), envelope=envelope(sender="other@a.example"))
        assert connection_of(server, 2) == 2


@both_ways
def test_a_refused_message_is_reset_in_the_flight_of_the_next(keywords: list[str]) -> None:
    with (
        ScriptedServer(keywords=keywords, rcpt_replies={BAD: "550 5.1.1 No"}) as server,
        mailer_for(server) as mailer,
    ):
        refused(mailer, 1, BAD)
        result = send(mailer, 2, GOOD)
        assert result.connection_reused
        verbs = server.connections[0].verbs
        assert verbs[verbs.index("RSET") :] == ("RSET", "MAIL", "RCPT", "DATA")
        assert result.round_trips == (2 if keywords is PIPELINED else 5)
        send(mailer, 3, GOOD)
        assert server.connections[0].verbs.count("RSET") == 1
        assert committed(server) == {2: 1, 3: 1}


RSET_FAULTS: dict[str, dict[str, Any]] = {
    "502": {"kind": "reply", "reply": "502 5.5.1 No RSET here"},
    "451": {"kind": "reply", "reply": "451 4.3.0 Later"},
    "421": {"kind": "reply", "reply": "421 4.3.2 Closing"},
    "354": {"kind": "reply", "reply": "354 Go"},
    "close": {"kind": "close"},
    "reset": {"kind": "reset"},
    "silence": {"kind": "silence"},
}


@both_ways
@pytest.mark.parametrize("how", RSET_FAULTS)
@pytest.mark.parametrize("refusal", ["rcpt", "data"])
def test_a_reset_that_fails_is_no_fault_of_the_next_message(
    how: str, refusal: Any, keywords: list[str]
) -> None:
    """Also where the refused transaction stays open and MAIL is answered 503."""
    faults = [
        Fault(refusal, "reply", reply="550 5.7.1 No"),
        Fault("rset", **RSET_FAULTS[how]),
    ]
    timeout = 0.3 if how == "silence" else 5.0
    with (
        ScriptedServer(keywords=keywords, faults=faults) as server,
        mailer_for(server, timeout=timeout) as mailer,
    ):
        refused(mailer, 1)
        if how == "354":  # out of step is told, see the fault matrix
            refused(mailer, 2)
        else:
            assert send(mailer, 2).attempts == 1
        send(mailer, 3)
        assert server.unfired == ()
        assert committed(server) == ({3: 1} if how == "354" else {2: 1, 3: 1})


@pytest.mark.parametrize("then", ["close", "reset", "silence", "continue"])
def test_a_large_message_that_is_refused_early(then: Any) -> None:
    """The 552 is told and not the broken connection; the upload stops."""
    fault = Fault("content", "early", reply="552 5.3.4 Too big", after=200_000, then=then)
    with ScriptedServer(faults=[fault]) as server, mailer_for(server) as mailer:
        began = time.monotonic()
        error = refused(mailer, 1, size=BIG)
        assert time.monotonic() - began < MARGIN
        assert isinstance(error, MessageRefused)
        assert (error.smtp_code, error.stage, error.is_transient) == (552, "content", False)
        send(mailer, 2)
        assert connection_of(server, 2) == 2
        assert committed(server) == {2: 1}


def test_a_refusal_hides_neither_behind_the_end_nor_behind_the_time_limit() -> None:
    """The server's no is the better answer than that the rest of its replies never came."""
    for kind in ("close", "silence"):
        faults = [Fault("mail", "reply", reply="550 5.7.1 No"), Fault("rcpt", kind)]
        with ScriptedServer(faults=faults) as server, mailer_for(server) as mailer:
            with pytest.raises(SenderRefused):
                mailer.send(message(1), envelope=envelope(), deadline=0.3)
            send(mailer, 2)
            assert connection_of(server, 2) == 2


# ---- some recipients refused

SOME = {BAD: "550 5.1.1 No", LATER: "450 4.2.1 Busy"}


@both_ways
def test_some_recipients_refused(keywords: list[str]) -> None:
    with ScriptedServer(keywords=keywords, rcpt_replies=SOME) as server, mailer_for(server) as mailer:
        result = send(mailer, 1, BAD, GOOD, LATER)
        assert result.accepted == (GOOD,)
        assert {address: reply.code for address, reply in result.rejected.items()} == {BAD: 550, LATER: 450}
        assert [m.recipients for m in server.messages] == [(GOOD,)]
        assert send(mailer, 2, GOOD).connection_reused


@both_ways
def test_all_or_none(keywords: list[str]) -> None:
    with (
        ScriptedServer(keywords=keywords, rcpt_replies=SOME) as server,
        mailer_for(server, partial="all-or-none") as mailer,
    ):
        error = refused(mailer, 1, GOOD, BAD)
        assert isinstance(error, RecipientsRefused)
        assert list(error.rejected) == [BAD]
        assert "DATA" not in server.connections[0].verbs
        assert send(mailer, 2, GOOD).connection_reused
        assert [m.recipients for m in server.messages] == [(GOOD,)]


def test_a_refusal_for_now_among_refusals_for_good_is_transient() -> None:
    with ScriptedServer(rcpt_replies=SOME) as server, mailer_for(server) as mailer:
        assert refused(mailer, 1, BAD, LATER).is_transient
        assert not refused(mailer, 2, BAD).is_transient


# ---- more recipients than one transaction takes

SIXTY = [f"r{number}@b.example" for number in range(60)]
WITHOUT_CODES = [keyword for keyword in DEFAULT_KEYWORDS if keyword != "ENHANCEDSTATUSCODES"]


def recipients_served(server: ScriptedServer) -> Counter[str]:
    return Counter(recipient for m in server.messages for recipient in m.recipients)


@pytest.mark.parametrize(
    "keywords",
    [DEFAULT_KEYWORDS, LOCKSTEP, WITHOUT_CODES],
    ids=["pipelined", "lockstep", "no enhanced codes"],
)
@pytest.mark.parametrize("limit", [50, 20, 1])
def test_too_many_recipients_go_in_further_transactions(keywords: list[str], limit: int) -> None:
    with (
        ScriptedServer(keywords=keywords, max_recipients=limit) as server,
        mailer_for(server) as mailer,
    ):
        result = send(mailer, 1, *SIXTY)
        assert (result.accepted, result.rejected) == (tuple(SIXTY), {})
        assert recipients_served(server) == Counter(SIXTY)
        assert len(server.messages) == -(-60 // limit)
        assert len({m.content for m in server.messages}) == 1


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("kind", ["close", "450", "550"])
def test_the_rest_of_the_recipients_cannot_be_served(stage: Any, kind: Any) -> None:
    """Those who have it are told, and the others with the reply that put them off: no one twice."""
    options = {"kind": "reply", "reply": f"{kind} No"} if kind.isdigit() else {"kind": kind}
    fault = Fault(stage, **options, occurrence=61 if stage == "rcpt" else 2)
    with ScriptedServer(max_recipients=50, faults=[fault]) as server, mailer_for(server) as mailer:
        result = send(mailer, 1, *SIXTY)
        assert server.unfired == ()
        assert recipients_served(server) == Counter(result.accepted)
        assert set(result.accepted) | set(result.rejected) == set(SIXTY)
        if kind == "close" or stage != "rcpt":
            assert result.accepted == tuple(SIXTY[:50])
            assert {reply.code for reply in result.rejected.values()} == {452}


def test_it_is_unknown_whether_the_rest_has_it() -> None:
    fault = Fault("final", "close", occurrence=2, commit=True)
    with ScriptedServer(max_recipients=50, faults=[fault]) as server, mailer_for(server) as mailer:
        with pytest.raises(ConnectionLost) as caught:
            send(mailer, 1, *SIXTY)
        assert caught.value.outcome_unknown
        assert recipients_served(server) == Counter(SIXTY)
        assert SIXTY[0] in str(caught.value)


# ---- sessions that died while idle

IDLE_ENDS = {
    "421": lambda connection: connection.push(b"421 4.4.2 Idle for too long\r\n"),
    "451": lambda connection: connection.push(b"451 4.4.2 Timeout waiting for data\r\n"),
    "something else": lambda connection: connection.push(b"250 2.0.0 Ok\r\n"),
    "garbage": lambda connection: connection.push(b"\x00\xff\r\n"),
    "closed": lambda connection: connection.hang_up(),
    "reset": lambda connection: connection.reset(),
}


@pytest.mark.parametrize("how", IDLE_ENDS)
@pytest.mark.parametrize("leased", [False, True], ids=["in the pool", "in a lease"])
def test_a_session_that_ends_while_idle_is_replaced_unseen(how: str, leased: bool) -> None:
    """Found by a look: not a byte goes out on the dead one."""
    with ScriptedServer() as server, mailer_for(server) as mailer:
        with mailer.session() as session:
            sender = session if leased else mailer
            sender.send(message(1), envelope=envelope())
            IDLE_ENDS[how](server.connections[0])
            result = sender.send(message(2), envelope=envelope())
        assert (result.attempts, result.connection_reused) == (1, False)
        assert committed(server) == {1: 1, 2: 1}
        assert connection_of(server, 2) == 2
        assert server.connections[0].verbs == ("EHLO", "MAIL", "RCPT", "DATA")


# ---- leaving

QUIT_FAULTS: dict[str, dict[str, Any]] = {
    "close": {"kind": "close"},
    "reset": {"kind": "reset"},
    "silence": {"kind": "silence"},
    "stall": {"kind": "stall"},
    "421": {"kind": "reply", "reply": "421 4.3.2 Closing"},
    "500": {"kind": "reply", "reply": "500 5.5.1 What?"},
    "garbage": {"kind": "garbage"},
    "endless": {"kind": "endless"},
}


@pytest.mark.parametrize("how", QUIT_FAULTS)
@pytest.mark.parametrize("pool", [True, False], ids=["pool", "no pool"])
def test_a_farewell_that_fails_changes_nothing(how: str, pool: bool) -> None:
    with ScriptedServer(faults=[Fault("quit", **QUIT_FAULTS[how])]) as server:
        began = time.monotonic()
        with mailer_for(server, pool=pool) as mailer:
            assert send(mailer, 1).accepted == (RECIPIENT,)
        assert time.monotonic() - began < 1.0
        server.wait_for(lambda: not server.unfired)
        assert committed(server) == {1: 1}


# ---- timed retries


class Naps:
    """Stands in for time.sleep, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def retrying(server: ScriptedServer, naps: Naps, **options: Any) -> Mailer:
    return Mailer(config_for(server, **{"retry": 3} | options), sleep=naps, random=lambda: 0.0)


def test_the_last_error_is_raised_with_the_earlier_ones_on_it() -> None:
    faults = [
        Fault("mail", "reply", reply=f"45{n} 4.7.1 Later", occurrence=n, connection=None) for n in (1, 2, 3)
    ]
    naps = Naps()
    with ScriptedServer(faults=faults) as server, retrying(server, naps) as mailer:
        error = refused(mailer, 1)
        assert (error.smtp_code, [earlier.smtp_code for earlier in error.attempts]) == (453, [451, 452])
        assert error.attempts[1].attempts == error.attempts[:1]
        assert naps.seconds == [1.0, 2.0]
        assert committed(server) == {}


def test_a_server_that_is_away_for_a_while() -> None:
    with ScriptedServer() as server:
        server.refuse()
        naps = Naps()
        with Mailer(config_for(server, retry=2), sleep=lambda _: server.resume()) as mailer:
            assert send(mailer, 1).attempts == 2
        server.refuse()
        with retrying(server, naps) as mailer:
            error = refused(mailer, 2)
            assert [type(one) for one in (*error.attempts, error)] == [NobodyListens] * 3


@pytest.mark.parametrize("kind", ["close", "reset", "garbage", "half", "silence", "four_digits", "mixed"])
@pytest.mark.parametrize("is_reused", [False, True], ids=["new", "reused"])
def test_what_may_have_been_taken_is_never_sent_again(kind: Any, is_reused: bool) -> None:
    naps = Naps()
    fault = Fault("final", kind, commit=True, occurrence=2 if is_reused else 1)
    with ScriptedServer(faults=[fault]) as server, retrying(server, naps, timeouts={"final": 0.3}) as mailer:
        if is_reused:
            send(mailer, 0)
        with pytest.raises(MailbridgeError) as caught:
            send(mailer, 1)
        assert caught.value.outcome_unknown
        assert not caught.value.is_transient
        assert caught.value.attempts == ()
        assert naps.seconds == []
        assert (len(server.connections), committed(server)[1]) == (1, 1)


def test_recipients_that_were_served_are_not_served_again() -> None:
    naps = Naps()
    with ScriptedServer(rcpt_replies=SOME) as server, retrying(server, naps) as mailer:
        assert send(mailer, 1, GOOD, LATER).attempts == 1
        assert (naps.seconds, recipients_served(server)) == ([], {GOOD: 1})


# ---- batches


def test_each_message_of_a_batch_has_its_own_outcome() -> None:
    """Ten messages: the third is refused, the fifth for now, the link is cut after the dot of the seventh."""
    replies = {3: "550 5.7.1 Spam", 5: "451 4.7.1 Later"}
    fault = Fault("final", "close", occurrence=7, connection=None, commit=False)
    with (
        ScriptedServer(faults=[fault], final_replies=lambda m: replies.get(number_of(m.content))) as server,
        mailer_for(server) as mailer,
    ):
        outcomes = mailer.send_many([(message(n), envelope()) for n in range(1, 11)])
        assert server.unfired == ()
        sent = {n for n, outcome in enumerate(outcomes, 1) if isinstance(outcome, SendResult)}
        errors = {n: outcome for n, outcome in enumerate(outcomes, 1) if isinstance(outcome, MailbridgeError)}
        assert sent == {1, 2, 4, 6, 8, 9, 10}
        assert {n: type(e) for n, e in errors.items()} == {
            3: MessageRefused,
            5: MessageRefused,
            7: ConnectionLost,
        }
        assert {n: e.outcome_unknown for n, e in errors.items()} == {3: False, 5: False, 7: True}
        assert {n: e.is_transient for n, e in errors.items()} == {3: False, 5: True, 7: False}
        assert committed(server) == dict.fromkeys(sent, 1)
        assert [connection_of(server, n) for n in sorted(sent)] == [1, 1, 1, 1, 2, 2, 2]


def test_a_batch_that_stops_at_the_first_error() -> None:
    with ScriptedServer(rcpt_replies=SOME) as server, mailer_for(server) as mailer:
        recipients = [GOOD, BAD, GOOD]
        outcomes = mailer.send_many(
            [(message(n), envelope(to)) for n, to in enumerate(recipients)], on_error="stop"
        )
        assert [type(outcome) for outcome in outcomes] == [SendResult, RecipientsRefused]
        assert committed(server) == {0: 1}


def test_a_batch_without_a_server_does_not_knock_for_each_message() -> None:
    with ScriptedServer(
        faults=[Fault("greeting", "reply", reply="554 No", connection=None, occurrence=None)]
    ) as server:
        with mailer_for(server) as mailer:
            outcomes = mailer.send_many([(message(n), envelope()) for n in range(5)])
        assert len(outcomes) == 5
        assert all(isinstance(outcome, MailbridgeError) for outcome in outcomes)
        assert len(server.connections) == 1


def test_a_lost_session_does_not_stop_a_batch() -> None:
    fault = Fault("mail", "garbage", occurrence=2)
    with ScriptedServer(faults=[fault]) as server, mailer_for(server) as mailer:
        outcomes = mailer.send_many([(message(n), envelope()) for n in (1, 2, 3)])
        assert [isinstance(outcome, SendResult) for outcome in outcomes] == [True, False, True]
        assert committed(server) == {1: 1, 3: 1}


def test_the_same_bytes_in_every_attempt() -> None:
    """So that a receiver can drop the second of two that it may have got."""
    email = EmailMessage()
    email["From"], email["To"], email["Subject"] = SENDER, RECIPIENT, "Hello"
    email.set_content("Hello\n")
    got: list[bytes] = []

    def note(received: Any) -> str | None:
        got.append(received.content)
        return "451 4.7.1 Later" if len(got) < 3 else None

    with ScriptedServer(final_replies=note) as server, retrying(server, Naps()) as mailer:
        result = mailer.send(email)
        assert (len(got), len(set(got))) == (3, 1)
        assert result.message_id is not None
