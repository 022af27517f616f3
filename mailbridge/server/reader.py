"""What a client sends, cut into command lines and contents, with a bound on everything.

It stands in front of aiosmtpd, which takes a bare LF for the end of a command, has no time limit for
a line, waits for the end of an endless one, and keeps an object per line of a mail. Here a line ends in
CRLF and nowhere else (RFC 5321 section 2.3.8), is bounded in length and in time, and a mail is one
piece of memory within a budget. What a line means is not asked here.
"""

import asyncio
from collections.abc import Callable

from mailbridge.server.reject import Reject

MAX_LINE = 12_288 + 2  # bytes; what RFC 4954 section 4 asks for responses in AUTH, and CRLF
_HIGH_WATER = 65_536  # bytes that wait unread before the client has to
# A client may be as slow as it likes within these many bytes per time limit: one that sends a byte now
# and then, only to hold a connection, may not.
_PACE = 65_536
# Beyond a limit contents are read without being kept, so that the client hears why; this far, no further.
_OVERRUN = 4
_MOST_THROWN_AWAY = 1_048_576  # bytes after the last reply
_END = b"\r\n.\r\n"


class Farewell(Exception):
    """The connection ends here; `reply` is the last that the client hears.

    One that `is_hasty` does not wait for the client to hang up first.
    """

    def __init__(self, reply: str, reason: str, *, is_hasty: bool = False) -> None:
        super().__init__(reply, reason)
        self.reply = reply
        self.reason = reason
        self.is_hasty = is_hasty


class Input:
    """Fed by the transport's callbacks, read by one coroutine. `seconds` bounds each line."""

    def __init__(self, *, seconds: float, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._seconds = seconds
        self._pause, self._resume = pause, resume
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._is_over = False
        self._dismissal: Farewell | None = None
        self._is_deaf = False
        self._thrown_away = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything that came was read."""
        return not self._buffer

    def feed(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._is_deaf:
            self._thrown_away += len(data)
            self._is_over = self._is_over or self._thrown_away > _MOST_THROWN_AWAY
            self._wake()
            return
        self._buffer += data
        if len(self._buffer) >= _HIGH_WATER:
            self._pause()
        self._wake()

    def feed_eof(self) -> None:
        """The client sends no more. What it has sent is still good."""
        self._is_over = True
        self._wake()

    def dismiss(self, farewell: Farewell) -> None:
        """Raise this where a command is waited for, now or next; a mail that is being read may end."""
        self._dismissal = self._dismissal or farewell
        self._wake()

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """The next command line, with its CRLF: what aiosmtpd's loop reads.

        Raises Farewell, and CancelledError at the end of the input.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._line()
        except TimeoutError:
            raise Farewell("421 4.4.2 Timeout, closing connection", "silent for too long") from None

    readline = readuntil  # what aiosmtpd reads answers in AUTH with

    async def content(self, limit: int, take: Callable[[int], None]) -> bytes:
        """A mail up to its final dot, dots unstuffed (RFC 5321 section 4.5.2).

        `take` is told of all bytes before they are kept and raises MemoryError if they can't be.

        Raises Reject for a mail that has more than `limit` bytes, for which there is no memory,
        or with a bare CR, a bare LF or a NUL: then the client is in step and may go on. Raises Farewell
        where it is not, or too slow, and CancelledError at the end of the input.
        """
        try:
            return await _Content(self, limit, take).read()
        except TimeoutError:
            raise Farewell("421 4.4.2 Timeout in the message, closing connection", "too slow") from None

    async def drain(self, seconds: float) -> None:
        """Throw away what still comes: up to the end of the input, for this long, and only so much."""
        self._is_deaf = True
        self._buffer.clear()
        try:
            async with asyncio.timeout(seconds):
                while not self._is_over:
                    await self._more()
        except TimeoutError:
            pass

    async def chunk(self) -> bytes:
        """Whatever is there, at least a byte. Raises CancelledError at the end of the input."""
        while not self._buffer:
            if self._is_over:
                raise asyncio.CancelledError
            await self._more()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def unread(self, data: bytes | bytearray | memoryview) -> None:
        """Put back what does not belong to the mail; it is read next."""
        self._buffer[:0] = data

    @property
    def seconds(self) -> float:
        """The time limit of a line, and of every so many bytes of a mail."""
        return self._seconds

    async def _line(self) -> bytes:
        while True:
            if self._dismissal is not None:
                raise self._dismissal
            end = self._buffer.find(b"\n", 0, MAX_LINE)
            if end >= 0:
                break
            if len(self._buffer) >= MAX_LINE:
                raise Farewell("521 5.5.2 Line too long, closing connection", "a line without end")
            if self._is_over:
                raise asyncio.CancelledError
            await self._more()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            reply = "521 5.5.2 Bare CR, bare LF or NUL in a command, closing connection"
            raise Farewell(reply, "a bare CR, a bare LF or a NUL")
        return line

    async def _more(self) -> None:
        self._resume()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Content:
    """One mail while it is read."""

    def __init__(self, source: Input, limit: int, take: Callable[[int], None]) -> None:
        self._source = source
        self._limit = limit
        self._take = take
        self._kept = bytearray(b"\r\n")  # as if the end of the command's line were part of it
        self._size = 0  # bytes on the wire
        self._refusal: Reject | None = None

    async def read(self) -> bytes:
        pace, loop = 0, asyncio.get_running_loop()
        async with asyncio.timeout(self._source.seconds) as deadline:
            while not self._add(await self._source.chunk()):
                if self._size - pace >= _PACE:
                    pace = self._size
                    deadline.reschedule(loop.time() + self._source.seconds)
        if self._refusal is not None:
            raise self._refusal
        return self._unstuffed()

    def _unstuffed(self) -> bytes:
        content = self._kept
        if not content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n"):
            raise Reject(554, "5.6.0 Bare CR or bare LF in the message (RFC 5321 section 2.3.8)")
        if b"\0" in content:
            raise Reject(554, "5.6.0 NUL in the message (RFC 5321 section 4.5.2)")
        if b"\r\n." in content:
            content = content.replace(b"\r\n.", b"\r\n")
        del content[:2]
        if len(content) > self._limit:
            raise self._too_big()
        return bytes(content)

    def _too_big(self) -> Reject:
        return Reject(552, f"5.3.4 Message too big, the limit is {self._limit} bytes")

    def _add(self, data: bytes) -> bool:
        """Take the next bytes; true if the mail ends in them."""
        start = max(0, len(self._kept) - len(_END) + 1)
        self._kept += data
        end = self._kept.find(_END, start)
        behind = end + len(_END) if end >= 0 else len(self._kept)
        used = len(data) - (len(self._kept) - behind)
        self._size += used
        if end >= 0:
            self._source.unread(self._kept[behind:])
            del self._kept[end + 2 :]
        self._judge(used)
        return end >= 0

    def _judge(self, more: int) -> None:
        # On the wire there may be a dot more per line of a dot alone: four bytes for three.
        if self._refusal is None and self._size > self._limit * 3 // 2 + len(_END):
            self._refusal = self._too_big()
        if self._refusal is None:
            try:
                self._take(more)
            except MemoryError:
                self._refusal = Reject(452, "4.3.1 Not enough memory at the moment")
        if self._refusal is not None:
            del self._kept[: -len(_END) + 1]
            if self._size > _OVERRUN * self._limit + _PACE:
                raise Farewell("421 4.3.4 Message far too big, closing connection", "a mail without end")
