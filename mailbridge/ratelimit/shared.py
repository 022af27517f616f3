"""Which messages share a limit in this process: those of one account at one server.

Several mailers may lead there (another alias with other time limits, a mailer made for each request): for
the server they are one client. So the lines are kept here, by server, user and rate, beyond the life of
those mailers.
"""

import os
import threading
from collections.abc import Hashable
from weakref import WeakValueDictionary

from mailbridge.config.groups import RateOptions
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock
from mailbridge.ratelimit.permits import FreeTurns, LimitedTurns, Turns

# Each has some hundred bytes beside the times of its messages. Beyond that, what has no bearing on messages
# to come is dropped.
MOST_KEPT = 1024


class Lines:
    """`kept` holds those that nobody else does. A forked child has them too: each begins anew there, and is
    the same for mailers from before the fork and after it.
    """

    def __init__(self) -> None:
        self.known: WeakValueDictionary[Hashable, LimitedTurns] = WeakValueDictionary()
        self.kept: dict[Hashable, LimitedTurns] = {}
        self._locks = {os.getpid(): threading.Lock()}  # by process: an inherited one may be held for ever

    def turns_for(self, key: Hashable, new: LimitedTurns) -> LimitedTurns:
        """Those under `key`; `new`, where there are none."""
        pid = os.getpid()
        with self._locks.get(pid) or self._locks.setdefault(pid, threading.Lock()):
            turns = self.known.get(key, new)
            self.known[key] = self.kept[key] = turns
            if len(self.kept) > MOST_KEPT:
                self.kept = self._worth_keeping()
            return turns

    def _worth_keeping(self) -> dict[Hashable, LimitedTurns]:
        return {key: turns for key, turns in self.kept.items() if not turns.is_forgotten}


_lines = Lines()


def turns_for(config: SMTPConfig, clock: Clock) -> Turns:
    """The turns for messages to the server of `config`."""
    rate = config.rate
    if rate is None:
        return FreeTurns()
    # A limiter of the user's own is one limit, whatever it is used for.
    server = config.server if isinstance(rate, RateOptions) else None
    account = (server, config.username) if server is not None else ()
    return _lines.turns_for((rate, clock, *account), LimitedTurns(rate, server=server, clock=clock))
