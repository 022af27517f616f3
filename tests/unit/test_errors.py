"""mailbridge.errors: what is caught by whom, what an error tells, and that it travels."""

import copy
import inspect
import pickle
import smtplib
import socket
import ssl
from typing import Any

import pytest

from mailbridge import errors
from mailbridge.errors import (
    AuthenticationFailed,
    CertificateRejected,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    GreetingRefused,
    InvalidAddress,
    InvalidMessage,
    MailbridgeError,
    MessageRefused,
    NameNotResolved,
    NobodyListens,
    NotSupported,
    PoolClosed,
    PoolTimeout,
    ProtocolViolation,
    ProxyFailed,
    RecipientsRefused,
    Refused,
    ReplyTimeout,
    SenderRefused,
    TLSFailed,
    TLSModeMismatch,
    TokenUnavailable,
)
from mailbridge.reply import Reply

ALL = [getattr(errors, name) for name in errors.__all__]
TEMPORARY = Reply(450, ("4.2.1 Try", "later"), (4, 2, 1))
PERMANENT = Reply(550, ("5.1.1 Unknown user",), (5, 1, 1))

# What each must be caught by beside MailbridgeError, smtplib.SMTPException and OSError.
CAUGHT_BY: dict[type[MailbridgeError], tuple[type[BaseException], ...]] = {
    MailbridgeError: (),
    ConfigurationError: (ValueError,),
    InvalidMessage: (ValueError,),
    InvalidAddress: (InvalidMessage, ValueError),
    errors.MessageTooLarge: (InvalidMessage, ValueError, smtplib.SMTPSenderRefused),
    ConnectFailed: (ConnectionError,),
    NameNotResolved: (ConnectFailed, socket.gaierror),
    NobodyListens: (ConnectFailed, ConnectionRefusedError),
    errors.ConnectTimeout: (ConnectFailed, TimeoutError),
    ProxyFailed: (ConnectFailed,),
    TLSFailed: (ConnectFailed, ssl.SSLError),
    CertificateRejected: (TLSFailed, ssl.SSLCertVerificationError),
    TLSModeMismatch: (TLSFailed,),
    GreetingRefused: (ConnectFailed, smtplib.SMTPConnectError),
    AuthenticationFailed: (smtplib.SMTPAuthenticationError,),
    TokenUnavailable: (AuthenticationFailed,),
    ConnectionLost: (smtplib.SMTPServerDisconnected, ConnectionError),
    ReplyTimeout: (ConnectionLost, TimeoutError),
    ProtocolViolation: (),
    NotSupported: (smtplib.SMTPNotSupportedError,),
    Refused: (),
    SenderRefused: (Refused, smtplib.SMTPSenderRefused),
    RecipientsRefused: (Refused, smtplib.SMTPRecipientsRefused),
    MessageRefused: (Refused, smtplib.SMTPDataError),
    PoolTimeout: (TimeoutError,),
    PoolClosed: (),
    errors.RateUnavailable: (),
    DeadlineExceeded: (TimeoutError,),
}
TRANSIENT = {
    ConnectFailed,
    NameNotResolved,
    NobodyListens,
    errors.ConnectTimeout,
    ProxyFailed,
    GreetingRefused,
    ConnectionLost,
    ReplyTimeout,
    ProtocolViolation,
    PoolTimeout,
    errors.RateUnavailable,
    DeadlineExceeded,
}


def made(kind: type[MailbridgeError], **details: Any) -> MailbridgeError:
    """One of that kind, with what its constructor asks for."""
    needed: dict[type, dict[str, Any]] = {
        NotSupported: {"extension": "SMTPUTF8"},
        errors.MessageTooLarge: {"size": 2000, "limit": 1000},
        Refused: {"reply": PERMANENT},
        SenderRefused: {"reply": PERMANENT, "sender": "a@x"},
        RecipientsRefused: {"rejected": {"b@y": PERMANENT, "c@y": TEMPORARY}},
        MessageRefused: {"reply": PERMANENT},
    }
    return kind("It failed", **{**needed.get(kind, {}), **details})


