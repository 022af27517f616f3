"""Circuit breakers: for a server that fails, and for credentials that a server refused.

`ServerBreaker` counts the failures that `verdicts` names. A server whose breaker is open is asked last, and
gets no new connection (`hold`) until the cool-down is over. No thread watches it: after the cool-down the
next message is the probe, alone, and where there are other servers, within a time limit of its own.

`LoginBreaker` remembers a final refusal of a login (535) for a while: every waiting message would be refused
too, and many servers lock accounts or addresses that try on. Until credentials have worked once, one login
at a time is tried while the others wait for it.
"""

import copy
import random as _random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

from mailbridge.deadline import Clock, Deadline
from mailbridge.delivery.verdicts import Health, judge
from mailbridge.errors import AuthenticationFailed, DeadlineExceeded, MailbridgeError, TokenUnavailable
from mailbridge.process import PerProcess

# In a row. One lost connection is no sign, and a failure that comes at once costs the next message nothing.
# A failure for which a message had to wait opens it at once: the next one must not wait as long.
FAILURES_TO_OPEN = 3
# Seconds. Short, since most trouble is: a restart, a full queue. Doubled by each probe that fails.
FIRST_COOLDOWN = 0.5
# After a failure for which a message had to wait, the least: a probe may have to wait as long again.
FIRST_COOLDOWN_AFTER_WAITING = 5.0
# What a mail costs now and then while a server is down for days, and how late its return is noticed.
LONGEST_COOLDOWN = 300.0
# Where there is no other server: nobody else has the mail in the meantime.
LONGEST_COOLDOWN_ALONE = 30.0
# The part by which a cool-down may be shorter, so that many processes do not all probe at once.
JITTER = 0.2


class _Record:
    """What one process knows of the server."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may send mail in a thread that is inside already.
        self.lock = threading.RLock()
        self.failures = 0
        self.error: MailbridgeError | None = None
        self.cooldown = 0.0  # 0: closed
        self.due_at = -inf
        self.is_probed = False


class ServerBreaker:
    """Open: the server is left alone until the cool-down is over. The lock is held for decisions only.

    A forked child begins with an empty record, and with a new lock: its parent may have held the old one.
    """

    def __init__(
        self,
        *,
        longest_cooldown: float = LONGEST_COOLDOWN,
        clock: Clock = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._longest_cooldown = longest_cooldown
        self._clock = clock
        self._random = random
        self._records = PerProcess(_Record)

    def reset(self) -> None:
        """Forget everything."""
        self._records.reset()

    @property
    def is_open(self) -> bool:
        """Whether the server failed, and nothing shows yet that it works again."""
        return self._records.get().cooldown > 0

    @property
    def error(self) -> MailbridgeError | None:
        """The last failure since the last success."""
        return self._records.get().error

    @property
    def failures(self) -> int:
        """How many there were in a row."""
        return self._records.get().failures

    @property
    def seconds_left(self) -> float:
        """Until the next probe; 0 if one is due, or none is needed."""
        here = self._records.get()
        return max(0.0, here.due_at - self._clock()) if here.cooldown else 0.0

    @property
    def seconds_held(self) -> float:
        """As long as `hold` gives an error."""
        return self.seconds_left if self.hold() is not None else 0.0

    def hold(self) -> MailbridgeError | None:
        """Why no connection may be opened now: the last failure, with the time of the next try as its hint.

        None if one may be: nothing is against the server, a probe is due or under way, or what failed is
        not transient, so that waiting mends nothing.
        """
        here = self._records.get()
        if not here.cooldown:  # the usual case needs no lock
            return None
        with here.lock:
            seconds = 0.0 if here.is_probed or not here.cooldown else here.due_at - self._clock()
            if seconds <= 0 or here.error is None or not here.error.is_transient:
                return None
            return not_asked(here.error, seconds)

    def open_within(self) -> float | None:
        """How many seconds a message may wait for a session there; None: not now, ask others first.

        No limit (infinity) as long as nothing is against the server. For a probe as long as the server was
        left alone, so that probing a silent server takes little of anybody's time, and one that is slow to
        greet is given more each time. Who gets a number is the probe; the next one is due a cool-down later.
        """
        here = self._records.get()
        with here.lock:
            if not here.cooldown:
                return inf
            if self._clock() < here.due_at:
                return None
            here.due_at = self._clock() + here.cooldown
            here.is_probed = True
            return here.cooldown

    def note(self, outcome: MailbridgeError | None) -> None:
        """What came of a message, or of opening a session; None: it went well."""
        health = Health.WELL if outcome is None else judge(outcome).health
        if health is Health.FAILING and outcome is not None:
            self._note_failure(outcome)
        elif health is Health.WELL:
            self._close()

    def _close(self) -> None:
        here = self._records.get()
        if here.failures or here.cooldown:  # the usual case needs no lock
            with here.lock:
                here.failures, here.error, here.cooldown, here.is_probed = 0, None, 0.0, False

    def _note_failure(self, error: MailbridgeError) -> None:
        here = self._records.get()
        kept = copy.copy(error)  # without the traceback, which holds the message
        kept.attempts = ()
        with here.lock:
            here.failures += 1
            here.error = kept
            if not here.cooldown:
                if here.failures < FAILURES_TO_OPEN and not _was_waited_for(error):
                    return
                here.cooldown = FIRST_COOLDOWN
            elif here.is_probed or self._clock() >= here.due_at:
                here.cooldown = min(self._longest_cooldown, here.cooldown * 2)
            else:
                return  # began before it opened: says nothing new
            if _was_waited_for(error):
                here.cooldown = max(here.cooldown, FIRST_COOLDOWN_AFTER_WAITING)
            here.is_probed = False
            here.due_at = self._clock() + here.cooldown * (1 - JITTER * self._random())


def _was_waited_for(error: MailbridgeError) -> bool:
    """Whether the server used up a limit of its own. That of the send may have been too short for any."""
    return isinstance(error, TimeoutError) and not isinstance(error, DeadlineExceeded)


def not_asked(failure: MailbridgeError, seconds: float) -> MailbridgeError:
    """What the server's last failure says of a message that it was not asked for."""
    error = copy.copy(failure)
    hint = f"Not asked for this message: the next try is in {seconds:.1f} s."
    error.hint = f"{failure.hint} {hint}" if failure.hint else hint
    return error


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
        self._experiences = PerProcess(_Experience)

    def reset(self) -> None:
        """Forget everything."""
        self._experiences.reset()

    def check(self) -> None:
        """Raise the remembered refusal, if it still counts."""
        here = self._experiences.get()
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
        here = self._experiences.get()
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
