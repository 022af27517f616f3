"""The content of a message: after 354 (RFC 5321 section 4.1.1.4), or in chunks (RFC 3030).

Content is read one piece ahead, so that its last bytes are known as such: they leave last, in one write with
what commits the message, and only if no refusal has come. Where the pieces come from, and what the answers
mean for the recipients, is not known here.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from mailbridge.errors import (
    InvalidMessage,
    MessageRefused,
    ProtocolViolation,
)
from mailbridge.reply import Reply
from mailbridge.smtp import commands
from mailbridge.smtp.commands import Command
from mailbridge.smtp.dot_stuffing import END_OF_DATA, DotStuffer
from mailbridge.smtp.flows.answers import NO_ANSWER, answer, nothing_is_there, take_in
from mailbridge.smtp.flows.steps import LOOK, ReadPiece, WriteContent
from mailbridge.smtp.wire import Call, OpenTransaction, Wire


class Pieces(Protocol):
    """Content in pieces: canonical (every line ends in CRLF, the last one too) and not dot-stuffed.

    `size` is in bytes, over all pieces. `pieces` begins anew each time it is called, since a message
    may have to go out again. A piece may end anywhere, also between CR and LF.
    """

    @property
    def size(self) -> int: ...

    def pieces(self) -> Iterator[bytes]: ...


Progress = Callable[[int, int], None]

# The last bytes go out in one write with what commits the message. Kept small, so that the moment in which
# a failing write leaves the outcome in doubt is one short call; a small message is all last bytes.
_LAST_BYTES = 16 * 1024
# In memory there are a few of these at a time. Small pieces are joined, up to the first size.
_LEAST_PIECE = 64 * 1024
_LARGEST_PIECE = 1024 * 1024
# The first chunk is short: a server that takes no content of this kind at all says so early.
_FIRST_CHUNK = 16 * 1024
# Chunks whose answers are awaited while the next one is written. An answer has some hundred bytes: together
# they fit into any socket buffer, so that both sides never wait for the other to read.
_CHUNKS_UNDER_WAY = 8
# The time limit for content begins anew after so many bytes, or large content could not get through
# in time over a slow line (RFC 5321 section 4.5.3.2.5 has one for each block).
_TIMED_BYTES = 32 * 1024 * 1024


class ContentReader:
    """The content piece by piece, counted: exactly as many bytes as were announced, or an error."""

    def __init__(
        self, content: bytes | Pieces, progress: Progress | None, left: Callable[[], None] | None = None
    ) -> None:
        self._is_in_memory = isinstance(content, bytes)
        self.size = len(content) if isinstance(content, bytes) else content.size
        self._pieces = _slices(content) if isinstance(content, bytes) else content.pieces()
        self._progress = progress
        self._left = left
        self._read = 0
        self._timed = 0

    async def piece(self) -> bytes | None:
        """The next piece; None at the end. Raises InvalidMessage if there are more or fewer bytes."""
        parts: list[bytes] = []
        gathered = 0
        while gathered < _LEAST_PIECE:
            part = next(self._pieces, None) if self._is_in_memory else await ReadPiece(self._pieces)
            if part is None:
                break
            parts.append(part)
            gathered += len(part)
        self._read += gathered
        if self._read > self.size or (not parts and self._read < self.size):
            extent = "at least " if self._read > self.size else ""
            message = f"The content has {extent}{self._read} bytes, not {self.size} as announced"
            raise InvalidMessage(message, stage="content", hint="It was changed while it was being sent.")
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def tell(self, sent: int) -> None:
        """Let the caller know. What it raises ends the connection: the message is never committed."""
        if self._progress is not None:
            self._progress(sent, self.size)

    def is_written(self) -> None:
        """The last byte has been written."""
        if self._left is not None:
            self._left()

    def starts_time(self, size: int) -> bool:
        """Whether the next `size` bytes have a time limit of their own."""
        is_new = self._timed == 0 or self._timed + size > _TIMED_BYTES
        self._timed = size if is_new else self._timed + size
        return is_new


def _slices(content: bytes) -> Iterator[bytes]:
    if len(content) <= _LARGEST_PIECE:
        return iter((content,))  # the very object, for most messages
    starts = range(0, len(content), _LARGEST_PIECE)
    return (content[start : start + _LARGEST_PIECE] for start in starts)


async def after_354(transaction: OpenTransaction, source: ContentReader, answers: int) -> list[Call]:
    """Content and final dot; gives as many calls as there will be answers to it.

    From the moment the dot may leave, the outcome is in doubt.
    """
    is_answered = transaction.wire.has_unread()  # a refusal may come in one piece with the 354
    ends = [transaction.wire.expect(commands.CONTENT, transaction) for _ in range(answers)]
    if is_answered:
        raise await _early(transaction.wire, ends[0])
    source.tell(0)
    stuffer, held, sent = DotStuffer(), b"", 0
    piece = await source.piece()
    while piece is not None:
        held, sent = stuffer.feed(piece), sent + len(piece)
        if (piece := await source.piece()) is not None:
            await _write(transaction, source, held, ends[0])
            source.tell(sent)
    await _finish(transaction, source, held + END_OF_DATA, ends, commands.END_OF_CONTENT)
    return ends


async def in_chunks(transaction: OpenTransaction, source: ContentReader, answers: int) -> list[Call]:
    """Content by BDAT (RFC 3030 section 2); gives the calls that answer the last chunk.

    A chunk that is refused stops the rest. All chunks are answered before the last one leaves.
    """
    source.tell(0)
    chunks = _Chunks(transaction, source)
    held = await source.piece() or b""
    while (piece := await source.piece()) is not None:
        await chunks.send(held)
        held = piece
    await chunks.settle(0)
    await nothing_is_there(transaction.wire, "content")
    ends = [transaction.wire.expect(commands.CONTENT, transaction) for _ in range(answers)]
    last = commands.bdat(len(held), last=True)
    await _finish(transaction, source, bytes(last) + held, ends, last)
    return ends


class _Chunks:
    """The chunks before the last one: written ahead of their answers where the server pipelines."""

    def __init__(self, transaction: OpenTransaction, source: ContentReader) -> None:
        self._transaction = transaction
        self._wire = transaction.wire
        self._source = source
        self._pending: deque[Call] = deque()
        self._sent = 0

    async def send(self, piece: bytes) -> None:
        border = _FIRST_CHUNK if self._sent == 0 else 0
        for chunk in (piece[:border], piece[border:]):
            if chunk:
                await self._send_chunk(chunk)
                self._sent += len(chunk)
                self._source.tell(self._sent)

    async def _send_chunk(self, chunk: bytes) -> None:
        wire, command = self._wire, commands.bdat(len(chunk))
        await self.settle(_CHUNKS_UNDER_WAY - 1 if wire.window else 0)
        if not self._pending:
            await nothing_is_there(wire, command.stage)
        self._pending.append(self._wire.expect(command, self._transaction))
        rest: memoryview = memoryview(bytes(command) + chunk)
        first: Command | None = command
        while rest:
            is_new = self._source.starts_time(len(rest))
            written = await WriteContent(rest, command.stage, True, is_new, first, self._transaction.spent)
            rest, first = rest[written:], None
            if rest:
                take_in(wire, await LOOK or b"", command.stage)
                await self._check(is_whole=False)

    async def settle(self, most: int) -> None:
        """Wait until no more than `most` chunks are unanswered."""
        while len(self._pending) > most:
            await answer(self._wire, self._pending[0])
            await self._check(is_whole=True)

    async def _check(self, *, is_whole: bool) -> None:
        """Take the answers that are there. `is_whole`: all that was announced has been written."""
        while self._pending and self._wire.is_answered(self._pending[0]):
            reply = await answer(self._wire, self._pending.popleft())
            if not is_whole and not self._pending:
                self._wire.is_over = True  # what follows would be part of the chunk
                raise _refusal(reply, "The server answered a chunk that was not at its end")
            if not reply.is_positive:
                with suppress(*NO_ANSWER):
                    while is_whole and self._pending:
                        await answer(self._wire, self._pending.popleft())
                raise _refusal(reply, "The server answered a chunk with neither yes nor no")


async def _write(
    transaction: OpenTransaction,
    source: ContentReader,
    data: bytes | memoryview,
    end: Call,
    command: Command | None = None,
) -> None:
    """Write what does not commit the message. An answer that comes now is a refusal."""
    rest = memoryview(data)
    while rest:
        is_new = source.starts_time(len(rest))
        written = await WriteContent(rest, "content", True, is_new, command, transaction.spent)
        rest, command = rest[written:], None
        if rest:
            await _require_unanswered(transaction.wire, end, await LOOK)


async def _finish(
    transaction: OpenTransaction, source: ContentReader, data: bytes, ends: list[Call], command: Command
) -> None:
    """Write what ends the content; from the last bytes on, `ends` stand for the `command` that commits."""
    view = memoryview(data)
    border = max(0, len(data) - _LAST_BYTES)
    if border:
        await _write(transaction, source, view[:border], ends[0], command)
    # Before the commit, since after it nothing is certain until the answer.
    while (said := await LOOK) is not None:
        await _require_unanswered(transaction.wire, ends[0], said)
    transaction.commit(ends, command)
    await WriteContent(
        bytes(view[border:]), "final", False, True, None if border else command, transaction.spent
    )
    source.is_written()


async def _require_unanswered(wire: Wire, end: Call, said: bytes | None) -> None:
    """Raise the error for an answer before the end of the content, unless `said` is empty lines."""
    if said is not None:
        take_in(wire, said, "content")
    if said is None or wire.is_answered(end) or wire.has_unread():
        raise await _early(wire, end)


async def _early(wire: Wire, end: Call) -> MessageRefused | ProtocolViolation:
    """The error for an answer before the end of the content."""
    reply = await answer(wire, end)
    wire.is_over = True  # for the server the content has not ended: commands would be part of it
    return _refusal(reply, "The server answered a message that was not at its end")


def _refusal(reply: Reply, violation: str) -> MessageRefused | ProtocolViolation:
    if reply.code < 400:
        return ProtocolViolation(violation, stage="content", reply=reply)
    return MessageRefused(
        "The server refused the message while it was being sent", stage="content", reply=reply
    )
