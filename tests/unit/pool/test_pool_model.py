"""The pool against a model of a few lines: any order of calls, and the same answers."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mailbridge.deadline import Deadline
from mailbridge.errors import DeadlineExceeded, PoolClosed
from mailbridge.pool import Lease
from tests.unit.pool.fakes import Borrower, FakeClock, Thing, World, pool_of, queue_one

MAX_IDLE = 100.0
MAX_LIFETIME = 250.0


@dataclass
class Model:
    """What a pool is, without threads, locks or interrupts. Things are known by their number."""

    max_size: int
    max_messages: int
    now: float = 0.0
    idle: list[int] = field(default_factory=list)  # the coldest first
    lent: set[int] = field(default_factory=set)
    born: dict[int, float] = field(default_factory=dict)
    idle_since: dict[int, float] = field(default_factory=dict)
    uses: dict[int, int] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    closed: bool = False
    reductions: list[tuple[float, int]] = field(default_factory=list)  # when, and to how many

    @property
    def size(self) -> int:
        """What it may have: as many as after the last reduction, and one more for each 30 s since then."""
        when, left = self.reductions[-1] if self.reductions else (0.0, self.max_size)
        return min(self.max_size, left + int((self.now - when) // 30))

    @property
    def is_full(self) -> bool:
        return len(self.lent) + len(self.idle) >= self.size

    def reduce(self, since: float) -> bool:
        if self.reductions and since <= self.reductions[-1][0]:
            return False
        in_use = min(self.size, len(self.lent) + len(self.idle))
        self.reductions.append((self.now, max(1, in_use // 2)))
        while self.idle and len(self.lent) + len(self.idle) > self.size:
            self.idle.pop(0)
        return True

    def is_old(self, number: int) -> bool:
        return self.now >= self.born[number] + MAX_LIFETIME

    def drop_overdue(self) -> None:
        self.idle = [n for n in self.idle if not self.is_old(n) and self.now < self.idle_since[n] + MAX_IDLE]

    def lend(self, fresh: bool) -> int | None:
        """The number of the thing that is lent; None if there is no place."""
        self.drop_overdue()
        while self.idle and not fresh:
            number = self.idle.pop()
            if number not in self.dead:
                return self.hand_out(number)
        if self.is_full:
            if not self.idle:
                return None
            self.idle.pop(0)
        return self.open()

    def open(self) -> int:
        number = len(self.born)
        self.born[number] = self.now
        self.uses[number] = 0
        return self.hand_out(number)

    def hand_out(self, number: int) -> int:
        self.lent.add(number)
        self.uses[number] += 1
        return number

    def take_back(self, number: int, reusable: bool) -> None:
        self.drop_overdue()
        is_good = number not in self.dead and not self.is_old(number)
        is_good = is_good and len(self.lent) + len(self.idle) <= self.size
        self.lent.remove(number)
        if reusable and is_good and self.uses[number] < self.max_messages and not self.closed:
            self.idle_since[number] = self.now
            self.idle.append(number)


class PoolAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.clock = FakeClock()
        self.leases: list[Lease[Thing]] = []
        self.returned: list[Lease[Thing]] = []
        self.waiting: list[tuple[int, bool, Borrower]] = []  # lane, fresh: the next one first

    @initialize(max_size=st.integers(1, 4), max_messages=st.integers(1, 5))
    def start(self, max_size: int, max_messages: int) -> None:
        self.pool = pool_of(
            self.world,
            self.clock,
            max_size=max_size,
            max_messages=max_messages,
            max_idle=MAX_IDLE,
            max_lifetime=MAX_LIFETIME,
        )
        self.model = Model(max_size, max_messages, self.clock.now)

    def lent(self, lease: Lease[Thing], number: int) -> None:
        assert lease.connection.number == number
        assert lease.uses == self.model.uses[number]
        assert lease.reused == (lease.uses > 1)
        self.leases.append(lease)

    @rule(fresh=st.booleans())
    @precondition(lambda self: not self.waiting)
    def acquire(self, fresh: bool) -> None:
        if self.model.closed:
            with pytest.raises(PoolClosed):
                self.pool.acquire(fresh=fresh)
            return
        number = self.model.lend(fresh)
        if number is None:
            with pytest.raises(DeadlineExceeded):
                self.pool.acquire(Deadline.after(0), fresh=fresh)
        else:
            self.lent(self.pool.acquire(fresh=fresh), number)

    @rule()
    @precondition(lambda self: not self.waiting)
    def fail_to_open(self) -> None:
        """A failure leaves the places as if it had never been asked, but for an idle one evicted."""
        if self.model.closed or (self.model.is_full and not self.model.idle):
            return

        def fail(_: object) -> None:
            raise ConnectionRefusedError

        self.model.drop_overdue()
        if self.model.is_full:
            self.model.idle.pop(0)
        self.world.on_open = fail
        with pytest.raises(ConnectionRefusedError):
            self.pool.acquire(fresh=True)
        self.world.on_open = lambda _: None

    @rule(fresh=st.booleans(), lane=st.integers(0, 2))
    @precondition(lambda self: not self.model.closed and self.model.is_full and not self.model.idle)
    @precondition(lambda self: len(self.waiting) < 4)
    def queue(self, fresh: bool, lane: int) -> None:
        self.waiting.append((lane, fresh, queue_one(self.pool, fresh=fresh, lane=lane)))
        self.waiting.sort(key=lambda waiting: waiting[0])

    @rule(which=st.integers(0, 3), reusable=st.booleans())
    @precondition(lambda self: self.leases)
    def release(self, which: int, reusable: bool) -> None:
        lease = self.leases.pop(which % len(self.leases))
        self.pool.release(lease, reusable=reusable)
        self.returned.append(lease)
        self.model.take_back(lease.connection.number, reusable)
        served, numbers = [], []
        while self.waiting and (number := self.model.lend(self.waiting[0][1])) is not None:
            served.append(self.waiting.pop(0)[2].result())
            numbers.append(number)
        # More than one at a time only after the pool has grown, and then it is open who opens first.
        assert sorted(lease.connection.number for lease in served) == sorted(numbers)
        for lease in served:
            self.lent(lease, lease.connection.number)

    @rule(lanes=st.lists(st.integers(0, 2), min_size=2, max_size=4))
    @precondition(lambda self: not self.waiting and not self.model.closed)
    def crowd(self, lanes: list[int]) -> None:
        """All places are taken, and some wait."""
        while (number := self.model.lend(fresh=False)) is not None:
            self.lent(self.pool.acquire(), number)
        for lane in lanes:
            self.queue(False, lane)

    @rule(age=st.sampled_from([0.0, 5.0, 50.0]))
    @precondition(lambda self: self.model.lent)
    def reduce(self, age: float) -> None:
        since = self.clock.now - age
        assert self.pool.reduce(since) is self.model.reduce(since)

    @rule()
    @precondition(lambda self: self.returned)
    def release_again(self) -> None:
        self.pool.release(self.returned[-1], reusable=False)

    @rule(seconds=st.sampled_from([1.0, 29.0, 40.0, 99.0, 100.0, 260.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.now += seconds
        self.model.now = self.clock.now

    @rule(data=st.data())
    @precondition(lambda self: self.model.idle or self.model.lent)
    def break_one(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([*self.model.idle, *sorted(self.model.lent)]))
        self.world.opened[number].flaw = "end of file"
        self.model.dead.add(number)

    @rule()
    def discard_idle(self) -> None:
        self.pool.discard_idle()
        self.model.idle.clear()

    @rule()
    @precondition(lambda self: len(self.model.born) > 8)  # there is little to see afterwards
    def close(self) -> None:
        self.pool.close()
        self.model.closed = True
        self.model.idle.clear()
        for _, _, borrower in self.waiting:
            assert isinstance(borrower.failure(), PoolClosed)
        self.waiting.clear()

    @invariant()
    def the_numbers_agree(self) -> None:
        if not hasattr(self, "pool"):
            return
        stats = self.pool.stats()
        assert (stats.lent, stats.idle) == (len(self.model.lent), len(self.model.idle))
        assert (stats.opening, stats.closing, stats.waiting) == (0, 0, len(self.waiting))
        assert {connection.number for connection in self.world.open_now} == self.model.lent | set(
            self.model.idle
        )
        assert self.world.most <= self.model.max_size
        assert stats.effective_size == self.model.size
        assert len(self.world.opened) == stats.opened_total
        assert sum(stats.closed_total.values()) == len(self.world.opened) - stats.size
        assert self.pool.closed is self.model.closed

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()
            for _, _, borrower in self.waiting:
                borrower.finish()


TestPoolAgainstModel: Any = PoolAgainstModel.TestCase
TestPoolAgainstModel.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_the_model_is_not_the_pool() -> None:
    """The comparison bites: a pool that lends the coldest one first does not pass it."""
    machine = PoolAgainstModel()
    machine.start(max_size=2, max_messages=5)
    machine.acquire(fresh=False)
    machine.acquire(fresh=False)
    machine.release(which=0, reusable=True)
    machine.release(which=0, reusable=True)
    ledger = machine.returned[0].ledger
    find = ledger._idle
    ledger._idle = lambda: find()[::-1]  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        machine.acquire(fresh=False)
