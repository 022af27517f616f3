"""`PerProcess`: each process has a value of its own, whichever way it was forked."""

import os
import subprocess
import sys
import threading

import pytest

from mailbridge.process import PerProcess

FORKS = {"python": "os.fork()", "c": "ctypes.CDLL(None).fork()"}  # the second runs no hooks, as under uWSGI

PROGRAM = """
import ctypes, os, threading
from mailbridge.process import PerProcess

let_go = []
kept = PerProcess(threading.Lock)
own = PerProcess(lambda: [os.getpid()], let_go=let_go.append)
parent = os.getpid()
assert kept.get() is kept.get() and own.get() is own.get()
kept.get().acquire()  # a thread that the child does not have may hold it
if {fork} == 0:
    assert kept.get().acquire(timeout=0)
    assert own.get() == [os.getpid()] != [parent]
    assert let_go == [[parent]]
    os._exit(0)
assert os.wait()[1] == 0
assert own.get() == [parent] and let_go == []
assert not kept.get().acquire(timeout=0)
"""


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_has_a_value_of_its_own(fork: str) -> None:
    program = PROGRAM.format(fork=FORKS[fork])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_threads_that_are_the_first_in_a_process_get_the_same_value() -> None:
    value = PerProcess(object)
    value._values.clear()  # as a child that has not asked yet
    start, got = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        got.append(value.get())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(map(id, got))) == 1


def test_reset_begins_anew_in_this_process_too() -> None:
    let_go: list[list[int]] = []
    value = PerProcess(lambda: [os.getpid()], let_go=let_go.append)
    first = value.get()
    value.reset()
    assert value.get() is not first
    assert [each is first for each in let_go] == [True]
