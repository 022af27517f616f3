"""Hints: the remedy that a person needs for what servers say."""

import pytest

from mailbridge import (
    AuthenticationFailed,
    CertificateRejected,
    GreetingRefused,
    MailbridgeError,
    Reply,
    ReplyTimeout,
    SenderRefused,
)
from mailbridge.client.hints import hint_for


def refused(kind: type[MailbridgeError], stage: str, code: int, text: str) -> MailbridgeError:
    details = {"sender": "a@x.example"} if kind is SenderRefused else {}
    return kind("No", stage=stage, reply=Reply(code, (text,)), **details)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (
            refused(
                AuthenticationFailed,
                "auth",
                535,
                "5.7.139 Authentication unsuccessful, basic authentication is disabled.",
            ),
            "OAuth2",
        ),
        (refused(AuthenticationFailed, "auth", 535, "5.7.3 Authentication unsuccessful"), "Microsoft"),
        (
            refused(
                AuthenticationFailed,
                "auth",
                535,
                "5.7.8 Username and Password not accepted. https://support.google.com/ - gsmtp",
            ),
            "app password",
        ),
        (refused(AuthenticationFailed, "auth", 454, "4.7.0 Too many login attempts"), "limits logins"),
        (refused(AuthenticationFailed, "auth", 535, "5.7.8 no"), "username and password"),
        (refused(AuthenticationFailed, "auth", 534, "5.7.9 too weak"), "mechanism"),
        (refused(SenderRefused, "mail_from", 530, "5.7.0 Must issue a STARTTLS command first"), "starttls"),
        (refused(SenderRefused, "mail_from", 530, "5.7.0 Authentication required"), "login"),
        (
            refused(SenderRefused, "mail_from", 553, "5.7.1 Sender address rejected: not owned by user"),
            "may not send",
        ),
        (refused(SenderRefused, "mail_from", 552, "5.3.4 Message size exceeds fixed limit"), "larger"),
        (refused(MailbridgeError, "rcpt_to", 554, "5.7.1 Relay access denied"), "relay"),
        (refused(GreetingRefused, "ehlo", 504, "5.5.2 Helo command rejected"), "local_hostname"),
        (refused(GreetingRefused, "ehlo", 500, "5.5.1 Unknown command"), "protocol='lmtp'"),
        (refused(GreetingRefused, "ehlo", 554, "This is an LMTP server"), "protocol='lmtp'"),
        (
            refused(GreetingRefused, "ehlo", 503, "Command refused, required Proxy negotiation failed"),
            "proxy_protocol",
        ),
        (refused(GreetingRefused, "greeting", 554, "no"), "connections"),
    ],
)
def test_what_to_do_about_it(error: MailbridgeError, word: str) -> None:
    assert word in hint_for(error, 587)


def test_a_silent_port_may_speak_tls() -> None:
    silence = ReplyTimeout("No answer", stage="greeting")
    assert "security='tls'" in hint_for(silence, 465)
    assert "tls" not in hint_for(silence, 25)


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "tls"])
def test_a_proxy_header_is_suspected_while_nothing_shows_that_it_was_taken_well(stage: str) -> None:
    error = MailbridgeError("x", stage=stage, hint="Something else")
    assert hint_for(error, 587) == "Something else"
    assert "PROXY header" in hint_for(error, 587, has_sent_header=True)


@pytest.mark.parametrize(
    "error", [CertificateRejected("x", stage="tls"), refused(MailbridgeError, "mail_from", 451, "later")]
)
def test_a_proxy_header_is_not_suspected_of_what_comes_later(error: MailbridgeError) -> None:
    assert hint_for(error, 587, has_sent_header=True) == ""


@pytest.mark.parametrize("error", [MailbridgeError("x"), refused(MailbridgeError, "final", 451, "later")])
def test_nothing_is_said_where_nothing_is_known(error: MailbridgeError) -> None:
    assert hint_for(error, 587) == ""


@pytest.mark.parametrize(
    ("text", "challenge", "word"),
    [
        ("5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled", "", "administrator"),
        ("5.7.3 Authentication unsuccessful", "", "SMTP.SendAsApp"),
        (
            "5.7.8 Username and Password not accepted - gsmtp",
            '{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}',
            "https://mail.google.com/",
        ),
        ("5.7.8 no", '{"status":"401"}', "revoked"),
    ],
)
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_of_a_refused_token_nothing_is_said_about_passwords(
    mechanism: str, text: str, challenge: str, word: str
) -> None:
    error = AuthenticationFailed(
        "No", mechanism=mechanism, challenge=challenge, stage="auth", reply=Reply(535, (text,))
    )
    assert word in hint_for(error, 587)
    assert "password" not in hint_for(error, 587)


def test_other_troubles_of_a_token_login_are_those_of_any_login() -> None:
    error = AuthenticationFailed(
        "No", mechanism="XOAUTH2", stage="auth", reply=Reply(454, ("4.7.0 Too many login attempts",))
    )
    assert "limits logins" in hint_for(error, 587)
