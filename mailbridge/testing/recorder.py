"""`RecordingMailer`: a mailer that keeps what it is asked to send, and sends nothing.

Messages are prepared as for sending: what a real mailer would refuse beforehand, this one refuses too.
What a server would say is not known here; for that there is `ScriptedServer`.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.delivery.session import Session
from mailbridge.errors import MailbridgeError
from mailbridge.mailer import Mailer
from mailbridge.message.envelope import Envelope
from mailbridge.message.priority import Priority, lane_of
from mailbridge.registry import make_mailers
from mailbridge.rendering.prepare import Sendable, prepared, priority_of
from mailbridge.rendering.render import Rendered
from mailbridge.reply import Reply
from mailbridge.results import SendResult
from mailbridge.testing.expectations import Expectations
from mailbridge.verify import VerifyReport

__all__ = ["RecordedMessage", "RecordingMailer", "recording"]

_TAKEN = Reply(250, ("2.0.0 Recorded, not sent",), (2, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMessage:
    """A message that would have been sent: `content` as for the wire, before dot-stuffing."""

    envelope: Envelope
    content: bytes = field(repr=False)
    priority: str
    config: SMTPConfig

    @property
    def sender(self) -> str:
        return self.envelope.sender

    @property
    def recipients(self) -> tuple[str, ...]:
        return self.envelope.recipients


class RecordingMailer(Mailer, Expectations):
    """Takes the place of a `Mailer` in tests. `messages` is what it was asked to send, in order.

    `fail(error)` has the next send raise. Safe for all threads.
    """

    def __init__(self, config: SMTPConfig | None = None, *, notes: Notes | None = None) -> None:
        super().__init__(config or SMTPConfig(host="recording.invalid", security="none"))
        self._notes = notes or Notes()

    @property
    def messages(self) -> tuple[RecordedMessage, ...]:
        return tuple(self._notes.messages)

    def fail(self, *errors: MailbridgeError) -> None:
        """Have as many sends fail, one by one."""
        self._notes.errors.extend(errors)

    def clear(self) -> None:
        """Forget messages and failures."""
        self._notes.clear()

    def _new_session(self) -> Session:
        return _RecordingSession(self.config, self._notes)

    def verify(self, **_: object) -> VerifyReport:
        """An empty report: there is nothing to try."""
        return VerifyReport(server=self.config.server, stages=())


class Notes:
    """What was recorded; shared by the mailers of one `recording()`."""

    def __init__(self) -> None:
        self.messages: list[RecordedMessage] = []
        self.errors: deque[MailbridgeError] = deque()
        self._lock = threading.Lock()

    def take(self, message: RecordedMessage) -> None:
        """Keep it, or raise the failure that is due."""
        with self._lock:
            if not self.errors:
                self.messages.append(message)
                return
            error = self.errors.popleft()
        raise copy.copy(error)

    def clear(self) -> None:
        with self._lock:
            self.messages.clear()
            self.errors.clear()


class _RecordingSession(Session):
    def __init__(self, config: SMTPConfig, notes: Notes) -> None:
        self._config = config
        self._notes = notes
        self.is_sent = False

    @property
    def failure(self) -> None:
        return None

    def send(
        self,
        message: Sendable,
        *,
        envelope: Envelope | None = None,
        deadline: float | None = None,
        priority: Priority | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SendResult:
        wanted = priority_of(message, priority) or self._config.defaults.priority or "normal"
        lane_of(wanted)  # what is none is refused
        outgoing, rendered = prepared(message, envelope, self._config, priority=priority)
        content = _whole(rendered)
        self._notes.take(
            RecordedMessage(envelope=outgoing, content=content, priority=wanted, config=self._config)
        )
        if progress is not None:
            progress(len(content), len(content))
        return SendResult(
            accepted=outgoing.recipients,
            rejected={},
            response=_TAKEN,
            envelope=outgoing,
            message_size=len(content),
            message_id=rendered.message_id,
            connection_id="recording",
            server=self._config.server,
        )

    def connect(self, *, deadline: float | None = None) -> bool:
        return False

    def release(self) -> None:
        pass

    def rest(self) -> None:
        pass


def _whole(rendered: Rendered) -> bytes:
    content = rendered.content
    return content if isinstance(content, bytes) else b"".join(content.pieces())


@contextmanager
def recording() -> Iterator[RecordingMailer]:
    """Within the block every `mailbridge.mailer_for()` records: those of Django and Flask too.

    The mailer that it gives has the messages of all of them. Mailers that somebody held before, or
    made by hand, go on sending.
    """
    notes = Notes()
    with make_mailers(lambda config: RecordingMailer(config, notes=notes)):
        yield RecordingMailer(notes=notes)
