"""The pool's rules one by one: bounds, order, age, wear, deadlines, closing, numbers."""

import logging
import random
import threading
import time
from typing import Any

import pytest

from mailbridge.config.groups import PoolOptions
from mailbridge.deadline import NEVER, Deadline
from mailbridge.errors import DeadlineExceeded, PoolClosed, PoolTimeout
from mailbridge.pool import Lease, Pool
from tests.unit.pool.fakes import PATIENCE, Borrower, FakeClock, Thing, World, pool_of, queue_one


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def give_back(*leases: Lease[Thing]) -> None:
    for lease in leases:
        lease.pool.release(lease, reusable=True)


class TestLending:
    def test_a_kept_thing_is_lent_again(self, world: World) -> None:
        pool = pool_of(world)
        for uses in (1, 2, 3):
            lease = pool.acquire()
            assert (lease.connection.number, lease.uses, lease.reused) == (0, uses, uses > 1)
            assert lease.waited == 0
            give_back(lease)
        assert len(world.opened) == 1
        assert world.opened[0].closes == 0

    def test_the_last_one_in_is_the_first_one_out(self, world: World) -> None:
        pool = pool_of(world, max_size=3)
        leases = [pool.acquire() for _ in range(3)]
        give_back(leases[1], leases[0], leases[2])
        assert [pool.acquire().connection.number for _ in range(3)] == [2, 0, 1]

    def test_the_opener_gets_the_callers_deadline(self, world: World) -> None:
        deadline = Deadline.after(5)
        pool_of(world).acquire(deadline)
        assert world.deadlines == [deadline]

    def test_nothing_is_opened_before_it_is_needed(self, world: World) -> None:
        pool_of(world)
        assert world.opened == []

    def test_a_failure_to_open_is_the_callers_and_frees_the_place(self, world: World) -> None:
        pool = pool_of(world, max_size=1)

        def fail(_: object) -> None:
            raise ConnectionRefusedError("nobody there")

        world.on_open = fail
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                pool.acquire()
        assert pool.stats().size == 0

    def test_fresh_is_never_an_idle_one(self, world: World) -> None:
        pool = pool_of(world, max_size=2)
        give_back(pool.acquire())
        lease = pool.acquire(fresh=True)
        assert (lease.connection.number, lease.reused) == (1, False)
        assert pool.stats().idle == 1

    def test_fresh_evicts_the_coldest_when_the_pool_is_full_of_idle_ones(self, world: World) -> None:
        pool = pool_of(world, max_size=2)
        give_back(*[pool.acquire(), pool.acquire()])
        assert pool.acquire(fresh=True).connection.number == 2
        assert [connection.closes for connection in world.opened] == [1, 0, 0]
        assert world.most == 2, "the evicted one is closed before the new one is opened"
        assert pool.stats().closed_total == {"evicted": 1}

    def test_fresh_waits_while_all_are_lent_and_then_opens_in_the_place_that_comes_free(
        self, world: World
    ) -> None:
        pool = pool_of(world, max_size=1)
        first = pool.acquire()
        borrower = queue_one(pool, fresh=True)
        give_back(first)
        lease = borrower.result()
        assert (lease.connection.number, lease.reused, world.most) == (1, False, 1)

    def test_a_lease_in_a_with_goes_back_reusable(self, world: World) -> None:
        pool = pool_of(world)
        with pool.acquire() as lease:
            assert pool.stats().lent == 1
            assert lease.connection is world.opened[0]
        assert pool.stats().idle == 1

    def test_a_lease_whose_block_raises_is_not_kept(self, world: World) -> None:
        pool = pool_of(world)
        with pytest.raises(KeyboardInterrupt), pool.acquire():
            raise KeyboardInterrupt
        assert (pool.stats().size, world.opened[0].closes) == (0, 1)

    def test_a_release_inside_the_block_is_the_one_that_counts(self, world: World) -> None:
        pool = pool_of(world)

        def keep_and_raise(lease: Lease[Thing]) -> None:
            give_back(lease)
            raise ValueError("refused")

        with pytest.raises(ValueError, match="refused"), pool.acquire() as lease:
            keep_and_raise(lease)
        assert pool.stats().idle == 1


