"""mailbridge_django.signals: who is told, and that nobody who listens can break a send."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.dispatch import Signal

from mailbridge import ConnectFailed, RecipientsRefused
from mailbridge.testing import ScriptedServer
from mailbridge_django import CancelSend, EmailBackend
from mailbridge_django.signals import QuietSignal, announce, post_send, pre_send, send_failed

Heard = list[tuple[str, dict[str, Any]]]


def message(subject: str = "s", to: str = "b@y.example") -> EmailMessage:
    return EmailMessage(subject, "text", "a@x.example", [to])


@contextmanager
def listening(signal: Signal, receiver: Callable[..., Any]) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the three signals told, in order."""
    told: Heard = []

    def receiver(name: str) -> Callable[..., None]:
        def receive(signal: Signal, **known: Any) -> None:
            told.append((name, known))

        return receive

    receivers = [(each, receiver(name)) for name, each in SIGNALS.items()]
    with ExitStack() as stack:
        for each, receive in receivers:
            stack.enter_context(listening(each, receive))
        yield told


SIGNALS = {"pre_send": pre_send, "post_send": post_send, "send_failed": send_failed}


def test_they_are_told_in_order(server: ScriptedServer, heard: Heard) -> None:
    sent = message()
    EmailBackend(host=server.host, port=server.port).send_messages([sent])
    known = {"sender": EmailBackend, "message": sent, "alias": "default"}
    assert heard == [("pre_send", known), ("post_send", {**known, "result": sent.mailbridge_result})]


def test_a_failure_is_told_with_its_error(heard: Heard) -> None:
    with ScriptedServer(rcpt_replies={"bad@y.example": "550 No"}) as server:
        backend = EmailBackend(host=server.host, port=server.port)
        with pytest.raises(RecipientsRefused) as caught:
            backend.send_messages([message(), message(to="bad@y.example")])
    assert [name for name, _ in heard] == ["pre_send", "pre_send", "post_send", "send_failed"]
    assert heard[-1][1]["error"] is caught.value


def test_silent_failures_are_told_too(server: ScriptedServer, heard: Heard) -> None:
    server.refuse()
    EmailBackend(host=server.host, port=server.port, fail_silently=True).send_messages([message()])
    assert isinstance(heard[-1][1]["error"], ConnectFailed)


def test_a_receiver_may_cancel(
    server: ScriptedServer, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def cancel(message: EmailMessage, **_: Any) -> None:
        if message.subject == "no":
            raise CancelSend("not on Sundays")

    cancelled = message("no")
    with listening(pre_send, cancel):
        backend = EmailBackend(host=server.host, port=server.port)
        assert backend.send_messages([cancelled, message("yes")]) == 1
    assert len(server.messages) == 1
    assert (cancelled.mailbridge_result, cancelled.mailbridge_error) == (None, None)
    assert caplog.records == []
    assert [name for name, _ in heard] == ["pre_send", "pre_send", "post_send"]


def test_a_receiver_may_change_the_message(server: ScriptedServer) -> None:
    def redirect(message: EmailMessage, **_: Any) -> None:
        message.to = ["c@y.example"] if message.subject == "redirect" else []

    with listening(pre_send, redirect):
        backend = EmailBackend(host=server.host, port=server.port)
        assert backend.send_messages([message("redirect"), message("to nobody")]) == 1
    assert [one.recipients for one in server.messages] == [("c@y.example",)]


@pytest.mark.parametrize("name", ["pre_send", "post_send"])
def test_a_receiver_that_fails_breaks_nothing(
    name: str, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise LookupError("a receiver's mistake")

    with listening(SIGNALS[name], fail):
        assert EmailBackend(host=server.host, port=server.port).send_messages([message()]) == 1
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_a_receiver_without_a_name_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    class Receiver:
        def __call__(self, **_: Any) -> None:
            raise LookupError("mistake")

    receiver, signal = Receiver(), QuietSignal()
    with listening(signal, receiver):
        [error] = announce(signal, EmailBackend, message=None)
    assert isinstance(error, LookupError)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_receivers_that_cannot_be_called_at_all(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Signal):
        def send_robust(self, sender: Any, **named: Any) -> Any:
            raise RuntimeError("You cannot use AsyncToSync in the same thread as an async event loop")

    [error] = announce(Broken(), EmailBackend)
    assert isinstance(error, RuntimeError)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_asynchronous_receiver_is_told(server: ScriptedServer) -> None:
    told: list[str] = []

    async def receive(alias: str, **_: Any) -> None:
        told.append(alias)

    with listening(post_send, receive):
        EmailBackend(host=server.host, port=server.port).send_messages([message()])
    assert told == ["default"]
