"""Which errors send a message to another server, and which speak against the one they came from."""

import pytest

from mailbridge import (
    AuthenticationFailed,
    CertificateRejected,
    ConfigurationError,
    ConnectionLost,
    ConnectTimeout,
    DeadlineExceeded,
    GreetingRefused,
    InvalidMessage,
    MailbridgeError,
    MessageRefused,
    MessageTooLarge,
    NobodyListens,
    NotSupported,
    PoolClosed,
    PoolTimeout,
    ProtocolViolation,
    ProxyFailed,
    RateUnavailable,
    RecipientsRefused,
    Reply,
    ReplyTimeout,
    SenderRefused,
    TokenUnavailable,
    errors,
)
from mailbridge.delivery.verdicts import Health, judge

GOES_ON, STAYS = True, False
WELL, FAILING, UNKNOWN = Health.WELL, Health.FAILING, Health.UNKNOWN


def reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    parts = rest.split(" ")[0].split(".")
    enhanced = (int(parts[0]), int(parts[1]), int(parts[2])) if len(parts) == 3 else None
    return Reply(int(code), (rest,), enhanced)


def sender(text: str) -> SenderRefused:
    return SenderRefused("no", sender="a@x.example", reply=reply(text), stage="mail_from")


def recipients(*texts: str) -> RecipientsRefused:
    rejected = {f"{number}@x.example": reply(text) for number, text in enumerate(texts)}
    return RecipientsRefused("no", rejected=rejected, stage="rcpt_to")


def data(text: str) -> MessageRefused:
    return MessageRefused("no", reply=reply(text), stage="data")


def final(text: str) -> MessageRefused:
    return MessageRefused("no", reply=reply(text), stage="final")


