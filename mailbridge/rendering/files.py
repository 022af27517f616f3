"""Large content that stays in a file: pieces with constant memory, anew each time they are asked for.

A file is read by position. Threads and forked children that send the same file do not disturb each
other, and where an open file stands is nobody's business here. What may be sent, and what is no
plain file on a disk, is the affair of `content_sources`.
"""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mailbridge.errors import InvalidMessage
from mailbridge.rendering.lines import Canonical

__all__ = ["PIECE_SIZE", "FileContent", "PlainFile", "cleaned", "unreadable"]

#: Bytes that are read in one go.
PIECE_SIZE = 1 << 18

_State = tuple[int, int, int, int]


class FileContent:
    """Canonical content that is read from a file each time it is sent.

    `size` is its bytes as they are sent, without dot-stuffing. Content of which nothing is to be
    changed is given with `is_binary`. `close()` lets go of a temporary file; what the caller has
    opened stays open.
    """

    __slots__ = ("__weakref__", "_head", "_is_binary", "_origin", "_plain", "_release", "size")

    def __init__(
        self,
        plain: "PlainFile",
        size: int,
        *,
        is_binary: bool = False,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.size = size
        self._head = b""
        self._origin: FileContent | None = None
        self._plain = plain
        self._is_binary = is_binary
        # Also where nobody calls `close`: a message that was rendered but never sent.
        self._release = weakref.finalize(self, release or _nothing)

    def __repr__(self) -> str:
        return f"<FileContent of {self.size} bytes from {self._plain.name}>"

    def __bytes__(self) -> bytes:
        """All of it, in memory."""
        return b"".join(self.pieces())

    def behind(self, head: bytes) -> "FileContent":
        """This content with `head` in front of it. To close that closes nothing: the file is this one's."""
        twin = FileContent(self._plain, self.size + len(head), is_binary=self._is_binary)
        twin._head = head + self._head
        twin._origin = self  # keeps it from letting go
        return twin

    def pieces(self) -> Iterator[bytes]:
        """The content from its beginning, in pieces of about 256 KiB.

        Raises `InvalidMessage` before the last piece if it is not what it was when its size was told.
        """
        with self._plain.opened() as descriptor:
            self._plain.require_unchanged(descriptor)
            size, held = len(self._head), self._head
            for piece in cleaned(self._plain.read(descriptor), is_binary=self._is_binary):
                size += len(piece)
                if size > self.size:
                    break
                if held:
                    yield held
                held = piece
            self._plain.require_unchanged(descriptor, is_same=size == self.size)
        if held:
            yield held

    def close(self) -> None:
        self._release()


def _nothing() -> None:
    pass


class PlainFile:
    """A file on a disk, by its path or opened by the caller, from `start` to its end."""

    def __init__(self, source: Any, name: str, start: int = 0) -> None:
        self.name = name
        self._source = source
        self._start = start
        with self.opened() as descriptor:
            self._state = _state(descriptor)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Its descriptor; a path is opened for the time of the block."""
        try:
            is_path = isinstance(self._source, os.PathLike)
            descriptor = os.open(self._source, os.O_RDONLY) if is_path else self._source.fileno()
        except (OSError, ValueError) as error:  # ValueError: a file that was closed
            raise unreadable(self.name, error) from error
        try:
            yield descriptor
        finally:
            if is_path:
                os.close(descriptor)

    def read(self, descriptor: int) -> Iterator[bytes]:
        position = self._start
        while piece := self._read_at(descriptor, position):
            position += len(piece)
            yield piece

    def _read_at(self, descriptor: int, position: int) -> bytes:
        try:
            return os.pread(descriptor, PIECE_SIZE, position)
        except OSError as error:
            raise unreadable(self.name, error) from error

    def require_unchanged(self, descriptor: int, *, is_same: bool = True) -> None:
        if not is_same or _state(descriptor) != self._state:
            raise InvalidMessage(
                f"{self.name}: the file changed while it was being sent",
                stage="content",
                hint="Send it again; give a copy where something writes to the file.",
            )


def _state(descriptor: int) -> _State:
    about = os.fstat(descriptor)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def cleaned(pieces: Iterable[bytes], *, is_binary: bool) -> Iterator[bytes]:
    """Canonical, unless binary; no piece is empty."""
    if is_binary:
        yield from filter(None, pieces)
        return
    canonical = Canonical()
    for piece in pieces:
        if clean := canonical.feed(piece):
            yield clean
    if end := canonical.finish():
        yield end


def unreadable(name: str, error: Exception) -> InvalidMessage:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return InvalidMessage(f"The content can't be read from {name}: {why}")
