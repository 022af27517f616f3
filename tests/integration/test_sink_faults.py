"""Faults of a server written in C: each step, each way to fail, and what the caller is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mailbridge import (
    ConnectionLost,
    DeadlineExceeded,
    GreetingRefused,
    MailbridgeError,
    MessageRefused,
    ReplyTimeout,
)
from tests.integration.conftest import StartMailer
from tests.integration.mails import new_mail
from tests.servers.fixtures import StartSmtpSink

SLOW = 30  # seconds that the sink waits: longer than any time limit here
SHORT = {"greeting": 0.3, "command": 0.3, "data": 0.3, "final": 0.3}
STAGES = {"MAIL": "mail_from", "RCPT": "rcpt_to", "DATA": "data", ".": "final"}
BIG = (b"x" * 76 + b"\r\n") * 100_000  # more than all buffers between here and there

at_each_step = pytest.mark.parametrize(("command", "stage"), STAGES.items(), ids=STAGES)


def failure(mailer: Any, *, body: bytes = b"hello\r\n", **options: Any) -> MailbridgeError:
    """Of the first send; the second fails alike, and no session is kept."""
    errors = []
    for _ in range(2):
        with pytest.raises(MailbridgeError) as raised:
            new_mail(body).send(mailer, **options)
        errors.append(raised.value)
        assert mailer.stats().size == 0
    first, second = errors
    assert (type(first), first.outcome_unknown) == (type(second), second.outcome_unknown)
    return first


@at_each_step
@pytest.mark.parametrize("options", [(), ("-p",)], ids=["pipelining", "step by step"])
def test_hangs_up(
    smtp_sink: StartSmtpSink, mailer: StartMailer, command: str, stage: str, options: tuple[str, ...]
) -> None:
    error = failure(mailer(smtp_sink(*options, "-q", command)))
    assert type(error) is ConnectionLost
    assert (error.stage, error.reply) == (stage, None)
    assert error.outcome_unknown == (command == ".")
    assert error.is_transient == (command != ".")


@at_each_step
@pytest.mark.parametrize("options", [(), ("-p",)], ids=["pipelining", "step by step"])
def test_says_421(
    smtp_sink: StartSmtpSink, mailer: StartMailer, command: str, stage: str, options: tuple[str, ...]
) -> None:
    """Also to the dot it is a clear no."""
    error = failure(mailer(smtp_sink(*options, "-Q", command)))
    assert type(error) is ConnectionLost
    assert error.reply is not None
    assert (error.reply.code, error.stage) == (421, stage)
    assert (error.outcome_unknown, error.is_transient) == (False, True)


@at_each_step
def test_stays_silent(smtp_sink: StartSmtpSink, mailer: StartMailer, command: str, stage: str) -> None:
    """Without pipelining: the sink answers what comes behind the command that it holds back."""
    began = time.monotonic()
    sink = smtp_sink("-p", "-W", f"{command}:{SLOW}")
    error = failure(mailer(sink, timeout=None, timeouts=SHORT))
    assert type(error) is ReplyTimeout
    assert isinstance(error, TimeoutError)
    assert error.stage == stage
    assert error.outcome_unknown == (command == ".")
    assert time.monotonic() - began < SLOW / 2


@at_each_step
def test_outlasts_the_deadline(
    smtp_sink: StartSmtpSink, mailer: StartMailer, command: str, stage: str
) -> None:
    error = failure(mailer(smtp_sink("-p", "-W", f"{command}:{SLOW}")), deadline=0.3)
    assert type(error) is DeadlineExceeded
    assert isinstance(error, TimeoutError)
    assert error.stage == stage
    assert error.outcome_unknown == (command == ".")


class TestContent:
    @pytest.mark.parametrize("body", [b"hello\r\n", BIG], ids=["small", "big"])
    def test_refused_before_its_end(self, smtp_sink: StartSmtpSink, mailer: StartMailer, body: bytes) -> None:
        """550 right behind 354, and the sink reads no further. What is small may have left before it came."""
        error = failure(mailer(smtp_sink("-A", "0")), body=body)
        assert type(error) is MessageRefused
        assert error.reply is not None
        assert (error.reply.code, error.outcome_unknown, error.is_transient) == (550, False, False)

    def test_refused_in_its_middle(self, smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
        """The sink waits a second, in which the buffers between fill up; then 550 comes."""
        error = failure(mailer(smtp_sink("-A", "1", "-T", "4096")), body=BIG)
        assert type(error) is MessageRefused
        assert error.reply is not None
        assert (error.reply.code, error.outcome_unknown, error.stage) == (550, False, "content")

    def test_not_read_in_time(self, smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
        sink = smtp_sink("-H", str(SLOW), "-T", "4096")
        error = failure(mailer(sink, timeout=None, timeouts=SHORT), body=BIG)
        assert type(error) is ReplyTimeout
        assert (error.stage, error.outcome_unknown) == ("content", False)


class TestOpening:
    @pytest.mark.parametrize(("option", "code"), [("-f", 500), ("-r", 450), ("-Q", 421)])
    def test_refused(self, smtp_sink: StartSmtpSink, mailer: StartMailer, option: str, code: int) -> None:
        error = failure(mailer(smtp_sink(option, "CONNECT")))
        assert type(error) is GreetingRefused
        assert isinstance(error, ConnectionError)
        assert error.reply is not None
        assert (error.reply.code, error.stage, error.outcome_unknown) == (code, "greeting", False)
        assert error.is_transient == (code < 500)

    @pytest.mark.parametrize(("command", "stage"), [("CONNECT", "greeting"), ("EHLO", "ehlo")])
    def test_hung_up(self, smtp_sink: StartSmtpSink, mailer: StartMailer, command: str, stage: str) -> None:
        error = failure(mailer(smtp_sink("-q", command)))
        assert type(error) is ConnectionLost
        assert (error.stage, error.outcome_unknown, error.is_transient) == (stage, False, True)

    @pytest.mark.parametrize("options", [("-f", "EHLO"), ("-e",), ("-P",)], ids=["refused", "old", "pix"])
    def test_without_ehlo(
        self, smtp_sink: StartSmtpSink, mailer: StartMailer, options: tuple[str, ...]
    ) -> None:
        sink, mail = smtp_sink(*options), new_mail()
        assert mail.send(mailer(sink)).accepted
        assert [message.content for message in sink.messages(at_least=1)] == [mail.content]
        assert "smtp-sink: HELO client.test" in sink.log()

    def test_without_ehlo_there_is_no_starttls(self, smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
        error = failure(mailer(smtp_sink("-f", "EHLO"), security="starttls"))
        assert type(error) is GreetingRefused
        assert error.stage == "ehlo"


class TestAfterTheMessage:
    @pytest.mark.parametrize("option", ["-f", "-q", "-Q", "-r"])
    def test_quit_never_changes_a_result(
        self, smtp_sink: StartSmtpSink, mailer: StartMailer, option: str
    ) -> None:
        sink, mail = smtp_sink(option, "QUIT"), new_mail()
        assert mail.send(mailer(sink, pool=False)).accepted
        assert [message.message_id for message in sink.messages(at_least=1)] == [mail.message_id]

    @pytest.mark.parametrize("option", ["-f", "-q", "-Q"])
    def test_a_server_without_rset_costs_a_new_session(
        self, smtp_sink: StartSmtpSink, mailer: StartMailer, option: str
    ) -> None:
        sink = smtp_sink("-r", "DATA", option, "RSET")
        client = mailer(sink)
        for _ in range(3):
            with pytest.raises(MessageRefused):
                new_mail().send(client)
        assert client.stats().opened_total == 3

    def test_a_server_without_rset_takes_one_message_after_another(
        self, smtp_sink: StartSmtpSink, mailer: StartMailer
    ) -> None:
        sink = smtp_sink("-f", "RSET")
        client = mailer(sink)
        for _ in range(3):
            assert new_mail().send(client).accepted
        assert client.stats().opened_total == 1
        assert len(sink.messages(at_least=3)) == 3
