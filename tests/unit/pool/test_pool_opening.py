"""When the pool opens things: one at a time while in doubt, none while held back, never beyond a limit."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from mailbridge.config.groups import PoolOptions
from mailbridge.deadline import Deadline
from mailbridge.errors import DeadlineExceeded, PoolTimeout
from mailbridge.pool import Pool
from mailbridge.pool.sizing import GROW_SECONDS, Size
from tests.unit.pool.fakes import PATIENCE, Borrower, FakeClock, Thing, World, queue_one


class Down(Exception):
    """What opening raises."""


class Full(Exception):
    """What opening raises where the other side lets no more in."""


class Side(World):
    """The other side, with a door: `held` keeps the pool from opening, `limit` is how many it lets in."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.held: Exception | None = None
        self.limit = 99
        self.asked_of_others: list[int] = []
        self.gates: list[threading.Event] = []  # openings under way, if they are to wait
        self.is_slow = False
        self.opening = threading.Semaphore(0)

    def open(self, deadline: Deadline) -> Thing:
        if len(self.open_now) >= self.limit:
            raise Full
        if self.is_slow:
            gate = threading.Event()
            self.gates.append(gate)
            self.opening.release()
            assert gate.wait(PATIENCE)
        return super().open(deadline)

    def let_in(self) -> None:
        """The oldest opening under way comes to its end."""
        assert self.opening.acquire(timeout=PATIENCE)
        self.gates.pop(0).set()

    def on_failure(self, error: Exception, others: int) -> bool:
        self.asked_of_others.append(others)
        return isinstance(error, Full) and others > 0

    def pool(self, **options: Any) -> Pool[Thing]:
        return Pool(
            self.open,
            PoolOptions(**{"max_size": 4, "acquire_timeout": PATIENCE, **options}),
            hold=lambda: self.held,
            on_failure=self.on_failure,
            clock=self.clock,
            random=lambda: 0.5,
        )


@pytest.fixture
def side() -> Side:
    return Side()


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to that")


class TestInDoubt:
    def test_the_first_is_opened_alone_and_then_all_at_once(self, side: Side) -> None:
        side.is_slow = True
        pool = side.pool()
        borrowers = [Borrower(pool)]
        until(lambda: pool.stats().opening == 1)
        borrowers += [queue_one(pool) for _ in range(3)]
        side.let_in()
        until(lambda: pool.stats().opening == 3)
        for _ in range(3):
            side.let_in()
        assert {borrower.result().connection.number for borrower in borrowers} == {0, 1, 2, 3}

    def test_a_failure_is_its_callers_and_the_next_one_opens_alone(self, side: Side) -> None:
        pool = side.pool()
        pool.acquire()
        side.on_open = fail
        with pytest.raises(Down):
            pool.acquire()
        side.on_open = lambda _: None
        side.is_slow = True
        first = Borrower(pool)
        until(lambda: pool.stats().opening == 1)
        second = queue_one(pool)
        side.let_in()
        first.result()
        side.let_in()
        second.result()

    @pytest.mark.parametrize("how", ["lost", "dead", "worn"])
    def test_only_what_was_lost_is_cause_for_doubt(self, side: Side, how: str) -> None:
        pool = side.pool(max_messages=1 if how == "worn" else 9)
        lease = pool.acquire()
        lease.connection.flaw = "end of file" if how == "dead" else None
        pool.release(lease, reusable=how != "lost")
        side.is_slow = True
        borrowers = [Borrower(pool)]
        until(lambda: pool.stats().opening == 1)
        borrowers.append(Borrower(pool))
        until(lambda: pool.stats().opening + pool.stats().waiting == 2)
        assert pool.stats().waiting == (0 if how == "worn" else 1)
        for _ in borrowers:
            side.let_in()
        for borrower in borrowers:
            borrower.result()

    def test_a_dead_idle_one_is_no_place_to_open_in_while_another_is_opened(self, side: Side) -> None:
        pool = side.pool()
        for lease in [pool.acquire(), pool.acquire()]:
            lease.connection.flaw = None
            pool.release(lease, reusable=True)
        for thing in side.opened:
            thing.flaw = "end of file"
        side.is_slow = True
        first = Borrower(pool)
        until(lambda: pool.stats().opening == 1)
        second = queue_one(pool)
        assert pool.stats().size == 1, "the dead ones are gone"
        side.let_in()
        first.result()
        side.let_in()
        second.result()

    def test_who_waits_too_long_is_told_that_none_could_be_opened(self, side: Side) -> None:
        side.is_slow = True
        pool = side.pool(acquire_timeout=0.01)
        first = Borrower(pool)
        until(lambda: pool.stats().opening == 1)
        with pytest.raises(PoolTimeout, match="1 connections are in use or being opened, and no other could"):
            pool.acquire()
        side.let_in()
        first.result()


def fail(_: object) -> None:
    raise Down


