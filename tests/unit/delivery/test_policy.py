"""The policy of delivery: one table of outcomes under two drivers, also when it is interrupted."""

from contextlib import ExitStack, suppress
from itertools import count
from typing import Any

import pytest

from mailbridge import MailbridgeError
from mailbridge.delivery.session import Session
from tests.unit.delivery.cases import CASES, Case
from tests.unit.delivery.outcomes import DRIVERS, story_of
from tests.unit.delivery.single_threaded import SingleThreaded
from tests.unit.delivery.slow_cases import SLOW_CASES
from tests.unit.delivery.threads import Threads

both_drivers = pytest.mark.parametrize("driver", DRIVERS)


@both_drivers
@pytest.mark.parametrize("name", CASES)
def test_outcomes(name: str, driver: str) -> None:
    case = CASES[name]
    with ExitStack() as stack:
        under = DRIVERS[driver](case, stack)
        assert story_of(case, under) == case.wanted
        assert case.kept is None or under.kept == case.kept


@pytest.mark.parametrize("name", SLOW_CASES)
def test_slow_servers(name: str) -> None:
    case, seconds = SLOW_CASES[name]
    with ExitStack() as stack:
        driver = SingleThreaded(case, stack)
        began = driver.clock()
        assert story_of(case, driver) == case.wanted
        assert driver.clock() - began == seconds


def test_the_time_in_the_queue_is_that_for_the_rate_and_that_for_a_connection() -> None:
    with ExitStack() as stack:
        driver = SingleThreaded(Case(servers=[[]], told=[], opened=[], taken=[], rate=3.0), stack)
        driver.send(None)
        driver.queue_seconds = 0.5
        assert driver.send(None).timings["queue"] == 3.5


# ---- interrupts: KeyboardInterrupt, SystemExit and what kills a greenlet

# The second message meets every step there is: a stale connection, a failover, a retry, a wait for the rate.
EVENTFUL = Case(
    servers=[["taken", "mail lost", "mail 451"], ["mail 451"]],
    told=["server 1 attempt 1", "server 1 attempt 2 again"],
    opened=[2, 1],
    taken=[2, 0],
    attempts=2,
    rate=0.25,
)


class Interrupt(BaseException):
    """As gevent's GreenletExit: raised out of the blue."""


class Interrupted:
    """The driver that performs steps is interrupted at one of them, before or after it is done."""

    def __init__(self, driver: Threads | SingleThreaded, patch: pytest.MonkeyPatch) -> None:
        self.at, self.is_after, self.seen = 0, False, 0
        owner: Any = Session if isinstance(driver, Threads) else SingleThreaded
        name = "_perform" if owner is Session else "perform"
        regular = getattr(owner, name)

        def perform(this: Any, step: Any) -> Any:
            self.seen += 1
            if self.seen != self.at:
                return regular(this, step)
            if self.is_after:
                with suppress(MailbridgeError):  # the interrupt comes while it is on its way
                    regular(this, step)
            raise Interrupt

        patch.setattr(owner, name, perform)

    def arm(self, at: int, *, is_after: bool) -> None:
        self.at, self.is_after, self.seen = at, is_after, 0


@both_drivers
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_an_interrupt_ends_the_send_and_nothing_is_kept(
    driver: str, is_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step follows it, no connection and no place in the line stays behind, and doubt is told."""
    doubts = []
    for at in count(1):
        with ExitStack() as stack, monkeypatch.context() as patch:
            under = DRIVERS[driver](EVENTFUL, stack)
            steps = Interrupted(under, patch)
            try:
                with under.session() as session:
                    under.send(None, session)  # type: ignore[arg-type]  # each driver has its own
                    steps.arm(at, is_after=is_after)
                    under.send(None, session)  # type: ignore[arg-type]
            except Interrupt as interrupt:
                doubts.append(bool(getattr(interrupt, "outcome_unknown", False)))
                assert steps.seen == at
                assert under.lent == 0
                limiters = [upstream.limiter for upstream in under.upstreams if upstream.limiter is not None]
                assert not any(limiter.queue.waiters for limiter in limiters)
                if driver == "threads":
                    assert doubts[-1] is (sum(under.taken) == 2)
            else:
                break
            steps.arm(0, is_after=False)
            under.send(None)
            assert sum(under.taken) <= 3
    assert len(doubts) > 10
    if driver == "threads":
        assert (True in doubts) is is_after
