"""Keeps refused credentials from being tried again and again.

A login that the server refused for good (535) would be refused for every waiting message too, and
many servers lock accounts or addresses that try. So the refusal is remembered for a while, and
until credentials have worked once, one login at a time is tried while the others wait for it.
"""

import copy
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mailbridge.errors import AuthenticationFailed, DeadlineExceeded
from mailbridge.net.deadline import Clock, Deadline

# Long enough that a burst of mail makes one failed login, short enough that a password that was
# mended at the server works again without a restart.
COOLDOWN = 60.0


class LoginBreaker:
    """One per set of credentials. Locks are held for decisions only, never while logging in."""

    def __init__(self, *, cooldown: float = COOLDOWN, clock: Clock = time.monotonic) -> None:
        self._cooldown = cooldown
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything; with a new lock, for a child whose parent may have held the old one."""
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._refusal: AuthenticationFailed | None = None
        self._refused_at = 0.0
        self._is_proven = False
        self._is_trying = False

    def check(self) -> None:
        """Raise the remembered refusal, if it still counts."""
        if self._pid != os.getpid():
            self.reset()
        refusal = self._refusal
        if refusal is None:
            return
        left = self._refused_at + self._cooldown - self._clock()
        if left <= 0:
            return
        again = copy.copy(refusal)
        again.hint = (
            f"Not tried again: the server refused these credentials, the next try is in {left:.0f} s."
        )
        raise again

    @contextmanager
    def attempt(self, deadline: Deadline) -> Iterator[None]:
        """Around one login. Waits its turn while nobody knows yet whether the credentials work."""
        self.check()
        is_first = self._take_turn(deadline)
        try:
            yield
        except AuthenticationFailed as error:
            if not error.is_transient:
                self._refusal, self._refused_at, self._is_proven = copy.copy(error), self._clock(), False
            raise
        else:
            self._refusal, self._is_proven = None, True
        finally:
            if is_first:
                with self._changed:
                    self._is_trying = False
                    self._changed.notify_all()

    def _take_turn(self, deadline: Deadline) -> bool:
        """True if this login is the one that the others wait for."""
        with self._changed:
            while self._is_trying and not self._is_proven:
                if deadline.is_over:
                    raise DeadlineExceeded(
                        "The time for this send ran out while another login was under way", stage="auth"
                    )
                self._changed.wait(deadline.remaining)
                self.check()
            if self._is_proven:
                return False
            self._is_trying = True
            return True
