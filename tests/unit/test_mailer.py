"""The front door: what a send tells, sessions, retries with a clock that is told the time."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage

import pytest

from mailbridge import (
    DeadlineExceeded,
    Envelope,
    InvalidAddress,
    InvalidMessage,
    MailbridgeError,
    Mailer,
    Message,
    MessageRefused,
    NobodyListens,
    PoolClosed,
    SendResult,
    SMTPConfig,
    render,
)
from mailbridge.testing import Fault, ScriptedServer

RAW = b"Subject: x\r\nMessage-ID: <1@x.example>\r\n\r\nx\r\n"
ENVELOPE = Envelope("a@x.example", "b@y.example")


def email(to: str = "b@y.example") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@x.example", to, "x"
    message.set_content("x")
    return message


def mailer_to(
    server: ScriptedServer, *, sleep: Callable[[float], None] | None = None, **options: object
) -> Mailer:
    settings = {"host": "127.0.0.1", "port": server.port, "security": "none", "timeout": 10, **options}
    config = SMTPConfig.from_mapping(settings)
    return Mailer(config, sleep=sleep, random=lambda: 0.0) if sleep else Mailer(config)


def test_what_a_first_and_a_second_send_tell() -> None:
    with ScriptedServer() as server, mailer_to(server) as mailer:
        first, second = mailer.send(email()), mailer.send(email())
    assert (first.connection_reused, second.connection_reused) == (False, True)
    assert first.connection_id == second.connection_id
    assert (first.round_trips, second.round_trips) == (5, 2)  # TCP, greeting, EHLO, then two each
    assert first.accepted == ("b@y.example",)
    assert first.queue_id
    assert (
        first.message_id
        == server.messages[0].content.partition(b"Message-ID: ")[2].split(b"\r\n")[0].decode()
    )
    assert set(first.timings) == {"queue", "dns", "connect", "tls", "auth", "envelope", "data", "total"}
    assert set(second.timings) == {"queue", "envelope", "data", "total"}
    assert (first.attempts, first.server) == (1, f"127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    "message",
    [
        email(),
        Message("x", "a@x.example", ["b@y.example"], text="x"),
        (render(RAW), ENVELOPE),
        (RAW, ENVELOPE),
    ],
    ids=["EmailMessage", "Message", "Rendered", "bytes"],
)
def test_every_kind_of_message(message: object) -> None:
    content, envelope = message if isinstance(message, tuple) else (message, None)
    with ScriptedServer() as server, mailer_to(server) as mailer:
        mailer.send(content, envelope=envelope)  # type: ignore[arg-type]
        assert [m.recipients for m in server.messages] == [("b@y.example",)]


def test_bytes_need_an_envelope() -> None:
    with ScriptedServer() as server, mailer_to(server) as mailer:
        with pytest.raises(InvalidMessage, match="envelope="):
            mailer.send(RAW)
        assert server.connections == ()


def test_an_envelope_beside_a_message_wins_over_its_header() -> None:
    with ScriptedServer() as server, mailer_to(server) as mailer:
        mailer.send(email(), envelope=Envelope("bounce@x.example", ["c@y.example"]))
        assert server.messages[0].sender == "bounce@x.example"
        assert server.messages[0].recipients == ("c@y.example",)


def test_nothing_connects_before_the_first_send() -> None:
    with ScriptedServer() as server:
        mailer = mailer_to(server)
        assert "idle=0" in repr(mailer)
        assert server.connections == ()
        mailer.close()


def test_send_many_tells_each_outcome_in_order() -> None:
    with (
        ScriptedServer(final_replies={"bad@x.example": "554 5.7.1 spam"}) as server,
        mailer_to(server) as mailer,
    ):
        bad = (RAW, Envelope("bad@x.example", "b@y.example"))
        invalid = email(to="b@y.example(x)evil.example")
        outcomes = mailer.send_many(iter([email(), bad, invalid, (RAW, ENVELOPE)]))
        assert [type(outcome) for outcome in outcomes] == [
            SendResult,
            MessageRefused,
            InvalidAddress,
            SendResult,
        ]
        assert len(server.messages) == 2
        assert len(server.connections) == 1


def test_send_many_may_stop_at_the_first_error() -> None:
    with (
        ScriptedServer(final_replies={"bad@x.example": "554 5.7.1 spam"}) as server,
        mailer_to(server) as mailer,
    ):
        bad = (RAW, Envelope("bad@x.example", "b@y.example"))
        outcomes = mailer.send_many([email(), bad, email()], on_error="stop")
        assert [type(outcome) for outcome in outcomes] == [SendResult, MessageRefused]


def test_without_a_server_one_try_stands_for_all() -> None:
    with ScriptedServer() as server:
        pass
    with mailer_to(server) as mailer:
        outcomes = mailer.send_many([email(), email(), email()])
    assert [type(outcome) for outcome in outcomes] == [NobodyListens] * 3
    assert outcomes[0] is outcomes[2]


def test_a_session_is_one_connection_and_given_back() -> None:
    with ScriptedServer() as server, mailer_to(server) as mailer:
        with mailer.session() as session:
            session.send(email())
            assert mailer.stats().lent == 1
            session.send(email())
        assert (mailer.stats().lent, mailer.stats().idle) == (0, 1)
        assert len(server.connections) == 1


def test_while_a_batch_has_its_next_message_made_others_send() -> None:
    """With one connection: it waits for nobody's iterator."""
    with ScriptedServer() as server, mailer_to(server, pool={"max_size": 1}) as mailer:
        asked, made = threading.Event(), threading.Event()

        def messages() -> Iterator[EmailMessage]:
            yield email()
            asked.set()
            assert made.wait(10)
            yield email()

        with ThreadPoolExecutor() as threads:
            batch = threads.submit(mailer.send_many, messages())
            assert asked.wait(10)
            assert mailer.send(email(), deadline=10).connection_reused
            made.set()
            assert [type(each) for each in batch.result(10)] == [SendResult, SendResult]
        assert len(server.connections) == 1


