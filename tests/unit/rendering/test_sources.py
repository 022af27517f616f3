"""What a program gives as content: read once before anything is sent, and kept if it can't be had again."""

from __future__ import annotations

import errno
import gc
import gzip
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import InvalidMessage
from mailbridge.rendering import sources
from mailbridge.rendering.files import PIECE_SIZE, FileContent
from mailbridge.rendering.lines import Survey, canonical
from mailbridge.rendering.render import render
from mailbridge.rendering.sources import MOST_IN_MEMORY, is_source, read_content

HEAD = b"Subject: x\nMessage-ID: <1@x>\n\n"
SMALL = HEAD + b"text\n"
LARGE = HEAD + (b"x" * 75 + b"\n") * (2 * MOST_IN_MEMORY // 76)


class OneByOne:
    """A file-like thing that can neither seek nor tell, and gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, 70_001))


def as_path(data: bytes, folder: Path) -> Any:
    (folder / "it.eml").write_bytes(data)
    return folder / "it.eml"


def as_buffered_file(data: bytes, folder: Path) -> Any:
    return as_path(data, folder).open("rb")


def as_raw_file(data: bytes, folder: Path) -> Any:
    return as_path(data, folder).open("rb", buffering=0)


def as_file_in_use(data: bytes, folder: Path) -> Any:
    """Written by the caller, and not yet flushed."""
    file = as_path(b"", folder).open("w+b")
    file.write(data)
    file.seek(0)
    return file


def as_gzip(data: bytes, folder: Path) -> Any:
    return gzip.open(as_path(gzip.compress(data), folder))


def as_pipe(data: bytes, folder: Path) -> Any:
    """A named pipe, given as a path: it can be read only once."""
    path = folder / "pipe"
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(data,), daemon=True).start()
    return path


SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "path": as_path,
    "file": as_buffered_file,
    "raw file": as_raw_file,
    "file in use": as_file_in_use,
    "gzip file": as_gzip,
    "pipe": as_pipe,
    "BytesIO": lambda data, _: io.BytesIO(data),
    "temporary file": lambda data, _: written(tempfile.SpooledTemporaryFile(10), data),  # noqa: SIM115
    "named temporary file": lambda data, _: written(tempfile.NamedTemporaryFile(), data),  # noqa: SIM115
    "odd file": lambda data, _: OneByOne(data),
    "iterator": lambda data, _: iter([data[:9], b"", data[9:40], data[40:]]),
    "list": lambda data, _: [bytearray(data[:5]), memoryview(data[5:])],
    "generator": lambda data, _: (data[at : at + 9999] for at in range(0, len(data), 9999)),
}
each_source = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)


def written(file: Any, data: bytes) -> Any:
    file.write(data)
    file.seek(0)
    return file


def close(source: object) -> None:
    if callable(getattr(source, "close", None)):
        source.close()  # type: ignore[attr-defined]


def spools() -> list[str]:
    """The temporary files without a name that this process has open."""
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    shown = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [link for link in shown if link.startswith(tempfile.gettempdir()) and "(deleted)" in link]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    if spools():
        gc.collect()  # an error that was looked at is a circle, with its traceback
    assert spools() == []
    assert list(folder.iterdir()) == []


def accept(_: Survey) -> None:
    pass


@each_source
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_every_source_gives_the_same(make: Callable[[bytes, Path], Any], data: bytes, tmp_path: Path) -> None:
    source = make(data, tmp_path)
    content, survey = read_content(source, accept)
    assert isinstance(content, bytes if data is SMALL else FileContent)
    assert bytes(content) == bytes(content) == canonical(data)
    assert survey.size == len(canonical(data))
    assert survey.head == canonical(HEAD[:-1])
    if isinstance(content, FileContent):
        assert content.size == survey.size
        assert max(map(len, content.pieces())) <= 2 * PIECE_SIZE  # every bare line feed becomes two bytes
        content.close()
    close(source)


@each_source
def test_binary_content_is_left_as_it_is(make: Callable[[bytes, Path], Any], tmp_path: Path) -> None:
    data = canonical(HEAD) + b"\r\n" + bytes(range(256)) * 5000 + b"\r"
    rendered = render(source := make(data, tmp_path), binary=True)
    assert bytes(rendered.content) == data
    assert rendered.size == len(data)
    assert rendered.is_binary
    assert rendered.message_id == "<1@x>"
    rendered.close()
    close(source)


@pytest.mark.parametrize("size", [MOST_IN_MEMORY, MOST_IN_MEMORY + 1])
@pytest.mark.parametrize("make", [as_path, lambda data, _: iter([data])])
def test_where_memory_ends(make: Callable[[bytes, Path], Any], size: int, tmp_path: Path) -> None:
    data = (HEAD + (b"x" * 75 + b"\n") * MOST_IN_MEMORY)[:size]
    data = canonical(data)[: size - 2] + b"\r\n"
    content, _ = read_content(make(data, tmp_path), accept)
    assert isinstance(content, bytes) == (size == MOST_IN_MEMORY)
    assert bytes(content) == data


@pytest.mark.parametrize(
    "name", ["file", "raw file", "file in use", "gzip file", "BytesIO", "temporary file"]
)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_file_is_read_from_where_it_stands_and_stays_there(name: str, data: bytes, tmp_path: Path) -> None:
    file = SOURCES[name](b"not this" + data, tmp_path)
    file.read(8)
    for _ in range(2):
        content, _ = read_content(file, accept)
        assert bytes(content) == canonical(data)
        assert file.tell() == 8
    assert file.read(len(data)) == data
    file.close()


def test_what_is_not_flushed_yet_is_no_later_change(tmp_path: Path) -> None:
    with as_path(b"12345678" + LARGE, tmp_path).open("r+b") as file:
        file.write(b"changed!")
        content, _ = read_content(file, accept)
        time.sleep(0.02)  # the clock of the file system has ticks
        file.flush()
        assert bytes(content) == canonical(LARGE)


class Swapping(io.BufferedReader):
    """A plain file by its descriptor, but other content."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size).swapcase()


class SwappingRaw(io.FileIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return (super().read(size) or b"").swapcase()

    def readinto(self, buffer: Any, /) -> int:  # what io.BufferedReader asks for
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize(
    "make",
    [SwappingRaw, lambda path: io.BufferedReader(SwappingRaw(path)), lambda path: Swapping(io.FileIO(path))],
)
def test_a_file_of_another_kind_is_asked_for_its_content(make: Callable[[Path], Any], tmp_path: Path) -> None:
    with make(as_path(LARGE, tmp_path)) as file:
        content, _ = read_content(file, accept)
        assert bytes(content) == canonical(LARGE.swapcase())


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\xff", b""]), max_size=20))
def test_whatever_the_pieces_are(pieces: list[bytes]) -> None:
    whole, taken = render(b"".join(pieces)), render(iter(pieces))
    assert taken == whole


class Ours(Exception):
    pass


def failing(size: int, error: BaseException) -> Iterator[bytes]:
    yield LARGE[:size]
    raise error


@pytest.mark.parametrize("size", [len(SMALL), len(LARGE)])
@pytest.mark.parametrize("error", [Ours(), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_iterator_that_fails_raises_what_it_raises(size: int, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        render(failing(size, error))
    assert caught.value is error
    assert spools() == []  # though the error still has its traceback


def endless(piece: bytes) -> Iterator[bytes]:
    yield HEAD
    while True:
        yield piece


@pytest.mark.parametrize(
    ("piece", "complaint"),
    [
        (b"\0", "NUL"),
        (b"x" * 500, "a line of 1000 bytes"),
        ("text", "gave str, not bytes"),
        (7, "gave int, not bytes"),
        (None, "gave NoneType, not bytes"),
    ],
)
def test_what_can_not_be_sent_is_refused_at_once(piece: Any, complaint: str) -> None:
    with pytest.raises(InvalidMessage, match=complaint):
        render(endless(piece))


def test_what_can_not_be_sent_in_a_file(tmp_path: Path) -> None:
    path = as_path(LARGE + b"y" * 999, tmp_path)
    with pytest.raises(InvalidMessage, match="a line of 999 bytes"):
        render(path)


@pytest.mark.parametrize("text", [io.StringIO("text"), io.TextIOWrapper(io.BytesIO(b"text"))])
def test_a_file_that_is_open_as_text(text: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidMessage, match="is open as text") as caught:
        render(text)
    assert "'rb'" in caught.value.hint
    with (
        as_path(LARGE, tmp_path).open() as file,
        pytest.raises(InvalidMessage, match=r"it\.eml is open as text"),
    ):
        render(file)


def test_a_file_that_is_open_for_writing_alone(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file, pytest.raises(InvalidMessage, match=r"can't be read from .*x"):
        render(file)


def test_a_file_that_is_closed(tmp_path: Path) -> None:
    with as_path(SMALL, tmp_path).open("rb") as file:
        pass
    with pytest.raises(InvalidMessage, match=r"can't be read from .*it\.eml: .*closed"):
        render(file)


@pytest.mark.parametrize(("name", "why"), [("none.eml", "No such file"), ("", "Is a directory|not bytes")])
def test_a_path_to_nothing(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidMessage, match=why):
        render(tmp_path / name)


def test_a_file_without_data_yet() -> None:
    """A pipe that does not block gives None."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    with (
        open(ours, "rb", buffering=0) as file,
        open(theirs, "wb"),
        pytest.raises(InvalidMessage, match="gave NoneType, not bytes"),
    ):
        render(file)


@pytest.mark.parametrize(
    ("thing", "is_one"),
    [
        (Path("x"), True),
        (io.BytesIO(), True),
        (iter([]), True),
        ([b""], True),
        ("x", False),
        (b"x", False),
        (None, False),
        (3, False),
    ],
)
def test_what_is_a_source(thing: object, is_one: bool) -> None:
    assert is_source(thing) is is_one


def test_a_string_is_no_path(tmp_path: Path) -> None:
    path = str(as_path(SMALL, tmp_path))
    with pytest.raises(InvalidMessage, match="not str") as caught:
        render(path)  # type: ignore[arg-type]
    assert "pathlib.Path" in caught.value.hint


def test_several_messages_are_no_source() -> None:
    with pytest.raises(InvalidMessage, match="gave EmailMessage, not bytes"):
        render([EmailMessage()])  # type: ignore[list-item]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = as_path(LARGE, tmp_path)

    def change(survey: Survey) -> None:
        if survey.size > MOST_IN_MEMORY:
            os.truncate(path, 10)

    with pytest.raises(InvalidMessage, match="changed"):
        read_content(path, change)


class FullDisk:
    """What `tempfile.TemporaryFile` gives on a disk with little room: writes are short, then fail."""

    def __init__(self, room: int) -> None:
        self.room, self.closed = room, False

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        took = min(self.room, len(data))
        self.room -= took
        return took

    def close(self) -> None:
        self.closed = True


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(1_500_000)
    monkeypatch.setattr(sources.tempfile, "TemporaryFile", lambda **_: disk)
    with pytest.raises(InvalidMessage, match=r"can't be kept in .*: No space left") as caught:
        render(iter([LARGE]))
    assert "TMPDIR" in caught.value.hint
    assert disk.closed


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(InvalidMessage, match=r"can't be kept in /nonexistent .*No such file"):
        render(iter([LARGE]))


def test_a_short_write_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.TemporaryFile

    def slow(**options: Any) -> Any:
        file = make(**options)

        class Slow:
            fileno, close = file.fileno, file.close

            def write(self, data: memoryview) -> int:
                return int(file.write(data[:1000]))

        return Slow()

    monkeypatch.setattr(sources.tempfile, "TemporaryFile", slow)
    content, _ = read_content(iter([LARGE]), accept)
    assert bytes(content) == canonical(LARGE)


def test_what_is_closed_can_not_be_sent_again() -> None:
    rendered = render(iter([LARGE]))
    assert len(spools()) == 1
    rendered.close()
    assert spools() == []
    with pytest.raises(InvalidMessage, match=r"temporary file: .*closed"):
        bytes(rendered.content)
    render(SMALL).close()


def test_what_nobody_closed_goes_with_its_last_reader() -> None:
    rendered = render(iter([LARGE]))
    pieces = rendered.content.pieces()  # type: ignore[union-attr]
    del rendered
    assert b"".join(pieces) == canonical(LARGE)
    del pieces
    assert spools() == []


def test_an_iterator_of_one_piece_is_cut() -> None:
    taken: list[int] = []

    def note(survey: Survey) -> None:
        taken.append(survey.size)

    read_content(iter([LARGE]), note)
    assert len(taken) > 5


FORKING = """
import os, sys, tempfile
from mailbridge.rendering.render import render

data = b"A: b\\r\\n\\r\\n" + b"".join(b"%075d\\r\\n" % n for n in range(30_000))
rendered = render(iter([data]))
pid = os.fork()
for _ in range(30):  # both at the same time
    assert bytes(rendered.content) == data
if pid == 0:
    os._exit(0)  # no exit handler runs
assert os.waitpid(pid, 0)[1] == 0
{end}
"""


@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)", "1 / 0"])
def test_a_fork_and_every_end_of_a_process(end: str, tmp_path: Path) -> None:
    """Parent and child have the same open file; nothing is left of it, however they end."""
    folder = tmp_path / "tmp"
    command = [sys.executable, "-W", "error", "-c", FORKING.format(end=end)]
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder)}, timeout=30, capture_output=True, check=False
    )
    assert done.returncode == {"": 0, "os._exit(0)": 0, "1 / 0": 1}.get(end, -9), done.stderr
    assert b"ResourceWarning" not in done.stderr
    assert list(folder.iterdir()) == []


def lines(count: int) -> Iterable[bytes]:
    yield HEAD
    for _ in range(count):
        yield (b"x" * 75 + b"\n") * 100


def test_memory_stays_the_same() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            rendered = render(lines(count))
            for _ in rendered.content.pieces():  # type: ignore[union-attr]
                pass
            rendered.close()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(800) < peak(200) + 100_000 < 3_000_000
