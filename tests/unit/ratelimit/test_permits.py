"""The line: many threads, and time that passes only while all of them sleep."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailbridge.config.groups import RateOptions
from mailbridge.deadline import NEVER, Deadline
from mailbridge.errors import DeadlineExceeded, PoolClosed, RateUnavailable
from mailbridge.message.priority import lane_of
from mailbridge.ratelimit.permits import LEAST_WAIT, QueueingLimiter
from mailbridge.ratelimit.window import Window
from tests.rates import is_within
from tests.unit.ratelimit.virtual_time import VirtualTime

HIGH, NORMAL, LOW = map(lane_of, ("high", "normal", "low"))


def turns_of(time: VirtualTime, rate: Any = None, **options: Any) -> QueueingLimiter:
    rate = rate if rate is not None else RateOptions(**options)
    return QueueingLimiter(rate, server="smtp.example.com:587", clock=time, pause=time.pause)


@dataclass
class Mail:
    """A message that comes, needs a connection for `connecting` seconds, and leaves."""

    name: str = ""
    comes: float = 0.0
    lane: int = NORMAL
    connecting: float = 0.0
    before: float = 0.0  # from the permission to the wire
    after: float = 0.0  # from the wire to when that is known
    deadline: Deadline = NEVER

    def sent(self, time: VirtualTime, limiter: QueueingLimiter, record: list[tuple[float, str]]) -> None:
        time.sleep(self.comes)
        with limiter.permit(self.lane) as permit:
            while True:
                permit.wait(self.deadline)
                time.sleep(self.connecting)
                if permit.take(NEVER):
                    break
            permit.begin(self.deadline)
            time.sleep(self.before)
            record.append((time(), self.name))
            time.sleep(self.after)
            permit.departed()


def sent(time: VirtualTime, limiter: QueueingLimiter, *mails: Mail) -> list[tuple[float, str]]:
    """When which one left, in that order."""
    record: list[tuple[float, str]] = []
    time.run(*(lambda mail=mail: mail.sent(time, limiter, record) for mail in mails))  # type: ignore[misc]
    return sorted(record, key=lambda each: each[0])


def idle(limiter: QueueingLimiter) -> bool:
    queue = limiter.queue
    return not queue.waiters and (not isinstance(queue.limit, Window) or not queue.limit.under_way)


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


class TestStrictness:
    def test_one_per_second_is_one_per_second_over_five_connections(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=1)
        gone = sent(time, limiter, *[Mail(connecting=0.1) for _ in range(5)])
        # A connection is looked for when the turn is near, so that takes its time here.
        assert [round(at, 6) for at, _ in gone] == [0.1, 1.2, 2.3, 3.4, 4.5]
        assert idle(limiter)

    def test_a_burst_goes_at_once_and_the_next_after_the_whole_time(self, time: VirtualTime) -> None:
        gone = sent(time, turns_of(time, limit=3, per=10), *[Mail() for _ in range(7)])
        assert [at for at, _ in gone] == [0, 0, 0, 10, 10, 10, 20]

    def test_there_is_no_second_burst_across_a_border(self, time: VirtualTime) -> None:
        """What a bucket that fills up lets through: five at 0.9 and five more at 1.0."""
        mails = [Mail(comes=0.9) for _ in range(5)] + [Mail(comes=1.0) for _ in range(5)]
        gone = sent(time, turns_of(time, limit=5), *mails)
        assert [at for at, _ in gone] == pytest.approx([0.9] * 5 + [1.9] * 5)
        assert is_within([at for at, _ in gone], 5, 1.0)

    def test_a_message_that_is_late_on_the_wire_holds_back_the_next(self, time: VirtualTime) -> None:
        first, second = Mail(before=0.75, after=0.125), Mail(comes=0.0625)
        gone = sent(time, turns_of(time, limit=1), first, second)
        assert [at for at, _ in gone] == [0.75, 1.875]

    def test_a_turn_that_never_says_it_left_counts_until_it_ends(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=1)

        def refused() -> None:
            with limiter.permit(NORMAL) as permit:
                permit.wait(NEVER)
                assert permit.take(NEVER)
                permit.begin(NEVER)
                time.sleep(3)

        record: list[tuple[float, str]] = []
        time.run(refused, lambda: Mail(comes=0.1).sent(time, limiter, record))
        assert record == [(4.0, "")]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        limit=st.integers(1, 4),
        mails=st.lists(
            st.tuples(*(st.integers(0, 12) for _ in range(4)), st.sampled_from([HIGH, NORMAL, LOW])),
            min_size=1,
            max_size=10,
        ),
        is_shared=st.booleans(),
    )
    def test_any_crowd(
        self, limit: int, mails: list[tuple[int, int, int, int, int]], is_shared: bool
    ) -> None:
        """Never too many, everybody gets through, in finite time, and nothing stays behind."""
        time, rate = VirtualTime(), RateOptions(limit=limit, per=1.0)
        shared = Shared(time, limit)
        limiter = turns_of(time, shared if is_shared else rate)
        crowd = [
            Mail("", comes / 4, lane, connecting / 4, before / 4 * (not is_shared), after / 4)
            for comes, connecting, before, after, lane in mails
        ]
        gone = sent(time, limiter, *crowd)
        assert len(gone) == len(crowd)
        assert is_within([at for at, _ in gone], limit, 1.0)
        assert idle(limiter)
        slowest = max(mail.connecting for mail in crowd) + max(mail.before + mail.after for mail in crowd)
        assert gone[-1][0] <= max(mail.comes for mail in crowd) + len(crowd) * (2.0 + 3 * slowest)


class TestOrder:
    def test_each_lane_in_the_order_of_coming_the_high_one_first(self, time: VirtualTime) -> None:
        mails = [Mail("first")]
        mails += [Mail(f"low {n}", 0.1 + n / 100, LOW) for n in (1, 2)]
        mails += [Mail(f"normal {n}", 0.2 + n / 100, NORMAL) for n in (1, 2)]
        mails += [Mail(f"high {n}", 0.3 + n / 100, HIGH) for n in (1, 2)]
        gone = sent(time, turns_of(time, limit=1), *mails)
        names = ["first", "high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]
        assert gone == [(float(at), name) for at, name in enumerate(names)]

    def test_one_that_looks_for_a_connection_is_overtaken(self, time: VirtualTime) -> None:
        """The bulk mail has its connection first, but the high one was there before it asked."""
        bulk = Mail("bulk", connecting=0.5)
        high = Mail("high", comes=0.4, lane=HIGH, connecting=0.3)
        gone = sent(time, turns_of(time, limit=1), bulk, high)
        assert [name for _, name in gone] == ["high", "bulk"]
        assert gone[0][0] == pytest.approx(0.7)

    def test_one_that_finds_no_connection_does_not_hold_up_the_others(self, time: VirtualTime) -> None:
        gone = sent(time, turns_of(time, limit=1), Mail("stuck", connecting=30), Mail("other", comes=0.1))
        assert gone == [(1.0, "other"), (30, "stuck")]

    def test_several_may_look_for_connections_at_once(self, time: VirtualTime) -> None:
        gone = sent(time, turns_of(time, limit=3), *[Mail(connecting=0.5) for _ in range(4)])
        assert [at for at, _ in gone] == [0.5, 0.5, 0.5, 2.0]

    def test_a_high_one_is_not_stopped_by_those_that_look_for_connections(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=2)
        bulk = [Mail(f"bulk {n}", connecting=0.9) for n in (1, 2)]
        gone = sent(time, limiter, *bulk, Mail("high", comes=0.1, lane=HIGH))
        assert gone[0] == (0.1, "high")
        assert len(gone) == 3
        assert is_within([at for at, _ in gone], 2, 1.0)


class TestWaiting:
    def test_the_deadline_names_the_rate(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=1, per=60)
        record: list[tuple[float, str]] = []

        def hurried() -> None:
            time.sleep(1)
            with pytest.raises(DeadlineExceeded, match=r"before the rate 1 per 60 s let it go") as caught:
                Mail(deadline=Deadline.after(5, time)).sent(time, limiter, record)
            assert time() == 6
            assert caught.value.server == "smtp.example.com:587"
            assert caught.value.stage is None  # nothing is said against the server
            assert not caught.value.outcome_unknown

        time.run(lambda: Mail().sent(time, limiter, record), hurried)
        assert len(record) == 1
        assert idle(limiter)

    def test_who_gives_up_makes_way(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=1, per=10)
        record: list[tuple[float, str]] = []

        def hurried() -> None:
            time.sleep(1)
            with pytest.raises(DeadlineExceeded):
                Mail(deadline=Deadline.after(1, time)).sent(time, limiter, record)

        patient = Mail("patient", comes=1.5)
        time.run(
            lambda: Mail().sent(time, limiter, record), hurried, lambda: patient.sent(time, limiter, record)
        )
        assert record == [(0, ""), (10, "patient")]

    def test_the_time_spent_waiting_is_told(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=1)
        waited: list[float] = []

        def one() -> None:
            with limiter.permit(NORMAL) as permit:
                permit.wait(NEVER)
                permit.take(NEVER)
                waited.append(permit.waited)

        time.run(one, one, one)
        assert sorted(waited) == [0, 1, 2]

    def test_a_turn_is_near_or_not(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=1)
        with limiter.permit(NORMAL) as first, limiter.permit(NORMAL) as second:
            assert first.is_near
            assert first.is_near
            assert not second.is_near, "the first one will take it"
            assert first.take(NEVER)
            assert not second.is_near

    def test_an_interrupt_leaves_nothing_behind(self, time: VirtualTime) -> None:
        limiter = turns_of(time, limit=1)

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        with limiter.permit(NORMAL) as permit:
            permit.wait(NEVER)
            assert permit.take(NEVER)
        limiter.pause = fail
        with pytest.raises(KeyboardInterrupt), limiter.permit(NORMAL) as permit:
            permit.wait(NEVER)
        assert idle(limiter)

    def test_further_transactions_take_permissions_of_their_own(self, time: VirtualTime) -> None:
        limiter, began = turns_of(time, limit=1), []

        def large() -> None:
            with limiter.permit(NORMAL) as permit:
                permit.wait(NEVER)
                assert permit.take(NEVER)
                for _ in range(3):
                    permit.begin(NEVER)
                    began.append(time())
                    time.sleep(0.2)
                    permit.departed()
                    time.sleep(0.1)
                with pytest.raises(DeadlineExceeded):
                    permit.begin(Deadline.after(0.5, time))

        time.run(large)
        assert began == pytest.approx([0, 1.2, 2.4])
        assert idle(limiter)

    def test_real_threads_and_a_real_clock(self) -> None:
        limiter = QueueingLimiter(RateOptions(limit=2, per=0.05))
        gone: list[float] = []

        def one() -> None:
            with limiter.permit(NORMAL) as permit:
                while True:
                    permit.wait(NEVER)
                    if permit.take(NEVER):
                        break
                gone.append(limiter.clock())

        threads = [threading.Thread(target=one, daemon=True) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(gone) == 12
        assert is_within(gone, 2, 0.05)


class Shared:
    """A limiter like those of users: counts, and tells how long to wait."""

    def __init__(self, time: VirtualTime, limit: int = 1) -> None:
        self.time = time
        self.limit = limit
        self.asked = 0
        self.gone: list[float] = []
        self.lock = threading.Lock()

    def __call__(self) -> float:
        with self.lock:
            self.asked += 1
            self.gone = [at for at in self.gone if self.time() - at < 1.0]
            if len(self.gone) < self.limit:
                self.gone.append(self.time())
                return 0.0
            return self.gone[0] + 1.0 - self.time()


class TestSharedLimiter:
    def test_it_is_asked_at_dispatch_and_obeyed(self, time: VirtualTime) -> None:
        limiter = Shared(time)
        gone = sent(time, turns_of(time, limiter), *[Mail(connecting=0.1) for _ in range(4)])
        assert is_within([at for at, _ in gone], 1, 1.0)
        assert gone[-1][0] < 5
        assert limiter.asked <= 2 * 4, "once for each permission, and once to hear how long to wait"

    def test_what_others_took_is_waited_for(self, time: VirtualTime) -> None:
        answers = iter([2.5, 0.25, 0.0])
        gone = sent(time, turns_of(time, lambda: next(answers)), Mail())
        assert gone == [(2.75, "")]

    def test_a_limiter_that_gives_next_to_nothing_is_not_asked_without_pause(self, time: VirtualTime) -> None:
        answers = iter([1e-12] * 10 + [0.0])
        gone = sent(time, turns_of(time, lambda: next(answers)), Mail())
        assert gone[0][0] == pytest.approx(10 * LEAST_WAIT)

    def test_a_negative_wait_is_none(self, time: VirtualTime) -> None:
        assert sent(time, turns_of(time, lambda: -1.0), Mail()) == [(0, "")]

    def test_a_failure_is_the_errors_of_this_send_and_no_others(self, time: VirtualTime) -> None:
        answers: list[Callable[[], float]] = [lambda: 1 / 0, lambda: 0.0]
        limiter = turns_of(time, lambda: answers.pop(0)())
        record: list[tuple[float, str]] = []
        with pytest.raises(RateUnavailable, match="ZeroDivisionError: division") as caught:
            Mail().sent(time, limiter, record)
        assert caught.value.is_transient
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert idle(limiter)
        assert sent(time, limiter, Mail()) == [(0, "")]

    @pytest.mark.parametrize("nonsense", [None, "1", float("nan"), float("inf"), True, object()])
    def test_what_is_no_number_of_seconds_is_an_error(self, time: VirtualTime, nonsense: Any) -> None:
        with pytest.raises(RateUnavailable, match="not the seconds to wait") as caught:
            Mail().sent(time, turns_of(time, lambda: nonsense), [])
        assert not caught.value.is_transient

    def test_an_error_of_ours_stays_as_it_is(self, time: VirtualTime) -> None:
        def closed() -> float:
            raise PoolClosed("closed")

        with pytest.raises(PoolClosed):
            Mail().sent(time, turns_of(time, closed), [])

    def test_the_deadline_bounds_the_wait(self, time: VirtualTime) -> None:
        limiter = turns_of(time, lambda: 100.0)

        def hurried() -> None:
            with pytest.raises(DeadlineExceeded, match="before the rate limiter let it go"):
                Mail(deadline=Deadline.after(3, time)).sent(time, limiter, [])
            assert time() == 3

        time.run(hurried)

    def test_it_is_not_asked_under_the_lock(self, time: VirtualTime) -> None:
        limiter: QueueingLimiter

        def limiter() -> float:
            free: list[bool] = []

            def look() -> None:
                free.append(limiter.queue.lock.acquire(timeout=5))
                if free[0]:
                    limiter.queue.lock.release()

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            assert free == [True]
            return 0.0

        limiter = turns_of(time, limiter)
        assert sent(time, limiter, Mail()) == [(0, "")]


def test_a_forked_child_begins_anew_even_if_a_thread_of_its_parent_had_the_lock(time: VirtualTime) -> None:
    limiter = turns_of(time, limit=1, per=1000)
    with limiter.permit(NORMAL) as permit:
        permit.wait(NEVER)
        assert permit.take(NEVER)
        permit.departed()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with limiter.queue.lock:
            held.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        with limiter.permit(NORMAL) as permit:
            permit.wait(Deadline.after(0, time))
            os._exit(0 if permit.take(NEVER) else 1)
    release.set()
    thread.join()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with limiter.permit(NORMAL) as permit:
        assert not permit.is_near, "the parent has not forgotten"