def test_without_a_pool_a_batch_keeps_its_connection() -> None:
    with ScriptedServer() as server, mailer_to(server, pool=False) as mailer:
        mailer.send_many(iter([email(), email()]))
        assert len(server.connections) == 1


def test_connect_opens_or_finds_a_session() -> None:
    with ScriptedServer() as server, mailer_to(server) as mailer:
        assert mailer.connect() is True
        assert mailer.connect() is False
        assert len(server.connections) == 1


def test_a_session_that_holds_a_connection_need_not_open_one() -> None:
    with ScriptedServer() as server, mailer_to(server) as mailer, mailer.session() as session:
        assert [session.connect(), session.connect()] == [True, False]
        assert len(server.connections) == 1


def test_refused_recipients_are_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    replies = {"gone@y.example": "550 5.1.1 nobody"}
    caplog.set_level(logging.WARNING, "mailbridge")
    with ScriptedServer(rcpt_replies=replies) as server, mailer_to(server) as mailer:
        result = mailer.send(email(to="b@y.example, gone@y.example"))
    assert result.accepted == ("b@y.example",)
    assert str(result.rejected["gone@y.example"]) == "550 5.1.1 nobody"
    assert "gone@y.example: 550 5.1.1 nobody" in caplog.text


def test_retries_wait_longer_each_time_and_tell_the_attempts(caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []
    faults = [Fault("final", "reply", reply="451 later", occurrence=n, connection=None) for n in (1, 2)]
    with ScriptedServer(faults=faults) as server:
        with mailer_to(server, sleep=pauses.append, retry={"attempts": 4, "first_delay": 10}) as mailer:
            result = mailer.send(email())
        assert len(server.messages) == 1
    assert result.attempts == 3
    assert pauses == [10.0, 20.0]
    assert "Attempt 1 failed" in caplog.text
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


def test_the_deadline_bounds_waiting_for_a_session() -> None:
    with (
        ScriptedServer() as server,
        mailer_to(server, pool={"max_size": 1}) as mailer,
        mailer.session() as session,
    ):
        session.send(email())
        with pytest.raises(DeadlineExceeded):
            mailer.send(email(), deadline=0.05)


def test_after_close_nothing_is_sent() -> None:
    with ScriptedServer() as server:
        mailer = mailer_to(server)
        mailer.close()
        mailer.close()
        with pytest.raises(PoolClosed):
            mailer.send(email())
        assert mailer.closed
        assert server.connections == ()


def test_a_fresh_connection_per_send_without_pool() -> None:
    with ScriptedServer() as server, mailer_to(server, pool=False) as mailer:
        for _ in range(3):
            mailer.send(email())
        assert len(server.connections) == 3


def test_from_url() -> None:
    with (
        ScriptedServer() as server,
        Mailer.from_url(f"smtp://127.0.0.1:{server.port}/?security=none") as mailer,
    ):
        assert mailer.send(email()).accepted


def test_options_beside_a_url_win() -> None:
    mailer = Mailer.from_url("smtp://x.example/?timeout=9&pool.max_size=3", timeout=7, partial="all-or-none")
    assert (mailer.config.timeouts.command, mailer.config.partial) == (7, "all-or-none")
    assert mailer.config.pool.max_size == 3


def test_every_error_of_a_send_is_one_of_ours() -> None:
    server = ScriptedServer(faults=[Fault("greeting", "garbage")])
    with server, mailer_to(server) as mailer, pytest.raises(MailbridgeError) as caught:
        mailer.send(email())
    assert caught.value.server == f"127.0.0.1:{server.port}"


def test_blind_copies_of_a_message_get_it_and_are_named_nowhere() -> None:
    message = Message("x", "a@x.example", ["b@y.example"], text="x", bcc=["c@z.example"])
    with ScriptedServer() as server, mailer_to(server) as mailer:
        mailer.send(message)
        assert server.messages[0].recipients == ("b@y.example", "c@z.example")
        assert b"c@z.example" not in server.messages[0].content
