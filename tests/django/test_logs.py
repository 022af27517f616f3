"""mailbridge_django.logs: log records that become mail, and mail that becomes log records."""

import logging
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.core.mail import EmailMessage
from django.utils.log import AdminEmailHandler

from mailbridge import MailbridgeError
from mailbridge.testing import ScriptedServer
from mailbridge_django import EmailBackend
from mailbridge_django.logs import MAX_DEPTH, one_send_deeper, report
from mailbridge_django.signals import post_send
from tests.django.conftest import Use, overridden

ADMINS = ["admin@x.example"]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger; handlers that a test adds are taken away."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The subjects of each call of send_messages."""
    made: list[list[str]] = []
    really = EmailBackend.send_messages

    def count(self: EmailBackend, messages: Any) -> int:
        messages = list(messages)
        made.append([str(message.subject) for message in messages])
        return really(self, messages)

    monkeypatch.setattr(EmailBackend, "send_messages", count)
    return made


def admins() -> Any:
    """ADMINS in the shape that this Django wants without a warning."""
    return ADMINS if django.VERSION >= (6, 0) else [("Admin", ADMINS[0])]


def test_an_error_mailed_to_the_admins_over_a_dead_server_is_one_attempt(
    use: Use, server: ScriptedServer, root_logger: logging.Logger, attempts: list[list[str]]
) -> None:
    server.refuse()
    use(server, fail_silently=True)
    root_logger.addHandler(_handler(logging.ERROR))
    with overridden(ADMINS=admins()):
        logging.getLogger("shop").error("The till is broken")
    assert len(attempts) == 1


def _handler(level: int) -> logging.Handler:
    handler = AdminEmailHandler()
    handler.setLevel(level)
    return handler


def test_even_a_handler_for_warnings_comes_to_an_end(
    use: Use, server: ScriptedServer, root_logger: logging.Logger, attempts: list[list[str]]
) -> None:
    server.refuse()
    use(server, fail_silently=True)
    root_logger.addHandler(_handler(logging.WARNING))
    with overridden(ADMINS=admins()):
        logging.getLogger("shop").error("The till is broken")
    assert 1 <= len(attempts) <= MAX_DEPTH


def test_a_mail_about_a_refused_recipient_arrives(
    use: Use, root_logger: logging.Logger, attempts: list[list[str]]
) -> None:
    with ScriptedServer(rcpt_replies={"bad@y.example": "550 No"}) as server:
        use(server)
        root_logger.addHandler(_handler(logging.WARNING))
        with overridden(ADMINS=admins()):
            EmailMessage("s", "text", "a@x.example", ["b@y.example", "bad@y.example"]).send()
        assert [one.recipients for one in server.messages] == [("b@y.example",), (ADMINS[0],)]


def test_a_handler_that_raises_breaks_nothing(root_logger: logging.Logger) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("handler")

    root_logger.addHandler(Raising())
    report(logging.WARNING, "text")


def test_nothing_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    report(logging.CRITICAL, "a %s", "b")
    [record] = caplog.records
    assert (record.levelname, record.name, record.getMessage()) == ("WARNING", "mailbridge.django", "a b")


def test_a_report_within_a_report_is_dropped(root_logger: logging.Logger) -> None:
    seen: list[str] = []

    class Reporting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            report(logging.WARNING, "again")

    root_logger.addHandler(Reporting())
    report(logging.WARNING, "first")
    report(logging.WARNING, "second")
    assert seen == ["first", "second"]


def test_sends_have_a_depth() -> None:
    errors: list[MailbridgeError | None] = []

    def deeper() -> None:
        with one_send_deeper() as too_deep:
            errors.append(too_deep)
            if too_deep is None:
                deeper()

    deeper()
    deeper()
    assert [error is None for error in errors] == ([True] * MAX_DEPTH + [False]) * 2
    assert "from within the sending of mail" in str(errors[-1])


def test_a_receiver_that_sends_for_every_send_comes_to_an_end(server: ScriptedServer) -> None:
    backend = EmailBackend(host=server.host, port=server.port)

    def send_another(**_: Any) -> None:
        backend.send_messages([EmailMessage("again", "text", "a@x.example", ["b@y.example"])])

    post_send.connect(send_another)
    try:
        assert backend.send_messages([EmailMessage("s", "text", "a@x.example", ["b@y.example"])]) == 1
    finally:
        post_send.disconnect(send_another)
    assert len(server.messages) == MAX_DEPTH
