"""One `Mailer` per equal configuration and process. What happens to it at a fork and at exit: `processes`."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.mailer import Mailer
from mailbridge.process import PerProcess

# Many tenants with their own servers must not grow a process without end: with five sessions
# each, this is well below the usual limit of 1024 open files.
MOST_MAILERS = 128


class Registry:
    """At most `limit` mailers, the least recently used out first. Safe for all threads.

    A forked child keeps the mailers but none of their sessions: who holds one from before the fork and
    who asks for it afterwards share the one pool of the child.
    """

    def __init__(self, limit: int = MOST_MAILERS, make: Callable[[SMTPConfig], Mailer] = Mailer) -> None:
        self._limit = limit
        self._make = make
        self._mailers: OrderedDict[SMTPConfig, Mailer] = OrderedDict()
        self._lock = PerProcess(threading.Lock)

    def mailer_for(self, config: SMTPConfig) -> Mailer:
        """The mailer of this process for `config`; equal configurations share one."""
        retired: list[Mailer] = []
        with self._lock.get():
            mailer = self._mailers.get(config)
            if mailer is None or mailer.closed:
                mailer = self._mailers[config] = self._make(config)
            self._mailers.move_to_end(config)
            while len(self._mailers) > self._limit:
                retired.append(self._mailers.popitem(last=False)[1])
        for old in retired:
            old.retire()
        return mailer

    @contextmanager
    def making(self, make: Callable[[SMTPConfig], Mailer]) -> Iterator[None]:
        """Within the block all mailers are new ones, and made by `make`."""
        with self._lock.get():
            mine, self._mailers = self._mailers, OrderedDict()
            before, self._make = self._make, make
        try:
            yield
        finally:
            with self._lock.get():
                self._mailers, self._make = mine, before

    def close_all(self, drain: float = 0.0) -> None:
        """Close every mailer and forget it. Sessions in use get `drain` seconds, all together."""
        with self._lock.get():
            mailers = list(self._mailers.values())
            self._mailers.clear()
        deadline = Deadline.after(drain)
        for mailer in mailers:
            mailer.close(deadline.remaining or 0.0)

    def __len__(self) -> int:
        return len(self._mailers)


_registry = Registry()
mailer_for = _registry.mailer_for
make_mailers = _registry.making
close_all = _registry.close_all
