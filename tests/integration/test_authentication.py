"""Logging in to real servers: mechanisms, their order, refusals, and credentials that stay secret."""

from __future__ import annotations

import json
import smtplib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mailbridge import (
    AuthenticationFailed,
    ConfigurationError,
    MailbridgeError,
    NotSupported,
    Secret,
    SenderRefused,
    SMTPConnection,
)
from tests.integration.conftest import Configure, StartMailer
from tests.integration.mails import new_mail
from tests.servers.certificates import Certificates
from tests.servers.dovecot import PASSWORD, USERNAME, Dovecot
from tests.servers.exim import Exim
from tests.servers.fixtures import StartRelay, StartSmtpSink
from tests.servers.postfix import Postfix
from tests.servers.process import wait_until

LOGIN = {"username": USERNAME, "password": PASSWORD}
SUBMISSION = [
    ("postfix", "submission", "starttls"),
    ("postfix", "smtps", "tls"),
    ("dovecot", "submission", "starttls"),
    ("dovecot", "submissions", "tls"),
]
on_submission = pytest.mark.parametrize(("server", "service", "security"), SUBMISSION)
BY_PASSWORD = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"]


@on_submission
@pytest.mark.parametrize("mechanism", BY_PASSWORD)
def test_each_mechanism(
    request: pytest.FixtureRequest,
    configure: Configure,
    server: str,
    service: str,
    security: str,
    mechanism: str,
) -> None:
    running = request.getfixturevalue(server)
    config = configure(getattr(running, service), security=security, auth=mechanism, **LOGIN)
    connection, mail = SMTPConnection(config), new_mail()
    connection.connect()
    connection.login()
    assert (connection.mechanism, connection.authenticated) == (mechanism, True)
    assert connection.send(mail.envelope, mail.content).accepted
    connection.quit()
    assert mail.content in [message.content for message in running.messages()]


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("auto", "SCRAM-SHA-256"),
        (["CRAM-MD5", "SCRAM-SHA-256"], "CRAM-MD5"),
        (["LOGIN", "PLAIN"], "LOGIN"),
        (["PLAIN", "CRAM-MD5"], "PLAIN"),
        ("login", "LOGIN"),
    ],
)
def test_the_order_is_strength_unless_it_is_given(
    dovecot: Dovecot, configure: Configure, auth: Any, expected: str
) -> None:
    connection = SMTPConnection(configure(dovecot.submission, security="starttls", auth=auth, **LOGIN))
    connection.connect()
    connection.login()
    assert connection.mechanism == expected
    connection.quit()


def test_what_the_server_lacks_is_passed_over(exim: Exim, configure: Configure) -> None:
    """Exim has CRAM-MD5 and, under TLS, PLAIN."""
    for auth, expected in ((["LOGIN", "PLAIN"], "PLAIN"), (["LOGIN", "CRAM-MD5"], "CRAM-MD5")):
        connection = SMTPConnection(configure(exim.plain, security="starttls", auth=auth, **LOGIN))
        connection.connect()
        connection.login()
        assert connection.mechanism == expected
        connection.quit()


def test_no_mechanism_in_common(exim: Exim, mailer: StartMailer) -> None:
    with pytest.raises(AuthenticationFailed, match=r"The server offers .*; usable are LOGIN") as raised:
        new_mail().send(mailer(exim.plain, security="starttls", auth="LOGIN", **LOGIN))
    assert "CRAM-MD5" in raised.value.message


def with_token(token: str, **options: Any) -> dict[str, Any]:
    return {"username": USERNAME, "oauth2": {"access_token": token}} | options


def by_certificate(certificates: Certificates, **options: Any) -> dict[str, Any]:
    client = certificates.client
    tls = {"cert_file": str(client.cert_file), "key_file": str(client.key_file)}
    return {"security": "starttls", "auth": "EXTERNAL", "tls": tls} | options


@pytest.mark.parametrize("name", [{}, {"username": "client.lab.test"}])
def test_a_client_certificate(
    exim: Exim, configure: Configure, certificates: Certificates, name: dict[str, str]
) -> None:
    connection = SMTPConnection(configure(exim.plain, **by_certificate(certificates, **name)))
    connection.connect()
    connection.login()
    assert connection.mechanism == "EXTERNAL"
    mail = new_mail()
    assert connection.send(mail.envelope, mail.content).accepted
    connection.quit()


def test_a_client_certificate_of_somebody_else(
    exim: Exim, configure: Configure, certificates: Certificates
) -> None:
    connection = SMTPConnection(configure(exim.plain, **by_certificate(certificates, username="boss")))
    connection.connect()
    with pytest.raises(AuthenticationFailed) as raised:
        connection.login()
    assert (raised.value.smtp_code, raised.value.mechanism) == (535, "EXTERNAL")


