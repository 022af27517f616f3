"""RecordingMailer: the same face as a Mailer, and nothing is sent."""

from __future__ import annotations

import inspect

import pytest

import mailbridge
from mailbridge import (
    ConnectionLost,
    Envelope,
    InvalidMessage,
    MailbridgeError,
    Mailer,
    Message,
    SendResult,
    SMTPConfig,
)
from mailbridge.testing import RecordingMailer, recording

MESSAGE = Message("Order 2041", "shop@example.com", ["maja@example.org"], bcc=["log@example.com"], text="Hi")


def test_what_was_asked_to_be_sent() -> None:
    mailer = RecordingMailer()
    result = mailer.send(MESSAGE, priority="high")
    assert result.accepted == ("maja@example.org", "log@example.com")
    (recorded,) = mailer.messages
    assert recorded.sender == "shop@example.com"
    assert recorded.recipients == ("maja@example.org", "log@example.com")
    assert recorded.priority == "high"
    assert b"log@example.com" not in recorded.content
    assert result.message_id is not None
    assert result.message_id.encode() in recorded.content
    assert result.message_size == len(recorded.content)


def test_its_methods_are_those_of_a_mailer() -> None:
    for name, method in inspect.getmembers(Mailer, inspect.isfunction):
        if not name.startswith("_") and name not in ("verify",):
            assert inspect.signature(getattr(RecordingMailer, name)) == inspect.signature(method), name


def test_what_a_mailer_refuses_beforehand_is_refused() -> None:
    mailer = RecordingMailer()
    with pytest.raises(InvalidMessage):
        mailer.send(Message("x", "shop@example.com", []))
    with pytest.raises(InvalidMessage):
        mailer.send(b"bytes without an envelope")
    assert mailer.messages == ()


def test_priorities_are_those_of_a_mailer() -> None:
    mailer = RecordingMailer(SMTPConfig(defaults={"priority": "low"}))
    mailer.send(MESSAGE)
    mailer.send(MESSAGE, priority="normal")
    assert [each.priority for each in mailer.messages] == ["low", "normal"]
    with pytest.raises(InvalidMessage, match="priority"):
        mailer.send(MESSAGE, priority="urgent")  # type: ignore[arg-type]


def test_failures_come_when_they_are_ordered() -> None:
    mailer = RecordingMailer()
    mailer.fail(ConnectionLost("gone", stage="data"))
    with pytest.raises(ConnectionLost, match="gone"):
        mailer.send(MESSAGE)
    mailer.send(MESSAGE)
    assert len(mailer.messages) == 1


def test_many_and_sessions() -> None:
    mailer = RecordingMailer()
    mailer.fail(ConnectionLost("gone", stage="data"))
    first, second = mailer.send_many(
        [MESSAGE, (b"Subject: x\r\n\r\n", Envelope("a@b.example", ["c@d.example"]))]
    )
    assert isinstance(first, MailbridgeError)
    assert isinstance(second, SendResult)
    with mailer.session() as session:
        session.send(MESSAGE)
    assert [one.recipients[0] for one in mailer.messages] == ["c@d.example", "maja@example.org"]
    mailer.clear()
    assert mailer.messages == ()


def test_the_rest_of_a_mailer() -> None:
    with RecordingMailer() as mailer:
        assert mailer.verify().ok
        assert not mailer.connect()
        assert mailer.stats().size == 0
    assert mailer.closed


def test_defaults_are_applied() -> None:
    mailer = RecordingMailer(SMTPConfig(host="mx.example", defaults={"sender": "shop@example.com"}))
    mailer.send(Message("x", to=["maja@example.org"]))
    assert mailer.messages[0].sender == "shop@example.com"


def test_every_mailer_of_the_process_records() -> None:
    one, other = SMTPConfig(host="one.example"), SMTPConfig(host="other.example")
    before = mailbridge.mailer_for(one)
    with recording() as mailer:
        assert mailbridge.mailer_for(one) is mailbridge.mailer_for(one)
        mailbridge.mailer_for(one).send(MESSAGE)
        mailbridge.mailer_for(other).send(MESSAGE)
        assert [message.config for message in mailer.messages] == [one, other]
        mailer.fail(ConnectionLost("gone", stage="data"))
        with pytest.raises(ConnectionLost):
            mailbridge.mailer_for(one).send(MESSAGE)
    assert mailbridge.mailer_for(one) is before


class TestExpectations:
    def test_the_message(self, recording_mailer: RecordingMailer) -> None:
        mailer = recording_mailer
        mailer.send(MESSAGE)
        mailer.send(Message("Newsletter", "shop@example.com", ["lin@example.org"], text="Hi"))
        assert mailer.the_message(to="maja@example.org")["Subject"] == "Order 2041"
        assert mailer.the_message(subject="News")["To"] == "lin@example.org"
        mailer.assert_messages(2)

    def test_what_is_told_where_there_is_none(self, recording_mailer: RecordingMailer) -> None:
        with pytest.raises(AssertionError, match="there are no messages"):
            recording_mailer.the_message(to="maja@example.org")
        recording_mailer.send(MESSAGE)
        with pytest.raises(AssertionError, match=r"0 messages to lin@.*\n  maja@example.org.*: Order 2041"):
            recording_mailer.the_message(to="lin@example.org")
        with pytest.raises(AssertionError, match="1 messages, not 2"):
            recording_mailer.assert_messages(2)

    def test_two_are_not_one(self, recording_mailer: RecordingMailer) -> None:
        recording_mailer.send_many([MESSAGE, MESSAGE])
        with pytest.raises(AssertionError, match="2 messages"):
            recording_mailer.the_message(subject="Order")
