"""TLS with real servers: a private CA, names, client certificates, versions, and resumed sessions."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from mailbridge import SMTPConnection
from mailbridge.net.tls.facts import TLSFacts
from tests.integration.conftest import Configure, StartMailer
from tests.integration.mails import new_mail
from tests.servers.certificates import KEY_PASSWORD, Certificates
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.fixtures import StartRelay, StartSmtpSink, ask_for
from tests.servers.postfix import Postfix
from tests.servers.process import Endpoint, find_program
from tests.servers.stunnel import Stunnel

LOGIN = {"username": USERNAME, "password": PASSWORD}
# server, service, options: everything here that speaks TLS as it should
GOOD = [
    ("postfix", "plain", {"security": "starttls"}),
    ("postfix", "plain", {"security": "opportunistic"}),
    ("postfix", "submission", {"security": "starttls", **LOGIN}),
    ("postfix", "smtps", {"security": "tls", **LOGIN}),
    ("exim", "plain", {"security": "starttls"}),
    ("exim", "tls", {"security": "tls"}),
    ("dovecot", "submission", {"security": "starttls", **LOGIN}),
    ("dovecot", "submissions", {"security": "tls", **LOGIN}),
    ("stunnel", "good", {"security": "tls"}),
]


class Connect(Protocol):
    def __call__(self, server: Endpoint, **options: Any) -> SMTPConnection: ...


@pytest.fixture
def connect(configure: Configure) -> Iterator[Connect]:
    """connect(server, **options): a session, closed after the test."""
    with ExitStack() as stack:

        def start(server: Endpoint, **options: Any) -> SMTPConnection:
            connection = SMTPConnection(configure(server, **options))
            stack.callback(connection.close)
            connection.connect()
            connection.login()
            return connection

        yield start


def facts(connection: SMTPConnection) -> TLSFacts:
    assert connection.secure
    assert connection.tls is not None
    return connection.tls


@pytest.mark.parametrize(("server", "service", "options"), GOOD)
def test_a_private_ca_is_trusted_where_it_is_named(
    request: pytest.FixtureRequest,
    mailer: StartMailer,
    connect: Connect,
    server: str,
    service: str,
    options: dict[str, Any],
) -> None:
    endpoint = getattr(request.getfixturevalue(server), service)
    assert new_mail().send(mailer(endpoint, **options)).accepted
    found = facts(connect(endpoint, **options))
    assert found.verified
    assert found.version == "TLSv1.3"
    assert set(found.names) >= {"localhost", "mail.lab.test", "127.0.0.1"}
    assert found.issuer == "mailbridge test CA"


class TestTrust:
    def test_a_folder_of_authorities(
        self, postfix: Postfix, connect: Connect, certificates: Certificates, tmp_path: Path
    ) -> None:
        openssl = ask_for(lambda: find_program("openssl", "openssl", package="openssl"))
        question = [openssl, "x509", "-hash", "-noout", "-in", str(certificates.ca_file)]
        name = subprocess.run(question, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        shutil.copy(certificates.ca_file, tmp_path / f"{name}.0")
        assert facts(connect(postfix.plain, security="starttls", tls={"ca_path": tmp_path})).verified

    def test_a_context_of_the_callers_own(
        self, postfix: Postfix, connect: Connect, certificates: Certificates
    ) -> None:
        context = ssl.create_default_context(cafile=str(certificates.ca_file))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        found = facts(connect(postfix.plain, security="starttls", tls={"context": context}))
        assert (found.version, found.verified) == ("TLSv1.2", True)

    @pytest.mark.parametrize("front", ["expired", "wrong_host", "self_signed"])
    def test_without_verification_anything_goes_and_nothing_is_claimed(
        self, stunnel: Stunnel, connect: Connect, front: str
    ) -> None:
        connection = connect(getattr(stunnel, front), security="tls", tls={"verify": False})
        found = facts(connection)
        assert (found.verified, found.names, found.not_after) == (False, (), None)

    def test_the_very_certificate_can_be_trusted(
        self, stunnel: Stunnel, connect: Connect, certificates: Certificates
    ) -> None:
        # strict: since Python 3.13 a certificate that signs itself must say that it may.
        options = {"ca_file": certificates.self_signed.cert_file, "strict": False}
        assert facts(connect(stunnel.self_signed, security="tls", tls=options)).verified


class TestNames:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_the_host_is_the_name_that_is_verified(
        self, postfix: Postfix, connect: Connect, host: str
    ) -> None:
        assert facts(connect(postfix.plain, host=host, security="starttls")).verified

    @pytest.mark.parametrize("name", ["mail.lab.test", "MAIL.lab.test.", "::1", "127.0.0.1"])
    def test_another_name_can_be_asked_for(self, postfix: Postfix, connect: Connect, name: str) -> None:
        tls = {"server_hostname": name}
        assert facts(connect(postfix.plain, host="127.0.0.1", security="starttls", tls=tls)).verified

    def test_the_name_on_the_certificate_is_enough(self, stunnel: Stunnel, connect: Connect) -> None:
        tls = {"server_hostname": "other.lab.test"}
        assert facts(connect(stunnel.wrong_host, security="tls", tls=tls)).verified


class TestClientCertificate:
    def test_in_two_files_with_a_locked_key(
        self, stunnel: Stunnel, postfix: Postfix, mailer: StartMailer, certificates: Certificates
    ) -> None:
        client = certificates.client
        tls = {
            "cert_file": client.cert_file,
            "key_file": client.locked_key_file,
            "key_password": KEY_PASSWORD,
        }
        mail = new_mail()
        mail.send(mailer(stunnel.client_certificate, security="tls", tls=tls))
        assert postfix.delivered(mail.message_id) == [mail.content]

    def test_in_one_file(self, stunnel: Stunnel, connect: Connect, certificates: Certificates) -> None:
        tls = {"cert_file": certificates.client.combined}
        assert facts(connect(stunnel.client_certificate, security="tls", tls=tls)).verified


class TestVersions:
    @pytest.mark.filterwarnings("error")
    def test_an_old_version_for_who_insists(self, stunnel: Stunnel, connect: Connect) -> None:
        found = facts(connect(stunnel.old_tls, security="tls", tls={"min_version": "TLSv1.1"}))
        assert (found.version, found.verified) == ("TLSv1.1", True)

    @pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA"])
    def test_the_ciphers_are_chosen(self, stunnel: Stunnel, connect: Connect, cipher: str) -> None:
        tls = {"min_version": "TLSv1.1", "ciphers": f"{cipher}:@SECLEVEL=0"}
        assert facts(connect(stunnel.old_tls, security="tls", tls=tls)).cipher == cipher


class TestOpportunistic:
    def test_in_the_clear_where_nothing_else_is_offered(
        self, smtp_sink: StartSmtpSink, connect: Connect
    ) -> None:
        connection = connect(smtp_sink().endpoint, security="opportunistic")
        assert (connection.secure, connection.tls) == (False, None)


def at_most(version: ssl.TLSVersion, certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    context.maximum_version = version
    return context


class TestResumption:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize(
        ("server", "service", "security"),
        [("postfix", "plain", "starttls"), ("postfix", "smtps", "tls"), ("stunnel", "good", "tls")],
    )
    def test_the_second_connection_resumes(
        self,
        request: pytest.FixtureRequest,
        connect: Connect,
        certificates: Certificates,
        server: str,
        service: str,
        security: str,
        version: ssl.TLSVersion,
    ) -> None:
        endpoint = getattr(request.getfixturevalue(server), service)
        options = {"security": security, "tls": {"context": at_most(version, certificates)}}
        connections = []
        for _ in range(3):
            connection = connect(endpoint, **options)
            assert connection.noop().is_positive
            connection.close()
            connections.append(connection)
        assert [facts_after(connection).resumed for connection in connections] == [False, True, True]
        assert facts_after(connections[1]).names == facts_after(connections[0]).names
        saved = connections[0].round_trips - connections[1].round_trips
        assert saved == (1 if version is ssl.TLSVersion.TLSv1_2 else 0)

    @pytest.mark.parametrize(("server", "service", "options"), GOOD)
    def test_a_server_that_does_not_resume_shakes_hands_anew(
        self,
        request: pytest.FixtureRequest,
        mailer: StartMailer,
        server: str,
        service: str,
        options: dict[str, Any],
    ) -> None:
        unpooled = mailer(getattr(request.getfixturevalue(server), service), pool=False, **options)
        assert len({new_mail().send(unpooled).connection_id for _ in range(3)}) == 3

    def test_the_round_trip_is_saved_on_the_wire(
        self, postfix: Postfix, relay: StartRelay, connect: Connect, certificates: Certificates
    ) -> None:
        between = relay(postfix.plain.address)
        context = at_most(ssl.TLSVersion.TLSv1_2, certificates)
        for _ in range(2):
            connect(Endpoint(between.port), security="starttls", tls={"context": context}).quit()
        # EHLO, STARTTLS, the handshake (two; resumed: one), EHLO, QUIT
        assert [connection.round_trips for connection in between.connections] == [6, 5]

    def test_what_was_not_verified_is_not_resumed_as_verified(
        self, stunnel: Stunnel, connect: Connect
    ) -> None:
        unverified = connect(stunnel.expired, security="tls", tls={"verify": False})
        unverified.quit()
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(stunnel.expired, security="tls")

    def test_another_name_is_verified_anew(self, stunnel: Stunnel, connect: Connect) -> None:
        connect(stunnel.good, security="tls").quit()
        other = connect(stunnel.good, security="tls", tls={"server_hostname": "mail.lab.test"})
        assert not facts(other).resumed
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(stunnel.good, security="tls", tls={"server_hostname": "wrong.lab.test"})


def facts_after(connection: SMTPConnection) -> TLSFacts:
    """Also of a session that is closed."""
    assert connection.tls is not None
    return connection.tls
