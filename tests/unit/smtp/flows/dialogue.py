"""Runs a flow against a dialogue written as one: "C:" what the client must write, "S:" what comes back.

Consecutive C lines are one flight: they must be written in one piece. "--TLS--" stands for the handshake,
"S: <eof>" for the end of the connection, "..." for a moment between two things that the server says.
`cut` says in which pieces the server's bytes arrive; every flow must come to the same end whichever it is.
"""

from collections.abc import Coroutine
from typing import Any

from mailbridge.smtp.flows.steps import Look, ReadPiece, StartTls, Step, Transfer, WriteContent

CUTS = ("whole", "bytes", "lines")


def blocks_of(text: str) -> list[tuple[str, bytes]]:
    """The dialogue as blocks: consecutive lines of one side belong together."""
    blocks: list[tuple[str, bytes]] = []
    for line in text.strip().splitlines():
        side, _, said = line.strip().partition(":")
        said = said.removeprefix(" ")
        if side == "...":
            blocks.append((side, b""))  # taken out below: only parts two blocks of one side
        elif side == "--TLS--" or said == "<eof>":
            blocks.append(("TLS" if side == "--TLS--" else "S", b""))
        elif blocks and blocks[-1][0] == side and blocks[-1][1]:
            blocks[-1] = (side, blocks[-1][1] + said.encode() + b"\r\n")
        else:
            blocks.append((side, said.encode() + b"\r\n"))
    return [block for block in blocks if block[0] != "..."]


class Dialogue:
    """The other side of a flow. `written` collects every write."""

    def __init__(self, text: str, cut: str = "whole") -> None:
        self.blocks = blocks_of(text)
        self.cut = cut
        self.written: list[bytes] = []

    def run(self, flow: Coroutine[Step, Any, Any]) -> Any:
        """The flow's result; raises what it raises. The dialogue must have been said to its end."""
        try:
            step = flow.send(None)
            while True:
                step = flow.send(self._perform(step))
        except StopIteration as end:
            assert self.blocks == [], f"never said: {self.blocks}"
            return end.value

    def _perform(self, step: Step) -> object:
        match step:
            case Transfer():
                if step.data:
                    self._expect("C", step.data)
                return self._next_bytes()
            case Look():
                return self._next_bytes() if self._speaks_next("S") else None
            case WriteContent():
                if step.stops_early and self._speaks_next("S"):
                    return 0
                if step.content:
                    self._expect("C", bytes(step.content))
                return len(step.content)
            case ReadPiece():
                return next(step.pieces, None)
            case StartTls():
                self._expect("TLS", b"")
                return None

    def _speaks_next(self, side: str) -> bool:
        return bool(self.blocks) and self.blocks[0][0] == side

    def _expect(self, side: str, data: bytes) -> None:
        self.written.append(data)
        assert self.blocks, f"nothing more was to be said, got {data!r}"
        expected_side, expected = self.blocks[0]
        assert (side, data) == (expected_side, expected[: len(data)]), f"expected {self.blocks[0]}"
        # Content may be written in several pieces; a flight of commands is one piece.
        if data == expected or side == "TLS":
            del self.blocks[0]
        else:
            self.blocks[0] = (side, expected[len(data) :])

    def _next_bytes(self) -> bytes:
        assert self._speaks_next("S"), f"the client waits for nothing: {self.blocks[:1]}"
        data = self.blocks[0][1]
        size = {"whole": len(data), "bytes": 1, "lines": data.find(b"\n") + 1}[self.cut]
        if data[size:]:
            self.blocks[0] = ("S", data[size:])
        else:
            del self.blocks[0]
        return data[:size]
