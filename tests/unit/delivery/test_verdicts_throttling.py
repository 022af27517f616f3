"""Which answers mean "less of this", and which only sound like it."""

import pytest

from mailbridge.delivery.verdicts import is_connection_limit, is_throttling
from mailbridge.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectTimeout,
    GreetingRefused,
    MailbridgeError,
    MessageRefused,
    RecipientsRefused,
    SenderRefused,
    TLSFailed,
)
from mailbridge.reply import Reply
from mailbridge.smtp.replies import ReplyParser


def reply(text: str) -> Reply:
    parser = ReplyParser()
    parser.feed(text.encode() + b"\r\n")
    found = parser.next_reply()
    assert found is not None
    return found


def said(text: str, stage: str) -> MailbridgeError:
    """The error that this answer at this stage becomes."""
    answer = reply(text)
    if answer.code == 421:
        return ConnectionLost("The server said goodbye", stage=stage, reply=answer)
    match stage:
        case "greeting":
            return GreetingRefused("No", stage=stage, reply=answer)
        case "tls":
            return TLSFailed("No", stage=stage, reply=answer)
        case "auth":
            return AuthenticationFailed("No", stage=stage, reply=answer)
        case "mail_from":
            return SenderRefused("No", sender="a@x.example", stage=stage, reply=answer)
        case "rcpt_to":
            return RecipientsRefused("No", rejected={"b@y.example": answer}, stage=stage)
    return MessageRefused("No", stage=stage, reply=answer)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("421 Too many concurrent SMTP connections", "greeting"),
        ("421 4.7.0 mx.example Error: too many connections from 192.0.2.1", "greeting"),
        ("421 4.7.0 Try again later, closing connection.", "mail_from"),
        ("421 4.3.2 Service not available", "mail_from"),
        ("432 4.3.2 Concurrent connections limit exceeded", "final"),
        ("454 4.7.0 Too many login attempts, please try again later.", "auth"),
        ("454 Throttling failure: Maximum sending rate exceeded.", "final"),
        ("450 4.7.1 Error: too much mail from 192.0.2.1", "mail_from"),
        ("451 4.3.2 Please try again later", "mail_from"),
        ("451 4.4.5 Congestion", "rcpt_to"),
        ("451 4.7.500 Server busy. Please try again later", "data"),
        ("450 4.7.28 Unusual rate of unsolicited mail", "final"),
        ("452 4.3.2 Not now", "rcpt_to"),
    ],
)
def test_these_ask_for_less(text: str, stage: str) -> None:
    assert is_throttling(said(text, stage))


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("421 4.4.2 mx.example Error: timeout exceeded", "mail_from"),
        ("432 4.7.12 A password transition is needed", "auth"),
        ("454 4.7.0 TLS not available due to local problem", "tls"),
        ("535 5.7.8 Authentication credentials invalid", "auth"),
        ("450 4.2.0 Recipient address rejected: Greylisted", "rcpt_to"),
        ("451 4.7.1 Greylisting in action, please come back later", "rcpt_to"),
        ("450 4.7.0 Greylisted", "rcpt_to"),
        ("450 Greylisted", "rcpt_to"),
        ("451 Greylisted", "mail_from"),
        ("451 4.7.5 Cryptographic failure", "mail_from"),
        ("450 4.2.1 The user is receiving mail at a rate that prevents delivery", "rcpt_to"),
        ("452 4.2.2 Mailbox full", "rcpt_to"),
        ("452 4.3.1 Insufficient system storage", "mail_from"),
        ("452 4.5.3 Too many recipients", "rcpt_to"),
        ("450 4.1.8 Domain not found", "mail_from"),
        ("550 5.7.1 Too much mail", "mail_from"),
        ("554 5.3.2 System not accepting network messages", "greeting"),
    ],
)
def test_these_do_not(text: str, stage: str) -> None:
    assert not is_throttling(said(text, stage))


def test_one_recipients_answer_is_enough() -> None:
    rejected = {"b@y.example": reply("550 5.1.1 Unknown"), "c@y.example": reply("451 4.4.5 Congestion")}
    assert is_throttling(RecipientsRefused("No", rejected=rejected, stage="rcpt_to"))


def test_an_error_without_an_answer_asks_for_nothing() -> None:
    assert not is_throttling(ConnectTimeout("Nobody answered", stage="tcp"))


@pytest.mark.parametrize(
    ("text", "stage", "asks"),
    [
        ("421 Goodbye", "mail_from", False),
        ("421 4.4.2 Idle for too long", "mail_from", False),
        ("421 4.7.0 Too much mail", "mail_from", True),
        ("421 Too much mail", "final", True),
        ("450 4.7.1 Too much mail", "mail_from", True),
    ],
)
def test_a_goodbye_on_a_session_that_was_idle_is_about_that(text: str, stage: str, asks: bool) -> None:
    assert is_throttling(said(text, stage), on_reused=True) is asks


@pytest.mark.parametrize(
    ("text", "stage", "is_limit"),
    [
        ("421 Too many concurrent SMTP connections", "greeting", True),
        ("421 4.7.0 too many connections", "ehlo", True),
        ("451 too many connections", "greeting", True),
        ("450 too many connections", "greeting", True),
        ("432 4.3.2 Concurrent connections limit exceeded", "auth", True),
        ("454 4.7.0 Too many login attempts", "auth", True),
        ("454 TLS not available just now", "tls", False),
        ("535 5.7.8 wrong password", "auth", False),
        ("554 5.7.1 go away", "greeting", False),
    ],
)
def test_which_answers_let_no_more_connections_in(text: str, stage: str, is_limit: bool) -> None:
    assert is_connection_limit(said(text, stage)) is is_limit
