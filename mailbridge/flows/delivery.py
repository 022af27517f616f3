"""One transaction: RSET?, MAIL, RCPT…, DATA, content (RFC 5321 section 3.3, RFC 2920).

The order is said here once; the window of the wire decides what goes out in one flight. All
replies of a flight are read before anything is decided, and the first refusal in the order of
the commands is the error.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mailbridge.errors import (
    ConnectionLost,
    DeadlineExceeded,
    MessageRefused,
    ProtocolViolation,
    RecipientsRefused,
    SenderRefused,
)
from mailbridge.flows.steps import Look, WriteContent, answer, take_in
from mailbridge.protocol import commands
from mailbridge.protocol.content import END_OF_DATA
from mailbridge.protocol.wire import Call, Wire
from mailbridge.results import Reply

# The last piece goes out in one write with the final dot. Kept small, so that the moment in which
# a failing write leaves the outcome in doubt is one short call; a small message is all last piece.
_LAST_PIECE = 16 * 1024
# What keeps replies from coming. Behind a refusal they are waited for, but the refusal is the news.
_NO_ANSWER = (ConnectionLost, ProtocolViolation, DeadlineExceeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What goes to the server: addresses as they stand on the wire, content dot-stuffed."""

    sender: str
    recipients: Sequence[str]
    mail_parameters: Sequence[str]
    content: bytes
    all_or_none: bool = False
    resets_first: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    accepted: tuple[str, ...]
    rejected: Mapping[str, Reply]
    response: Reply


async def delivery(wire: Wire, transaction: Transaction) -> Delivered:
    """Send one message.

    Raises `SenderRefused`, `RecipientsRefused`, `MessageRefused` with the session still in step;
    `ConnectionLost` and `ProtocolViolation` with the session lost.
    """
    reset = wire.call(commands.RSET) if transaction.resets_first else None
    mail = wire.call(commands.mail_from(transaction.sender, transaction.mail_parameters))
    rcpts = {address: wire.call(commands.rcpt_to(address)) for address in transaction.recipients}
    data = None if transaction.all_or_none else wire.call(commands.DATA)
    if reset is not None:
        await _reset(wire, reset)
    refusal = await _envelope(wire, transaction, mail, rcpts)
    if refusal is not None:
        with suppress(*_NO_ANSWER):
            await _abandon(wire, data, mail)
        if reset is not None and not (_ok(reset) or _ok(mail)):
            raise _not_reset(wire, reset)  # the refusal is about the message before this one
        raise refusal
    await _start_content(wire, data or wire.call(commands.DATA))
    response = await _content(wire, transaction.content)
    accepted = tuple(address for address, call in rcpts.items() if _ok(call))
    return Delivered(accepted, _rejected(rcpts), response)


def _ok(call: Call) -> bool:
    return call.reply is not None and call.reply.is_positive


def _rejected(rcpts: Mapping[str, Call]) -> dict[str, Reply]:
    return {address: call.reply for address, call in rcpts.items() if call.reply and not _ok(call)}


async def _reset(wire: Wire, reset: Call) -> None:
    """A server without a working RSET may still hold the failed transaction: no place to go on."""
    await _verdict(wire, reset)
    if not _ok(reset) and wire.unanswered_count == 0:
        wire.cancel_queued()
        raise _not_reset(wire, reset)


def _not_reset(wire: Wire, reset: Call) -> ConnectionLost:
    wire.is_over = True
    return ConnectionLost("The server refused RSET after a failed message", stage="rset", reply=reset.reply)


async def _verdict(wire: Wire, call: Call) -> Reply:
    """The reply to a command that can only be accepted or refused; another belongs somewhere else."""
    reply = await answer(wire, call)
    if not call.is_decided:
        raise ProtocolViolation(
            "The server answered with neither yes nor no", stage=call.command.stage, reply=reply
        )
    return reply


async def _envelope(
    wire: Wire, transaction: Transaction, mail: Call, rcpts: Mapping[str, Call]
) -> SenderRefused | RecipientsRefused | None:
    """Read the replies to MAIL and RCPT; gives the refusal that ends the message, if any."""
    reply = await _verdict(wire, mail)
    if not reply.is_positive:
        wire.cancel_queued()
        with suppress(*_NO_ANSWER):
            for call in rcpts.values():
                if call.is_released:
                    await answer(wire, call)
        sender = transaction.sender
        return SenderRefused(
            f"The sender <{sender}> was refused", sender=sender, stage="mail_from", reply=reply
        )
    for call in rcpts.values():
        await _verdict(wire, call)
    rejected = _rejected(rcpts)
    if len(rejected) == len(rcpts):
        what = "Every recipient was refused"
    elif rejected and transaction.all_or_none:
        what = "Some recipients were refused and partial='all-or-none' is set"
    else:
        return None
    return RecipientsRefused(f"{what}: {', '.join(rejected)}", rejected=rejected, stage="rcpt_to")


async def _abandon(wire: Wire, data: Call | None, mail: Call) -> None:
    """The message is refused; if DATA is already under way, end it (RFC 2920 section 3.1).

    Should the server answer 354 all the same, a lone dot ends the message, which no recipient
    has. Not if MAIL was refused: then an earlier transaction may still be open (seen with Postfix
    3.7), its recipients would get an empty message, and closing is the only safe end.
    """
    wire.cancel_queued()
    if data is None or not data.is_released:
        return
    reply = await answer(wire, data)
    if reply.code != 354:
        return
    if not _ok(mail):
        wire.is_over = True
        return
    lone_dot = wire.expect(commands.CONTENT)
    await WriteContent(END_OF_DATA, "content", stops_early=False)
    await answer(wire, lone_dot)


async def _start_content(wire: Wire, data: Call) -> None:
    reply = await answer(wire, data)
    if reply.code == 354:
        return
    if reply.code < 400:
        raise ProtocolViolation(
            "The server answered DATA with neither 354 nor a refusal", stage="data", reply=reply
        )
    raise MessageRefused("The server refused DATA", stage="data", reply=reply)


async def _content(wire: Wire, content: bytes) -> Reply:
    """Content and final dot; from the moment the dot may leave, the outcome is in doubt."""
    is_answered = not wire.parser.is_empty  # a refusal may come in one piece with the 354
    end = wire.expect(commands.CONTENT, takes_unread=True)
    border = max(0, len(content) - _LAST_PIECE)
    view = memoryview(content)
    if (
        is_answered
        or not await WriteContent(view[:border], "content", stops_early=True)
        or await _is_answered_early(wire)
    ):
        reply = await answer(wire, end)
        wire.is_over = True  # for the server the content has not ended: commands would be part of it
        raise _early(reply)
    wire.commit(end, commands.END_OF_CONTENT)
    await WriteContent(bytes(view[border:]) + END_OF_DATA, "final", stops_early=False)
    reply = await answer(wire, end, limit="final")
    if reply.is_positive:
        return reply
    if reply.code < 400:
        raise ProtocolViolation(
            "The server answered the message with neither yes nor no", stage="final", reply=reply
        )
    raise MessageRefused("The server refused the message", stage="final", reply=reply)


async def _is_answered_early(wire: Wire) -> bool:
    """A look before the dot, since after it nothing is certain until the answer."""
    data = await Look()
    if data is not None:
        take_in(wire, data, "content")
    return data is not None


def _early(reply: Reply) -> MessageRefused | ProtocolViolation:
    if reply.code >= 400:
        return MessageRefused(
            "The server refused the message while it was being sent", stage="content", reply=reply
        )
    return ProtocolViolation(
        "The server answered a message that was not at its end", stage="content", reply=reply
    )