class TestHeldBack:
    def test_who_comes_is_turned_away_at_once_each_with_an_error_of_its_own(self, side: Side) -> None:
        pool = side.pool()
        side.held = Down("later")
        errors = []
        for _ in range(2):
            with pytest.raises(Down, match="later") as caught:
                pool.acquire()
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert side.opened == []
        side.held = None
        pool.acquire()

    def test_who_waits_is_turned_away_when_the_opening_fails(self, side: Side) -> None:
        def fail_and_hold(_: object) -> None:
            until(lambda: pool.stats().waiting == 5)
            side.held = Down("later")
            raise Down("now")

        pool = side.pool()
        side.on_open = fail_and_hold
        first = Borrower(pool)
        until(lambda: pool.stats().opening == 1)
        others = [Borrower(pool) for _ in range(5)]
        assert str(first.failure()) == "now"
        assert {str(borrower.failure()) for borrower in others} == {"later"}
        assert (pool.stats().waiting, pool.stats().size) == (0, 0)

    def test_who_can_have_what_lives_waits_for_that(self, side: Side) -> None:
        pool = side.pool()
        lease = pool.acquire()
        side.held = Down("later")
        waiting = [queue_one(pool) for _ in range(3)]
        for borrower in waiting:
            pool.release(lease, reusable=True)
            lease = borrower.result()
        assert len(side.opened) == 1

    def test_who_waits_for_what_is_lost_then_is_turned_away(self, side: Side) -> None:
        pool = side.pool()
        lease = pool.acquire()
        side.held = Down("later")
        waiting = queue_one(pool)
        pool.release(lease, reusable=False)
        assert str(waiting.failure()) == "later"

    def test_who_wants_a_fresh_one_is_turned_away_and_holds_up_nobody(self, side: Side) -> None:
        pool = side.pool(max_size=1)
        lease = pool.acquire()
        fresh = queue_one(pool, fresh=True)
        other = queue_one(pool)
        side.held = Down("later")
        pool.release(lease, reusable=True)
        assert str(fresh.failure()) == "later"
        assert other.result().connection is lease.connection


class TestLimit:
    def test_who_is_one_too_many_waits_for_those_that_are_in(self, side: Side) -> None:
        pool = side.pool()
        first, second = pool.acquire(), pool.acquire()
        side.limit = 2
        third = queue_one(pool)
        assert side.asked_of_others == [2]
        assert (pool.stats().effective_size, pool.stats().reductions_total) == (2, 1)
        pool.release(first, reusable=True)
        assert third.result().connection is first.connection
        pool.release(second, reusable=True)
        assert len(side.opened) == 2

    def test_it_is_first_of_its_lane(self, side: Side) -> None:
        side.limit = 1
        pool = side.pool()
        lease = pool.acquire()
        third = queue_one(pool)
        fourth = queue_one(pool)
        pool.release(lease, reusable=True)
        pool.release(third.result(), reusable=True)
        fourth.result()

    def test_half_a_minute_later_one_more_is_tried(self, side: Side) -> None:
        side.limit = 1
        pool = side.pool()
        lease = pool.acquire()
        waiting = queue_one(pool)
        pool.release(lease, reusable=True)
        lease = waiting.result()
        side.clock.now += GROW_SECONDS
        waiting = queue_one(pool)
        assert (side.asked_of_others, pool.stats().effective_size) == ([1, 1], 1)
        side.clock.now += GROW_SECONDS
        side.limit = 99
        last = Borrower(pool)
        assert waiting.result().connection.number == 1
        pool.release(lease, reusable=True)
        assert last.result().connection is lease.connection

    def test_with_nobody_in_it_is_an_error_and_says_nothing_of_the_number(self, side: Side) -> None:
        side.limit = 0
        pool = side.pool()
        with pytest.raises(Full):
            pool.acquire()
        assert (side.asked_of_others, pool.stats().effective_size) == ([0], 4)

    def test_what_is_lent_only_once_is_nothing_to_wait_for(self, side: Side) -> None:
        side.limit = 1
        pool = side.pool(enabled=False)
        pool.acquire()
        with pytest.raises(Full):
            pool.acquire()

    def test_a_deadline_ends_the_wait(self, side: Side) -> None:
        side.limit = 1
        pool = side.pool()
        pool.acquire()
        with pytest.raises(DeadlineExceeded, match=r"all 1 connections are in use \(4 before"):
            pool.acquire(Deadline.after(0.01))

    def test_of_many_at_once_each_that_is_refused_counts_the_others_anew(self, side: Side) -> None:
        """One is in; three are being opened, of which one gets in: two it is."""
        pool = side.pool()
        lease = pool.acquire()
        side.is_slow = True
        borrowers = [Borrower(pool) for _ in range(3)]
        until(lambda: pool.stats().opening == 3)
        side.on_open = lambda _: refuse_beyond(side, 2)
        for _ in range(3):
            side.let_in()
        until(lambda: (pool.stats().waiting, pool.stats().lent) == (2, 2))
        assert pool.stats().effective_size == 2
        pool.release(lease, reusable=True)
        for borrower in sorted(borrowers, key=lambda borrower: borrower.lease is None):
            pool.release(borrower.result(), reusable=True)
        assert len(side.opened) == 2


def refuse_beyond(side: Side, count: int) -> None:
    if len(side.open_now) >= count:
        raise Full


@pytest.mark.parametrize(
    ("before", "others", "left", "is_less"),
    [(10, 2, 2, True), (10, 9, 9, True), (2, 2, 2, False), (1, 3, 1, False), (10, 0, 1, True)],
)
def test_a_size_settles_at_what_is_let_in(before: int, others: int, left: int, is_less: bool) -> None:
    size = Size(10)
    size.now = before
    assert size.settle(others, now=100) is is_less
    assert (size.now, size.reductions) == (left, int(is_less))
    size.recover(100 + GROW_SECONDS)
    assert size.now == left + 1
