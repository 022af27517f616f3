"""Content that stays in a file: had again and again, by whomever, and only if it is still the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import InvalidMessage
from mailbridge.rendering import files
from mailbridge.rendering.files import PIECE_SIZE, FileContent, PlainFile, cleaned
from mailbridge.rendering.lines import canonical

LINE = b"x" * 76 + b"\r\n"
LARGE = LINE * (3 * PIECE_SIZE // len(LINE))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "large.eml"
    path.write_bytes(LARGE)
    return path


def file_content(path: Path, size: int = len(LARGE)) -> FileContent:
    return FileContent(PlainFile(path, str(path)), size)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_each_call_begins_anew(path: Path) -> None:
    content = file_content(path)
    first = content.pieces()
    assert next(first) == LARGE[:PIECE_SIZE]
    assert b"".join(content.pieces()) == bytes(content) == LARGE
    assert b"".join(first) == LARGE[PIECE_SIZE:]
    assert content.size == len(LARGE)
    assert str(len(LARGE)) in repr(content)
    assert str(path) in repr(content)


def test_line_ends_are_made_canonical_on_the_way(path: Path) -> None:
    data = (b"x" * 75 + b"\n") * 10_000 + b"y" * 3 + b"\r" * 70_000 + b"end"
    path.write_bytes(data)
    assert bytes(file_content(path, len(canonical(data)))) == canonical(data)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b""]), max_size=20))
def test_cleaned_pieces(pieces: list[bytes]) -> None:
    made = list(cleaned(pieces, is_binary=False))
    assert b"".join(made) == canonical(b"".join(pieces))
    assert b"" not in made
    assert list(cleaned(pieces, is_binary=True)) == [piece for piece in pieces if piece]


def test_binary_content_is_left_alone(path: Path) -> None:
    data = b"\r\0\n" * PIECE_SIZE
    path.write_bytes(data)
    assert bytes(FileContent(PlainFile(path, "it"), len(data), is_binary=True)) == data


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more\r\n")


def replace(path: Path) -> None:
    (path.parent / "new").write_bytes(path.read_bytes())
    (path.parent / "new").rename(path)


def rewrite(path: Path) -> None:
    """As many bytes as before; the clock of the file system may have ticks of some milliseconds."""
    modified = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == modified:
        path.write_bytes(b"y" + LARGE[1:])


CHANGES: list[Callable[[Path], None]] = [append, replace, rewrite, lambda path: os.truncate(path, 1000)]


@pytest.mark.parametrize("change", CHANGES, ids=["appended", "replaced", "rewritten", "cut short"])
def test_a_file_that_changed_before(path: Path, change: Callable[[Path], None]) -> None:
    content = file_content(path)
    change(path)
    with pytest.raises(InvalidMessage, match="the file changed while it was being sent") as caught:
        next(content.pieces())
    assert caught.value.stage == "content"


@pytest.mark.parametrize("change", [append, rewrite, lambda path: os.truncate(path, 1000)])
def test_a_file_that_changes_meanwhile_is_never_complete(path: Path, change: Callable[[Path], None]) -> None:
    before = descriptors()
    pieces = file_content(path).pieces()
    got = [next(pieces)]
    change(path)
    with pytest.raises(InvalidMessage, match="the file changed"):
        got.extend(pieces)
    assert len(b"".join(got)) < len(LARGE)
    assert descriptors() == before


def test_a_file_that_grows_is_not_followed(path: Path) -> None:
    """A log that is written faster than it is sent would never end."""
    pieces = file_content(path).pieces()
    got = [next(pieces)]
    path.write_bytes(LARGE * 10)
    with pytest.raises(InvalidMessage, match="the file changed"):
        got.extend(pieces)
    assert len(b"".join(got)) <= len(LARGE)


def test_a_change_that_the_file_system_does_not_tell(path: Path) -> None:
    """As many bytes at the same time, but one line end more of them is bare."""
    content, about = file_content(path), path.stat()
    path.write_bytes(LARGE[:-3] + b"\n\r\n")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(InvalidMessage, match="the file changed"):
        bytes(content)
    path.write_bytes(LARGE[:-2] + b"xx")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(InvalidMessage, match="the file changed"):
        bytes(content)


def test_a_path_that_is_gone(path: Path) -> None:
    content = file_content(path)
    path.unlink()
    with pytest.raises(InvalidMessage, match=r"large\.eml: No such file"):
        next(content.pieces())


def test_no_descriptor_stays_open(path: Path) -> None:
    before = descriptors()
    content = file_content(path)
    pieces = content.pieces()
    next(pieces)
    assert descriptors() != before
    pieces.close()  # type: ignore[attr-defined]  # a generator
    assert descriptors() == before
    list(content.pieces())
    assert descriptors() == before


def test_an_open_file_that_was_closed(path: Path) -> None:
    with path.open("rb") as file:
        content = FileContent(PlainFile(file, "it"), len(LARGE))
        assert bytes(content) == LARGE
        assert file.tell() == 0
    with pytest.raises(InvalidMessage, match=r"can't be read from it: .*closed"):
        bytes(content)


def test_a_disk_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_content(path)

    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "pread", fails)
    with pytest.raises(InvalidMessage, match=r"large\.eml: Input/output error"):
        bytes(content)


def test_threads_read_at_the_same_time(path: Path) -> None:
    with path.open("rb") as file:
        content = FileContent(PlainFile(file, "it"), len(LARGE))
        found: list[bool] = []
        threads = [
            threading.Thread(target=lambda: found.extend(bytes(content) == LARGE for _ in range(20)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert found == [True] * 80


def test_a_release_is_called_once(path: Path) -> None:
    released: list[int] = []
    content = FileContent(PlainFile(path, "it"), 1, release=lambda: released.append(1))
    content.close()
    content.close()
    del content
    assert released == [1]
    FileContent(PlainFile(path, "it"), 1, release=lambda: released.append(2))
    assert released == [1, 2]  # nobody closed it, and nobody has it
