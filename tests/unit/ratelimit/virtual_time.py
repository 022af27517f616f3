"""Time for threads that passes only while all of them sleep: as far as the next one wants to be woken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf

# In real seconds; long enough for any busy machine. A test that needs it has failed.
PATIENCE = 20.0


class Stuck(AssertionError):
    """Everybody sleeps, and nobody will ever wake."""


class VirtualTime:
    """`time()` is the clock, `pause` waits for a lock, `sleep` for a moment. Only for threads of `run`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changed = threading.Condition()
        self.awake = 0
        self.sleepers: dict[int, tuple[float, threading.Lock | None]] = {}
        self.errors: list[BaseException] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._doze(self.now + seconds, None)

    def pause(self, gate: threading.Lock, seconds: float) -> None:
        self._doze(self.now + seconds, gate)

    def run(self, *acts: Callable[[], None]) -> None:
        """All of `acts` at the same time; raises what one of them raised."""
        self.awake = len(acts)
        threads = [threading.Thread(target=self._guarded, args=(act,), daemon=True) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
        for error in self.errors:
            raise error

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:
            self.errors.append(error)
        finally:
            with self.changed:
                self.awake -= 1
                self._advance()

    def _doze(self, until: float, gate: threading.Lock | None) -> None:
        me = threading.get_ident()
        with self.changed:
            self.awake -= 1
            self.sleepers[me] = (until, gate)
            try:
                while not self._is_over(until, gate):
                    self._advance()
                    if not self._is_over(until, gate):
                        self.changed.wait(0.0005)  # who opens a gate does not say so here
            finally:
                del self.sleepers[me]
                self.awake += 1
            if gate is not None:
                gate.acquire(blocking=False)

    def _is_over(self, until: float, gate: threading.Lock | None) -> bool:
        return self.now >= until or (gate is not None and not gate.locked())

    def _advance(self) -> None:
        if self.awake or not self.sleepers:
            return
        if any(self._is_over(*sleeper) for sleeper in self.sleepers.values()):
            return
        moment = min(until for until, _ in self.sleepers.values())
        if moment == inf:
            raise Stuck(f"everybody sleeps for ever at {self.now}")
        self.now = moment
        self.changed.notify_all()
