"""Calls of the user's own functions, which a deadline must be able to leave: passwords, tokens, rates, SASL.

Python can't interrupt a function, so with a deadline it is called on a thread of its own, in a copy of the
caller's context; without one it is called as any function, in the caller's own thread.
"""

import contextvars
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar

from mailbridge.deadline import Deadline
from mailbridge.errors import DeadlineExceeded
from mailbridge.process import PerProcess

T = TypeVar("T")

#: How long a result that came too late is good for the next caller, and how long a call that was left is
#: waited for by others before one of them calls anew (seconds).
KEPT_SECONDS = 60.0

#: What the next caller gets of a call that its own caller left: its result, also one that is there already;
#: the call itself, if it has not ended; or nothing.
Heritage = Literal["result", "call", "nothing"]


class _Call:
    """One call. It holds the function, whose id is its name among the calls that were left."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.ended = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.since = time.monotonic()
        self._is_started = False

    def start(self) -> None:
        """Does nothing for a call that was taken over."""
        if self._is_started:
            return
        self._is_started = True
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self.run,), name="mailbridge-aside", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be had, for example while the interpreter ends
            context.run(self.run)

    def run(self) -> None:
        try:
            self.result = self.function()
        except BaseException as error:  # it is raised to the caller
            self.error = error
        finally:
            _close_databases()
            self.since = time.monotonic()
            self.ended.set()

    def outcome(self) -> Any:
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error  # a cycle with its own traceback


class _Left:
    """The calls that their callers left, of one process, by the id of the function."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}

    def put(self, call: _Call) -> None:
        with self._lock:
            self._drop_old()
            self._calls[id(call.function)] = call

    def take(self, function: Callable[[], Any], heritage: Heritage, *, can_wait: bool) -> _Call | None:
        """The call of `function` to go on with, for one caller only. A late error is nobody's: call again."""
        with self._lock:
            self._drop_old()
            call = self._calls.get(id(function))
            if call is None or not (call.ended.is_set() or can_wait):
                return None
            del self._calls[id(function)]
            is_of_use = call.error is None and heritage == "result"
            return None if call.ended.is_set() and not is_of_use else call

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._calls = {key: call for key, call in self._calls.items() if now - call.since < KEPT_SECONDS}


_left = PerProcess(_Left)


def within(
    function: Callable[[], T], deadline: Deadline, *, what: str, stage: str | None, heritage: Heritage
) -> T:
    """What `function` gives or raises; `DeadlineExceeded`, which names `what`, if `deadline` ends first.

    A call that was left goes on. The next caller with a deadline takes it over instead of calling a second
    time, as `heritage` says; one without a deadline takes only a result that is there. A forked child begins
    without any.
    """
    left = _left.get()
    seconds = deadline.remaining
    call = left.take(function, heritage, can_wait=seconds is not None) if heritage != "nothing" else None
    if call is None:
        if seconds is None:
            return function()
        call = _Call(function)
    is_left = True
    try:
        call.start()
        is_left = not call.ended.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))
    finally:  # also at an interrupt
        if is_left and heritage != "nothing":
            left.put(call)
    if is_left:
        raise DeadlineExceeded(
            f"The time for this send ran out before {what} returned",
            stage=stage,
            hint="Give it a time limit of its own, or the send more time.",
        )
    result: T = call.outcome()
    return result


def _close_databases() -> None:
    """Django opens a connection to the database for each thread; nobody else closes that of this one."""
    connections = getattr(sys.modules.get("django.db"), "connections", None)
    if connections is not None:
        with suppress(Exception):  # no settings, or the connection is broken
            connections.close_all()
