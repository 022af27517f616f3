"""Two transactions under way on one connection, lost at each point: each caller is told about its own."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mailbridge.errors import ConnectionLost, MailbridgeError, MessageRefused, ProtocolViolation, ReplyTimeout
from mailbridge.smtp.flows.steps import Look, ReadPiece, Step, Transfer, WriteContent
from mailbridge.smtp.flows.transaction import Outcome, Transaction, transact
from mailbridge.smtp.wire import WINDOW_BYTES, Spent, Wire


class Caller:
    """Somebody who sends a message. `told`: what came of it, None so far."""

    def __init__(self, wire: Wire, name: str) -> None:
        wanted = Transaction(
            sender=name, recipients=["b@x.example"], mail_parameters=[], content=name.encode() + b"\r\n"
        )
        self.spent = Spent()
        self.written = b""
        self.told: Outcome | MailbridgeError | None = None
        self._flow: Coroutine[Step, Any, Outcome] = transact(wire, wanted, self.spent)
        self._go_on(lambda: self._flow.send(None))

    def hear(self, data: bytes) -> None:
        self._step.spent.round_trips += 1  # type: ignore[union-attr]  # as the driver does
        self._go_on(lambda: self._flow.send(data))

    def fail(self, error: Exception) -> None:
        self._go_on(lambda: self._flow.throw(error))

    def _go_on(self, resume: Callable[[], Step]) -> None:
        """Until the flow waits for the server."""
        try:
            step = resume()
            while not isinstance(step, Transfer):
                step = self._flow.send(self._perform(step))
            self._step = step
            self.written += step.data
        except StopIteration as end:
            self.told = end.value
        except MailbridgeError as error:
            self.told = error

    def _perform(self, step: Step) -> object:
        match step:
            case WriteContent():
                self.written += step.content
                return len(step.content)
            case ReadPiece():
                return next(step.pieces, None)
            case Look():
                return None
        raise AssertionError(step)


# What the server says after the dot of the first message: to it, and to MAIL, RCPT, DATA and the dot of the
# second one. Then what becomes of each: by how many of these came before the connection was lost.
REPLIES = (b"250 first\r\n", b"250 mail\r\n", b"250 rcpt\r\n", b"354 go\r\n", b"250 second\r\n")
LOST = [
    ("unknown", "not sent"),
    ("sent", "not sent"),
    ("sent", "not sent"),
    ("sent", "not sent"),
    ("sent", "unknown"),
    ("sent", "sent"),
]
WAYS: dict[str, tuple[Callable[[Caller], None], type[MailbridgeError]]] = {
    "end of file": (lambda caller: caller.hear(b""), ConnectionLost),
    "no reply": (lambda caller: caller.hear(b"nonsense\r\n"), ProtocolViolation),
    "silence": (lambda caller: caller.fail(ReplyTimeout("late")), ReplyTimeout),
}


def two_under_way() -> tuple[Caller, Caller]:
    wire = Wire(window=WINDOW_BYTES)
    first = Caller(wire, "first")
    first.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert first.written.endswith(b"first\r\n.\r\n")
    second = Caller(wire, "second")
    assert second.written.endswith(b"DATA\r\n")
    return first, second


def what_became(caller: Caller) -> str:
    if isinstance(caller.told, MailbridgeError):
        return "unknown" if caller.told.outcome_unknown else "not sent"
    return "sent" if caller.told is not None else "nothing yet"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", range(len(REPLIES) + 1))
def test_each_is_told_about_its_own(count: int, way: str) -> None:
    first, second = callers = two_under_way()
    for reply in REPLIES[:count]:
        (second if first.told else first).hear(reply)
    lose, kind = WAYS[way]
    waiting = [caller for caller in callers if caller.told is None]
    for caller in waiting:
        lose(caller)
    assert tuple(map(what_became, callers)) == LOST[count]
    assert all(type(caller.told) is kind for caller in waiting)


def test_a_refusal_of_one_takes_nothing_from_the_other() -> None:
    first, second = two_under_way()
    first.hear(b"554 no\r\n")
    assert isinstance(first.told, MessageRefused)
    for reply in REPLIES[1:]:
        second.hear(reply)
    assert what_became(second) == "sent"


def test_each_has_waits_of_its_own() -> None:
    first, second = two_under_way()
    first.hear(REPLIES[0])
    second.hear(b"".join(REPLIES[1:4]))
    second.hear(REPLIES[4])
    assert (first.spent.round_trips, second.spent.round_trips) == (2, 2)
