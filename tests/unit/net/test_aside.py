"""A call that a deadline left goes on, and the next caller gets what it gives."""

from __future__ import annotations

import _thread
import contextvars
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mailbridge import DeadlineExceeded
from mailbridge.deadline import NEVER, Deadline
from mailbridge.net import aside

SOON, LATER = 0.05, 30.0


class Slow:
    """Returns its numbers, or raises, once it may; each thread that called is remembered."""

    def __init__(self, *, error: BaseException | None = None) -> None:
        self.may_end = threading.Event()
        self.threads: list[threading.Thread] = []
        self.error = error

    def __call__(self) -> int:
        self.threads.append(threading.current_thread())
        number = len(self.threads)
        assert self.may_end.wait(LATER)
        if self.error is not None:
            raise self.error
        return number

    def end(self) -> None:
        self.may_end.set()
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join(LATER)


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.end()


def call(function: Any, seconds: float | None, heritage: aside.Heritage = "result") -> Any:
    deadline = Deadline.after(seconds)
    return aside.within(function, deadline, what="the password", stage="auth", heritage=heritage)


def leave(function: Any, heritage: aside.Heritage = "result") -> None:
    with pytest.raises(DeadlineExceeded, match="before the password returned") as caught:
        call(function, SOON, heritage)
    assert caught.value.stage == "auth"
    assert not caught.value.outcome_unknown


def test_without_a_deadline_it_is_an_ordinary_call(slow: Slow) -> None:
    slow.may_end.set()
    assert call(slow, None) == 1
    assert slow.threads == [threading.current_thread()]


def test_with_a_deadline_it_runs_in_a_copy_of_the_context(slow: Slow) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    tenant.set("ann")
    assert call(lambda: (tenant.get(), tenant.set("bob")), LATER)[0] == "ann"
    assert tenant.get() == "ann"
    slow.may_end.set()
    assert call(slow, LATER) == 1
    assert slow.threads[0] is not threading.current_thread()
    assert slow.threads[0].daemon


def test_what_is_raised_is_raised_to_the_caller() -> None:
    for error in (ValueError("no"), SystemExit(3)):
        slow = Slow(error=error)
        slow.may_end.set()
        with pytest.raises(type(error)) as caught:
            call(slow, LATER)
        assert caught.value is error
        assert "__call__" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize(
    ("heritage", "under_way", "ended"), [("result", 1, 1), ("call", 1, 2), ("nothing", 2, 2)]
)
def test_the_next_caller_takes_over(slow: Slow, heritage: Any, under_way: int, ended: int) -> None:
    leave(slow, heritage)
    leave(slow, heritage)
    assert len(slow.threads) == under_way
    slow.end()
    for thread in slow.threads:
        thread.join(LATER)
    before = len(slow.threads)
    number = call(slow, LATER, heritage)
    assert len(slow.threads) - before == ended - 1
    assert number == (1 if ended == 1 else before + 1)
    assert call(slow, LATER, heritage) == len(slow.threads) > before - 1  # it is given once
    assert call(slow, None, heritage) == len(slow.threads)


def test_a_caller_without_a_deadline_takes_what_is_there_and_waits_for_nobody(slow: Slow) -> None:
    leave(slow)
    quick = threading.Thread(target=lambda: call(slow, None))
    quick.start()
    slow.end()
    quick.join(LATER)
    assert len(slow.threads) == 2
    leaving = Slow()
    leave(leaving)
    leaving.end()
    assert call(leaving, None) == 1
    assert len(leaving.threads) == 1


def test_a_late_error_is_nobodys(slow: Slow) -> None:
    slow.error = ValueError("late")
    leave(slow)
    slow.end()
    slow.error = None
    assert call(slow, LATER) == 2


def test_nothing_is_kept_for_long(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(slow)
    monkeypatch.setattr(aside, "KEPT_SECONDS", 0.0)
    leave(slow)
    assert len(slow.threads) == 2


@pytest.fixture
def sigint() -> Iterator[None]:
    """A shell lets what it starts in the background ignore SIGINT, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_an_interrupt_of_the_caller_leaves_the_call(slow: Slow) -> None:
    def called() -> int:
        _thread.interrupt_main()
        return slow()

    with pytest.raises(KeyboardInterrupt):
        call(called, LATER)
    leave(called)
    assert len(slow.threads) == 1


def test_a_child_awaits_nothing_of_its_parent(slow: Slow) -> None:
    leave(slow)
    pid = os.fork()
    if pid == 0:
        slow.may_end = threading.Event()
        slow.may_end.set()
        os._exit(0 if call(slow, LATER) == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_where_no_thread_can_be_had_it_is_called_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert call(lambda: "secret", LATER) == "secret"


def test_djangos_connections_are_closed_on_the_thread_that_opened_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[threading.Thread] = []
    connections = SimpleNamespace(close_all=lambda: closed.append(threading.current_thread()))
    monkeypatch.setitem(sys.modules, "django.db", SimpleNamespace(connections=connections))  # type: ignore[arg-type]
    thread = call(threading.current_thread, LATER)
    assert closed == [thread]
    assert call(threading.current_thread, None) is threading.current_thread()
    assert closed == [thread], "a caller's own connection stays"
    assert NEVER.remaining is None
