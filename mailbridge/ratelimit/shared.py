"""Which messages share a limit in this process: those of one account at one server.

Several mailers may lead there (another alias with other time limits, a mailer made for each request): for
the server they are one client. So the lines are kept here, by server, user and rate, beyond the life of
those mailers.
"""

import threading
from collections.abc import Hashable
from weakref import WeakValueDictionary

from mailbridge.config.groups import RateOptions
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Clock
from mailbridge.process import PerProcess
from mailbridge.ratelimit.permits import QueueingLimiter

# Each has some hundred bytes beside the times of its messages. Beyond that, what has no bearing on messages
# to come is dropped.
MOST_KEPT = 1024


class SharedLimiters:
    """`kept` holds those that nobody else does. A forked child has them too: each begins anew there, and is
    the same for mailers from before the fork and after it.
    """

    def __init__(self) -> None:
        self.known: WeakValueDictionary[Hashable, QueueingLimiter] = WeakValueDictionary()
        self.kept: dict[Hashable, QueueingLimiter] = {}
        self._lock = PerProcess(threading.Lock)

    def limiter_for(self, key: Hashable, new: QueueingLimiter) -> QueueingLimiter:
        """Those under `key`; `new`, where there are none."""
        with self._lock.get():
            limiter = self.known.get(key, new)
            self.known[key] = self.kept[key] = limiter
            if len(self.kept) > MOST_KEPT:
                self.kept = self._worth_keeping()
            return limiter

    def _worth_keeping(self) -> dict[Hashable, QueueingLimiter]:
        return {key: limiter for key, limiter in self.kept.items() if not limiter.is_forgotten}


_shared = SharedLimiters()


def limiter_for(config: SMTPConfig, clock: Clock) -> QueueingLimiter | None:
    """The limiter of messages to the server of `config`."""
    rate = config.rate
    if rate is None:
        return None
    # A limiter of the user's own is one limit, whatever it is used for.
    server = config.server if isinstance(rate, RateOptions) else None
    account = (server, config.username) if server is not None else ()
    return _shared.limiter_for((rate, clock, *account), QueueingLimiter(rate, server=server, clock=clock))
