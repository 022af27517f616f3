"""The steps that a flow awaits, and how it waits for an answer.

A flow is an `async def` function that awaits only these steps; a driver performs each of them on a real
stream. No event loop is involved: `client.driver` runs flows on blocking calls. `single` is the flow of one
command and its answer: RSET, NOOP, QUIT (RFC 5321 section 4.1.1).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mailbridge.errors import ConnectionLost, DeadlineExceeded, ProtocolViolation, ReplyTimeout
from mailbridge.reply import Reply
from mailbridge.secret import Secret
from mailbridge.smtp.commands import Command
from mailbridge.smtp.sasl.base import Credentials
from mailbridge.smtp.wire import Call, Spent, Wire

#: The time limits of the option `timeouts`, and one for the rest of what has been said in part.
Limit = Literal["greeting", "command", "data", "final", "rest"]
# What keeps answers from coming. Behind a refusal they are waited for, but the refusal is the news.
NO_ANSWER = (ConnectionLost, ProtocolViolation, DeadlineExceeded)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Write `data` in one piece, then read. Gives the bytes read; b"" is end-of-file.

    `commands` are what `data` says. `stage` is for errors and timings. `limit` names the time
    limit, which starts anew with `is_new` and goes on otherwise, so that a peer can't stretch it
    byte by byte. What it costs is added to `spent`, too.
    """

    data: bytes = field(repr=False)
    commands: tuple[Command, ...] = field(repr=False)
    stage: str
    limit: Limit
    is_new: bool
    spent: Spent | None = field(default=None, repr=False)

    def __await__(self) -> Generator["Transfer", bytes, bytes]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Look:
    """What lies there to be read, without waiting: None is nothing, b"" is end-of-file."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["Look", bytes | None, bytes | None]:
        return (yield self)


LOOK = Look()


@dataclass(frozen=True, slots=True)
class WriteContent:
    """Write `content` within the time limit `data`, which starts anew with `is_new`.

    With `stops_early`, look before and between the pieces and stop as soon as the server has said
    something: it may be refusing (RFC 5321 section 4.1.1.4 has it wait for the dot, but it need
    not). Gives how many bytes were written. `command` is one that `content` begins with. What it costs
    is added to `spent`, too.
    """

    content: bytes | memoryview = field(repr=False)
    stage: str
    stops_early: bool
    is_new: bool = True
    command: Command | None = None
    spent: Spent | None = field(default=None, repr=False)

    def __await__(self) -> Generator["WriteContent", int, int]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class ReadPiece:
    """The next piece of the content, which may come from a file; None at its end.

    Raises InvalidMessage if it can't be had.
    """

    pieces: Iterator[bytes] = field(repr=False)
    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["ReadPiece", bytes | None, bytes | None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin TLS on the stream. `is_first`: before a byte of SMTP, within the time limit for connecting."""

    is_first: bool = False
    stage: ClassVar[str] = "tls"

    def __await__(self) -> Generator["StartTls", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class SayGoodbye:
    """QUIT, if that costs no wait, and the end of the connection. The answer is not awaited."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["SayGoodbye", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. `is_cached`: a newer one may fare better. `facts` may be shown to people."""

    value: Secret
    is_cached: bool
    facts: str = ""


@dataclass(frozen=True, slots=True)
class FetchToken:
    """An access token for this login. `fresh`: in the place of the one before, which was refused.

    Raises `TokenUnavailable`.
    """

    fresh: bool
    stage: ClassVar[str] = "token"

    def __await__(self) -> Generator["FetchToken", Token, Token]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class DropToken:
    """The token that was fetched last was refused: nobody shall have it again."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["DropToken", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class AskCredentials:
    """Who logs in, with what, at this moment: callables of the user's own may be asked. With `token`."""

    token: Secret | None = field(repr=False)
    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["AskCredentials", Credentials, Credentials]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class AskPermit:
    """Wait until the next transaction may begin."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["AskPermit", None, None]:
        return (yield self)


Step = (
    Transfer
    | Look
    | WriteContent
    | ReadPiece
    | StartTls
    | SayGoodbye
    | FetchToken
    | DropToken
    | AskCredentials
    | AskPermit
)


async def answer(wire: Wire, call: Call, *, limit: Limit = "command") -> Reply:
    """The reply to `call`, writing and reading as the window allows.

    Raises `ConnectionLost` at end-of-file and when the server says good-bye (421, or 221 unasked),
    which it may do at any point (RFC 5321 section 3.8); `ProtocolViolation` when the two sides are
    out of step.
    """
    reply = call.reply if call.reply is not None else await any_answer(wire, call, limit=limit)
    if reply.code in (221, 421):
        wire.is_over = True
        raise ConnectionLost("The server closed the connection", stage=call.command.stage, reply=reply)
    return reply


async def any_answer(wire: Wire, call: Call, *, limit: Limit, is_new: bool = True) -> Reply:
    """As `answer`, for callers to whom a good-bye is an answer like others."""
    stage = call.command.stage
    while call.reply is None:
        if wire.violation is not None:
            raise wire.violation
        if wire.unanswered_count == 0:
            await nothing_is_there(wire, stage)
        data = await _write_and_read(wire.outgoing(), call, limit, is_new)
        is_new = take_in(wire, data, stage)
    return call.reply


def _write_and_read(commands: tuple[Command, ...], call: Call, limit: Limit, is_new: bool) -> Transfer:
    spent = call.transaction.spent if call.transaction is not None else None
    data = b"".join([command.line + b"\r\n" for command in commands])
    return Transfer(data, commands, call.command.stage, limit, is_new or bool(commands), spent)


async def nothing_is_there(wire: Wire, stage: str) -> None:
    """In step: before a command that answers to nothing pending, there is nothing to be read."""
    while not wire.has_unread():
        data = await LOOK
        if data is None:
            return
        if not data:
            wire.is_over = True
            raise ConnectionLost("The server closed the connection", stage=stage)
        wire.parser.feed(data)
    raise await _unasked(wire, stage)


async def _unasked(wire: Wire, stage: str) -> ConnectionLost | ProtocolViolation:
    """The error for what the server said while nothing was asked.

    The first reply of it is read to its end: what it means must not depend on how it was cut into
    segments. If the rest does not come within a moment, it is no reply.
    """
    wire.is_over = True
    in_exchange = stage == "auth"  # it may quote a SASL response
    is_new = True
    try:
        while (reply := wire.parser.next_reply()) is None:
            data = await Transfer(b"", (), stage, "rest", is_new)
            if not data:
                return ConnectionLost("The server closed the connection", stage=stage)
            wire.parser.feed(data)
            is_new = False
    except ReplyTimeout:
        message = "The server sent half a reply, which answers no command"
        return ProtocolViolation(message, stage=stage)
    except ProtocolViolation as error:
        error.stage = stage
        error.reword(wire.redactor.masked(error.message, in_exchange=in_exchange))
        return error
    reply = wire.redactor.masked_reply(reply, in_exchange=in_exchange)
    # A good-bye is a whole reply of class 4: "421 timeout", or SES's "451 4.4.2".
    if reply.is_transient:
        return ConnectionLost("The server closed the idle connection", stage=stage, reply=reply)
    return ProtocolViolation("The server sent a reply that answers no command", stage=stage, reply=reply)


def take_in(wire: Wire, data: bytes, stage: str) -> bool:
    """Feed what was read; true if a reply was completed, so that the next one has its own time."""
    if not data:
        wire.is_over = True
        raise ConnectionLost("The server closed the connection without an answer", stage=stage)
    return wire.feed(data)


async def single(wire: Wire, command: Command) -> Reply:
    """One command and its reply, whatever it says. Raises only if the connection is lost."""
    return await any_answer(wire, wire.call(command), limit="command")
