"""TLS in Flask: verified, with Flask-Mail's keys too, and told what a private authority needs."""

from collections.abc import Iterator

import pytest
from flask import Flask

import mailbridge
from mailbridge import CertificateRejected
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail
from tests.flask.apps import RECIPIENT, SENDER
from tests.servers.certificates import Certificates


@pytest.fixture
def server(certificates: Certificates) -> Iterator[ScriptedServer]:
    identity = certificates.good
    with ScriptedServer(
        tls="starttls",
        certfile=identity.cert_file,
        keyfile=identity.key_file,
        users={"user": "sesame"},
        strict=False,  # a client that distrusts a certificate ends the handshake, which is the point
    ) as running:
        yield running


@pytest.fixture
def app(server: ScriptedServer) -> Flask:
    app = Flask("testapp")
    app.config.update(
        MAIL_SERVER="127.0.0.1",
        MAIL_PORT=server.port,
        MAIL_USE_TLS=True,
        MAIL_USERNAME="user",
        MAIL_PASSWORD="sesame",
        MAIL_DEFAULT_SENDER=SENDER,
        MAIL_TIMEOUT=10,
    )
    return app


def test_a_certificate_that_nobody_vouches_for_is_refused(app: Flask, server: ScriptedServer) -> None:
    mail = Mail(app)
    with app.app_context(), pytest.raises(CertificateRejected):
        mail.send_message("testing", [RECIPIENT])
    assert server.messages == ()
    assert b"sesame" not in b"".join(bytes(each.clear_text) for each in server.connections)


def test_a_private_authority_is_named_by_ca_file(
    app: Flask, server: ScriptedServer, certificates: Certificates
) -> None:
    app.config["MAILBRIDGE_TLS"] = {"ca_file": certificates.ca_file}
    mail = Mail(app)
    with app.app_context():
        mail.send_message("testing", [RECIPIENT])
    mailbridge.close_all()
    (connection,) = server.connections
    assert connection.used_tls
    assert connection.user == "user"
    assert len(server.messages) == 1


def test_flask_mailmans_keys_name_a_client_certificate(app: Flask, certificates: Certificates) -> None:
    with ScriptedServer(
        tls="implicit",
        certfile=certificates.good.cert_file,
        keyfile=certificates.good.key_file,
        client_ca=certificates.ca_file,
    ) as server:
        app.config.update(
            MAIL_PORT=server.port,
            MAIL_USE_TLS=False,
            MAIL_USE_SSL=True,
            MAIL_USERNAME=None,
            MAIL_PASSWORD=None,
            MAIL_SSL_CERTFILE=certificates.client.cert_file,
            MAIL_SSL_KEYFILE=certificates.client.key_file,
            MAILBRIDGE_TLS={"ca_file": certificates.ca_file},
        )
        mail = Mail(app)
        with app.app_context():
            mail.send_message("testing", [RECIPIENT])
        mailbridge.close_all()
        assert len(server.messages) == 1
        assert server.connections[0].client_certificate
