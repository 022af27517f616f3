"""Large content for flows, and the other side that takes it, by DATA or in chunks."""

import random
from collections.abc import Iterator

from mailbridge.smtp.flows.steps import Look, ReadPiece, Step, Transfer, WriteContent
from tests.unit.smtp.flows.dialogue import CUTS, Server

LARGE = random.Random(1).randbytes(3_300_000)


class Parts:
    """Content in pieces of a given size; `announced` may be a lie, and reading may fail at the end."""

    def __init__(
        self, content: bytes, step: int, *, announced: int | None = None, error: Exception | None = None
    ) -> None:
        self.size = len(content) if announced is None else announced
        self._content, self._step, self._error = content, step, error

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), self._step):
            yield self._content[start : start + self._step]
        if self._error is not None:
            raise self._error


class ChunkServer(Server):
    """Takes chunks, and answers them when it likes: as soon as they are there, or only when it is waited for.

    `answers` are its answers to chunks by number; "" is silence, to the end. A write is cut short
    where an answer is ready, as a real one is.
    """

    def __init__(self, answers: dict[int, str] | None = None, *, eager: bool, cut: str = "whole") -> None:
        self.answers, self.eager = answers or {}, eager
        self.ready = b""
        self.cut = CUTS[cut]
        self.chunks: list[tuple[int, bool]] = []
        self.content = bytearray()
        self.unanswered = self.most_unanswered = 0
        self._missing = 0
        self._line = b""

    @property
    def is_committed(self) -> bool:
        return any(last for _, last in self.chunks)

    def perform(self, step: Step) -> object:
        match step:
            case Transfer():
                for line in step.data.splitlines():
                    self.ready += b"250 ok\r\n"
                    assert line[:4] in (b"MAIL", b"RCPT"), line
                return self._said() or b""
            case Look():
                return self._said() if self.ready and self.eager else None
            case WriteContent():
                return self._write(bytes(step.content), step.stops_early)
            case ReadPiece():
                return next(step.pieces, None)
        raise AssertionError(step)

    def _said(self) -> bytes:
        if not self.ready:
            return b""
        said = self.cut(self.ready)[0]
        self.ready = self.ready[len(said) :]
        self.unanswered = self.ready.count(b"\n")
        return said

    def _write(self, data: bytes, stops_early: bool) -> int:
        taken = 0
        while taken < len(data):
            if stops_early and self.eager and self.ready:
                break
            size = min(100_000, len(data) - taken)
            for byte_start in range(taken, taken + size):
                if self._missing:
                    break
                self._line += data[byte_start : byte_start + 1]
                taken, size = taken + 1, size - 1
                if self._line.endswith(b"\r\n"):
                    self._begin()
                    break
            part = data[taken : taken + min(size, self._missing)]
            self.content += part
            taken += len(part)
            self._missing -= len(part)
            if self._missing == 0 and not self._line:
                self._end()
        return taken

    def _begin(self) -> None:
        verb, size, *last = self._line.split()
        assert verb == b"BDAT", self._line
        assert last in ([], [b"LAST"])
        self._line, self._missing = b"", int(size)
        self.chunks.append((self._missing, bool(last)))

    def _end(self) -> None:
        answer = self.answers.get(len(self.chunks), "250 ok")
        if answer:
            self.ready += answer.encode() + b"\r\n"
        self.unanswered += 1
        self.most_unanswered = max(self.most_unanswered, self.unanswered)


class DataServer(Server):
    """Takes DATA and content."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.sizes: list[int] = []
        self.ready = b""

    @property
    def is_committed(self) -> bool:
        return self.raw.endswith(b"\r\n.\r\n") or self.raw == b".\r\n"

    def perform(self, step: Step) -> object:
        match step:
            case Transfer():
                for line in step.data.splitlines():
                    self.ready += b"354 go\r\n" if line == b"DATA" else b"250 ok\r\n"
                if self.is_committed:
                    self.ready = b"250 sent\r\n"
                said, self.ready = self.ready, b""
                return said
            case WriteContent():
                self.raw += step.content
                self.sizes.append(len(step.content))
                return len(step.content)
            case ReadPiece():
                return next(step.pieces, None)
        return None
