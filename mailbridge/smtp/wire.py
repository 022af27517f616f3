"""The wire: commands out, replies in, matched by counting (RFC 2920 section 3.1).

Flows queue commands; the wire releases them while the window allows: one command at a time
without PIPELINING, up to `WINDOW_BYTES` of unanswered commands with it. A window counted in
commands would deadlock with thousands of recipients, once both sides' buffers are full.

What is at stake belongs to the transaction, of which several may be under way: the outcome of its
message is in doubt exactly while a call that commits it may have left and has had no clear answer.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mailbridge.errors import ProtocolViolation
from mailbridge.reply import Reply, printable
from mailbridge.smtp.commands import Command
from mailbridge.smtp.redaction import Redactor
from mailbridge.smtp.replies import ReplyParser

# Below every platform's socket buffers, so that writing a window never waits for reading it.
WINDOW_BYTES = 8192


@dataclass(slots=True, eq=False)
class Call:
    """One command on its way; `reply` is there once the server has answered it."""

    command: Command
    transaction: "OpenTransaction | None" = None
    reply: Reply | None = None
    is_released: bool = False
    weight: int = 0

    @property
    def is_decided(self) -> bool:
        """Answered by a clear yes or no, which a good-bye (221) is not."""
        reply = self.reply
        return reply is not None and reply.code != 221 and reply.code // 100 in (2, 4, 5)


@dataclass(slots=True, eq=False)
class Spent:
    """What sending has cost: `seconds` of waiting by stage, and waits for the other side."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    round_trips: int = 0


@dataclass(slots=True, eq=False)
class OpenTransaction:
    """One transaction on the wire: its calls carry it. `spent` adds up what waiting for it costs."""

    wire: "Wire"
    spent: Spent
    _commits: tuple[Call, ...] = ()

    def commit(self, calls: Sequence[Call], command: Command) -> None:
        """From here on `calls` stand for `command`: in doubt once released, until answered.

        There is one, or in LMTP one for each recipient.
        """
        for call in calls:
            call.command = command
        self._commits = tuple(calls)
        self.wire.add_committed(self)

    def cancel_queued(self) -> None:
        """Take back what has not been released yet; those calls are never answered."""
        self.wire.cancel_queued(self)

    @property
    def is_decided(self) -> bool:
        """Every call that commits it has had a clear answer."""
        return all(call.is_decided for call in self._commits)

    @property
    def is_in_doubt(self) -> bool:
        """The message was committed and got no clear answer: the server may have taken it."""
        return any(call.is_released and not call.is_decided for call in self._commits)


