"""What a session makes of an outage: who waits for the next try, for how long, and who is told at once."""

import pytest

from mailbridge import Envelope, Mailer, NobodyListens, SMTPConfig
from mailbridge.client.connection import SMTPConnection
from mailbridge.deadline import Deadline

MAIL = b"From: a@x.example\r\nTo: b@y.example\r\nSubject: x\r\n\r\nHello\r\n"


class Outage:
    """Nobody listens; the clock moves only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.attempts: list[float] = []
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(round(seconds, 3))
        self.now += seconds

    def connect(self, connection: SMTPConnection, deadline: Deadline) -> None:
        self.attempts.append(round(self.now - 1000, 3))
        raise NobodyListens("Connection refused", stage="tcp")

    def mailer(self, attempts: int) -> Mailer:
        config = SMTPConfig(host="mx.example", retry={"attempts": attempts, "first_delay": 0.1, "factor": 1})
        return Mailer(config, clock=self.clock, sleep=self.sleep, random=lambda: 0.0)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    outage = Outage()
    monkeypatch.setattr(SMTPConnection, "connect", lambda *arguments: outage.connect(*arguments))
    return outage


def fail(mailer: Mailer, deadline: float | None = None) -> str:
    with pytest.raises(NobodyListens) as caught:
        mailer.send(MAIL, envelope=Envelope("a@x.example", ["b@y.example"]), deadline=deadline)
    return str(caught.value)


def test_without_retry_who_comes_during_a_cooldown_is_told_at_once(outage: Outage) -> None:
    mailer = outage.mailer(1)
    told = [fail(mailer) for _ in range(5)]
    assert ["the next try is in 0.5 s" in text for text in told] == [False] * 3 + [True] * 2
    assert (outage.attempts, outage.pauses) == ([0, 0, 0], [])
    outage.now += 0.5
    assert "Not asked" not in fail(mailer)


def test_with_retry_each_attempt_waits_for_the_next_try(outage: Outage) -> None:
    """Three attempts, a tenth apart, open the breaker; from then on the waits are the breaker's."""
    fail(outage.mailer(6))
    assert outage.attempts == [0, 0.1, 0.2, 0.7, 1.7, 3.7]


def test_a_wait_beyond_the_deadline_is_not_begun(outage: Outage) -> None:
    mailer = outage.mailer(6)
    assert "the next try is in" in fail(mailer, deadline=1.0)
    assert outage.attempts == [0, 0.1, 0.2, 0.7]
    assert outage.now <= 1001
