"""Runs a flow against a dialogue written as one: "C:" what the client must write, "S:" what comes back.

Consecutive C lines are one flight: they must be written in one piece. "--TLS--" stands for the handshake,
"S: <eof>" for the end of the connection, "..." for a moment between two things that the server says.

How the server's bytes are cut into segments is TCP's business, and must not change what becomes of a message.
So each dialogue is run once for each of `CUTS`, and must come to the same end every time: a new one joins by
being written.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from mailbridge.errors import MailbridgeError
from mailbridge.smtp.flows.answers import is_out_of_step
from mailbridge.smtp.flows.steps import Look, ReadPiece, StartTls, Step, Transfer, WriteContent
from mailbridge.smtp.wire import WINDOW_BYTES, Wire

Flow = Coroutine[Step, Any, Any]

_REPLY = re.compile(rb"(?:\d{3}-[^\n]*\n)*[^\n]*\n?")
# Where each of them divides what the server says, as the parts that arrive one after the other.
CUTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda said: [said],
    "bytes": lambda said: [said[at : at + 1] for at in range(len(said))],
    "replies": lambda said: _REPLY.findall(said)[:-1],
    "inside CRLF": lambda said: re.findall(rb"[^\r]*\r|[^\r]+\Z", said),
    "glued to the next": lambda said: _glued(_REPLY.findall(said)[:-1]),
}


def _glued(replies: list[bytes]) -> list[bytes]:
    """Each reply with the first two bytes of the one behind it."""
    starts = [*(reply[:2] for reply in replies[1:]), b""]
    rests = [replies[0], *(reply[2:] for reply in replies[1:])]
    return [part for rest, start in zip(rests, starts, strict=True) if (part := rest + start)]


Performers = Mapping[type[Any], Callable[[Any], object]]
NO_OTHERS: Performers = {}


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


def perform_all(flow: Flow, perform: Callable[[Step], object]) -> Any:
    """The flow's result, with each of its steps performed; raises what it raises."""
    try:
        step = flow.send(None)
        while True:
            try:
                result = perform(step)
            except (MailbridgeError, KeyboardInterrupt) as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        return end.value


class Server(ABC):
    """The other side of a flow, as a program."""

    def run(self, flow: Flow) -> Any:
        return perform_all(flow, self.perform)

    @abstractmethod
    def perform(self, step: Step) -> object: ...


@dataclass(frozen=True)
class End:
    """What a caller is told, what the server got, and what becomes of the connection."""

    result: object
    told: object  # of the error
    written: bytes
    is_in_doubt: bool
    is_usable: bool


def end_of(
    wire: Wire, written: list[bytes], result: object, error: MailbridgeError | None, *, is_all_said: bool
) -> End:
    """What the server has still to say is found before the connection is used again, and ends it."""
    told = None
    if error is not None:
        rejected = getattr(error, "rejected", None)
        told = (type(error), error.stage, error.reply, error.accepted, rejected, str(error))
        assert error.outcome_unknown == bool(wire.in_doubt)
    is_usable = wire.is_quiet and is_all_said and (error is None or not is_out_of_step(error))
    return End(result, told, b"".join(written), bool(wire.in_doubt), is_usable)


class Dialogue:
    """The other side of a flow. `others` makes what performs further kinds of steps, anew for each run.

    `written`, `is_in_doubt` and `is_usable` tell of the run in whole replies.
    """

    def __init__(
        self, text: str, *, window: int = 0, others: Callable[[], Performers] = lambda: NO_OTHERS
    ) -> None:
        self._text = text
        self._window = window
        self._others = others

    def run(self, flow: Callable[[Wire], Flow]) -> Any:
        """The flow's result; raises what it raises. The dialogue must have been said to its end."""
        ends = {cut: self._end(flow(self._begun(cut))) for cut in reversed(CUTS)}
        assert self._blocks == [], f"never said: {self._blocks}"
        end, error = ends["whole"]
        for cut, (other, _) in ends.items():
            assert other == end, f"another end if the server's bytes come as: {cut}"
        self.is_usable, self.is_in_doubt = end.is_usable, end.is_in_doubt
        if error is not None:
            raise error
        return end.result

    def _begun(self, cut: str) -> Wire:
        self.wire = Wire(window=self._window)
        self._performers = self._others()
        self.written: list[bytes] = []
        self._blocks = [
            (side, part)
            for side, said in blocks_of(self._text)
            for part in (CUTS[cut](said) if side == "S" and said else [said])
        ]
        return self.wire

    def _end(self, flow: Flow) -> tuple[End, MailbridgeError | None]:
        result, error = None, None
        try:
            result = perform_all(flow, self._perform)
        except MailbridgeError as raised:
            error = raised
        assert {side for side, _ in self._blocks} <= {"S"}, f"never said: {self._blocks}"
        return end_of(self.wire, self.written, result, error, is_all_said=not self._blocks), error

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
            case _:
                return self._performers[type(step)](step)

    def _speaks_next(self, side: str) -> bool:
        return bool(self._blocks) and self._blocks[0][0] == side

    def _expect(self, side: str, data: bytes) -> None:
        self.written.append(data)
        assert self._blocks, f"nothing more was to be said, got {data!r}"
        expected_side, expected = self._blocks[0]
        assert (side, data) == (expected_side, expected[: len(data)]), f"expected {self._blocks[0]}"
        # Content may be written in several pieces; a flight of commands is one piece.
        if data == expected or side == "TLS":
            del self._blocks[0]
        else:
            self._blocks[0] = (side, expected[len(data) :])

    def _next_bytes(self) -> bytes:
        assert self._speaks_next("S"), f"the client waits for nothing: {self._blocks[:1]}"
        return self._blocks.pop(0)[1]


def pipelined(text: str, others: Callable[[], Performers] = lambda: NO_OTHERS) -> Dialogue:
    """A dialogue with a server that offers PIPELINING."""
    return Dialogue(text, window=WINDOW_BYTES, others=others)