def test_the_tables_know_every_error() -> None:
    assert set(CAUGHT_BY) == set(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_code_written_for_smtplib_and_the_builtins_still_catches(kind: type[MailbridgeError]) -> None:
    for expected in (MailbridgeError, smtplib.SMTPException, OSError, *CAUGHT_BY[kind]):
        with pytest.raises(expected):
            raise made(kind)


@pytest.mark.parametrize("kind", ALL)
def test_it_is_nothing_that_the_table_does_not_name(kind: type[MailbridgeError]) -> None:
    """A refusal that is also a ConnectionError would be retried by code that trusts the names."""
    for builtin in (ValueError, ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror):
        expected = any(issubclass(base, builtin) for base in CAUGHT_BY[kind])
        assert issubclass(kind, builtin) is expected, builtin


@pytest.mark.parametrize("kind", ALL)
def test_transience_without_a_reply(kind: type[MailbridgeError]) -> None:
    if not issubclass(kind, Refused):
        assert made(kind).is_transient is (kind in TRANSIENT)


@pytest.mark.parametrize("kind", ALL)
def test_the_reply_decides_transience_and_doubt_overrules_it(kind: type[MailbridgeError]) -> None:
    error = made(kind) if kind is RecipientsRefused else made(kind, reply=TEMPORARY)
    assert error.is_transient
    if kind is not RecipientsRefused:  # raised before a commit by nature
        assert not made(kind, reply=PERMANENT).is_transient
        error.outcome_unknown = True
        assert not error.is_transient


def test_refused_recipients_are_transient_if_any_is() -> None:
    assert not RecipientsRefused("x", rejected={"a@x": PERMANENT}).is_transient
    assert RecipientsRefused("x", rejected={"a@x": PERMANENT, "b@y": TEMPORARY}).is_transient


@pytest.mark.parametrize("kind", ALL)
def test_errors_travel(kind: type[MailbridgeError]) -> None:
    error = made(kind, stage="rcpt_to", server="mx.example:25", hint="Ask.")
    error.attempts = (made(ConnectionLost),)
    error.outcome_unknown = True
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        arrived = pickle.loads(pickle.dumps(error, protocol))
        assert type(arrived) is kind
        assert str(arrived) == str(error)
        assert {k: v for k, v in vars(arrived).items() if k != "attempts"} == {
            k: v for k, v in vars(error).items() if k != "attempts"
        }
        assert [str(each) for each in arrived.attempts] == [str(each) for each in error.attempts]
    copied = copy.deepcopy(error)
    assert (type(copied), str(copied), copied.args) == (kind, str(error), error.args)


@pytest.mark.parametrize("kind", ALL)
def test_details_of_every_constructor_survive(kind: type[MailbridgeError]) -> None:
    values = {
        "status": 407,
        "verify_message": "expired",
        "verify_code": 10,
        "mechanism": "PLAIN",
        "challenge": "c",
    }
    own = {name: values[name] for name in inspect.signature(kind).parameters if name in values}
    arrived = pickle.loads(pickle.dumps(made(kind, **own)))
    assert {name: getattr(arrived, name) for name in own} == own


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "It failed"),
        ({"stage": "auth"}, "It failed (stage auth)"),
        ({"server": "mx:25"}, "It failed (server mx:25)"),
        ({"stage": "auth", "server": "mx:25"}, "It failed (stage auth, server mx:25)"),
        ({"reply": TEMPORARY}, "It failed: 450 4.2.1 Try later"),
        ({"hint": "Do this."}, "It failed. Do this."),
        (
            {"stage": "auth", "server": "mx:25", "reply": PERMANENT, "hint": "Do this."},
            "It failed (stage auth, server mx:25): 550 5.1.1 Unknown user. Do this.",
        ),
    ],
)
def test_the_text_is_one_sentence_with_stage_server_and_reply(details: dict[str, Any], text: str) -> None:
    assert str(MailbridgeError("It failed", **details)) == text


def test_the_text_says_when_the_outcome_is_unknown() -> None:
    error = ConnectionLost("It broke.", stage="final")
    error.outcome_unknown = True
    assert str(error) == "It broke (stage final). Whether the server took the message is unknown"


@pytest.mark.parametrize("nasty", ["\x1b[31m", "a\r\nb", "\x00", "\u2028", "\udcff", "\x85", "\u202e"])
def test_nothing_that_a_terminal_obeys_comes_out(nasty: str) -> None:
    reply = Reply(550, (nasty, "x" * 5000))
    for kind in ALL:
        error = (
            RecipientsRefused("x", rejected={"b@y": reply})
            if kind is RecipientsRefused
            else made(kind, reply=reply, hint=nasty, server=nasty)
        )
        assert str(error).isprintable()
        assert len(str(error)) < 5000
    failed = AuthenticationFailed(nasty, challenge=nasty)
    assert str(failed).isprintable()
    assert failed.challenge.isprintable()


def test_the_attributes_of_smtplib_have_its_shapes() -> None:
    refused = MessageRefused("x", reply=PERMANENT)
    assert (refused.smtp_code, refused.smtp_error) == (550, b"5.1.1 Unknown user")
    lost = ConnectionLost("x")
    assert (lost.smtp_code, lost.smtp_error) == (-1, b"x")
    assert SenderRefused("x", sender="a@x", reply=PERMANENT).sender == "a@x"
    recipients = RecipientsRefused("x", rejected={"b@y": PERMANENT, "c@y": TEMPORARY})
    assert recipients.recipients == {"b@y": (550, b"5.1.1 Unknown user"), "c@y": (450, b"4.2.1 Try\nlater")}
    assert recipients.rejected == {"b@y": PERMANENT, "c@y": TEMPORARY}
    assert MessageRefused("x", reply=Reply(550, ("\udcff",))).smtp_error == b"\\udcff"


def test_the_attributes_of_the_ssl_module_are_there() -> None:
    rejected = CertificateRejected("x", verify_message="expired", verify_code=10)
    assert (rejected.verify_message, rejected.verify_code) == ("expired", 10)
    assert (rejected.reason, rejected.library, rejected.errno) == ("", "", None)


@pytest.mark.parametrize(
    ("status", "is_transient"),
    [(None, True), (502, True), (503, True), (401, False), (403, False), (407, False)],
)
def test_a_proxy_that_wants_other_credentials_will_want_them_again(
    status: int | None, is_transient: bool
) -> None:
    assert ProxyFailed("No", status=status).is_transient is is_transient
    assert not ProxyFailed("No", transient=False).is_transient


def test_the_text_of_a_configuration_error_names_no_stage() -> None:
    """It was raised before there was any."""
    error = ConfigurationError("Option 'port' must be a number", stage="config", hint="Give one.")
    assert (str(error), error.stage) == ("Option 'port' must be a number. Give one.", "config")
