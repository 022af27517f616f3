"""Two servers, and the first one fails: the mail arrives exactly once, by the second, wherever it is safe.

The tables are the specification: a row is the step at which the first server fails, a column how. After
its recovery the first server is used again. That the second one gets nothing which the first may have, or
has refused, is as much a part of it.
"""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mailbridge import (
    CertificateRejected,
    ConnectFailed,
    ConnectTimeout,
    DeadlineExceeded,
    MailbridgeError,
    Mailer,
    NobodyListens,
    NotSupported,
    PoolTimeout,
    RateUnavailable,
    RecipientsRefused,
    SendResult,
    SMTPConfig,
)
from mailbridge.delivery.breakers import COOLDOWN, FIRST_COOLDOWN, LONGEST_COOLDOWN
from mailbridge.testing import Fault, ScriptedServer
from tests.acceptance.crowd import side_by_side
from tests.acceptance.fault_cases import (
    BIG,
    SMALL,
    ending_at_once,
    ending_in_time,
    fault_at,
    time_limit,
    timeouts,
)
from tests.acceptance.pairs import Pair, address, entry, pair
from tests.acceptance.sending import (
    MARGIN,
    PASSWORD,
    USER,
    ShiftedClock,
    committed,
    envelope,
    message,
    number_of,
)
from tests.servers.certificates import Certificates

pytestmark = pytest.mark.campaign

NEXT, STAYS, UNKNOWN = "next", "stays", "unknown"

# "next": the second server gets it. "stays": the first one refused it, and that is told. "unknown": nobody
# can tell whether the first one has it, and nothing is sent again.
TABLE = """
step       close    reset    421      4yz      5yz      silence  half     garbage  endless  drip
connect    next     next     -        -        -        next     -        next     next     next
greeting   next     next     next     next     next     next     next     next     next     next
ehlo       next     next     next     next     next     next     next     next     next     next
starttls   next     next     next     next     next     next     next     next     next     next
tls        next     next     next     next     next     next     next     next     next     next
implicit   next     next     next     next     next     next     next     next     next     next
ehlo_tls   next     next     next     next     next     next     next     next     next     next
challenge  next     next     next     next     next     next     next     next     next     next
verdict    next     next     next     next     next     next     next     next     next     next
mail       next     next     next     next     stays    next     next     next     next     next
rcpt       next     next     next     stays    stays    next     next     next     next     next
data       next     next     next     next     stays    next     next     next     next     next
content    next     next     next     stays    stays    next     next     next     next     next
final      unknown  unknown  next     stays    stays    unknown  unknown  unknown  unknown  unknown
"""


def cases() -> list[tuple[str, str, str]]:
    (_, *faults), *rows = (line.split() for line in TABLE.strip().splitlines())
    return [
        (step, how, word)
        for step, *words in rows
        for how, word in zip(faults, words, strict=True)
        if word != "-"
    ]


# ---- every step, every fault


@contextmanager
def served(certificates: Certificates, *, step: str, how: str) -> Iterator[Pair]:
    clock = ShiftedClock()
    is_implicit = step == "implicit"
    login: dict[str, Any] = {"username": USER, "password": PASSWORD}
    common: dict[str, Any] = {
        "certfile": certificates.good.cert_file,
        "keyfile": certificates.good.key_file,
        "users": {USER: PASSWORD},
    }
    with (
        ScriptedServer(
            faults=[fault_at(step, how)], tls="implicit" if is_implicit else "starttls", **common
        ) as one,
        ScriptedServer(tls="starttls", **common) as other,
        Mailer(
            SMTPConfig(
                timeout=10,
                tls={"ca_file": str(certificates.ca_file)},
                servers=[
                    entry(
                        one,
                        security="tls" if is_implicit else "starttls",
                        timeouts=timeouts(step, how),
                        **login,
                    ),
                    entry(other, priority=2, **login),
                ],
            ),
            clock=clock,
        ) as mailer,
    ):
        yield Pair(one, other, mailer, clock)


@pytest.mark.parametrize(("step", "how", "expected"), ending_at_once(cases()))
def test_the_first_server_fails(certificates: Certificates, step: str, how: str, expected: str) -> None:
    check_first_server_fails(certificates, step, how, expected)


@pytest.mark.parametrize("found", ending_in_time(cases()))
def test_the_first_server_does_not_answer(
    certificates: Certificates, found: list[tuple[str, str, str]]
) -> None:
    side_by_side(check_first_server_fails, [(certificates, *case) for case in found])


