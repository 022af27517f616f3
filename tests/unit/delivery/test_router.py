"""The order in which servers are asked: by priority, by weight, by what is known against them."""

import random
from collections import Counter
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge import DeadlineExceeded, MailbridgeError, NobodyListens, ServerOptions, SMTPConfig
from mailbridge.deadline import NEVER, Deadline
from mailbridge.delivery.breakers import FAILURES_TO_OPEN, FIRST_COOLDOWN
from mailbridge.delivery.router import AttemptLog, Candidate, Router, in_order
from mailbridge.delivery.upstream import Upstream


@dataclass(frozen=True)
class Server:
    name: int
    priority: int = 1
    weight: int = 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


servers = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=8).map(
    lambda pairs: [Server(number, *pair) for number, pair in enumerate(pairs)]
)


@given(servers, st.randoms(use_true_random=False))
def test_everybody_is_asked_once_and_the_lowest_priority_first(
    given_: list[Server], rng: random.Random
) -> None:
    order = in_order(given_, rng.random)
    assert sorted(order, key=lambda server: server.name) == given_
    assert [server.priority for server in order] == sorted(server.priority for server in given_)


@given(servers, st.randoms(use_true_random=False), st.data())
def test_where_there_is_a_session_is_the_first_of_its_equals(
    given_: list[Server], rng: random.Random, data: st.DataObject
) -> None:
    preferred = data.draw(st.sampled_from(given_))
    order = in_order(given_, rng.random, preferred=preferred)
    equals = [server for server in order if server.priority == preferred.priority]
    assert equals[0] == preferred
    assert sorted(order, key=lambda server: server.name) == given_


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_equals_share_by_weight(weights: list[int]) -> None:
    """Points that are spread evenly stand for chance: the share is then exact, but for one at each border."""
    group = [Server(number, weight=weight) for number, weight in enumerate(weights)]
    steps = 20 * sum(weights)
    first = Counter(in_order(group, lambda at=(step + 0.5) / steps: at)[0].name for step in range(steps))  # type: ignore[misc]
    assert first == {number: 20 * weight for number, weight in enumerate(weights)}


def test_whoever_is_left_takes_over_by_weight_too() -> None:
    """Of three, the first of the others gets its share of what the one that is down would have had."""
    group = [Server(0, weight=1), Server(1, weight=1), Server(2, weight=3)]
    rng = random.Random(7)
    second = Counter(
        order[1].name for order in (in_order(group, rng.random) for _ in range(4000)) if order[0].name == 0
    )
    assert second[2] / second.total() == pytest.approx(0.75, abs=0.06)


def test_a_random_that_gives_one() -> None:
    group = [Server(0), Server(1, weight=5)]
    assert sorted(server.name for server in in_order(group, lambda: 1.0)) == [0, 1]


# ---- with what is known against them


