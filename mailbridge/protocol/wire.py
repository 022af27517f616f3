"""The wire: commands out, replies in, matched by counting (RFC 2920 section 3.1).

Flows queue commands; the wire releases them while the window allows: one command at a time
without PIPELINING, up to `WINDOW_BYTES` of unanswered commands with it. A window counted in
commands would deadlock with thousands of recipients, once both sides' buffers are full.

What is at stake belongs to the call: the outcome of a message is in doubt exactly while a call
that commits has been released and not been answered.
"""

from collections import deque
from dataclasses import dataclass, field

from mailbridge.errors import ProtocolViolation
from mailbridge.protocol.commands import Command
from mailbridge.protocol.replies import MAX_LINES, ReplyParser
from mailbridge.results import Reply

# Below every platform's socket buffers, so that writing a window never waits for reading it.
WINDOW_BYTES = 8192


@dataclass(slots=True, eq=False)
class Call:
    """One command on its way; `reply` is there once the server has answered it."""

    command: Command
    reply: Reply | None = None
    is_released: bool = False
    weight: int = 0

    @property
    def is_in_doubt(self) -> bool:
        return self.command.commits and self.is_released and self.reply is None


@dataclass(slots=True)
class Wire:
    """The two directions of one session. `window` is in bytes; 0 means one command at a time.

    `is_over` once the server has said good-bye or hung up: nothing more goes out.
    """

    window: int = 0
    parser: ReplyParser = field(default_factory=ReplyParser)
    is_over: bool = False
    last_reply: Reply | None = None
    _queued: deque[Call] = field(default_factory=deque)
    _unanswered: deque[Call] = field(default_factory=deque)
    _unanswered_bytes: int = 0

    def call(self, command: Command) -> Call:
        """Queue `command`; it goes out when the window allows."""
        call = Call(command)
        self._queued.append(call)
        return call

    def expect(self, command: Command) -> Call:
        """A call whose bytes do not go through the window: the greeting (none at all), content."""
        call = Call(command, is_released=True)
        self._unanswered.append(call)
        return call

    def cancel_queued(self) -> None:
        """Take back what has not been released yet; those calls are never answered."""
        self._queued.clear()

    def outgoing(self) -> tuple[Command, ...]:
        """The commands that may be written now, in one piece. They count as sent from here on."""
        released: list[Command] = []
        while self._queued and self._may_release(self._queued[0].command):
            call = self._queued.popleft()
            call.is_released = True
            call.weight = len(call.command.line) + 2
            self._unanswered.append(call)
            self._unanswered_bytes += call.weight
            released.append(call.command)
        return tuple(released)

    def _may_release(self, command: Command) -> bool:
        if not self._unanswered:
            return True
        behind_a_group = self._unanswered[-1].command.ends_group
        return not behind_a_group and self._unanswered_bytes + len(command.line) + 2 <= self.window

    def feed(self, data: bytes) -> None:
        """Take in what the server sent; each whole reply answers the oldest unanswered call.

        Raises `ProtocolViolation` for bytes that are no reply, and for a reply to nothing.
        """
        self.parser.feed(data)
        while (reply := self.parser.next_reply(self._most_lines)) is not None:
            self.last_reply = reply
            if not self._unanswered:
                raise ProtocolViolation("The server sent a reply that answers no command", reply=reply)
            call = self._unanswered.popleft()
            self._unanswered_bytes -= call.weight
            call.reply = reply

    @property
    def _most_lines(self) -> int:
        return self._unanswered[0].command.reply_lines if self._unanswered else MAX_LINES

    @property
    def unanswered_count(self) -> int:
        return len(self._unanswered)

    @property
    def is_quiet(self) -> bool:
        """Nothing queued, nothing unanswered, no byte unread: the two sides are in step."""
        return not self.is_over and not self._queued and not self._unanswered and self.parser.is_empty

    @property
    def is_in_doubt(self) -> bool:
        """A message was committed and not answered: the server may have taken it."""
        return any(call.is_in_doubt for call in self._unanswered)
