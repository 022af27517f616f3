"""Fewer connections while the server asks for less, and who is served first while they are few."""

import pytest

from mailbridge.deadline import Deadline
from mailbridge.errors import DeadlineExceeded, InvalidMessage, PoolTimeout
from mailbridge.message.priority import lane_of
from mailbridge.pool import Lease, Pool
from mailbridge.pool.sizing import GROW_SECONDS, Size
from tests.unit.pool.fakes import Borrower, FakeClock, Thing, World, pool_of, queue_one


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def lend(pool: Pool[Thing], count: int) -> list[Lease[Thing]]:
    return [pool.acquire() for _ in range(count)]


def give_back(*leases: Lease[Thing]) -> None:
    for lease in leases:
        lease.pool.release(lease, reusable=True)


class TestSize:
    @pytest.mark.parametrize(("in_use", "left"), [(10, 5), (7, 3), (2, 1), (1, 1), (0, 1), (99, 5)])
    def test_half_of_what_was_in_use(self, in_use: int, left: int) -> None:
        size = Size(10)
        assert size.reduce(in_use, since=1, now=2)
        assert (size.now, size.reductions) == (left, 1)

    def test_again_and_again(self) -> None:
        size = Size(16)
        seen = []
        for now in range(1, 7):
            size.reduce(16, since=now - 0.5, now=now)
            seen.append(size.now)
        assert seen == [8, 4, 2, 1, 1, 1]

    def test_answers_to_what_began_before_the_reduction_are_part_of_it(self) -> None:
        size = Size(16)
        assert size.reduce(16, since=5, now=10)
        assert not size.reduce(16, since=9.9, now=11)
        assert not size.reduce(16, since=10, now=11)
        assert (size.now, size.reductions) == (8, 1)
        assert size.reduce(16, since=10.1, now=11)
        assert size.now == 4

    def test_it_comes_back_one_by_one(self) -> None:
        size = Size(4)
        size.reduce(4, since=0, now=100)
        for after, now in ((29.9, 2), (30, 3), (59, 3), (60, 4), (1000, 4)):
            size.recover(100 + after)
            assert size.now == now, after

    def test_it_comes_back_at_once_after_a_long_silence(self) -> None:
        size = Size(8)
        size.reduce(2, since=0, now=100)
        size.recover(100 + 7 * GROW_SECONDS)
        assert size.now == 8

    def test_a_reduction_on_the_way_back_starts_the_wait_anew(self) -> None:
        size = Size(8)
        size.reduce(8, since=0, now=100)
        size.recover(131)
        assert size.now == 5
        size.reduce(5, since=120, now=140)
        size.recover(169)
        assert size.now == 2
        size.recover(170)
        assert size.now == 3

    def test_without_a_bound_there_is_nothing_to_halve(self) -> None:
        size = Size(float("inf"))
        assert not size.reduce(100, since=1, now=2)
        assert (size.now, size.reductions) == (float("inf"), 0)