class TestKeeping:
    """What is closed at return or before lending, and why."""

    def closed_because(self, pool: Pool[Thing], world: World) -> dict[str, int]:
        assert len(world.open_now) == pool.stats().size
        return dict(pool.stats().closed_total)

    def test_not_reusable(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "mailbridge.pool")
        pool = pool_of(world)
        pool.release(pool.acquire(), reusable=False, reason="421 bye\r\nX")
        assert self.closed_because(pool, world) == {"not_reusable": 1}
        assert "not reusable: 421 bye\\r\\nX" in caplog.text

    def test_unusable_at_return(self, world: World) -> None:
        pool = pool_of(world)
        lease = pool.acquire()
        lease.connection.flaw = "unread bytes"
        give_back(lease)
        assert self.closed_because(pool, world) == {"unusable": 1}

    def test_unusable_before_lending(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "mailbridge.pool")
        pool = pool_of(world)
        give_back(pool.acquire())
        world.opened[0].flaw = "421 4.4.2 idle too long"
        assert pool.acquire().connection.number == 1
        assert self.closed_because(pool, world) == {"unusable": 1}
        assert "unusable: 421 4.4.2 idle too long" in caplog.text

    def test_a_look_that_fails_counts_as_unusable(self, world: World) -> None:
        pool = pool_of(world)

        def explode(_: Thing) -> None:
            raise OSError(9, "Bad file descriptor")

        world.on_look = explode
        give_back(pool.acquire())
        assert self.closed_because(pool, world) == {"unusable": 1}

    def test_dead_idle_ones_are_passed_over_for_a_live_one(self, world: World) -> None:
        pool = pool_of(world, max_size=3)
        give_back(*[pool.acquire() for _ in range(3)])
        world.opened[1].flaw = world.opened[2].flaw = "end of file"
        assert pool.acquire().connection.number == 0
        assert pool.stats().size == 1
        assert len(world.opened) == 3

    def test_when_all_idle_ones_are_dead_a_new_one_is_opened(self, world: World) -> None:
        pool = pool_of(world, max_size=3)
        give_back(*[pool.acquire() for _ in range(3)])
        for connection in world.opened:
            connection.flaw = "end of file"
        lease = pool.acquire()
        assert (lease.connection.number, lease.reused) == (3, False)
        assert (pool.stats().size, world.open_now) == (1, {lease.connection})

    def test_worn_after_max_messages_lends(self, world: World) -> None:
        pool = pool_of(world, max_messages=3)
        for _ in range(7):
            give_back(pool.acquire())
        assert [connection.closes for connection in world.opened] == [1, 1, 0]
        assert self.closed_because(pool, world) == {"worn": 2}

    def test_messages_beyond_the_first_count_too(self, world: World) -> None:
        pool = pool_of(world, max_messages=3)
        lease = pool.acquire()
        assert [lease.use_again() for _ in range(4)] == [True, True, False, False]
        assert lease.uses == 3
        give_back(lease)
        assert self.closed_because(pool, world) == {"worn": 1}

    def test_a_lease_given_back_wears_nothing_any_more(self, world: World) -> None:
        pool = pool_of(world)
        lease = pool.acquire()
        give_back(lease)
        assert not lease.use_again()
        assert pool.acquire().uses == 2

    def test_too_old_at_return(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_lifetime=600)
        lease = pool.acquire()
        clock.now += 600
        give_back(lease)
        assert self.closed_because(pool, world) == {"too_old": 1}

    def test_too_old_before_lending_although_never_idle_for_long(
        self, world: World, clock: FakeClock
    ) -> None:
        pool = pool_of(world, clock, max_lifetime=600, max_idle=120)
        for _ in range(6):
            give_back(pool.acquire())
            clock.now += 100
        assert pool.acquire().connection.number == 1
        assert self.closed_because(pool, world) == {"too_old": 1}

    def test_too_idle_before_lending(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_idle=120)
        give_back(pool.acquire())
        clock.now += 119.9
        give_back(pool.acquire())
        clock.now += 120
        assert pool.acquire().connection.number == 1
        assert self.closed_because(pool, world) == {"too_idle": 1}

    def test_time_on_loan_is_not_idle_time(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_idle=120)
        give_back(pool.acquire())
        lease = pool.acquire()
        clock.now += 300
        give_back(lease)
        assert self.closed_because(pool, world) == {}

    @pytest.mark.parametrize("by", ["acquire", "release"])
    def test_whoever_comes_by_closes_what_grew_cold(self, world: World, clock: FakeClock, by: str) -> None:
        pool = pool_of(world, clock, max_size=4, max_idle=120)
        cold = [pool.acquire(), pool.acquire()]
        warm = pool.acquire()
        give_back(*cold)
        if by == "acquire":
            clock.now += 60
            give_back(warm)
            clock.now += 60
            assert pool.acquire().connection is warm.connection
        else:
            clock.now += 120
            give_back(warm)
        assert [connection.closes for connection in world.opened] == [1, 1, 0]
        assert self.closed_because(pool, world) == {"too_idle": 2}

    def test_a_pool_full_of_cold_ones_still_lends_at_once(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_size=2, max_idle=120)
        give_back(*[pool.acquire(), pool.acquire()])
        clock.now += 120
        assert pool.acquire(Deadline.after(0)).connection.number == 2
        assert (pool.stats().size, pool.stats().waits_total, world.most) == (1, 0, 2)

    @pytest.mark.parametrize(("number", "lifetime"), [(0.0, 540.0), (0.5, 600.0), (1.0, 660.0)])
    def test_lifetimes_are_spread_by_a_tenth(
        self, world: World, clock: FakeClock, number: float, lifetime: float
    ) -> None:
        draws: list[float] = []

        def draw() -> float:
            draws.append(number)
            return number

        options = PoolOptions(max_lifetime=600, max_idle=10_000)
        pool = Pool(world.open, options, clock=clock, random=draw)
        born = clock.now
        give_back(pool.acquire())
        clock.now = born + lifetime - 0.001
        give_back(pool.acquire())
        assert pool.stats().closed_total == {}
        clock.now = born + lifetime + 0.001
        give_back(pool.acquire())
        assert pool.stats().closed_total == {"too_old": 1}
        assert len(draws) == 2, "drawn once, when the thing is born"

    def test_a_close_that_raises_frees_the_place_and_the_descriptor(self, world: World) -> None:
        pool = pool_of(world, max_size=1)

        def explode(_: Thing) -> None:
            raise OSError("broken pipe")

        world.on_close = explode
        pool.release(pool.acquire(), reusable=False)
        assert world.opened[0].abandons == 1
        assert pool.stats().size == 0
        assert pool.acquire().connection.number == 1

    def test_discard_idle_leaves_the_lent_ones(self, world: World) -> None:
        pool = pool_of(world, max_size=3)
        lent, *idle = [pool.acquire() for _ in range(3)]
        give_back(*idle)
        pool.discard_idle()
        assert [connection.closes for connection in world.opened] == [0, 1, 1]
        give_back(lent)
        assert pool.acquire().connection is lent.connection
        assert pool.stats().closed_total == {"discarded": 2}