@pytest.mark.parametrize(
    ("error", "goes_on", "health"),
    [
        # No session came to be.
        (NobodyListens("x", stage="tcp"), GOES_ON, FAILING),
        (ConnectTimeout("x", stage="tcp"), GOES_ON, FAILING),
        (CertificateRejected("x", stage="tls"), GOES_ON, FAILING),
        (GreetingRefused("x", stage="greeting", reply=reply("554 5.3.2 Not today")), GOES_ON, FAILING),
        (ProxyFailed("x", status=407, stage="proxy"), GOES_ON, FAILING),
        (AuthenticationFailed("x", stage="auth", reply=reply("535 5.7.8 No")), GOES_ON, FAILING),
        (TokenUnavailable("x", stage="token"), GOES_ON, FAILING),
        (NotSupported("x", extension="STARTTLS", stage="tls"), GOES_ON, FAILING),
        (NotSupported("x", extension="AUTH", stage="auth"), GOES_ON, FAILING),
        # It ended before the commit.
        (ConnectionLost("x", stage="mail_from", reply=reply("421 4.3.2 Bye")), GOES_ON, FAILING),
        (ReplyTimeout("x", stage="data"), GOES_ON, FAILING),
        (ProtocolViolation("x", stage="rcpt_to"), GOES_ON, FAILING),
        (DeadlineExceeded("x", stage="greeting"), GOES_ON, FAILING),
        # On our side.
        (DeadlineExceeded("in the queue"), GOES_ON, UNKNOWN),
        (PoolTimeout("x"), GOES_ON, UNKNOWN),
        (RateUnavailable("The limiter is down"), GOES_ON, UNKNOWN),
        (PoolClosed("x"), STAYS, UNKNOWN),
        (ConfigurationError("x"), STAYS, UNKNOWN),
        (InvalidMessage("x"), STAYS, UNKNOWN),
        # What one message needs, and another server may have.
        (NotSupported("x", extension="SMTPUTF8", stage="mail_from"), GOES_ON, WELL),
        (MessageTooLarge("x", size=2, limit=1, stage="mail_from"), GOES_ON, WELL),
        # MAIL FROM
        (sender("451 Local error"), GOES_ON, FAILING),
        (sender("452 4.3.1 Disk full"), GOES_ON, FAILING),
        (sender("451 4.4.3 No directory"), GOES_ON, FAILING),
        (sender("451 4.0.0 Hm"), GOES_ON, FAILING),
        (sender("530 5.7.0 Authentication required"), GOES_ON, FAILING),
        (sender("535 5.7.8 The session is over"), GOES_ON, FAILING),
        (sender("450 4.7.1 Slow down"), GOES_ON, WELL),
        (sender("454 Throttling failure"), GOES_ON, WELL),
        (sender("450 4.1.8 Domain not found"), STAYS, WELL),
        (sender("450 Not now"), STAYS, WELL),
        (sender("452 4.3.4 Too large"), STAYS, WELL),
        (sender("451 4.3.3 Not able to"), STAYS, WELL),
        (sender("455 Parameters"), STAYS, WELL),
        (sender("550 5.7.1 Not you"), STAYS, WELL),
        (sender("554 5.3.2 Not accepting"), STAYS, WELL),
        # RCPT TO
        (recipients("451 4.3.0 Lookup failed"), GOES_ON, FAILING),
        (recipients("451 4.3.0 Lookup failed", "450 4.4.1 No route"), GOES_ON, FAILING),
        (recipients("451 4.3.0 Lookup failed", "550 5.1.1 Unknown"), STAYS, WELL),
        (recipients("451 Greylisted"), STAYS, WELL),
        (recipients("450 4.7.1 Greylisted"), STAYS, WELL),
        (recipients("452 4.2.2 Over quota"), STAYS, WELL),
        (recipients("550 5.1.1 Unknown"), STAYS, WELL),
        # DATA, and the answer to the dot
        (data("451 4.3.0 Queue file"), GOES_ON, FAILING),
        (data("454 Throttling failure: maximum sending rate exceeded"), GOES_ON, WELL),
        (data("554 5.5.1 No valid recipients"), STAYS, WELL),
        (final("452 Insufficient storage"), GOES_ON, FAILING),
        (final("451 4.3.2 Not now"), GOES_ON, FAILING),
        (final("451 4.7.1 Greylisted by the filter"), STAYS, WELL),
        (final("451 4.6.0 Content"), STAYS, WELL),
        (final("450 4.2.0 Mailbox busy"), STAYS, WELL),
        (final("550 5.7.1 Spam"), STAYS, WELL),
        (final("552 5.3.4 Too large"), STAYS, WELL),
    ],
    ids=str,
)
def test_judgement(error: MailbridgeError, goes_on: bool, health: Health) -> None:
    judgement = judge(error)
    assert (judgement.may_go_elsewhere, judgement.health) == (goes_on, health)


def test_nothing_goes_elsewhere_that_somebody_may_have() -> None:
    """Of whatever kind the error is."""
    for kind in (ConnectionLost, ReplyTimeout, ProtocolViolation, DeadlineExceeded):
        error = kind("x", stage="final")
        error.outcome_unknown = True
        assert judge(error).may_go_elsewhere is False
        assert judge(error).health is FAILING
    some = ConnectionLost("x", stage="final")
    some.accepted = ("a@x.example",)
    assert judge(some).may_go_elsewhere is False


def test_every_kind_of_error_has_been_thought_of() -> None:
    """A new one is STAYS until somebody decides: the safe side."""
    decided = {
        *("ConfigurationError", "InvalidMessage", "InvalidAddress", "MessageTooLarge", "ConnectFailed"),
        *("NameNotResolved", "NobodyListens", "ConnectTimeout", "ProxyFailed", "TLSFailed"),
        *("CertificateRejected", "TLSModeMismatch", "GreetingRefused", "AuthenticationFailed"),
        *("TokenUnavailable", "ConnectionLost", "ReplyTimeout", "ProtocolViolation", "NotSupported"),
        *("Refused", "SenderRefused", "RecipientsRefused", "MessageRefused", "PoolTimeout", "PoolClosed"),
        *("DeadlineExceeded", "MailbridgeError", "RateUnavailable"),
    }
    assert set(errors.__all__) <= decided