class TestReducedPool:
    def test_idle_things_that_are_too_many_are_closed_at_once_the_coldest_first(
        self, world: World, clock: FakeClock
    ) -> None:
        pool = pool_of(world, clock, max_size=4)
        give_back(*lend(pool, 4))
        assert pool.reduce(clock.now)
        assert [connection.closes for connection in world.opened] == [1, 1, 0, 0]
        stats = pool.stats()
        assert (stats.max_size, stats.effective_size, stats.size, stats.idle) == (4, 2, 2, 2)
        assert (stats.reductions_total, dict(stats.closed_total)) == (1, {"too_many": 2})
        assert "max=4 reduced to 2" in repr(pool)

    def test_lent_things_that_are_too_many_are_closed_when_they_come_back(
        self, world: World, clock: FakeClock
    ) -> None:
        pool = pool_of(world, clock, max_size=5)
        leases = lend(pool, 5)
        pool.reduce(clock.now)
        assert pool.stats().lent == 5, "what is under way goes on"
        sizes = []
        for lease in leases:
            give_back(lease)
            sizes.append((pool.stats().size, pool.stats().idle))
        assert sizes == [(4, 0), (3, 0), (2, 0), (2, 1), (2, 2)]
        assert pool.stats().closed_total == {"too_many": 3}

    def test_what_is_being_closed_does_not_count_against_what_comes_back(
        self, world: World, clock: FakeClock
    ) -> None:
        pool = pool_of(world, clock, max_size=4)
        first, second, third, fourth = lend(pool, 4)
        give_back(first, second)
        world.on_close = lambda connection: give_back(third, fourth)
        pool.reduce(clock.now)
        assert dict(pool.stats().closed_total) == {"too_many": 2}
        assert pool.stats().idle == 2

    def test_no_more_are_opened_than_there_may_be_now(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_size=4)
        give_back(*lend(pool, 4))
        pool.reduce(clock.now)
        lend(pool, 2)
        with pytest.raises(DeadlineExceeded, match=r"all 2 connections are in use \(4 before the server"):
            pool.acquire(Deadline.after(0))
        clock.now += GROW_SECONDS
        pool.acquire(Deadline.after(0))
        assert pool.stats().effective_size == 3

    def test_who_waits_too_long_is_told_of_the_reduction(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_size=2, acquire_timeout=0.01)
        lend(pool, 2)
        pool.reduce(clock.now)
        with pytest.raises(PoolTimeout, match=r"all 1 connections are in use \(2 before the server asked"):
            pool.acquire()

    def test_a_waiter_is_served_by_the_last_one_that_may_stay(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_size=2)
        first, second = lend(pool, 2)
        waiter = queue_one(pool)
        pool.reduce(clock.now)
        give_back(first)
        assert pool.stats().waiting == 1
        give_back(second)
        assert waiter.result().connection is second.connection

    def test_a_pool_that_keeps_nothing_is_not_reduced(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, enabled=False)
        assert not pool.reduce(clock.now)
        assert (pool.stats().effective_size, pool.stats().max_size) == (None, None)
        assert "reduced" not in repr(pool)

    def test_a_forked_child_begins_with_all(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_size=4)
        give_back(*lend(pool, 4))
        pool.reduce(clock.now)
        pool.forget()
        assert pool.stats().effective_size == 4


class TestLanes:
    def test_the_lowest_lane_is_served_first_and_each_in_its_order(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        held = pool.acquire()
        order: list[str] = []
        waiters: dict[str, Borrower] = {}
        for name in ("low 1", "normal 1", "low 2", "high 1", "normal 2", "high 2"):
            waiters[name] = queue_one(pool, lane=lane_of(name.split()[0]))
        for _ in range(len(waiters)):
            give_back(held)
            name = next(
                n for n in ("high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2") if n in waiters
            )
            held = waiters.pop(name).result()
            order.append(name)
        assert order == ["high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]

    def test_a_high_one_overtakes_twenty_that_wait(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        held = pool.acquire()
        bulk = [queue_one(pool) for _ in range(20)]
        high = queue_one(pool, lane=lane_of("high"))
        give_back(held)
        held = high.result()
        assert pool.stats().waiting == 20
        for borrower in bulk:
            give_back(held)
            held = borrower.result()

    def test_who_could_step_back_can_ask(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        held = pool.acquire()
        assert not pool.is_wanted_before(lane_of("low"))
        waiter = queue_one(pool, lane=lane_of("normal"))
        assert [pool.is_wanted_before(lane_of(name)) for name in ("high", "normal", "low")] == [
            False, False, True,
        ]  # fmt: skip
        give_back(held)
        give_back(waiter.result())
        assert not pool.is_wanted_before(lane_of("low"))

    @pytest.mark.parametrize(("priority", "lane"), [("high", 0), ("normal", 1), ("low", 2), (None, 1)])
    def test_lanes_of_priorities(self, priority: str | None, lane: int) -> None:
        assert lane_of(priority) == lane

    @pytest.mark.parametrize("priority", ["urgent", 1, "", ["high"]])
    def test_what_is_no_priority(self, priority: object) -> None:
        with pytest.raises(InvalidMessage, match="must be one of high, normal, low"):
            lane_of(priority)
