"""Waiting until sockets can be read or written: the one place that asks the operating system.

It never looks at what a socket carries. `select` is looked up at each call, so that gevent's
replacements are used wherever they are installed.
"""

import errno
import math
import select
import socket
from collections.abc import Sequence
from operator import methodcaller

from mailbridge.deadline import Deadline

# One wait in the kernel lasts at most this long; poll() takes milliseconds in a C int.
LONGEST_WAIT_SECONDS = 3600.0

_descriptor = methodcaller("fileno")


def ready(
    sockets: Sequence[socket.socket], *, read: bool, write: bool, seconds: float | None
) -> list[socket.socket]:
    """Those of `sockets` that can be read or written (as asked) or have failed.

    Waits up to `seconds` for the first of them (0: only looks; None: without limit) and may
    return none earlier than that. Raises OSError (EBADF) if one of them is closed.
    """
    if min(map(_descriptor, sockets), default=0) < 0:
        raise OSError(errno.EBADF, "The socket is closed")
    limit = LONGEST_WAIT_SECONDS if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)
    if hasattr(select, "poll"):
        return _poll(sockets, read, write, limit)
    readable = list(sockets) if read else []
    writable = list(sockets) if write else []
    found = select.select(readable, writable, sockets, limit)
    return [sock for sock in sockets if any(sock in group for group in found)]


def _poll(sockets: Sequence[socket.socket], read: bool, write: bool, limit: float) -> list[socket.socket]:
    # poll() has no limit on the number of a descriptor; select() has (1024).
    poller = select.poll()
    mask = (select.POLLIN if read else 0) | (select.POLLOUT if write else 0)
    for sock in sockets:
        poller.register(sock.fileno(), mask)
    found = dict(poller.poll(math.ceil(limit * 1000)))
    return [sock for sock in sockets if sock.fileno() in found]


def is_ready(sock: socket.socket, *, read: bool = False, write: bool = False) -> bool:
    """Whether `sock` can be read or written (as asked) at this moment, or has failed."""
    return bool(ready([sock], read=read, write=write, seconds=0))


def wait(sock: socket.socket, *, read: bool = False, write: bool = False, deadline: Deadline) -> None:
    """Return when `sock` can be read or written (as asked) or has failed.

    Raises TimeoutError at the deadline, also if the socket is ready then: a peer that always has
    one more byte can't keep a caller in its loop.
    """
    while not deadline.is_over:
        if ready([sock], read=read, write=write, seconds=deadline.remaining):
            return
    raise TimeoutError(errno.ETIMEDOUT, "The time limit ran out")