class TestRelease:
    def test_twice_does_nothing(self, world: World) -> None:
        pool = pool_of(world)
        lease = pool.acquire()
        give_back(lease)
        pool.release(lease, reusable=False)
        assert (pool.stats().idle, world.opened[0].closes) == (1, 0)

    def test_twice_does_not_take_the_thing_from_its_next_borrower(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        first = pool.acquire()
        give_back(first)
        second = pool.acquire()
        pool.release(first, reusable=False)
        assert (pool.stats().lent, world.opened[0].closes) == (1, 0)
        give_back(second)
        assert pool.stats().idle == 1

    def test_twice_at_once_closes_once(self, world: World) -> None:
        pool = pool_of(world)
        lease = pool.acquire()
        other = threading.Thread(target=lambda: pool.release(lease, reusable=False))

        def release_again(_: Thing) -> None:
            other.start()
            other.join(PATIENCE)

        world.on_look = release_again
        give_back(lease)
        assert not other.is_alive()
        assert (pool.stats().idle, world.opened[0].closes) == (1, 0)

    def test_to_the_wrong_pool_is_an_error_that_names_both(self, world: World) -> None:
        mine, other = pool_of(world), Pool(world.open, PoolOptions(), name="other.example:25")
        lease = mine.acquire()
        with pytest.raises(ValueError, match=r"smtp\.example\.com:587 lent=1 .* other\.example:25"):
            other.release(lease, reusable=True)
        assert (mine.stats().lent, other.stats().size) == (1, 0)
        give_back(lease)
        assert mine.stats().idle == 1


class TestQueue:
    def test_waiters_are_served_in_their_order(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        lease = pool.acquire()
        borrowers = [queue_one(pool) for _ in range(5)]
        served = []
        for borrower in borrowers:
            give_back(lease)
            lease = borrower.result()
            served.append(borrower)
            assert [b.is_alive() for b in borrowers] == [b not in served for b in borrowers]
        assert len(world.opened) == 1
        assert lease.uses == 6

    def test_a_newcomer_does_not_overtake(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_size=1)
        lease = pool.acquire()
        first = queue_one(pool)

        def come_now(_: Thing) -> None:
            world.on_close = lambda _: None
            with pytest.raises(DeadlineExceeded):
                pool.acquire(Deadline.after(0))

        world.on_close = come_now
        pool.release(lease, reusable=False)
        assert first.result().connection.number == 1

    def test_a_place_given_up_goes_to_the_next_who_opens_in_its_own_thread(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        openers: list[threading.Thread] = []
        world.on_open = lambda _: openers.append(threading.current_thread())
        lease = pool.acquire()
        borrower = queue_one(pool)
        pool.release(lease, reusable=False)
        assert not borrower.result().reused
        assert openers == [threading.current_thread(), borrower]
        assert world.most == 1

    def test_when_opening_fails_the_next_one_tries(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        lease = pool.acquire()
        borrowers = [queue_one(pool) for _ in range(4)]

        def fail_but_for_the_last(_: object) -> None:
            if threading.current_thread() is not borrowers[-1]:
                raise ConnectionRefusedError

        world.on_open = fail_but_for_the_last
        pool.release(lease, reusable=False)
        assert [type(b.failure()) for b in borrowers[:-1]] == [ConnectionRefusedError] * 3
        assert borrowers[-1].result().connection.number == 1

    def test_a_timeout_says_what_was_full_and_what_to_do(self, world: World) -> None:
        pool = pool_of(world, max_size=2, acquire_timeout=0.01)
        pool.acquire(), pool.acquire()
        with pytest.raises(PoolTimeout) as caught:
            pool.acquire()
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.is_transient
        assert caught.value.server == "smtp.example.com:587"
        assert "within 0.01 seconds: all 2 connections are in use" in str(caught.value)
        assert "Raise pool.max_size" in str(caught.value)
        assert (pool.stats().waiting, pool.stats().timeouts_total) == (0, 1)

    def test_the_callers_own_deadline_may_come_first(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        pool.acquire()
        with pytest.raises(DeadlineExceeded, match="ran out in the queue: all 1 connections"):
            pool.acquire(Deadline.after(0.01))
        assert pool.stats().waiting == 0

    def test_a_deadline_after_the_pools_limit_is_a_pool_timeout(self, world: World) -> None:
        pool = pool_of(world, max_size=1, acquire_timeout=0.01)
        pool.acquire()
        with pytest.raises(PoolTimeout):
            pool.acquire(Deadline.after(PATIENCE))

    def test_a_limit_longer_than_locks_can_wait_is_no_error(self, world: World) -> None:
        pool = pool_of(world, max_size=1, acquire_timeout=1e15)
        lease = pool.acquire()
        borrower = queue_one(pool)
        give_back(lease)
        borrower.result()

    def test_one_who_timed_out_does_not_stand_in_the_way(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        lease = pool.acquire()
        gone = Borrower(pool, deadline=Deadline.after(0.01))
        assert isinstance(gone.failure(), DeadlineExceeded)
        borrower = queue_one(pool)
        give_back(lease)
        assert borrower.result().connection is lease.connection

    def test_a_hand_over_in_the_moment_of_the_timeout_loses_nothing(self, world: World) -> None:
        """The time is up, but before the waiter gets to say so the thing is handed to it."""
        pool = pool_of(world, max_size=1)
        lease = pool.acquire()
        returned = threading.Event()

        class LateGate:
            """A gate whose wait always times out, just after the place was handed over."""

            def __init__(self, gate: Any) -> None:
                self.gate = gate
                self.locked = gate.locked
                self.release = gate.release

            def acquire(self, timeout: float) -> bool:
                give_back(lease)
                assert pool.stats().waiting == 0
                returned.set()
                return False

        ledger = lease.ledger
        assign = ledger.assign

        def plant() -> None:
            assign()
            for claim in ledger.queue:
                claim.gate = LateGate(claim.gate)  # type: ignore[assignment]

        ledger.assign = plant  # type: ignore[method-assign]
        late = pool.acquire()
        assert returned.is_set()
        assert late.connection is lease.connection
        assert (pool.stats().lent, pool.stats().timeouts_total, len(world.opened)) == (1, 0, 1)

    def test_waiting_is_measured(self, world: World, clock: FakeClock) -> None:
        pool = pool_of(world, clock, max_size=1)
        lease = pool.acquire()
        borrower = queue_one(pool)
        clock.now += 3
        give_back(lease)
        assert borrower.result().waited == 3
        stats = pool.stats()
        assert (stats.waits_total, stats.wait_seconds_total, stats.timeouts_total) == (1, 3.0, 0)


class TestSwitchedOff:
    def test_each_acquire_opens_and_each_release_closes(self, world: World) -> None:
        pool = pool_of(world, enabled=False, max_size=1)
        leases = [pool.acquire() for _ in range(4)]
        assert len(world.open_now) == 4
        give_back(*leases)
        assert world.open_now == set()
        assert pool.stats().closed_total == {"pool_off": 4}
        assert pool.stats().reused_total == 0
        assert repr(pool) == "<Pool smtp.example.com:587 lent=0 idle=0 opening=0 waiting=0 max=none>"


class TestClose:
    def test_idle_ones_at_once_and_lent_ones_at_their_return(self, world: World) -> None:
        pool = pool_of(world)
        idle, lent = pool.acquire(), pool.acquire()
        give_back(idle)
        pool.close()
        assert [connection.closes for connection in world.opened] == [1, 0]
        assert pool.closed
        give_back(lent)
        assert [connection.closes for connection in world.opened] == [1, 1]
        assert pool.stats().closed_total == {"pool_closed": 2}
        assert pool.stats().size == 0

    def test_nothing_new_is_taken(self, world: World) -> None:
        pool = pool_of(world)
        pool.close()
        with pytest.raises(PoolClosed) as caught:
            pool.acquire()
        assert caught.value.server == "smtp.example.com:587"
        assert not caught.value.is_transient

    def test_it_may_be_closed_again_and_by_several(self, world: World) -> None:
        pool = pool_of(world, max_size=5)
        give_back(*[pool.acquire() for _ in range(5)])
        closers = [threading.Thread(target=pool.close, args=(1.0,)) for _ in range(4)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(PATIENCE)
            assert not closer.is_alive()
        pool.close()
        assert [connection.closes for connection in world.opened] == [1] * 5

    def test_waiters_are_told_at_once(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        lease = pool.acquire()
        borrowers = [queue_one(pool) for _ in range(3)]
        pool.close()
        assert [type(borrower.failure()) for borrower in borrowers] == [PoolClosed] * 3
        assert (pool.stats().waiting, pool.stats().timeouts_total) == (0, 0)
        give_back(lease)

    def test_one_that_is_opening_is_under_way_and_closed_at_its_return(self, world: World) -> None:
        pool = pool_of(world)
        begun, go_on = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            begun.set()
            assert go_on.wait(PATIENCE)

        world.on_open = hold
        borrower = Borrower(pool)
        assert begun.wait(PATIENCE)
        pool.close()
        assert pool.stats().opening == 1
        go_on.set()
        lease = borrower.result()
        give_back(lease)
        assert (world.opened[0].closes, pool.stats().size) == (1, 0)

    def test_draining_ends_when_the_last_one_is_back(self, world: World) -> None:
        pool = pool_of(world)
        leases = [pool.acquire(), pool.acquire()]
        closer = threading.Thread(target=pool.close, args=(PATIENCE * 10,))
        ledger = leases[0].ledger
        in_line = threading.Event()

        class Line(list[Any]):
            def append(self, closer: Any) -> None:
                super().append(closer)
                in_line.set()

        ledger.closers = Line()
        closer.start()
        assert in_line.wait(PATIENCE)
        give_back(leases[0])
        assert closer.is_alive()
        give_back(leases[1])
        closer.join(PATIENCE)
        assert not closer.is_alive()
        assert ledger.closers == []

    def test_draining_is_bounded(self, world: World) -> None:
        pool = pool_of(world)
        lease = pool.acquire()
        pool.close(drain=0.01)
        assert pool.stats().lent == 1
        give_back(lease)
        assert world.open_now == set()

    def test_twenty_senders_against_three_closers_leave_nobody_unanswered(self, world: World) -> None:
        pool = pool_of(world, max_size=3)
        start = threading.Barrier(23)
        answers: list[str] = []

        def send() -> None:
            start.wait(PATIENCE)
            try:
                while True:
                    with pool.acquire():
                        pass
            except PoolClosed:
                answers.append("closed")

        def close() -> None:
            start.wait(PATIENCE)
            pool.close(drain=PATIENCE)

        threads = [threading.Thread(target=t, daemon=True) for t in [send] * 20 + [close] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == ["closed"] * 20
        assert (pool.stats().size, world.open_now) == (0, set())


class TestReentry:
    """Code that a signal or the garbage collector runs in a thread that holds the pool's lock already."""

    def test_closing_and_giving_back_inside_the_lock(self, world: World) -> None:
        pool = pool_of(world, max_size=2)
        other = pool.acquire()
        give_back(pool.acquire())
        ledger = other.ledger
        find_place = ledger.find_place
        done: list[int] = []

        def interrupted(claim: Any) -> Any:
            if not done:
                done.append(1)
                give_back(other)
                pool.discard_idle()
            return find_place(claim)

        ledger.find_place = interrupted  # type: ignore[method-assign]
        lease = pool.acquire(Deadline.after(0))
        assert done
        assert world.open_now == {lease.connection}
        assert pool.stats().size == 1


class TestNumbers:
    def test_the_state_is_in_the_repr(self, world: World) -> None:
        pool = pool_of(world, max_size=5)
        leases = [pool.acquire() for _ in range(3)]
        give_back(*leases[:2])
        assert repr(pool) == "<Pool smtp.example.com:587 lent=1 idle=2 opening=0 waiting=0 max=5>"

    def test_opening_closing_and_waiting_are_seen_while_they_last(self, world: World) -> None:
        pool = pool_of(world, max_size=1)
        seen: list[str] = []
        world.on_open = lambda _: seen.append(repr(pool))
        world.on_close = lambda _: seen.append(f"closing={pool.stats().closing} lent={pool.stats().lent}")
        lease = pool.acquire()
        borrower = queue_one(pool)
        pool.release(lease, reusable=False)
        give_back(borrower.result())
        pool.close()
        opening = "<Pool smtp.example.com:587 lent=0 idle=0 opening=1 waiting=0 max=1>"
        assert seen == [opening, "closing=1 lent=0", opening, "closing=1 lent=0"]
        assert repr(pool).endswith("max=1 closed>")

    def test_totals(self, world: World) -> None:
        pool = pool_of(world, max_size=2)
        give_back(pool.acquire())
        give_back(pool.acquire())
        pool.release(pool.acquire(), reusable=False)
        stats = pool.stats()
        assert (stats.name, stats.max_size, stats.size) == ("smtp.example.com:587", 2, 0)
        assert (stats.opened_total, stats.reused_total) == (1, 2)
        assert stats.closed_total == {"not_reusable": 1}

    def test_numbers_given_out_do_not_change(self, world: World) -> None:
        pool = pool_of(world)
        before = pool.stats()
        pool.release(pool.acquire(), reusable=False)
        assert before.closed_total == {}
        assert before.opened_total == 0


def test_fifty_threads_with_random_interrupts_leave_nothing_behind(world: World) -> None:
    """The server's count never exceeds the bound, and at the end it equals the pool's."""
    pool = pool_of(world, max_size=5, max_messages=7)
    chance = random.Random(20240229)

    class Killed(BaseException):
        pass

    def now_and_then(share: float) -> Any:
        def strike(_: object) -> None:
            time.sleep(0)  # lets the others in, here of all places
            if chance.random() < share:
                raise chance.choice([Killed, KeyboardInterrupt, SystemExit, OSError])

        return strike

    def look(connection: Thing) -> None:
        now_and_then(0.02)(connection)
        if chance.random() < 0.02:
            connection.flaw = "gone"

    world.on_open, world.on_close, world.on_look = now_and_then(0.05), now_and_then(0.05), look
    in_use: set[Thing] = set()
    problems: list[str] = []
    ended: set[type[BaseException]] = set()

    def borrow(number: int) -> None:
        deadline = Deadline.after(0.0005) if number % 10 == 0 else NEVER
        lease = pool.acquire(deadline, fresh=number % 17 == 0)
        try:
            if lease.connection in in_use or lease.connection not in world.open_now:
                problems.append(f"{lease.connection} is lent twice, or closed")
            in_use.add(lease.connection)
            now_and_then(0.05)(None)
        finally:
            in_use.discard(lease.connection)
            pool.release(lease, reusable=chance.random() < 0.95)

    def work() -> None:
        for number in range(200):
            try:
                borrow(number)
            except (Killed, KeyboardInterrupt, SystemExit, OSError) as error:
                ended.add(type(error))
            except BaseException as error:
                problems.append(repr(error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []
    assert world.most <= 5
    stats = pool.stats()
    assert (stats.lent, stats.opening, stats.closing, stats.waiting) == (0, 0, 0, 0)
    assert (stats.size, stats.idle) == (len(world.open_now), len(world.open_now))
    world.on_close = lambda _: None
    pool.close()
    assert (pool.stats().size, world.open_now) == (0, set())
    assert all(connection.closes + connection.abandons for connection in world.opened)
    assert stats.waits_total > 100
    assert {Killed, KeyboardInterrupt, SystemExit, OSError, DeadlineExceeded} <= ended
