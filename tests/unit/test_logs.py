"""Log lines change nothing: not the result of a send, and no handler that mails comes back to itself."""

import logging
from collections.abc import Callable, Iterator

import pytest

from mailbridge import Envelope, Mailer, SMTPConfig, logs
from mailbridge.testing import ScriptedServer

logger = logging.getLogger("mailbridge")


class Handler(logging.Handler):
    def __init__(self, action: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self.action = action

    def emit(self, record: logging.LogRecord) -> None:
        self.action(record)


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[logging.LogRecord], None]], None]]:
    handlers: list[Handler] = []

    def add(action: Callable[[logging.LogRecord], None]) -> None:
        handlers.append(Handler(action))
        logger.addHandler(handlers[-1])

    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield add
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


def test_a_handler_that_fails_does_not_unsend_a_message(handle: Callable[..., None]) -> None:
    def fail(record: logging.LogRecord) -> None:
        raise OSError(record.getMessage())

    handle(fail)
    replies = {"gone@y.example": "550 nobody"}
    with ScriptedServer(rcpt_replies=replies) as server:
        config = SMTPConfig(host="127.0.0.1", port=server.port, security="none", debug=True)
        with Mailer(config) as mailer:
            result = mailer.send(
                b"\r\nx\r\n", envelope=Envelope("a@x.example", ["b@y.example", "gone@y.example"])
            )
        assert result.accepted == ("b@y.example",)
        assert len(server.messages) == 1


def test_a_handler_that_logs_through_us_is_not_called_again(handle: Callable[..., None]) -> None:
    seen: list[str] = []

    def mail(record: logging.LogRecord) -> None:
        seen.append(record.getMessage())
        logs.write(logger, logging.WARNING, "from the handler")

    handle(mail)
    logs.write(logger, logging.WARNING, "%s", "one")
    logs.write(logger, logging.WARNING, "two")
    assert seen == ["one", "two"]


def test_fields_and_the_caller_are_on_the_record(caplog: pytest.LogCaptureFixture) -> None:
    logs.write(logger, logging.WARNING, "x", connection_id="c1")
    assert caplog.records[0].connection_id == "c1"  # type: ignore[attr-defined]
    assert caplog.records[0].filename == "test_logs.py"


def test_an_interrupt_in_a_handler_is_not_swallowed(handle: Callable[..., None]) -> None:
    def interrupt(record: logging.LogRecord) -> None:
        raise KeyboardInterrupt

    handle(interrupt)
    with pytest.raises(KeyboardInterrupt):
        logs.write(logger, logging.WARNING, "x")
