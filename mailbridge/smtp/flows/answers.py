"""How a flow waits for an answer, and what it makes of what comes instead of one.

`single` is the flow of one command and its answer: RSET, NOOP, QUIT (RFC 5321 section 4.1.1).
"""

from mailbridge.errors import (
    ConnectionLost,
    DeadlineExceeded,
    MailbridgeError,
    ProtocolViolation,
    ReplyTimeout,
)
from mailbridge.reply import Reply
from mailbridge.smtp.commands import Command
from mailbridge.smtp.flows.steps import LOOK, Limit, Transfer
from mailbridge.smtp.wire import Call, Wire

# What keeps answers from coming. Behind a refusal they are waited for, but the refusal is the news.
NO_ANSWER = (ConnectionLost, ProtocolViolation, DeadlineExceeded)


def is_out_of_step(error: BaseException) -> bool:
    """Whether nobody knows where the two sides stand: after a violation, or in an interrupted flow."""
    return not isinstance(error, MailbridgeError) or isinstance(error, ProtocolViolation)


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