def upstream(host: str, clock: Clock, priority: int = 1) -> Upstream:
    options = ServerOptions(config=SMTPConfig(host=host), priority=priority)
    return Upstream(
        options,
        name=host,
        is_alone=False,
        before_opening=lambda: None,
        clock=clock,
        random=lambda: 0.0,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def three(clock: Clock) -> list[Upstream]:
    return [upstream(name, clock, number) for number, name in enumerate("abc")]


def fail(server: Upstream) -> None:
    for _ in range(FAILURES_TO_OPEN):
        server.breaker.note(NobodyListens("Connection refused", stage="tcp", server=server.name))


def names(stops: list[Candidate]) -> list[str]:
    return [candidate.upstream.name for candidate in stops]


def candidates(router: Router, attempt_log: AttemptLog | None = None) -> list[Candidate]:
    return list(router.candidates(attempt_log or AttemptLog()))


def test_by_priority_while_all_is_well(three: list[Upstream]) -> None:
    stops = candidates(Router(three, random=random.random))
    assert names(stops) == ["a", "b", "c"]
    assert [(candidate.open_within, candidate.others) for candidate in stops] == [
        (inf, 2),
        (inf, 1),
        (inf, 0),
    ]


def test_who_failed_comes_last_and_it_is_told_why(three: list[Upstream]) -> None:
    fail(three[0])
    attempt_log = AttemptLog()
    stops = candidates(Router(three, random=random.random), attempt_log)
    assert names(stops) == ["b", "c", "a"]
    assert [candidate.others for candidate in stops] == [1, 0, 0]
    assert f"next try is in {FIRST_COOLDOWN} s" in attempt_log.by_server["a"].hint
    assert attempt_log.errors == []


def test_when_all_failed_who_is_due_soonest_is_first(three: list[Upstream], clock: Clock) -> None:
    for server in (three[1], three[2], three[0]):
        fail(server)
        clock.now += FIRST_COOLDOWN / 10
    assert names(candidates(Router(three, random=random.random))) == ["b", "c", "a"]


def test_the_probe_has_its_place_in_the_order(three: list[Upstream], clock: Clock) -> None:
    fail(three[0])
    clock.now += FIRST_COOLDOWN
    stops = candidates(Router(three, random=random.random))
    assert [(candidate.upstream.name, candidate.open_within) for candidate in stops][:2] == [
        ("a", FIRST_COOLDOWN),
        ("b", inf),
    ]
    assert names(candidates(Router(three, random=random.random))) == ["b", "c", "a"]  # the next message


def test_nobody_is_probed_whose_turn_does_not_come(three: list[Upstream], clock: Clock) -> None:
    fail(three[1])
    clock.now += FIRST_COOLDOWN
    router = Router(three, random=random.random)
    assert next(iter(router.candidates(AttemptLog()))).upstream is three[0]
    assert three[1].breaker.open_within() == FIRST_COOLDOWN


def test_one_server_alone_is_always_asked(clock: Clock) -> None:
    alone = upstream("a", clock)
    fail(alone)
    assert candidates(Router([alone], random=random.random)) == [Candidate(alone, inf, 0)]


# ---- time


def test_time_is_left_for_the_others(three: list[Upstream], clock: Clock) -> None:
    limit = Deadline.after(9.0, clock)
    shares = [Candidate(three[0], inf, others, limit).opening_limit(limit).remaining for others in (2, 1, 0)]
    assert shares == [3, 4.5, 9]
    assert Candidate(three[0], 2.0, 0, limit).opening_limit(limit).remaining == 2.0
    assert Candidate(three[0], inf, 2).opening_limit(NEVER) is NEVER
    assert Candidate(three[0], inf, 0, limit).sending_limit(limit) is limit
    shared = Candidate(three[0], inf, 2, limit).sending_limit(limit)
    assert (shared.remaining, shared.before_content.remaining) == (9, 3)


def test_what_a_server_may_take_for_itself_is_not_shared(three: list[Upstream], clock: Clock) -> None:
    own, whole = Deadline.after(2.0, clock), Deadline.after(9.0, clock)
    candidate = Candidate(three[0], inf, 2, whole)
    assert (
        candidate.opening_limit(own).remaining,
        candidate.sending_limit(own).before_content.remaining,
    ) == (2, 2)


# ---- the trail


def test_the_trail_tells_errors_and_servers_apart(three: list[Upstream]) -> None:
    attempt_log = AttemptLog()
    first, second, third = (NobodyListens(text) for text in "123")
    for server, error in ((three[0], first), (three[1], second), (three[0], third)):
        attempt_log.note(server, error)
    assert attempt_log.others_than(third) == (first, second)
    kept = attempt_log.of_others(three[1])
    assert {name: str(error) for name, error in kept.items()} == {"a": "3"}
    assert kept["a"] is not third


def test_what_a_result_keeps_has_no_traceback(three: list[Upstream]) -> None:
    attempt_log = AttemptLog()
    try:
        raise DeadlineExceeded("x")
    except MailbridgeError as error:
        attempt_log.note(three[0], error)
    assert attempt_log.of_others(None)["a"].__traceback__ is None
