"""What becomes of mailers when their process forks, or ends.

A forked child lets go of the sessions that it inherited. When a process ends, idle sessions are
closed with QUIT, and who sends all the same, from an exit handler or a thread that is still busy, can.
`atexit` sees to it; and for the pool processes of a Celery worker, which end without it, Celery's own
signal `worker_process_shutdown`. Nobody has to set anything up for that, and Celery is not imported
here: where its tasks run, it has been.

This is only for being prompt. What must never happen, a byte of a child on its parent's session,
does not depend on it: pool, breaker and stream compare process ids, since a fork in C (uWSGI) runs
no hooks.
"""

import atexit
import os
import sys
import weakref
from typing import Protocol


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