def test_ntlm(exim: Exim, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exim is from before NTLMv2; pyspnego speaks the older one where this variable says so."""
    monkeypatch.setenv("LM_COMPAT_LEVEL", "2")
    options = {"security": "starttls", "auth": "NTLM", "username": USERNAME}
    connection = SMTPConnection(configure(exim.plain, password=PASSWORD, **options))
    connection.connect()
    connection.login()
    assert connection.mechanism == "NTLM"
    mail = new_mail()
    assert connection.send(mail.envelope, mail.content).accepted
    connection.quit()
    connection = SMTPConnection(configure(exim.plain, password="wr0ng-secret", **options))
    connection.connect()
    with pytest.raises(AuthenticationFailed) as raised:
        connection.login()
    assert (raised.value.smtp_code, raised.value.mechanism) == (535, "NTLM")


# One that fits into the AUTH line, and one with many claims.
TOKEN_LENGTHS = [10, 3000]


@on_submission
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("length", TOKEN_LENGTHS)
def test_an_access_token(
    request: pytest.FixtureRequest,
    dovecot: Dovecot,
    configure: Configure,
    server: str,
    service: str,
    security: str,
    mechanism: str,
    length: int,
) -> None:
    """A long one goes out in two steps, since it would not fit into the AUTH line (RFC 4954 section 4)."""
    token = ("t.0k-en_" * length)[:length]
    dovecot.introspection.accept(token, USERNAME)
    running = request.getfixturevalue(server)
    options = with_token(token, security=security, auth=mechanism)
    connection, mail = SMTPConnection(configure(getattr(running, service), **options)), new_mail()
    connection.connect()
    connection.login()
    assert connection.mechanism == mechanism
    assert connection.send(mail.envelope, mail.content).accepted
    connection.quit()
    assert dovecot.introspection.asked[-1] == token


@on_submission
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_that_is_refused_tells_why(
    request: pytest.FixtureRequest,
    configure: Configure,
    server: str,
    service: str,
    security: str,
    mechanism: str,
) -> None:
    """The challenge with the error is answered as each mechanism says: the server's verdict comes then."""
    running = request.getfixturevalue(server)
    options = with_token("bad-token-secret", security=security, auth=mechanism)
    connection = SMTPConnection(configure(getattr(running, service), **options))
    connection.connect()
    with pytest.raises(AuthenticationFailed) as raised:
        connection.login()
    error = raised.value
    assert (error.smtp_code, error.mechanism) == (535, mechanism)
    assert json.loads(error.challenge)["status"] in ("401", "invalid_token")
    assert "bad-token" not in f"{error} {error!r} {error.args} {error.__dict__}"
    connection.close()


def test_a_token_goes_by_what_the_server_offers(dovecot: Dovecot, configure: Configure) -> None:
    options = with_token(f"good-{USERNAME}", security="starttls")
    connection = SMTPConnection(configure(dovecot.submission, **options))
    connection.connect()
    connection.login()
    assert connection.mechanism == "OAUTHBEARER"
    connection.quit()


def test_credentials_can_come_from_callables(postfix: Postfix, mailer: StartMailer) -> None:
    """They are asked at each login, so that a password can be changed while the process runs."""
    passwords = iter([PASSWORD, PASSWORD])
    options = {"username": lambda: USERNAME, "password": lambda: next(passwords)}
    client = mailer(postfix.submission, security="starttls", pool=False, **options)
    assert new_mail().send(client).accepted
    assert new_mail().send(client).accepted
    assert next(passwords, None) is None


def test_one_login_for_many_messages(dovecot: Dovecot, mailer: StartMailer) -> None:
    client = mailer(dovecot.submission, security="starttls", **LOGIN)
    assert len({new_mail().send(client).connection_id for _ in range(10)}) == 1


@on_submission
@pytest.mark.parametrize("mechanism", BY_PASSWORD)
def test_a_wrong_password(
    request: pytest.FixtureRequest,
    mailer: StartMailer,
    server: str,
    service: str,
    security: str,
    mechanism: str,
) -> None:
    running = request.getfixturevalue(server)
    options = {"username": USERNAME, "password": "wr0ng-secret", "auth": mechanism}
    client, mail = mailer(getattr(running, service), security=security, **options), new_mail()
    with pytest.raises(AuthenticationFailed) as raised:
        mail.send(client)
    error = raised.value
    assert isinstance(error, smtplib.SMTPAuthenticationError)
    assert (error.smtp_code, error.stage, error.mechanism) == (535, "auth", mechanism)
    assert (error.is_transient, error.outcome_unknown) == (False, False)
    assert "Check username and password" in error.hint
    assert "wr0ng" not in f"{error} {error!r} {error.args} {error.__dict__}"
    assert client.stats().size == 0
    assert mail.message_id not in [message.message_id for message in running.messages()]


def failed_logins(log: Callable[[], str], username: str) -> int:
    return sum(f"user=<{username}>" in line and "auth failed" in line for line in log().splitlines())


def test_fifty_waiting_messages_make_one_failed_login(
    dovecot: Dovecot, mailer: StartMailer, relay: StartRelay
) -> None:
    username = f"nobody-{uuid.uuid4().hex}"
    between = relay(dovecot.submission.address)
    client = mailer(between, security="starttls", username=username, password="wrong")
    together = threading.Barrier(50)

    def send() -> MailbridgeError | None:
        together.wait(10)
        try:
            new_mail().send(client)
        except MailbridgeError as error:
            return error
        return None

    with ThreadPoolExecutor(50) as threads:
        errors = [future.result(30) for future in [threads.submit(send) for _ in range(50)]]
    assert [type(error) for error in errors] == [AuthenticationFailed] * 50
    told = [error for error in errors if error and "Not tried again" in error.hint]
    assert len(told) == 49
    assert wait_until(lambda: failed_logins(dovecot.log, username) > 0, 10)
    with pytest.raises(AuthenticationFailed, match="Not tried again"):
        new_mail().send(client)
    assert len(between.connections) <= client.config.pool.max_size
    assert wait_until(lambda: not any(connection.is_open for connection in between.connections), 10)
    assert failed_logins(dovecot.log, username) == 1


def test_a_good_login_lets_all_the_others_in(dovecot: Dovecot, mailer: StartMailer) -> None:
    client = mailer(dovecot.submission, security="starttls", **LOGIN)
    with ThreadPoolExecutor(20) as threads:
        futures = [threads.submit(new_mail().send, client) for _ in range(20)]
        assert all(future.result(30).accepted for future in futures)
    assert client.stats().opened_total <= 5


class TestNeverWithoutTheLogin:
    def test_a_server_without_auth(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail = new_mail()
        with pytest.raises(NotSupported, match="SMTP AUTH extension not supported by server") as raised:
            mail.send(mailer(postfix.plain, security="starttls", **LOGIN))
        assert (raised.value.extension, raised.value.stage) == ("AUTH", "auth")
        assert "Remove username and password" in raised.value.hint
        assert mail.message_id not in postfix.accepted_message_ids()

    @pytest.mark.parametrize("security", ["none", "opportunistic"])
    def test_a_server_that_hides_auth_in_the_clear(
        self, smtp_sink: StartSmtpSink, mailer: StartMailer, security: str
    ) -> None:
        sink = smtp_sink("-a")
        with pytest.raises(NotSupported):
            new_mail().send(mailer(sink, security=security, **LOGIN))
        assert sink.messages() == []

    def test_postfix_wants_the_login_that_is_not_configured(
        self, postfix: Postfix, mailer: StartMailer
    ) -> None:
        client = mailer(postfix.submission, security="starttls")
        with pytest.raises(MailbridgeError) as raised:
            new_mail().send(client)
        assert raised.value.reply is not None
        assert raised.value.reply.is_permanent
        assert client.stats().idle == 1

    def test_dovecot_wants_the_login_that_is_not_configured(
        self, dovecot: Dovecot, mailer: StartMailer
    ) -> None:
        with pytest.raises(SenderRefused) as raised:
            new_mail().send(mailer(dovecot.submission, security="starttls"))
        assert raised.value.smtp_code == 530
        assert "set username and password" in raised.value.hint


class TestClearText:
    """A login to another machine wants TLS. To stand for one, loopback is made to count for nothing."""

    def test_loopback_is_exempt(self, exim: Exim, configure: Configure) -> None:
        connection = SMTPConnection(configure(exim.plain, security="none", **LOGIN))
        connection.connect()
        connection.login()
        assert (connection.mechanism, connection.secure) == ("CRAM-MD5", False)
        connection.quit()

    @pytest.mark.parametrize("security", ["none", "opportunistic"])
    def test_refused_elsewhere(
        self,
        smtp_sink: StartSmtpSink,
        mailer: StartMailer,
        monkeypatch: pytest.MonkeyPatch,
        security: str,
    ) -> None:
        monkeypatch.setattr("mailbridge.net.resolver.Address.is_loopback", False)
        sink = smtp_sink()
        client = mailer(sink, security=security, **LOGIN)
        with pytest.raises(ConfigurationError, match="The password would travel in clear text") as raised:
            new_mail().send(client)
        assert "security='starttls' or 'tls'" in raised.value.hint
        assert wait_until(lambda: "smtp-sink: EHLO" in sink.log(), 5)  # it logs each command that it gets
        assert "smtp-sink: AUTH" not in sink.log()
        assert sink.messages() == []

    def test_allowed_elsewhere_for_who_takes_the_risk(
        self, exim: Exim, mailer: StartMailer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mailbridge.net.resolver.Address.is_loopback", False)
        options = {"security": "none", "allow_insecure_auth": True, **LOGIN}
        assert new_mail().send(mailer(exim.plain, **options)).accepted


def test_the_password_is_in_no_log(
    dovecot: Dovecot, mailer: StartMailer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG")
    for mechanism in BY_PASSWORD:
        options = {"username": USERNAME, "password": Secret(PASSWORD), "auth": mechanism, "debug": True}
        new_mail().send(mailer(dovecot.submission, security="starttls", **options))
    told = caplog.text
    assert "AUTH PLAIN ***" in told
    for secret in (PASSWORD, "czNjcmV0", "AGxhYgBzM2NyZXQ="):  # as it is, alone and with the name in base64
        assert secret not in told
