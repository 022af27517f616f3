"""One `Mailer` per equal configuration and process; forgotten after a fork, closed at exit."""

import atexit
import os
import threading
from collections import OrderedDict

from mailbridge.config import SMTPConfig
from mailbridge.mailer import Mailer
from mailbridge.net.deadline import Deadline

# Many tenants with their own servers must not grow a process without end: with five sessions
# each, this is well below the usual limit of 1024 open files.
MOST_MAILERS = 128


class Registry:
    """At most `limit` mailers, the least recently used out first. Safe for all threads."""

    def __init__(self, limit: int = MOST_MAILERS) -> None:
        self._limit = limit
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._mailers: OrderedDict[SMTPConfig, Mailer] = OrderedDict()

    def mailer_for(self, config: SMTPConfig) -> Mailer:
        """The mailer of this process for `config`; equal configurations share one."""
        if self._pid != os.getpid():  # forked in C, without Python's hooks (uWSGI)
            self.forget()
        retired: list[Mailer] = []
        with self._lock:
            mailer = self._mailers.get(config)
            if mailer is None or mailer.closed:
                mailer = self._mailers[config] = Mailer(config)
            self._mailers.move_to_end(config)
            while len(self._mailers) > self._limit:
                retired.append(self._mailers.popitem(last=False)[1])
        for old in retired:
            old.retire()
        return mailer

    def close_all(self, drain: float = 0.0) -> None:
        """Close every mailer and forget it. Sessions in use get `drain` seconds, all together."""
        if self._pid != os.getpid():
            self.forget()
        with self._lock:
            mailers = list(self._mailers.values())
            self._mailers.clear()
        deadline = Deadline.after(drain)
        for mailer in mailers:
            mailer.close(deadline.remaining or 0.0)

    def forget(self) -> None:
        """In a forked child: new lock, nothing inherited is used, no byte on the parent's sessions."""
        mailers = list(self._mailers.values())
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._mailers = OrderedDict()
        for mailer in mailers:
            mailer.forget()

    def __len__(self) -> int:
        return len(self._mailers)


_registry = Registry()
mailer_for = _registry.mailer_for
close_all = _registry.close_all


def _close_at_exit() -> None:
    # A child runs the handlers it inherited; its parent's sessions are not its to close.
    if _registry._pid == os.getpid():
        close_all()


os.register_at_fork(after_in_child=_registry.forget)
atexit.register(_close_at_exit)
