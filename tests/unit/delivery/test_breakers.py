"""The breaker of a server: when it is passed over, for how long, and who finds out that it works again."""

import os
import threading
from math import inf

import pytest

from mailbridge import (
    ConnectionLost,
    ConnectTimeout,
    DeadlineExceeded,
    MailbridgeError,
    NobodyListens,
    NotSupported,
    PoolTimeout,
    RecipientsRefused,
    Reply,
    ReplyTimeout,
)
from mailbridge.delivery.breakers import (
    FAILURES_TO_OPEN,
    FIRST_COOLDOWN,
    FIRST_COOLDOWN_AFTER_WAITING,
    JITTER,
    LONGEST_COOLDOWN,
    LONGEST_COOLDOWN_ALONE,
    ServerBreaker,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> ServerBreaker:
    return ServerBreaker(clock=clock, random=lambda: 0.0)


def refused() -> NobodyListens:
    return NobodyListens("Connection refused", stage="tcp")


def fail(breaker: ServerBreaker, times: int = FAILURES_TO_OPEN) -> None:
    for _ in range(times):
        breaker.note(refused())


def test_a_new_one_is_closed(breaker: ServerBreaker) -> None:
    assert (breaker.is_open, breaker.failures, breaker.error, breaker.seconds_left) == (False, 0, None, 0.0)
    assert breaker.open_within() == inf


def test_it_opens_after_some_failures_in_a_row(breaker: ServerBreaker) -> None:
    fail(breaker, FAILURES_TO_OPEN - 1)
    assert breaker.open_within() == inf
    fail(breaker, 1)
    assert (breaker.is_open, breaker.failures, breaker.seconds_left) == (
        True,
        FAILURES_TO_OPEN,
        FIRST_COOLDOWN,
    )
    assert breaker.open_within() is None
    assert isinstance(breaker.error, NobodyListens)


def test_a_success_in_between_begins_the_count_anew(breaker: ServerBreaker) -> None:
    for _ in range(3):
        fail(breaker, FAILURES_TO_OPEN - 1)
        breaker.note(None)
    assert (breaker.is_open, breaker.failures, breaker.error) == (False, 0, None)


@pytest.mark.parametrize("error", [ConnectTimeout("x", stage="tcp"), ReplyTimeout("x", stage="mail_from")])
def test_it_opens_at_once_where_a_message_had_to_wait(breaker: ServerBreaker, error: MailbridgeError) -> None:
    breaker.note(error)
    assert breaker.is_open


def test_the_time_for_a_send_may_be_too_short_for_any_server(breaker: ServerBreaker) -> None:
    breaker.note(DeadlineExceeded("x", stage="mail_from"))
    assert not breaker.is_open
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.note(DeadlineExceeded("x", stage="mail_from"))
    assert breaker.is_open


@pytest.mark.parametrize(
    "error",
    [
        RecipientsRefused("x", rejected={"a@b.example": Reply(550, ("5.1.1 No",), (5, 1, 1))}),
        NotSupported("x", extension="SMTPUTF8", stage="mail_from"),
    ],
)
def test_a_server_that_says_no_is_well(breaker: ServerBreaker, error: MailbridgeError) -> None:
    fail(breaker, FAILURES_TO_OPEN - 1)
    breaker.note(error)
    assert breaker.failures == 0
    for _ in range(10):
        breaker.note(error)
    assert not breaker.is_open


def test_what_says_nothing_of_the_server_changes_nothing(breaker: ServerBreaker) -> None:
    fail(breaker, FAILURES_TO_OPEN - 1)
    breaker.note(PoolTimeout("x"))
    assert breaker.failures == FAILURES_TO_OPEN - 1


def test_a_commit_without_an_answer_counts(breaker: ServerBreaker) -> None:
    error = ConnectionLost("x", stage="final")
    error.outcome_unknown = True
    breaker.note(error)
    assert breaker.failures == 1


def test_after_the_cooldown_one_message_is_the_probe(breaker: ServerBreaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += FIRST_COOLDOWN - 0.01
    assert breaker.open_within() is None
    clock.now += 0.01
    assert breaker.open_within() == FIRST_COOLDOWN  # as long as it was left alone
    assert [breaker.open_within() for _ in range(3)] == [None] * 3


def test_a_probe_that_succeeds_closes_it(breaker: ServerBreaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += FIRST_COOLDOWN
    breaker.open_within()
    breaker.note(None)
    assert (breaker.is_open, breaker.open_within()) == (False, inf)
    fail(breaker)
    assert breaker.seconds_left == FIRST_COOLDOWN  # the next trouble begins small again


def test_each_probe_that_fails_doubles_the_cooldown_up_to_a_cap(breaker: ServerBreaker, clock: Clock) -> None:
    fail(breaker)
    seen = []
    for _ in range(12):
        clock.now += breaker.seconds_left
        seen.append(breaker.open_within())
        breaker.note(refused())
    assert seen[:4] == [FIRST_COOLDOWN, 2 * FIRST_COOLDOWN, 4 * FIRST_COOLDOWN, 8 * FIRST_COOLDOWN]
    assert seen[-1] == breaker.seconds_left == LONGEST_COOLDOWN


def test_a_probe_that_never_reports_is_followed_by_another(breaker: ServerBreaker, clock: Clock) -> None:
    """Its thread was killed, or it waited in vain for a place in the pool."""
    fail(breaker)
    clock.now += FIRST_COOLDOWN
    assert breaker.open_within() == FIRST_COOLDOWN
    breaker.note(PoolTimeout("x"))
    clock.now += FIRST_COOLDOWN
    assert breaker.open_within() == FIRST_COOLDOWN


def test_stragglers_do_not_prolong_it(breaker: ServerBreaker, clock: Clock) -> None:
    """Twenty threads that were on their way when it opened fail one by one."""
    fail(breaker)
    clock.now += FIRST_COOLDOWN / 2
    fail(breaker, 20)
    assert breaker.seconds_left == FIRST_COOLDOWN / 2
    clock.now += FIRST_COOLDOWN
    breaker.open_within()
    fail(breaker, 20)
    assert breaker.seconds_left == 2 * FIRST_COOLDOWN


def test_many_processes_do_not_probe_at_once(clock: Clock) -> None:
    breaker = ServerBreaker(clock=clock, random=lambda: 1.0)
    fail(breaker)
    assert breaker.seconds_left == pytest.approx(FIRST_COOLDOWN * (1 - JITTER))


def test_what_it_keeps_of_an_error_holds_no_message(breaker: ServerBreaker) -> None:
    with pytest.raises(NobodyListens) as caught:
        raise refused()
    caught.value.attempts = (refused(),)
    breaker.note(caught.value)
    assert breaker.error is not None
    assert breaker.error is not caught.value
    assert (breaker.error.__traceback__, breaker.error.attempts) == (None, ())


def test_reset_forgets(breaker: ServerBreaker) -> None:
    fail(breaker)
    breaker.reset()
    assert breaker.open_within() == inf


def test_one_probe_of_many_threads(breaker: ServerBreaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += FIRST_COOLDOWN
    start, got = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        got.append(breaker.open_within())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got, key=lambda each: each is None) == [FIRST_COOLDOWN] + [None] * 7


def test_no_connection_is_opened_until_a_probe_is_due(breaker: ServerBreaker, clock: Clock) -> None:
    """Without `open_within`, as where there is one server: who opens when it is due is the probe."""
    seen = []
    for seconds in (0.0, 0.0, 0.0, 0.2, 0.3, 0.0, 0.9, 0.1, 0.0):
        clock.now += seconds
        seen.append((breaker.hold() is None, breaker.seconds_held))
        if breaker.hold() is None:
            fail(breaker, 1)
    assert seen == [
        *[(True, 0.0)] * 3,
        (False, pytest.approx(0.3)),
        (True, 0.0),  # fails, so that the next one is due a second later
        (False, 1.0),
        (False, pytest.approx(0.1)),
        (True, 0.0),
        (False, 2.0),
    ]


def test_it_says_why_and_when_the_next_try_is(breaker: ServerBreaker, clock: Clock) -> None:
    fail(breaker)
    error = breaker.hold()
    assert isinstance(error, NobodyListens)
    assert error is not breaker.hold()
    assert error.hint is not None
    assert error.hint.endswith("Not asked for this message: the next try is in 0.5 s.")
    breaker.note(None)
    assert breaker.hold() is None


def test_while_a_probe_is_under_way_nothing_is_held_back(breaker: ServerBreaker, clock: Clock) -> None:
    """What comes by then waits for it in the pool."""
    fail(breaker)
    clock.now += FIRST_COOLDOWN
    assert breaker.open_within() == FIRST_COOLDOWN
    assert (breaker.hold(), breaker.seconds_held) == (None, 0.0)
    fail(breaker, 1)
    assert breaker.seconds_held == 2 * FIRST_COOLDOWN


def test_what_waiting_does_not_mend_is_not_held_back(breaker: ServerBreaker) -> None:
    for _ in range(FAILURES_TO_OPEN):
        breaker.note(NotSupported("x", extension="STARTTLS", stage="tls"))
    assert (breaker.is_open, breaker.hold()) == (True, None)


def test_the_first_cooldown_is_longer_where_a_message_had_to_wait(
    breaker: ServerBreaker, clock: Clock
) -> None:
    breaker.note(ConnectTimeout("x", stage="tcp"))
    assert breaker.seconds_left == FIRST_COOLDOWN_AFTER_WAITING
    breaker.reset()
    fail(breaker)
    clock.now += FIRST_COOLDOWN
    breaker.note(ConnectTimeout("x", stage="tcp"))
    assert breaker.seconds_left == FIRST_COOLDOWN_AFTER_WAITING


def test_a_server_that_is_alone_is_never_left_alone_for_long(clock: Clock) -> None:
    breaker = ServerBreaker(longest_cooldown=LONGEST_COOLDOWN_ALONE, clock=clock, random=lambda: 0.0)
    fail(breaker)
    for _ in range(12):
        clock.now += breaker.seconds_left
        fail(breaker, 1)
    assert breaker.seconds_left == LONGEST_COOLDOWN_ALONE


def test_another_process_has_a_record_of_its_own(
    breaker: ServerBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not wait for a lock that nobody will ever free there."""
    fail(breaker)
    breaker._records.get().lock.acquire()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert breaker.open_within() == inf
    fail(breaker)
    assert breaker.open_within() is None