@dataclass(slots=True)
class Wire:
    """The two directions of one connection. `window` is in bytes; 0 means one command at a time.

    `is_over` once the server has said good-bye or hung up: nothing more goes out.
    """

    window: int = 0
    parser: ReplyParser = field(default_factory=ReplyParser)
    redactor: Redactor = field(default_factory=Redactor)
    is_over: bool = False
    violation: ProtocolViolation | None = None
    last_reply: Reply | None = None
    _committed: list[OpenTransaction] = field(default_factory=list)
    _queued: deque[Call] = field(default_factory=deque)
    _unanswered: deque[Call] = field(default_factory=deque)
    _unanswered_bytes: int = 0

    def begin(self, spent: Spent | None = None) -> OpenTransaction:
        """A transaction that calls may belong to."""
        return OpenTransaction(self, Spent() if spent is None else spent)

    def call(self, command: Command, transaction: OpenTransaction | None = None) -> Call:
        """Queue `command`; it goes out when the window allows."""
        call = Call(command, transaction)
        self._queued.append(call)
        return call

    def expect(self, command: Command, transaction: OpenTransaction | None = None) -> Call:
        """A call whose bytes do not go through the window: the greeting (none at all), content.

        What the server has said already, and nobody has read, begins the answer.
        """
        call = Call(command, transaction, is_released=True)
        self._unanswered.append(call)
        if not self.parser.is_empty:
            self.feed(b"")
        return call

    def add_committed(self, transaction: OpenTransaction) -> None:
        """`transaction` has a call that commits it."""
        self._committed = [*(each for each in self._committed if not each.is_decided), transaction]

    def cancel_queued(self, transaction: OpenTransaction) -> None:
        """Take back the calls of `transaction` that have not been released yet."""
        self._queued = deque(call for call in self._queued if call.transaction is not transaction)

    def outgoing(self) -> tuple[Command, ...]:
        """The commands that may be written now, in one piece. They count as sent from here on."""
        released: list[Command] = []
        while self._queued and (not self._unanswered or self._may_release(self._queued[0].command)):
            call = self._queued.popleft()
            call.is_released = True
            call.weight = len(call.command.line) + 2
            self._unanswered.append(call)
            self._unanswered_bytes += call.weight
            released.append(call.command)
            if call.command.secret:
                self.redactor.remember(call.command.hidden)
        return tuple(released)

    def _may_release(self, command: Command) -> bool:
        behind_a_group = self._unanswered[-1].command.ends_group
        return not behind_a_group and self._unanswered_bytes + len(command.line) + 2 <= self.window

    def feed(self, data: bytes) -> bool:
        """Take in what the server sent; each whole reply answers the oldest unanswered call. Whether one did.

        What is left over stays unread, and `is_quiet` is false. Bytes that are no reply end it:
        `violation` is then the error for the call that they should have answered. Those before it
        have their replies, whether or not they came in the same segment.
        """
        self.parser.feed(data)
        is_answer = False
        while self._unanswered:
            call = self._unanswered[0]
            try:
                reply = self.parser.next_reply(call.command.reply_lines)
            except ProtocolViolation as error:
                error.stage = call.command.stage
                if call.command.secret:
                    error.reword("The server's answer to AUTH is no SMTP reply, and may quote the secret")
                error.reword(self.redactor.masked(error.message))
                self.violation = error
                break
            if reply is None:
                break
            is_answer = True
            del self._unanswered[0]
            self._unanswered_bytes -= call.weight
            self.last_reply = self.redactor.masked_reply(reply, in_exchange=call.command.secret)
            # A challenge has to be taken by the letter; it goes to the mechanism and nowhere else.
            call.reply = reply if reply.code == 334 else self.last_reply
        return is_answer

    def is_answered(self, call: Call) -> bool:
        """Whether waiting for the answer to `call` takes no time: it has one, or never will."""
        return call.reply is not None or self.violation is not None

    @property
    def unanswered_count(self) -> int:
        return len(self._unanswered)

    @property
    def is_quiet(self) -> bool:
        """Nothing queued, nothing unanswered, no byte unread: the two sides are in step."""
        if self.is_over or self._queued or self._unanswered:
            return False
        return self.parser.is_empty or not self.has_unread()

    def has_unread(self) -> bool:
        """Whether the server said more than it was asked; empty lines are nothing."""
        if self.parser.is_idle:
            return False
        with suppress(ProtocolViolation):  # then there is something, which its reader will be told
            self.parser.skip_empty_lines()
        return not self.parser.is_idle

    def unusable_reason(self, said: bytes | None) -> str | None:
        """Why nothing more can be sent between two flows; None if it can. `said` is what a look has found."""
        if not self.is_quiet:
            return "out of step"
        if said is None or (said and not said.strip(b"\r\n")):  # empty lines say nothing
            return None
        self.is_over = True  # no QUIT to a server that has said good-bye itself
        text = printable(self.redactor.masked(said.decode("utf-8", "replace").strip()), 200)
        return f"the server said {text!r}" if said else "closed by the server"

    @property
    def in_doubt(self) -> tuple[OpenTransaction, ...]:
        """Those whose message the server may have taken, should the connection be lost now."""
        return tuple(transaction for transaction in self._committed if transaction.is_in_doubt)
