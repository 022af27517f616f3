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

from mailbridge.deadline import Clock, Deadline
from mailbridge.errors import AuthenticationFailed, DeadlineExceeded, TokenUnavailable

# Long enough that a burst of mail makes one failed login, short enough that a password that was
# mended at the server works again without a restart.
COOLDOWN = 60.0


class _Experience:
    """What one process knows of the credentials."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.refusal: AuthenticationFailed | None = None
        self.refused_at = 0.0
        self.is_proven = False
        self.is_trying = False


class LoginBreaker:
    """One per set of credentials. Locks are held for decisions only, never while logging in.

    A forked child begins with no experience, and with a new lock: its parent may have held the old one.
    """

    def __init__(self, *, cooldown: float = COOLDOWN, clock: Clock = time.monotonic) -> None:
        self._cooldown = cooldown
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._experiences = {os.getpid(): _Experience()}

    def _here(self) -> _Experience:
        # `setdefault` is atomic: of several threads that are the first in a child, all get the same.
        pid = os.getpid()
        found = self._experiences.get(pid)
        return found if found is not None else self._experiences.setdefault(pid, _Experience())

    def check(self) -> None:
        """Raise the remembered refusal, if it still counts."""
        here = self._here()
        refusal = here.refusal
        if refusal is None:
            return
        left = here.refused_at + self._cooldown - self._clock()
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
        here = self._here()
        is_first = self._take_turn(here, deadline)
        try:
            yield
        except TokenUnavailable:
            # The mail server refused nothing; when a token is asked for again is the token source's affair.
            raise
        except AuthenticationFailed as error:
            if not error.is_transient:
                here.refusal, here.refused_at, here.is_proven = copy.copy(error), self._clock(), False
            raise
        else:
            here.refusal, here.is_proven = None, True
        finally:
            if is_first:
                with here.changed:
                    here.is_trying = False
                    here.changed.notify_all()

    def _take_turn(self, here: _Experience, deadline: Deadline) -> bool:
        """True if this login is the one that the others wait for."""
        with here.changed:
            while here.is_trying and not here.is_proven:
                if deadline.is_over:
                    raise DeadlineExceeded(
                        "The time for this send ran out while another login was under way", stage="auth"
                    )
                here.changed.wait(deadline.remaining)
                self.check()
            if here.is_proven:
                return False
            here.is_trying = True
            return True
