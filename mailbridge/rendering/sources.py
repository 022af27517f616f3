"""What a program gives as content: a path, an open file, or an iterator of bytes.

Everything is read once before a byte is sent, so that its size, and what a server must be able to do
for it, are known. A path, and a plain file that was opened from one, are then read anew each time;
everything else (pipes, uploads, iterators) is kept in a temporary file without a name, which is gone
with the process whatever happens. What is short is held in memory.
"""

import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, Protocol

from mailbridge.errors import InvalidMessage
from mailbridge.rendering.files import PIECE_SIZE, FileContent, PlainFile, cleaned, unreadable
from mailbridge.rendering.lines import Survey

__all__ = ["Readable", "ContentSource", "is_source", "read_content"]

#: Content up to so many bytes is held in memory: it costs less than a file, and can't change.
MOST_IN_MEMORY = 1 << 20

Check = Callable[[Survey], None]


class Readable(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


ContentSource = os.PathLike[str] | Readable | Iterable[bytes]


def is_source(thing: object) -> bool:
    """Whether content can be read from it. A string is no path: it may come with the data of a message."""
    if isinstance(thing, str | bytes):
        return False
    return (
        isinstance(thing, os.PathLike) or callable(getattr(thing, "read", None)) or hasattr(thing, "__iter__")
    )


def read_content(source: ContentSource, check: Check | None) -> tuple[bytes | FileContent, Survey]:
    """What `source` holds, read to its end, and what is to be known of it.

    `check` is asked after every piece, so that what can't be sent is refused early; without one the
    content is binary, and stays as it is. Raises what `check` raises; `InvalidMessage` for what can't
    be read or kept; and what an iterator of the caller raises.
    """
    plain = _plain_file(source)
    survey = Survey()
    is_binary = check is None
    if plain is None:
        return _spooled(cleaned(_pieces_of(source), is_binary=is_binary), survey, check), survey
    kept: list[bytes] = []
    with plain.opened() as descriptor:
        for piece in cleaned(plain.read(descriptor), is_binary=is_binary):
            _note(piece, survey, check)
            if survey.size <= MOST_IN_MEMORY:
                kept.append(piece)
        plain.require_unchanged(descriptor)
    if survey.size <= MOST_IN_MEMORY:
        return b"".join(kept), survey
    return FileContent(plain, survey.size, is_binary=is_binary), survey


def _note(piece: bytes, survey: Survey, check: Check | None) -> None:
    survey.feed(piece)
    if check is not None:
        check(survey)


def _plain_file(source: Any) -> PlainFile | None:
    """The file on a disk that `source` is; None for a pipe, a terminal, and whatever is only like a file."""
    if isinstance(source, os.PathLike):
        name = os.fsdecode(source)
        try:
            is_plain = stat.S_ISREG(os.stat(source).st_mode)
        except OSError as error:
            raise unreadable(name, error) from error
        return PlainFile(source, name) if is_plain else None
    # Only these: what wraps a file (gzip, say) has its descriptor too, but other content.
    raw = source if isinstance(source, io.FileIO) else getattr(source, "raw", None)
    if type(raw) is not io.FileIO or type(source) not in (io.FileIO, io.BufferedReader, io.BufferedRandom):
        return None
    name = _name_of(source)
    try:
        if not source.readable() or not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            return None
        source.flush()
        return PlainFile(source, name, source.tell())
    except (OSError, ValueError) as error:
        raise unreadable(name, error) from error


def _name_of(source: object) -> str:
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"the {type(source).__name__}"


def _pieces_of(source: Any) -> Iterator[bytes]:
    """What an iterator, or a file of whatever kind, gives; a file is put back where it stood."""
    if isinstance(source, os.PathLike):
        try:
            pipe = io.FileIO(source)
        except OSError as error:
            raise unreadable(os.fsdecode(source), error) from error
        with pipe:
            yield from _read_through(pipe)
    elif callable(getattr(source, "read", None)):
        start = _position(source)
        yield from _read_through(source)
        if start is not None:
            source.seek(start)
    else:
        for piece in source:
            yield from _in_parts(piece, f"The iterator gave {type(piece).__name__}, not bytes")


def _position(file: Any) -> int | None:
    """Where a file stands, if it can be put back there."""
    try:
        return int(file.tell()) if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


def _read_through(file: Any) -> Iterator[bytes]:
    name = _name_of(file)
    while True:
        try:
            piece = file.read(PIECE_SIZE)
        except (OSError, ValueError) as error:
            raise unreadable(name, error) from error
        if isinstance(piece, str):
            raise InvalidMessage(f"{name} is open as text", hint="Open it in binary mode: open(path, 'rb').")
        parts = list(_in_parts(piece, f"{name}: read() gave {type(piece).__name__}, not bytes"))
        if not parts:
            return
        yield from parts


def _in_parts(piece: object, otherwise: str) -> Iterator[bytes]:
    """`piece` in parts of a bounded size, however much an iterator gives at once."""
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise InvalidMessage(otherwise)
    view = memoryview(piece).cast("B")
    for start in range(0, len(view), PIECE_SIZE):
        yield bytes(view[start : start + PIECE_SIZE])


def _spooled(pieces: Iterable[bytes], survey: Survey, check: Check | None) -> bytes | FileContent:
    """All of `pieces`: in memory, or in a temporary file that is gone as soon as nobody has it open."""
    kept: list[bytes] = []
    spool: IO[bytes] | None = None
    try:
        for piece in pieces:
            _note(piece, survey, check)
            kept.append(piece)
            if survey.size > MOST_IN_MEMORY:
                spool = spool or _new_spool()
                _write(spool, kept)
                kept.clear()
        if spool is None:
            return b"".join(kept)
        plain = PlainFile(spool, "the temporary file")
        return FileContent(plain, survey.size, is_binary=True, release=spool.close)
    except BaseException:
        if spool is not None:
            with suppress(OSError):
                spool.close()
        raise


def _new_spool() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(prefix="mailbridge-", buffering=0)
    except OSError as error:
        raise _not_kept(error) from error


def _write(spool: IO[bytes], pieces: Iterable[bytes]) -> None:
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:  # a disk that is about to be full takes a part
                rest = rest[spool.write(rest) :]
    except OSError as error:
        raise _not_kept(error) from error


def _not_kept(error: OSError) -> InvalidMessage:
    return InvalidMessage(
        f"The content can't be kept in {tempfile.gettempdir()} until it is sent: {error.strerror or error}",
        hint="Give the path of a file, which needs no copy, or name another folder in TMPDIR.",
    )
