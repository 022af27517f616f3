"""Memory for the mails that are being received, which all connections share. One thread uses it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """At most `limit` bytes are lent at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.lent = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that borrows so many bytes more; all are given back at the end of the block.

        The function raises MemoryError, and borrows nothing, where that is beyond the limit.
        """
        mine = 0

        def borrow(size: int) -> None:
            nonlocal mine
            if self.lent + size > self._limit:
                raise MemoryError
            mine += size
            self.lent += size

        try:
            yield borrow
        finally:
            self.lent -= mine
