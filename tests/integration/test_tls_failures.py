"""TLS that must not come to be: each failure has its class, its sentence and a way out; nothing is sent."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mailbridge import (
    CertificateRejected,
    ConnectFailed,
    MailbridgeError,
    NotSupported,
    ReplyTimeout,
    TLSFailed,
    TLSModeMismatch,
)
from tests.integration.conftest import Configure, StartMailer
from tests.integration.mails import new_mail
from tests.servers.certificates import Certificates, Identity
from tests.servers.fixtures import StartSmtpSink
from tests.servers.postfix import Postfix

Options = Callable[[Certificates], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A server, the options that lead to failure, and all that is said of it."""

    server: str
    service: str
    security: str = "tls"
    options: Options = field(default=lambda certificates: {})
    error: type[MailbridgeError]
    says: str
    hint: str
    code: int | None = None  # OpenSSL's reason (X509_V_ERR_...)


def other_ca(certificates: Certificates) -> dict[str, Any]:
    return {"tls": {"ca_file": certificates.other_ca_file}}


def shows(identity: Identity) -> dict[str, Any]:
    return {"tls": {"cert_file": identity.cert_file, "key_file": identity.key_file}}


def stops_at_tls_1_2(certificates: Certificates) -> dict[str, Any]:
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return {"tls": {"context": context}}


