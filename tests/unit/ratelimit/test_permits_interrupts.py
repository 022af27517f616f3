"""An interrupt before any line of a turn leaves nobody in line and nothing on its way for ever.

As with the pool (tests/unit/pool/test_pool_interrupts.py): again and again, one line later each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import mailbridge.ratelimit
from mailbridge.config.groups import RateOptions
from mailbridge.deadline import NEVER
from mailbridge.message.priority import NORMAL_LANE
from mailbridge.ratelimit.permits import QueueingLimiter
from mailbridge.ratelimit.window import LimiterAnswer, Window
from tests.interrupter import Interrupt, Interrupter

PER = 10.0


class World:
    """Turns, and time that passes while somebody waits."""

    def __init__(self, *, is_shared: bool) -> None:
        self.now = 0.0
        self.answers = [2.5, 0.0]
        rate = self.shared if is_shared else RateOptions(limit=1, per=PER)
        self.limiter = QueueingLimiter(rate, clock=lambda: self.now, pause=self.pause)

    def shared(self) -> float:
        return self.answers.pop(0) if self.answers else 0.0

    def pause(self, gate: threading.Lock, seconds: float) -> None:
        if not gate.acquire(blocking=False):
            assert seconds < 1000, "nobody will ever wake it"
            self.now += seconds

    def send(self) -> None:
        with self.limiter.permit(NORMAL_LANE) as permit:
            while True:
                if not permit.is_near:
                    permit.wait(NEVER)
                if permit.take(NEVER):
                    break
            permit.begin(NEVER)
            permit.departed()

    def send_two_transactions(self) -> None:
        with self.limiter.permit(NORMAL_LANE) as permit:
            for _ in range(2):
                permit.begin(NEVER)
                permit.departed()

    def give_up(self) -> None:
        """Its connection can't be had."""
        with self.limiter.permit(NORMAL_LANE) as permit:
            permit.wait(NEVER)


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("act", [World.send, World.send_two_transactions, World.give_up])
def test_an_interrupt_anywhere(act: Callable[[World], None], is_shared: bool) -> None:
    struck = 0
    for at in range(1, 1000):
        world = World(is_shared=is_shared)
        world.send()  # so that there is something to wait for
        interrupter = Interrupter(at, mailbridge.ratelimit)
        try:
            with interrupter.tracing():
                act(world)
        except Interrupt:
            struck += 1
        queue = world.limiter.queue
        assert queue.waiters == [], at
        limit = queue.limit
        assert isinstance(limit, LimiterAnswer) or (isinstance(limit, Window) and not limit.under_way), at
        began = world.now
        world.send()
        assert world.now - began <= 2 * PER, at  # at worst one counts twice
        if not interrupter.struck_in:
            break
    assert struck > 20
