"""An interrupt before any line of the pool's code leaks neither a place nor a thing.

Each scenario is run again and again, interrupted one line later each time, until it gets through.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mailbridge.pool
from mailbridge.deadline import Deadline
from mailbridge.errors import PoolClosed
from mailbridge.pool import Lease, Pool
from mailbridge.pool.ledger import Claim
from tests.interrupter import Interrupt, Interrupter
from tests.unit.pool.fakes import PATIENCE, Borrower, FakeClock, Thing, World, pool_of, queue_one

FOLDER = str(Path(next(iter(mailbridge.pool.__path__))))


class Scene:
    """One pool in a certain state, and what is done to it."""

    lent_before = 0  # leases that others hold
    on_call: dict[str, Callable[[], None]]

    def __init__(self) -> None:
        self.world = World()
        self.clock = FakeClock()
        self.on_call = {}
        self.pool = self.prepare()

    def prepare(self) -> Pool[Thing]:
        return pool_of(self.world, self.clock, max_size=3)

    def act(self) -> None:
        lease = self.pool.acquire()
        sys.settrace(None)
        self.pool.release(lease, reusable=True)

    def after_interrupt(self, struck_in: list[str]) -> None:
        """Beyond what holds for all scenes."""

    def fill(self, count: int) -> list[Lease[Thing]]:
        return [self.pool.acquire() for _ in range(count)]

    def idle(self, count: int) -> None:
        for lease in self.fill(count):
            self.pool.release(lease, reusable=True)


class NewOne(Scene):
    pass


class IdleOne(Scene):
    def prepare(self) -> Pool[Thing]:
        self.pool = super().prepare()
        self.idle(2)
        return self.pool


class DeadOnes(IdleOne):
    """Of three idle ones two are dead."""

    def prepare(self) -> Pool[Thing]:
        self.pool = Scene.prepare(self)
        self.idle(3)
        for connection in self.world.opened[1:]:
            connection.flaw = "end of file"
        return self.pool


class ColdOnes(IdleOne):
    """All idle ones are overdue."""

    def prepare(self) -> Pool[Thing]:
        self.pool = Scene.prepare(self)
        self.idle(3)
        self.clock.now += 120
        return self.pool


class FreshOne(IdleOne):
    def prepare(self) -> Pool[Thing]:
        self.pool = Scene.prepare(self)
        self.idle(3)
        return self.pool

    def act(self) -> None:
        lease = self.pool.acquire(fresh=True)
        sys.settrace(None)
        self.pool.release(lease, reusable=True)


class NoneToBeHad(Scene):
    """Opening fails, and the interrupt may come while that is cleaned up."""

    def act(self) -> None:
        def fail(_: object) -> None:
            raise ConnectionRefusedError

        self.world.on_open = fail
        with pytest.raises(ConnectionRefusedError):
            self.pool.acquire()
        sys.settrace(None)
        self.world.on_open = lambda _: None

    def after_interrupt(self, struck_in: list[str]) -> None:
        self.world.on_open = lambda _: None


class TimeUp(Scene):
    lent_before = 3

    def prepare(self) -> Pool[Thing]:
        self.pool = super().prepare()
        self.held = self.fill(3)
        return self.pool

    def act(self) -> None:
        with pytest.raises(TimeoutError):
            self.pool.acquire(Deadline.after(0))
        sys.settrace(None)


class HandedOver(TimeUp):
    """Its turn comes while it waits."""

    lent_before = 2

    def __init__(self) -> None:
        super().__init__()
        self.on_call = {"_wait": lambda: self.pool.release(self.held.pop(), reusable=True)}

    def act(self) -> None:
        Scene.act(self)

    def after_interrupt(self, struck_in: list[str]) -> None:
        while len(self.held) > 2:  # struck before it waited
            self.pool.release(self.held.pop(), reusable=True)


class Returning(Scene):
    """Two are in the queue; a cold one lies idle."""

    reusable = True
    lent_before = 2  # the waiters get two of the three places

    def prepare(self) -> Pool[Thing]:
        self.pool = super().prepare()
        self.leases = self.fill(3)
        self.waiters = [queue_one(self.pool) for _ in range(2)]
        return self.pool

    def act(self) -> None:
        self.pool.release(self.leases[0], reusable=self.reusable)
        sys.settrace(None)
        self.finish()

    def after_interrupt(self, struck_in: list[str]) -> None:
        if (struck_in[-1] == "release" and len(struck_in) == 1) or "here" in struck_in:
            # Struck before the pool had begun: the lease is still the borrower's, who tries again.
            assert self.pool.stats().lent == 3
            self.pool.release(self.leases[0], reusable=False)
        self.finish()

    def finish(self) -> None:
        self.waiters[0].result()
        self.pool.release(self.leases[1], reusable=True)
        self.waiters[1].result()
        self.pool.release(self.leases[2], reusable=True)


class ReturningBroken(Returning):
    reusable = False


class ReturningPastCold(Scene):
    def prepare(self) -> Pool[Thing]:
        self.pool = super().prepare()
        self.lease, *idle = self.fill(3)
        for lease in idle:
            self.pool.release(lease, reusable=True)
        self.clock.now += 120
        return self.pool

    def act(self) -> None:
        self.pool.release(self.lease, reusable=True)
        sys.settrace(None)

    def after_interrupt(self, struck_in: list[str]) -> None:
        self.pool.release(self.lease, reusable=True)


class Discarding(FreshOne):
    def act(self) -> None:
        self.pool.discard_idle()
        sys.settrace(None)


class Closing(Scene):
    """One is lent, two are idle."""

    def prepare(self) -> Pool[Thing]:
        self.pool = super().prepare()
        self.lease, *idle = self.fill(3)
        for lease in idle:
            self.pool.release(lease, reusable=True)
        return self.pool

    def act(self) -> None:
        self.pool.close(drain=0.001)
        sys.settrace(None)
        self.finish()

    def after_interrupt(self, struck_in: list[str]) -> None:
        self.pool.close()
        self.finish()

    def finish(self) -> None:
        assert self.pool.stats().idle == 0
        self.pool.release(self.lease, reusable=True)
        assert self.lease.ledger.closers == []


class ClosingOnWaiters(Returning):
    lent_before = 0

    def act(self) -> None:
        self.pool.close()
        sys.settrace(None)
        self.finish()

    def after_interrupt(self, struck_in: list[str]) -> None:
        if not self.pool.closed:
            self.pool.close()
        self.finish()

    def finish(self) -> None:
        for waiter in self.waiters:
            assert isinstance(waiter.failure(), PoolClosed)
        for lease in self.leases:
            self.pool.release(lease, reusable=True)


@pytest.mark.parametrize(
    "scene_type",
    [
        NewOne,
        IdleOne,
        DeadOnes,
        ColdOnes,
        FreshOne,
        NoneToBeHad,
        TimeUp,
        HandedOver,
        Returning,
        ReturningBroken,
        ReturningPastCold,
        Discarding,
        Closing,
        ClosingOnWaiters,
    ],
)
def test_an_interrupt_before_any_line_leaks_nothing(scene_type: type[Scene]) -> None:
    strikes = 0
    for at in range(1, 1000):
        scene = scene_type()
        interrupter = Interrupter(at, mailbridge.pool, scene.on_call)
        try:
            with interrupter.tracing():
                scene.act()
        except Interrupt:
            strikes += 1
            scene.after_interrupt(interrupter.struck_in)
        where = f"struck before line {at}, in {' < '.join(interrupter.struck_in)}"
        stats = scene.pool.stats()
        assert (stats.opening, stats.closing, stats.waiting) == (0, 0, 0), f"{where}: {stats}"
        assert stats.lent == scene.lent_before, f"{where}: {stats}"
        assert len(scene.world.open_now) == stats.size, where
        assert scene.world.most <= 3, where
        if not scene.pool.closed and stats.lent < 3:  # the lock is free, and so are the places
            Borrower(scene.pool, deadline=Deadline.after(PATIENCE)).result()
        if not interrupter.struck_in:
            assert at > strikes >= 20, "the scene got through, but before that it was struck at every line"
            return
    raise AssertionError(f"{scene_type.__name__} never got through")


def test_an_interrupt_while_waiting_takes_the_waiter_out_of_the_queue() -> None:
    world = World()
    pool = pool_of(world, max_size=1)
    lease = pool.acquire()
    main = threading.get_ident()

    class Gate:
        def __init__(self, gate: Any) -> None:
            self.locked = gate.locked
            self.release = gate.release

        def acquire(self, timeout: float) -> bool:
            assert threading.get_ident() == main
            raise KeyboardInterrupt

    assign = lease.ledger.assign

    def plant() -> None:
        assign()
        for claim in lease.ledger.queue:
            claim.gate = Gate(claim.gate)  # type: ignore[assignment]

    lease.ledger.assign = plant  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pool.acquire()
    assert (pool.stats().waiting, pool.stats().lent) == (0, 1)
    pool.release(lease, reusable=True)
    assert pool.acquire().connection is lease.connection


def test_one_served_but_still_in_the_queue_after_an_interrupt_is_not_served_twice() -> None:
    world = World()
    pool = pool_of(world, max_size=2)
    leases = [pool.acquire(), pool.acquire()]
    ledger = leases[0].ledger
    claim: Claim[Thing] = Claim()
    ledger.queue.append(claim)
    find_place = ledger.find_place

    def interrupted(claim: Claim[Thing]) -> Any:
        find_place(claim)
        raise Interrupt

    ledger.find_place = interrupted  # type: ignore[method-assign]
    with ledger.lock, pytest.raises(Interrupt):
        ledger.make_idle(leases[0].place, 0.0)
    ledger.find_place = find_place  # type: ignore[method-assign]
    assert claim.granted is leases[0].place
    assert list(ledger.queue) == [claim]

    pool.release(leases[1], reusable=True)
    assert claim.granted is leases[0].place
    assert not claim.gate.locked(), "it was woken"
    assert (len(ledger.queue), pool.stats().idle) == (0, 1)


SIGNALS = """
import random, signal, sys, threading
from mailbridge.config.groups import PoolOptions
from mailbridge.pool import Pool

