"""What the programs of these tests use inside their own processes: the configuration, sends, forks.

A program that hangs is ended by an alarm, with the stacks of its threads on stderr; a child sets an
alarm of its own. What went well is for the server to say: a program only ends with 0 or not.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import ctypes
import faulthandler
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import mailbridge
from mailbridge import Mailer, SMTPConfig, SMTPConnection, mailer_for
from tests.acceptance.crowd import in_threads
from tests.acceptance.sending import envelope, message

__all__ = [
    "CONFIG",
    "FORKS",
    "SECONDS",
    "Mailer",
    "SMTPConfig",
    "SMTPConnection",
    "atexit",
    "check_exit",
    "concurrent",
    "contextlib",
    "envelope",
    "fork_child",
    "in_child",
    "in_threads",
    "json",
    "leaving",
    "logging",
    "mailbridge",
    "mailer_for",
    "message",
    "multiprocessing",
    "os",
    "send",
    "signal",
    "sys",
    "threading",
    "time",
]

SECONDS = 20  # a program takes well below two
CONFIG = SMTPConfig.from_mapping(json.loads(os.environ["MAIL_OPTIONS"]))

# C's own fork runs none of Python's hooks, as in uWSGI. PyDLL keeps the GIL over the call: else another
# thread might have it at that moment, and the child would wait for it for ever.
FORKS: dict[str, Callable[[], int]] = {"python": os.fork, "c": ctypes.PyDLL(None).fork}

faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(SECONDS)


def send(number: int, mailer: Mailer | None = None, *, size: int = 0) -> None:
    (mailer or mailer_for(CONFIG)).send(message(number, size=size), envelope=envelope())


def fork_child(act: Callable[[], object], fork: Callable[[], int] = os.fork) -> int:
    """Runs `act` in a forked child, which then ends by os._exit: with 0 unless `act` raised something."""
    pid = fork()
    if pid == 0:
        signal.alarm(SECONDS)  # a child doesn't inherit it
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert pid > 0
    return pid


def check_exit(pid: int, status: int = 0) -> None:
    """Waits for a child and looks at how it ended."""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status


def in_child(act: Callable[[], object], fork: Callable[[], int] = os.fork) -> None:
    check_exit(fork_child(act, fork))


def leaving() -> None:
    """The last line of a program whose way out is timed; see `programs.Ended`."""
    print(time.monotonic(), flush=True)
