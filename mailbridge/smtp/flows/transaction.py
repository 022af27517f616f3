"""One transaction: RSET?, MAIL, RCPT…, content (RFC 5321 section 3.3, RFC 2920; LMTP: RFC 2033).

The order is said here once; the window of the wire decides what goes out in one flight. All
replies of a flight are read before anything is decided, and the first refusal in the order of
the commands is the error.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mailbridge.errors import (
    ConnectionLost,
    MailbridgeError,
    MessageRefused,
    ProtocolViolation,
    RecipientsRefused,
    SenderRefused,
)
from mailbridge.reply import Reply
from mailbridge.smtp import commands
from mailbridge.smtp.dot_stuffing import END_OF_DATA
from mailbridge.smtp.flows.answers import NO_ANSWER, answer, any_answer, is_out_of_step, nothing_is_there
from mailbridge.smtp.flows.content import ContentReader, Pieces, Progress, after_354, in_chunks
from mailbridge.smtp.flows.steps import WriteContent
from mailbridge.smtp.wire import Call, OpenTransaction, Spent, Wire


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Transaction:
    """What goes to the server: addresses as they stand on the wire, content canonical.

    `recipient_parameters` are those of RCPT, by recipient. `chunking`: the content goes by BDAT, as
    it is. `lmtp`: each recipient has an answer of its own. `progress(sent, size)` is told bytes of
    content; what it raises ends the connection before anything is committed. `departed()` is told once the
    last byte has been written, whatever the server will say to it, and raises nothing.
    """

    sender: str
    recipients: Sequence[str]
    mail_parameters: Sequence[str]
    recipient_parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    content: bytes | Pieces
    all_or_none: bool = False
    resets_first: bool = False
    chunking: bool = False
    lmtp: bool = False
    progress: Progress | None = None
    departed: Callable[[], None] | None = None

    def __repr__(self) -> str:
        size = len(self.content) if isinstance(self.content, bytes) else self.content.size
        return f"<Transaction of {size} bytes for {len(self.recipients)} recipient(s)>"


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """`late`: those of `rejected` that were refused after the content, each for itself (LMTP)."""

    accepted: tuple[str, ...]
    rejected: Mapping[str, Reply]
    response: Reply
    late: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Delivered to {len(self.accepted)} recipient(s), {len(self.rejected)} refused>"


async def transact(wire: Wire, transaction: Transaction, spent: Spent | None = None) -> Outcome:
    """Send one message. What that costs is added to `spent`.

    Raises `SenderRefused`, `RecipientsRefused`, `MessageRefused` with the connection still in step;
    `ConnectionLost` and `ProtocolViolation` with the connection lost, and `InvalidMessage` too, where
    the content can't be read. `outcome_unknown` is set on whatever leaves the message in doubt, an
    interrupt too.
    """
    opened = wire.begin(spent)
    try:
        reset = wire.call(commands.RSET, opened) if transaction.resets_first else None
        mail = wire.call(commands.mail_from(transaction.sender, transaction.mail_parameters), opened)
        parameters = transaction.recipient_parameters
        rcpts = {
            a: wire.call(commands.rcpt_to(a, parameters.get(a, ())), opened) for a in transaction.recipients
        }
        waits = transaction.all_or_none or transaction.chunking
        data = None if waits else wire.call(commands.DATA, opened)
        if reset is not None:
            await _reset(wire, reset)
        refusal = await _envelope(opened, transaction, mail, rcpts)
        if refusal is not None:
            with suppress(*NO_ANSWER):
                await _abandon(opened, data, has_lone_dot=_ok(mail) and not transaction.lmtp)
            raise refusal
        return await _message(opened, transaction, rcpts, data)
    except BaseException as error:
        if is_out_of_step(error):
            wire.is_over = True  # whatever was answered
        if opened.is_in_doubt:
            error.outcome_unknown = True  # type: ignore[attr-defined]  # also on KeyboardInterrupt
        raise


async def _message(
    opened: OpenTransaction, transaction: Transaction, rcpts: Mapping[str, Call], data: Call | None
) -> Outcome:
    """The content, and what the server makes of it."""
    rejected = _rejected(rcpts)
    accepted = tuple([address for address in rcpts if address not in rejected])
    source = ContentReader(transaction.content, transaction.progress, transaction.departed)
    answers = len(accepted) if transaction.lmtp else 1
    wire = opened.wire
    if transaction.chunking:
        ends = await in_chunks(opened, source, answers)
    else:
        await _start_content(wire, data or wire.call(commands.DATA, opened))
        ends = await after_354(opened, source, answers)
    if transaction.lmtp:
        return await _verdicts_of_recipients(wire, dict(zip(accepted, ends, strict=True)), rejected)
    return Outcome(accepted, rejected, await _verdict_of_server(wire, ends[0]))


def _ok(call: Call) -> bool:
    return call.reply is not None and call.reply.is_positive


def _rejected(rcpts: Mapping[str, Call]) -> dict[str, Reply]:
    return {a: call.reply for a, call in rcpts.items() if call.reply and not call.reply.is_positive}


async def _reset(wire: Wire, reset: Call) -> None:
    """A server without a working RSET may still hold the failed transaction: no place to go on.

    Whatever it says to the rest of the flight, which may be under way.
    """
    reply = await _verdict(wire, reset)
    if not reply.is_positive:
        wire.is_over = True
        raise ConnectionLost("The server refused RSET after a failed message", stage="rset", reply=reply)


async def _verdict(wire: Wire, call: Call) -> Reply:
    """The reply to a command that can only be accepted or refused; another belongs somewhere else."""
    reply = await answer(wire, call)
    if reply.code // 100 == 3:
        raise ProtocolViolation(
            "The server answered with neither yes nor no", stage=call.command.stage, reply=reply
        )
    return reply


async def _envelope(
    opened: OpenTransaction, transaction: Transaction, mail: Call, rcpts: Mapping[str, Call]
) -> SenderRefused | RecipientsRefused | None:
    """Read the replies to MAIL and RCPT; gives the refusal that ends the message, if any."""
    wire = opened.wire
    reply = await _verdict(wire, mail)
    if not reply.is_positive:
        opened.cancel_queued()
        with suppress(*NO_ANSWER):
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
    if not rejected:
        return None
    if len(rejected) == len(rcpts):
        what = "Every recipient was refused"
    elif rejected and transaction.all_or_none:
        what = "Some recipients were refused and partial='all-or-none' is set"
    else:
        return None
    return RecipientsRefused(f"{what}: {', '.join(rejected)}", rejected=rejected, stage="rcpt_to")


async def _abandon(opened: OpenTransaction, data: Call | None, *, has_lone_dot: bool) -> None:
    """The message is refused; if DATA is already under way, end it (RFC 2920 section 3.1).

    Should the server answer 354 all the same, a lone dot ends the message, which no recipient
    has. Not if MAIL was refused: then an earlier transaction may still be open (seen with Postfix
    3.7), its recipients would get an empty message, and closing is the only safe end. Nor in LMTP,
    where there are as many answers to the dot as recipients: none.
    """
    opened.cancel_queued()
    wire = opened.wire
    if data is None or not data.is_released:
        return
    reply = await answer(wire, data)
    if reply.code != 354:
        return
    if not has_lone_dot:
        wire.is_over = True
        return
    await nothing_is_there(wire, "content")
    lone_dot = wire.expect(commands.CONTENT, opened)
    await WriteContent(END_OF_DATA, "content", stops_early=False, spent=opened.spent)
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


async def _verdict_of_server(wire: Wire, end: Call) -> Reply:
    reply = await answer(wire, end, limit="final")
    _require_verdict(reply)
    if not reply.is_positive:
        raise MessageRefused("The server refused the message", stage="final", reply=reply)
    return reply


def _require_verdict(reply: Reply) -> None:
    if not reply.is_positive and reply.code < 400:
        raise ProtocolViolation(
            "The server answered the message with neither yes nor no", stage="final", reply=reply
        )


async def _verdicts_of_recipients(
    wire: Wire, ends: Mapping[str, Call], rejected: Mapping[str, Reply]
) -> Outcome:
    """LMTP: each recipient has an answer of its own, in the order of RCPT (RFC 2033 section 4.2)."""
    taken: dict[str, Reply] = {}
    late: dict[str, Reply] = {}
    try:
        for address, end in ends.items():
            reply = await _verdict_of_recipient(wire, end)
            (taken if reply.is_positive else late)[address] = reply
    except MailbridgeError as error:
        error.accepted = tuple(taken)
        if error.accepted:
            error.reword(f"{error.message.rstrip('.')}; accepted before, for {', '.join(error.accepted)}")
        raise
    refused = {**rejected, **late}
    if not taken:
        what = f"Every recipient was refused: {', '.join(refused)}"
        raise RecipientsRefused(what, rejected=refused, stage="final")
    return Outcome(tuple(taken), refused, next(iter(taken.values())), frozenset(late))


async def _verdict_of_recipient(wire: Wire, end: Call) -> Reply:
    """A good-bye is an answer here too: it tells what becomes of this recipient's copy."""
    reply = await any_answer(wire, end, limit="final")
    if reply.code == 221:
        wire.is_over = True
        raise ConnectionLost("The server closed the connection", stage="final", reply=reply)
    wire.is_over = wire.is_over or reply.code == 421
    _require_verdict(reply)
    return reply
