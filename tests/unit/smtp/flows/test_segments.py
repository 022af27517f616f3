"""How a server's bytes are cut into segments changes nothing, whichever faults it has at which commands.

The dialogues of the other tables say what each fault leads to. Here it is faults at one and at two places of
an opening with login, and of every kind of transaction, and the one claim that each of `CUTS` comes to the
same end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product

import pytest

from mailbridge.errors import MailbridgeError
from mailbridge.secret import Secret
from mailbridge.smtp.flows.connection import ConnectionState, Login, Opening, login, opening
from mailbridge.smtp.flows.steps import (
    AskCredentials,
    Look,
    ReadPiece,
    StartTls,
    Step,
    Transfer,
    WriteContent,
)
from mailbridge.smtp.flows.submission import Submission
from mailbridge.smtp.flows.transaction import Transaction
from mailbridge.smtp.sasl import Credentials
from mailbridge.smtp.wire import WINDOW_BYTES, Spent, Wire
from tests.unit.smtp.flows.dialogue import CUTS, End, Flow, Server, end_of

HANGS_UP = "<eof>"
ENOUGH = "452 4.5.3 enough"  # the recipients above the limit go in another transaction
FAULTS = (
    "421 4.3.2 bye",
    "221 bye",
    "450 4.2.1 later",
    "550-5.1.1 no\r\n550 5.1.1 never",
    "503 5.5.1 nested",
    "354 go",
    "250 ok",
    "nonsense",
    "250-ok\r\n550 no",
    "250 ok\r\n250 again",
    "250 ok\r\n421 bye",
    "250 ok\r\nnonsense",
    "\r\n250 ok",
    "250 ok\r\n\r\n",
    "354 go\r\n550 no",
    "354 go\r\n421 bye",
    ENOUGH,
    "250-ok\r\n" + HANGS_UP,
    "250 ok\r\n" + HANGS_UP,
    "550 no\r\n" + HANGS_UP,
    HANGS_UP,
)
A, B = "a@x.example", "b@x.example"


def sending(*groups: Sequence[str], **options: bool) -> Callable[[Wire], Flow]:
    wanted = Transaction(
        sender="me@x.example",
        recipients=groups[0],
        mail_parameters=[],
        content=b"Hi\r\n",
        **options,  # type: ignore[arg-type]
    )
    return lambda wire: Submission(wire, ConnectionState(), False, Spent()).run(wanted, groups)


async def connecting(wire: Wire) -> tuple[object, ...]:
    state = ConnectionState()
    await opening(wire, state, Opening(name="me.example", security="opportunistic", may_be_helo=True))
    await login(wire, state, Login(names="auto", is_safe=True))
    return state.greeting, state.capabilities, state.mechanism


# MAIL, two RCPT, DATA, and what answers the content; RSET, the second recipient of LMTP, and another group
# take more. Of a connection: greeting, EHLO, STARTTLS, EHLO, AUTH and a challenge.
PLACES = range(6)
SHAPES: dict[str, Callable[[Wire], Flow]] = {
    "DATA": sending([A, B]),
    "DATA after RSET": sending([A, B], resets_first=True),
    "all-or-none": sending([A, B], all_or_none=True),
    "BDAT": sending([A, B], chunking=True),
    "LMTP": sending([A, B], lmtp=True),
    "LMTP by BDAT": sending([A, B], lmtp=True, chunking=True),
    "two groups": sending([A], [B]),
    "connection": connecting,
}
DEFAULTS = {
    b"DATA": "354 go",
    b"EHLO me.example": "250-mx\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 AUTH LOGIN PLAIN",
    b"STARTTLS": "220 go",
    b"AUTH": "235 ok",
    b"": "220 mx",
}
# Of the cases with two faults the suite takes one in so many. It has no common factor with their number.
EVERY = 53


class FaultyServer(Server):
    """Answers the commands in their order, those at a place in `faults` as it is said there."""

    def __init__(self, faults: Mapping[int, str], cut: str, *, answers_to_content: int) -> None:
        self.written: list[bytes] = []
        self._faults = faults
        self._cut = CUTS[cut]
        self._answers_to_content = answers_to_content
        self._count = 0
        self._ready = b""
        self._has_hung_up = False

    @property
    def is_all_said(self) -> bool:
        return not self._ready.strip() and not self._has_hung_up

    def perform(self, step: Step) -> object:
        match step:
            case Transfer():
                is_greeting = step.limit == "greeting" and self._count == 0
                self._take(step.data, [b""] if is_greeting else step.data.splitlines())
                return self._said() or b""
            case Look():
                return self._said()
            case WriteContent():
                if step.stops_early and (self._ready or self._has_hung_up):
                    return 0
                is_end = step.content[-3:] == b".\r\n" or b"LAST\r\n" in bytes(step.content)
                self._take(bytes(step.content), [b"content"] * (is_end and self._answers_to_content))
                return len(step.content)
            case ReadPiece():
                return next(step.pieces, None)
            case StartTls():
                return None
            case AskCredentials():
                return Credentials("user", Secret("pencil"))
        raise AssertionError(step)

    def _take(self, data: bytes, commands: list[bytes]) -> None:
        if not self._has_hung_up:
            self.written.append(data)
        for command in commands:
            usual = DEFAULTS.get(command.partition(b" PLAIN")[0], "250 ok")
            said = self._faults.get(self._count, usual)
            self._count += 1
            if not self._has_hung_up:
                self._ready += said.removesuffix(HANGS_UP).encode() + b"\r\n" * (HANGS_UP not in said)
                self._has_hung_up = HANGS_UP in said

    def _said(self) -> bytes | None:
        if not self._ready:
            return b"" if self._has_hung_up else None
        said = self._cut(self._ready)[0]
        self._ready = self._ready[len(said) :]
        return said


def end(shape: str, window: int, faults: Mapping[int, str], cut: str) -> End:
    wire = Wire(window=window)
    server = FaultyServer(faults, cut, answers_to_content=2 if "LMTP" in shape else 1)
    result, error = None, None
    try:
        result = server.run(SHAPES[shape](wire))
    except MailbridgeError as raised:
        error = raised
    return end_of(wire, server.written, result, error, is_all_said=server.is_all_said)


def two_faults() -> Iterator[Mapping[int, str]]:
    for (one, two), said in product(combinations(PLACES, 2), product(FAULTS, repeat=2)):
        yield {one: said[0], two: said[1]}


@pytest.mark.parametrize("window", [0, WINDOW_BYTES], ids=["lockstep", "pipelined"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_end_however_the_replies_are_cut(shape: str, window: int) -> None:
    cases = [{place: said} for place in PLACES for said in FAULTS] + list(two_faults())[::EVERY]
    for faults in cases:
        whole = end(shape, window, faults, "whole")
        for cut in CUTS:
            assert end(shape, window, faults, cut) == whole, (faults, cut)