NEW_CERTIFICATE = "The server's operator must renew it"
PRIVATE_CA = "For a private CA set tls.ca_file"
CASES = {
    "expired": Case(
        server="stunnel",
        service="expired",
        error=CertificateRejected,
        says="certificate of localhost has expired",
        hint=NEW_CERTIFICATE,
        code=10,
    ),
    "expired behind STARTTLS": Case(
        server="stunnel",
        service="starttls_expired",
        security="starttls",
        error=CertificateRejected,
        says="certificate of localhost has expired",
        hint=NEW_CERTIFICATE,
        code=10,
    ),
    "expired, opportunistic": Case(
        server="stunnel",
        service="starttls_expired",
        security="opportunistic",
        error=CertificateRejected,
        says="certificate of localhost has expired",
        hint=NEW_CERTIFICATE,
        code=10,
    ),
    "wrong host": Case(
        server="stunnel",
        service="wrong_host",
        error=CertificateRejected,
        says="certificate of localhost is for another name",
        hint="tls.server_hostname",
        code=62,
    ),
    "wrong IP address": Case(
        server="stunnel",
        service="wrong_host",
        options=lambda certificates: {"host": "127.0.0.1"},
        error=CertificateRejected,
        says="certificate of 127.0.0.1 is for another name",
        hint="tls.server_hostname",
        code=64,
    ),
    "wrong server_hostname": Case(
        server="postfix",
        service="plain",
        security="starttls",
        options=lambda certificates: {"tls": {"server_hostname": "wrong.lab.test"}},
        error=CertificateRejected,
        says="certificate of wrong.lab.test is for another name",
        hint="tls.server_hostname",
        code=62,
    ),
    "self-signed": Case(
        server="stunnel",
        service="self_signed",
        error=CertificateRejected,
        says="certificate of localhost is self-signed",
        hint="set tls.ca_file to it",
        code=18,
    ),
    "unknown CA": Case(
        server="stunnel",
        service="good",
        options=other_ca,
        error=CertificateRejected,
        says="signed by an authority that is not trusted here",
        hint=PRIVATE_CA,
        code=20,
    ),
    "the system's store does not know a private CA": Case(
        server="postfix",
        service="plain",
        security="starttls",
        options=lambda certificates: {"tls": {"ca_file": None}},
        error=CertificateRejected,
        says="signed by an authority that is not trusted here",
        hint=PRIVATE_CA,
        code=20,
    ),
    "TLS 1.1 only": Case(
        server="stunnel",
        service="old_tls",
        error=TLSFailed,
        says="no TLS version in common",
        hint="tls.min_version",
    ),
    "TLS 1.3 asked of a server that stops at 1.1": Case(
        server="stunnel",
        service="old_tls",
        options=lambda certificates: {"tls": {"min_version": "TLSv1.3"}},
        error=TLSFailed,
        says="no TLS version in common",
        hint="tls.min_version",
    ),
    "no client certificate": Case(
        server="stunnel",
        service="client_certificate",
        error=TLSFailed,
        says="The server requires a client certificate",
        hint="Set tls.cert_file and tls.key_file",
    ),
    "no client certificate, TLS 1.2": Case(
        server="stunnel",
        service="client_certificate",
        options=stops_at_tls_1_2,
        error=TLSFailed,
        says="The server refused the handshake",
        hint="client certificate (tls.cert_file)",
    ),
    "a client certificate of another CA": Case(
        server="stunnel",
        service="client_certificate",
        options=lambda certificates: shows(certificates.stranger),
        error=TLSFailed,
        says="The server does not accept the client certificate",
        hint="Check tls.cert_file",
    ),
    **{
        f"TLS at once on {server}'s port for clear text": Case(
            server=server,
            service=service,
            error=TLSModeMismatch,
            says=f'speaks clear text on port {{port}}, not TLS (it sent "220 {server}.lab.test',
            hint="Use security='starttls' for this port, or the server's port for TLS (usually 465).",
        )
        for server, service in (
            ("postfix", "plain"),
            ("exim", "plain"),
            ("dovecot", "submission"),
            ("opensmtpd", "plain"),
        )
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_fails_as_it_should(
    request: pytest.FixtureRequest,
    postfix: Postfix,
    certificates: Certificates,
    mailer: StartMailer,
    case: Case,
) -> None:
    endpoint = getattr(request.getfixturevalue(case.server), case.service)
    client = mailer(endpoint, security=case.security, **case.options(certificates))
    mail, caught = new_mail(), []
    for _ in range(2):  # the second time like the first: nothing of the failure is kept
        with pytest.raises(MailbridgeError) as raised:
            mail.send(client)
        caught.append(raised.value)
    for error in caught:
        check(error, case, endpoint.port)
    assert client.stats().size == 0
    assert mail.message_id not in postfix.accepted_message_ids()


def check(error: MailbridgeError, case: Case, port: int) -> None:
    assert type(error) is case.error
    assert isinstance(error, ssl.SSLError)
    assert isinstance(error, ConnectionError)
    assert isinstance(error, smtplib.SMTPException)
    assert case.says.format(port=port) in error.message
    assert case.hint in error.hint
    assert str(error).endswith(error.hint)
    assert error.stage == "tls"
    assert error.server is not None
    assert error.server.endswith(f":{port}")
    assert (error.is_transient, error.outcome_unknown) == (False, False)
    if case.code is not None:
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert error.verify_code == case.code
        assert error.verify_message


@pytest.mark.parametrize("security", ["starttls", "opportunistic", "none"])
@pytest.mark.parametrize(
    ("server", "service"), [("postfix", "smtps"), ("exim", "tls"), ("dovecot", "submissions")]
)
def test_clear_text_on_a_port_for_tls(
    request: pytest.FixtureRequest, mailer: StartMailer, server: str, service: str, security: str
) -> None:
    """Both sides wait for the other to begin; only the time limit ends that."""
    endpoint = getattr(request.getfixturevalue(server), service)
    client = mailer(endpoint, security=security, timeout=None, timeouts={"greeting": 0.3})
    with pytest.raises(ReplyTimeout) as raised:
        new_mail().send(client)
    assert raised.value.stage == "greeting"
    assert raised.value.hint == (
        f"Port {endpoint.port} may speak TLS from the start: try security='tls'. "
        "Or the server waits for a PROXY header: then set proxy_protocol."
    )
    assert not raised.value.outcome_unknown


def test_starttls_is_required_unless_said_otherwise(smtp_sink: StartSmtpSink, configure: Configure) -> None:
    sink = smtp_sink()
    assert configure(sink, security=None).security == "starttls"


def test_a_server_without_starttls_gets_no_mail(smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
    sink = smtp_sink()
    with pytest.raises(NotSupported, match=r"STARTTLS extension not supported by server") as raised:
        new_mail().send(mailer(sink, security="starttls"))
    assert (raised.value.extension, raised.value.stage) == ("STARTTLS", "tls")
    assert "Use security='tls' if the port speaks TLS from the start" in raised.value.hint
    assert not raised.value.outcome_unknown
    assert "MAIL" not in sink.log()
    assert sink.messages() == []


def test_a_server_that_ends_the_handshake(mailer: StartMailer, smtp_sink: StartSmtpSink) -> None:
    """The sink hangs up before it says a word, as a balancer without backends does."""
    with pytest.raises(ConnectFailed, match="ended the connection during the TLS handshake") as raised:
        new_mail().send(mailer(smtp_sink("-q", "CONNECT"), security="tls"))
    assert raised.value.is_transient
    assert "security='starttls'" in raised.value.hint