def check_first_server_fails(certificates: Certificates, step: str, how: str, expected: str) -> None:
    limit = time_limit(step, how)
    size = BIG if step == "content" else SMALL
    with served(certificates, step=step, how=how) as both:
        began = time.monotonic()
        (outcome,) = both.mailer.send_many([(message(1, size=size), envelope())])
        assert time.monotonic() - began < limit + MARGIN
        assert both.first.unfired == ()
        if expected == NEXT:
            assert isinstance(outcome, SendResult), outcome
            assert (outcome.server, outcome.attempts) == (both.names[1], 1)
            assert list(outcome.failed_servers) == [both.names[0]]
            assert outcome.failed_servers[both.names[0]].server == both.names[0]
            assert both.taken == ({}, {1: 1})
        else:
            assert isinstance(outcome, MailbridgeError), outcome
            assert outcome.outcome_unknown is (expected == UNKNOWN)
            assert (outcome.server, outcome.attempts) == (both.names[0], ())
            # The fault at "final" commits: it is the worst case.
            assert both.taken == ({1: 1} if expected == UNKNOWN else {}, {})

        both.wait(LONGEST_COOLDOWN + COOLDOWN)
        assert both.send(2).server == both.names[0]
        assert both.taken[0][2] == 1
        assert both.taken[1][2] == 0


# ---- down, and up again


def test_down_and_up_again() -> None:
    with pair() as both:
        both.first.refuse()
        for number in (1, 2, 3, 4):
            result = both.send(number)
            assert result.server == both.names[1]
            assert isinstance(result.failed_servers[both.names[0]], NobodyListens)
        # The fourth did not even try: it says so, and since when.
        assert "Not asked for this message" in result.failed_servers[both.names[0]].hint
        assert both.mailer.server_stats()[0].is_open
        both.first.resume()
        assert both.send(5).server == both.names[1]
        both.wait(FIRST_COOLDOWN)
        back = both.send(6)
        assert (back.server, dict(back.failed_servers)) == (both.names[0], {})
        assert not both.mailer.server_stats()[0].is_open
        assert both.send(7).server == both.names[0]
        assert both.taken == ({6: 1, 7: 1}, {1: 1, 2: 1, 3: 1, 4: 1, 5: 1})


def test_a_probe_that_fails_makes_the_wait_longer_and_delays_one_message() -> None:
    with pair() as both:
        both.first.refuse()
        for number in (1, 2, 3):
            both.send(number)
        for number, cooldown in enumerate((FIRST_COOLDOWN, 2 * FIRST_COOLDOWN, 4 * FIRST_COOLDOWN), start=4):
            both.wait(cooldown)
            assert both.send(number).failed_servers[both.names[0]].hint.startswith("Not asked") is False
            left = both.mailer.server_stats()[0].seconds_left
            assert cooldown < left <= 2 * cooldown
        assert sum(both.taken[1].values()) == 6


def test_a_silent_server_costs_one_message_its_time_limit() -> None:
    silent = Fault("greeting", "silence", connection=None, occurrence=None)
    with pair(silent, first={"timeouts": {"greeting": 0.3}}) as both:
        both.send(1)
        assert len(both.first.connections) == 1
        for number in (2, 3):
            both.send(number)
        assert len(both.first.connections) == 1
        assert both.taken == ({}, {1: 1, 2: 1, 3: 1})


def test_a_deadline_leaves_time_for_the_others() -> None:
    """The first server's own limits are far longer than the time for the send."""
    silent = Fault("greeting", "silence", connection=None, occurrence=None)
    with pair(silent) as both:
        result = both.send(1, deadline=2.0)
        assert result.server == both.names[1]
        error = result.failed_servers[both.names[0]]
        assert type(error) is ConnectTimeout
        assert error.stage == "greeting"


def test_a_session_that_falls_silent_leaves_time_for_the_others_too() -> None:
    faults = [Fault("mail", "silence", connection=None, occurrence=n) for n in (2, 3)]
    with pair(*faults) as both:
        both.send(1)
        result = both.send(2, deadline=2.5)
        assert result.server == both.names[1]
        assert both.taken == ({1: 1}, {2: 1})