class Interrupt(BaseException):
    pass

class Thing:
    def unusable_reason(self):
        return None if random.random() < 0.9 else "end of file"
    def close(self):
        pass
    def abandon(self):
        pass

def strike(*_):
    if armed:
        raise Interrupt

def compete():
    while not stop.is_set():
        with pool.acquire():
            pass

sys.setswitchinterval(1e-4)
armed, stop = False, threading.Event()
signal.signal(signal.SIGALRM, strike)
pool = Pool(lambda deadline: Thing(), PoolOptions(max_size=3, max_messages=20))
rivals = [threading.Thread(target=compete, daemon=True) for _ in range(4)]
for rival in rivals:
    rival.start()
for _ in range(300):
    lease = None
    armed = True
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.002))  # heard at once, maybe
        while True:
            lease = None
            lease = pool.acquire(fresh=random.random() < 0.1)
            pool.release(lease, reusable=random.random() < 0.8)
    except Interrupt:
        armed = False
    if lease is not None:
        pool.release(lease, reusable=False)
stop.set()
for rival in rivals:
    rival.join(20)
    assert not rival.is_alive(), pool
stats = pool.stats()
assert (stats.lent, stats.opening, stats.closing, stats.waiting) == (0, 0, 0, 0), stats
assert stats.closed_total["interrupted"] > 0, stats
"""


def test_real_signals_among_busy_threads() -> None:
    """In a program of its own: the alarm of this one belongs to whoever limits the test's time."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SIGNALS],
        cwd=Path(FOLDER).parents[1],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
