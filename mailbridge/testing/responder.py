"""How the server speaks: regular replies, or what the fault that is due makes of them; and what it notes
down.

Shared by the parts of a session. It knows codes and stages, but no command.
"""

from __future__ import annotations

from mailbridge.testing.fault_actions import perform
from mailbridge.testing.faults import Fault, FaultPlan, Stage, as_wire
from mailbridge.testing.options import Behaviour
from mailbridge.testing.records import Connection, Journal
from mailbridge.testing.wire import Channel, Over

__all__ = ["Speaker"]


class Speaker:
    """The server's voice on one connection."""

    def __init__(
        self, channel: Channel, record: Connection, journal: Journal, behaviour: Behaviour, plan: FaultPlan
    ) -> None:
        self.channel, self.record, self.journal, self.behaviour = channel, record, journal, behaviour
        self._plan = plan
        self.is_extended = False  # whether the client said EHLO, so that keywords count

    @property
    def offered(self) -> frozenset[str]:
        """Names of the extensions this client may use now."""
        return self.behaviour.keyword_names if self.is_extended else frozenset()

    def reply(self, code: int, enhanced: str, text: str) -> str:
        """A one-line reply, with the enhanced code if that extension is offered (RFC 2034)."""
        return f"{code} {enhanced} {text}" if "ENHANCEDSTATUSCODES" in self.offered else f"{code} {text}"

    def due(self, stage: Stage) -> Fault | None:
        """Count that `stage` is reached; the fault to carry out there, if any."""
        return self._plan.take(stage, self.record.number)

    def perform(self, fault: Fault, regular: bytes) -> bytes | None:
        with self.journal.change():  # which wakes whoever waits for `fired`
            self._plan.note_fired(fault)
        return perform(fault, self.channel, regular)

    def answer(self, stage: Stage, reply: str | bytes) -> str:
        """Answer, or spoil the answer. Returns the first digit of what the client was really told ("" for
        nothing).
        """
        return self.speak(self.due(stage), as_wire(reply))

    def speak(self, fault: Fault | None, regular: bytes) -> str:
        """The second half of `answer`, for who must know the fault before it happens."""
        if fault is not None:
            return (self.perform(fault, regular) or b"")[:1].decode("latin-1")
        self.channel.write(regular)
        if regular.startswith(b"421"):  # RFC 5321 section 3.8
            raise Over("server", "goodbye")
        return regular[:1].decode("latin-1")

    def violate(self, text: str) -> None:
        """Note that the client did what it must not do."""
        with self.journal.change():
            self.record.violations.append(text)
