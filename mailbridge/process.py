"""`PerProcess`, one value for each process; and what becomes of mailers when their process forks, or ends.

A forked child lets go of the sessions that it inherited. When a process ends, idle sessions are
closed with QUIT, and who sends all the same, from an exit handler or a thread that is still busy, can.
`atexit` sees to it; and for the pool processes of a Celery worker, which end without it, Celery's own
signal `worker_process_shutdown`. Nobody has to set anything up for that, and Celery is not imported
here: where its tasks run, it has been.

This is only for being prompt. What must never happen, a byte of a child on its parent's session,
does not depend on it: `PerProcess` and the streams compare process ids, since a fork in C (uWSGI) runs no
hooks.
"""

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value of each process: a forked child gets one of its own, made anew when it first asks.

    So no process waits for a lock that it inherited, which a thread of its parent may have held, and none
    uses what belongs to its parent. Process ids are compared, since a fork in C runs no hooks, and no lock is
    taken: steps on a dict with ints as keys are atomic, so all threads that are the first in a child get the
    same value.

    `let_go` is called in the child with each value that it inherited; without it they stay where they are,
    since to free one may take its locks.
    """

    __slots__ = ("_let_go", "_make", "_values")

    def __init__(self, make: Callable[[], T], *, let_go: Callable[[T], None] | None = None) -> None:
        self._make = make
        self._let_go = let_go
        self._values = {os.getpid(): make()}

    def get(self) -> T:
        """The value of this process."""
        pid = os.getpid()
        found = self._values.get(pid)
        if found is not None:
            return found
        found = self._values.setdefault(pid, self._make())
        if self._let_go is not None:
            for other in list(self._values):
                inherited = self._values.pop(other, None) if other != pid else None
                if inherited is not None:
                    self._let_go(inherited)
        return found

    def reset(self) -> None:
        """Begin anew, in this process too; `let_go` gets what was there."""
        before, self._values = self._values, {os.getpid(): self._make()}
        if self._let_go is not None:
            for value in before.values():
                self._let_go(value)


class Mailing(Protocol):
    """What has sessions."""

    def retire(self) -> None:
        """Closes idle sessions with QUIT, and keeps none from now on."""

    def forget(self) -> None:
        """In a forked child: lets go of everything the parent had, without a byte."""


_known: weakref.WeakValueDictionary[int, Mailing] = weakref.WeakValueDictionary()
_celery_is_hooked = False


def register(mailer: Mailing) -> None:
    """See to this one when the process forks or ends; to be called before it opens a session."""
    _known[id(mailer)] = mailer
    _hook_celery()


def _all() -> list[Mailing]:
    return [mailer for reference in _known.valuerefs() if (mailer := reference()) is not None]


def _leave(**_: object) -> None:
    for mailer in _all():
        mailer.retire()


def _forget() -> None:
    for mailer in _all():
        mailer.forget()


def _hook_celery() -> None:
    """At each new session, since Celery may be imported at any time before its first task."""
    global _celery_is_hooked
    ending = getattr(sys.modules.get("celery.signals"), "worker_process_shutdown", None)
    if ending is not None and not _celery_is_hooked:
        ending.connect(_leave, weak=False, dispatch_uid="mailbridge")
        _celery_is_hooked = True


os.register_at_fork(after_in_child=_forget)
atexit.register(_leave)