def test_a_probe_has_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the server was left alone, and not the ten seconds that a greeting may take else."""
    monkeypatch.setattr("mailbridge.delivery.breakers.FIRST_COOLDOWN_AFTER_WAITING", 0.5)
    silent = Fault("greeting", "silence", connection=None, occurrence=None)
    with pair(silent) as both:
        both.send(1, deadline=1.6)
        both.wait(0.5)
        began = time.monotonic()
        result = both.send(2)
        assert time.monotonic() - began < 0.5 + MARGIN
        assert type(result.failed_servers[both.names[0]]) is ConnectTimeout
        assert len(both.first.connections) == 2
        assert both.taken == ({}, {1: 1, 2: 1})


@pytest.mark.parametrize("step", ["mail", "data"])
def test_a_server_may_have_a_time_limit_of_its_own_for_a_whole_send(step: str) -> None:
    with pair(fault_at(step, "silence"), first={"timeouts": {"total": 0.3}}) as both:
        result = both.send(1)
        assert type(result.failed_servers[both.names[0]]) is DeadlineExceeded
        assert both.taken == ({}, {1: 1})


def test_the_time_for_the_send_ends_it_whoever_is_left() -> None:
    silent = Fault("greeting", "silence", connection=None, occurrence=None)
    with pair(silent) as both:
        both.second.refuse()
        with pytest.raises(ConnectFailed):
            both.send(1, deadline=0.5)
        began = time.monotonic()
        with pytest.raises((ConnectFailed, DeadlineExceeded)):
            both.send(2, deadline=0.5)
        assert time.monotonic() - began < 0.5 + MARGIN


# ---- the login


def test_a_certificate_that_is_not_trusted(certificates: Certificates) -> None:
    files = {"certfile": certificates.good.cert_file, "keyfile": certificates.good.key_file}
    with (
        ScriptedServer(tls="starttls", **files) as one,
        ScriptedServer(tls="starttls", **files) as other,
        Mailer(
            SMTPConfig(
                timeout=10, servers=[entry(one), entry(other, tls={"ca_file": str(certificates.ca_file)})]
            ),
            random=lambda: 0.0,
        ) as mailer,
    ):
        result = mailer.send(message(1), envelope=envelope())
        assert isinstance(result.failed_servers[address(one)], CertificateRejected)
        assert (committed(one), committed(other)) == ({}, {1: 1})


# ---- what is about the message


def test_an_extension_that_one_message_needs_is_looked_for_at_the_next() -> None:
    with (
        ScriptedServer(keywords=["PIPELINING", "8BITMIME"]) as one,
        ScriptedServer(keywords=["8BITMIME", "SMTPUTF8"]) as other,
        Mailer(SMTPConfig(security="none", servers=[entry(one), entry(other, priority=2)])) as mailer,
    ):
        for number in range(4):
            result = mailer.send(message(number), envelope=envelope("jürgen@b.example"))
            assert isinstance(result.failed_servers[address(one)], NotSupported)
        assert mailer.send(message(9), envelope=envelope()).server == address(one)
        assert not any(stats.failures for stats in mailer.server_stats())


def test_a_partly_refused_message_stays_where_it_is() -> None:
    with (
        ScriptedServer(rcpt_replies={"no@b.example": "451 4.3.0 Lookup failed"}) as one,
        ScriptedServer() as other,
        Mailer(SMTPConfig(security="none", servers=[entry(one), entry(other, priority=2)])) as mailer,
    ):
        result = mailer.send(message(1), envelope=envelope("yes@b.example", "no@b.example"))
        assert (result.accepted, list(result.rejected)) == (("yes@b.example",), ["no@b.example"])
        assert committed(other) == {}


@pytest.mark.parametrize(
    ("reply", "goes_on"),
    [
        ("450 4.2.1 Greylisted", False),
        ("451 Greylisted", False),
        ("550 5.1.1 No such user", False),
        ("451 4.3.0 Lookup failed", True),
    ],
)
def test_refused_recipients(reply: str, goes_on: bool) -> None:
    with (
        ScriptedServer(rcpt_replies=reply) as one,
        ScriptedServer() as other,
        Mailer(SMTPConfig(security="none", servers=[entry(one), entry(other, priority=2)])) as mailer,
    ):
        (outcome,) = mailer.send_many([(message(1), envelope())])
        assert isinstance(outcome, SendResult if goes_on else RecipientsRefused)
        assert committed(other) == ({1: 1} if goes_on else {})


# ---- all of them fail


def test_when_all_fail_the_error_tells_of_each() -> None:
    with pair() as both:
        both.first.refuse()
        both.second.refuse()
        with pytest.raises(NobodyListens) as caught:
            both.send(1)
        assert caught.value.server == both.names[1]
        assert [each.server for each in caught.value.attempts] == [both.names[0]]
        for number in range(5):
            with pytest.raises(NobodyListens) as caught:
                both.send(number)
        assert "the next try is in 0." in str(caught.value), "nobody is asked without need"
        assert all(stats.is_open for stats in both.mailer.server_stats())
        both.second.resume()
        both.wait(FIRST_COOLDOWN)
        assert both.send(9).server == both.names[1]


# ---- a batch


def test_a_batch_loses_its_server_in_the_middle() -> None:
    """Message 3 meets a connection that ends; nobody listens any more."""
    with pair(Fault("mail", "close", occurrence=3)) as both:
        with both.mailer.session() as session:
            served_by = [session.send(message(n), envelope=envelope()).server for n in (1, 2)]
            both.first.refuse()
            served_by += [session.send(message(n), envelope=envelope()).server for n in (3, 4, 5, 6, 7)]
            both.first.resume()
            both.wait(FIRST_COOLDOWN)
            served_by.append(session.send(message(8), envelope=envelope()).server)
        assert served_by == [both.names[0]] * 2 + [both.names[1]] * 5 + [both.names[0]]
        assert both.taken == ({1: 1, 2: 1, 8: 1}, dict.fromkeys((3, 4, 5, 6, 7), 1))
        assert len(both.second.connections) == 1


def test_send_many_goes_on_at_the_second() -> None:
    with pair(Fault("final", "close", occurrence=3, commit=True)) as both:
        outcomes = both.mailer.send_many([(message(n), envelope()) for n in range(1, 7)])
        told = [getattr(each, "server", None) for each in outcomes]
        assert told == [both.names[0]] * 6
        assert [isinstance(each, SendResult) for each in outcomes] == [True, True, False, True, True, True]
        error = outcomes[2]
        assert isinstance(error, MailbridgeError)
        assert error.outcome_unknown
        assert both.taken == (dict.fromkeys(range(1, 7), 1), {})


def test_send_many_stops_only_when_nobody_is_left() -> None:
    with pair() as both:
        both.first.refuse()
        outcomes = both.mailer.send_many([(message(n), envelope()) for n in range(3)])
        assert [isinstance(each, SendResult) for each in outcomes] == [True] * 3
        both.second.refuse()
        both.mailer.close()
        with Mailer(both.mailer.config) as mailer:
            outcomes = mailer.send_many([(message(n), envelope()) for n in range(3)])
        assert len({id(each) for each in outcomes}) == 1
        assert isinstance(outcomes[0], NobodyListens)


def test_a_busy_first_server_leaves_its_mail_to_the_second() -> None:
    with (
        pair(options={"pool": {"max_size": 1, "acquire_timeout": 0.2}}) as both,
        both.mailer.session() as holder,
    ):
        holder.send(message(1), envelope=envelope())
        result = both.send(2)
        assert isinstance(result.failed_servers[both.names[0]], PoolTimeout)
        assert both.mailer.server_stats()[0].failures == 0
        assert both.taken == ({1: 1}, {2: 1})


# ---- what one gets to see


def test_results_and_errors_travel() -> None:
    with pair() as both:
        both.first.refuse()
        result = both.send(1)
        for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
            assert str(twin.failed_servers[both.names[0]]) == str(result.failed_servers[both.names[0]])
        assert all(error.__traceback__ is None for error in result.failed_servers.values())
        both.second.refuse()
        both.mailer.close()
        with Mailer(both.mailer.config) as mailer, pytest.raises(NobodyListens) as caught:
            mailer.send(message(1), envelope=envelope())
        twin = pickle.loads(pickle.dumps(caught.value))
        assert [each.server for each in twin.attempts] == [both.names[0]]


def test_a_failover_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with pair() as both, caplog.at_level("INFO", logger="mailbridge"):
        both.first.refuse()
        for number in range(3):
            both.send(number)
        both.first.resume()
        both.wait(FIRST_COOLDOWN)
        both.send(4)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    one, other = both.names
    moved = [text for level, text in lines if level == "WARNING" and f"so it goes to {other}" in text]
    assert len(moved) == 3
    assert any(level == "WARNING" and f"{one} is left alone for" in text for level, text in lines)
    assert any(level == "INFO" and f"{one} works again" in text for level, text in lines)


def test_the_share_of_equal_servers() -> None:
    numbers = iter(range(1000))
    with (
        ScriptedServer() as one,
        ScriptedServer() as other,
        Mailer(
            SMTPConfig(security="none", servers=[entry(one, weight=3), entry(other)]),
            random=lambda: (next(numbers) % 20) / 20,
        ) as mailer,
    ):
        for number in range(40):
            mailer.send(message(number), envelope=envelope())
        total = committed(one) + committed(other)
        assert total == dict.fromkeys(range(40), 1)
        assert sum(committed(one).values()) > sum(committed(other).values()) > 0


def test_every_message_arrives_once_while_servers_come_and_go() -> None:
    faults = [Fault("mail", "close", occurrence=n, connection=None) for n in (3, 7, 11, 20)]
    faults += [Fault("data", "reset", occurrence=n, connection=None) for n in (5, 9)]
    with pair(*faults) as both:
        for number in range(30):
            both.send(number)
        assert {number_of(m.content) for m in (*both.first.messages, *both.second.messages)} == set(range(30))
        assert sum((both.taken[0] + both.taken[1]).values()) == 30


# ---- LMTP: an answer for each recipient

THREE = ("one@b.example", "two@b.example", "three@b.example")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("greeting", "close"), NEXT),
        (Fault("mail", "close"), NEXT),
        (Fault("data", "reset"), NEXT),
        (Fault("rcpt", "reply", reply="451 4.3.0 Lookup failed"), "sent"),  # to the two others
        (Fault("final", "close", commit=True), UNKNOWN),
        (Fault("final", "close", occurrence=2, commit=True), UNKNOWN),  # one recipient has it certainly
        (Fault("final", "reply", reply="451 4.3.0 Mailbox busy", occurrence=2), "sent"),
    ],
    ids=str,
)
def test_lmtp(fault: Fault, expected: str) -> None:
    with (
        ScriptedServer(faults=[fault], lmtp=True) as one,
        ScriptedServer(lmtp=True) as other,
        Mailer(
            SMTPConfig(protocol="lmtp", security="none", servers=[entry(one), entry(other, priority=2)])
        ) as mailer,
    ):
        (outcome,) = mailer.send_many([(message(1), envelope(*THREE))])
        # Each recipient's copy is a message of its own there.
        copies = [m.recipients[0] for m in other.messages]
        if expected == NEXT:
            assert isinstance(outcome, SendResult), outcome
            assert (outcome.server, copies, one.messages) == (address(other), list(THREE), ())
        else:
            assert copies == []
            assert isinstance(outcome, SendResult if expected == "sent" else MailbridgeError), outcome
            assert getattr(outcome, "outcome_unknown", False) is (expected == UNKNOWN)


def test_lmtp_where_no_recipient_has_it() -> None:
    busy = [Fault("final", "reply", reply="451 4.3.0 Storage is away", occurrence=n) for n in (1, 2, 3)]
    with (
        ScriptedServer(faults=busy, lmtp=True) as one,
        ScriptedServer(lmtp=True) as other,
        Mailer(
            SMTPConfig(protocol="lmtp", security="none", servers=[entry(one), entry(other, priority=2)])
        ) as mailer,
    ):
        assert mailer.send(message(1), envelope=envelope(*THREE)).accepted == THREE
        assert (len(one.messages), [m.recipients[0] for m in other.messages]) == (0, list(THREE))


# ---- content that can be read but once


@pytest.mark.parametrize("how", ["close", "421"])
def test_content_that_comes_in_pieces_is_whole_at_the_second(how: str) -> None:
    """It was half sent when the first server ended it."""
    content = message(1, size=BIG)
    with pair(fault_at("content", how)) as both:
        pieces = (content[at : at + 70_001] for at in range(0, len(content), 70_001))
        result = both.mailer.send(pieces, envelope=envelope())
        assert result.server == both.names[1]
        assert both.second.messages[0].content == content
        assert both.first.messages == ()


# ---- rates: each server has its own


def test_a_limiter_that_is_away_leaves_the_mail_to_the_next_server() -> None:
    def limiter() -> float:
        raise ConnectionError("Redis is down")

    with pair(first={"rate": limiter}) as both:
        result = both.send(1)
        assert result.server == both.names[1]
        assert isinstance(result.failed_servers[both.names[0]], RateUnavailable)
        assert both.mailer.server_stats()[0].failures == 0
        assert both.first.messages == ()
