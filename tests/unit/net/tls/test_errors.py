"""Failures of TLS, from real handshakes where one can be had: the right class, sentence and hint."""

import errno
import pickle
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailbridge.config.groups import TLSOptions
from mailbridge.deadline import Deadline
from mailbridge.errors import (
    CertificateRejected,
    ConfigurationError,
    ConnectTimeout,
    MailbridgeError,
    ProtocolViolation,
    TLSFailed,
    TLSModeMismatch,
)
from mailbridge.net.stream import PlaintextBeforeTLS
from mailbridge.net.tls.context import context_for, tls_error
from tests.servers.certificates import Authority, Certificates, Identity, pem_of, sign_leaf, write_identity
from tests.unit.net.conftest import (
    PATIENCE,
    Connect,
    Peer,
    Serve,
    reset,
    server_context,
    tls_talk,
    wait_for_end,
)

Failure = Callable[..., MailbridgeError]


@pytest.fixture
def failure(connect: Connect, identities: Certificates) -> Failure:
    """The error of a handshake with a peer, or of the first read after it."""

    def attempt(
        peer: Peer, options: TLSOptions | None = None, *, name: str = "localhost", seconds: float = PATIENCE
    ) -> MailbridgeError:
        stream = connect(peer)
        deadline = Deadline.after(seconds)
        options = options or TLSOptions(ca_file=str(identities.ca_file))
        with pytest.raises(OSError) as caught:  # noqa: PT011, PT012 -- which one is the question
            stream.start_tls(context_for(options), name, deadline)
            assert stream.receive(deadline) != b"", "the server hung up without a word"
        return tls_error(
            caught.value, server=peer.server, host=name, first_bytes=stream.handshake_bytes, mode="tls"
        )

    return attempt


def shown_by(identity: Identity, **options: object) -> Callable[..., None]:
    return tls_talk(server_context(identity, **options), wait_for_end)  # type: ignore[arg-type]


def test_expired(serve: Serve, failure: Failure, identities: Certificates) -> None:
    peer = serve(shown_by(identities.expired))
    error = failure(peer)
    assert isinstance(error, CertificateRejected)
    assert error.message == "The certificate of localhost has expired"
    assert error.verify_code == 10
    assert error.verify_message == "certificate has expired"
    assert error.stage == "tls"
    assert error.server == peer.server
    assert "clock" in error.hint
    assert not error.is_transient


def test_not_yet_valid(serve: Serve, failure: Failure, identities: Certificates, tmp_path: Path) -> None:
    authority, ca_file = an_authority(tmp_path, with_key_usage=True)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = sign_leaf(key, ["localhost"], authority, datetime.now(UTC) + timedelta(days=100))
    identity = write_identity(tmp_path, "early", leaf, key)
    error = failure(serve(shown_by(identity)), TLSOptions(ca_file=str(ca_file)))
    assert isinstance(error, CertificateRejected)
    assert error.message == "The certificate of localhost is not valid yet"


def test_another_host(serve: Serve, failure: Failure, identities: Certificates) -> None:
    error = failure(serve(shown_by(identities.wrong_host)))
    assert isinstance(error, CertificateRejected)
    assert error.message == "The certificate of localhost is for another name"
    assert "tls.server_hostname" in error.hint


def test_another_ip_address(serve: Serve, failure: Failure, identities: Certificates) -> None:
    error = failure(serve(shown_by(identities.wrong_host)), name="127.0.0.1")
    assert isinstance(error, CertificateRejected)
    assert error.message == "The certificate of 127.0.0.1 is for another name"


def test_self_signed(serve: Serve, failure: Failure, identities: Certificates) -> None:
    error = failure(serve(shown_by(identities.self_signed)))
    assert isinstance(error, CertificateRejected)
    assert error.message == "The certificate of localhost is self-signed"
    assert "tls.ca_file" in error.hint


def test_unknown_authority(serve: Serve, failure: Failure, identities: Certificates) -> None:
    peer = serve(shown_by(identities.good))
    error = failure(peer, TLSOptions(ca_file=str(identities.other_ca_file)))
    assert isinstance(error, CertificateRejected)
    assert error.message == "The certificate of localhost is signed by an authority that is not trusted here"
    assert "tls.ca_file" in error.hint


def an_authority(folder: Path, *, with_key_usage: bool) -> tuple[Authority, Path]:
    """With `with_key_usage` false, one of the kind that X509_STRICT does not take."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An old CA")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=200))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if with_key_usage:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    authority = Authority(builder.sign(key, hashes.SHA256()), key)
    path = folder / "ca.pem"
    path.write_bytes(pem_of(authority.cert))
    return authority, path


def test_an_old_private_authority(
    serve: Serve, failure: Failure, connect: Connect, tmp_path: Path, soon: Deadline
) -> None:
    authority, ca_file = an_authority(tmp_path, with_key_usage=False)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = sign_leaf(key, ["localhost"], authority, datetime.now(UTC) + timedelta(days=10))
    peer = serve(shown_by(write_identity(tmp_path, "leaf", leaf, key)))
    strict = ssl.create_default_context(cafile=str(ca_file))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 does by itself
    error = failure(peer, TLSOptions(context=strict))
    assert isinstance(error, CertificateRejected)
    assert error.message.startswith("The certificate of localhost breaks a rule of RFC 5280 (")
    assert "key usage" in error.message
    assert "tls.strict=False" in error.hint
    stream = connect(peer)
    stream.start_tls(context_for(TLSOptions(ca_file=str(ca_file), strict=False)), "localhost", soon)


def test_a_server_that_only_speaks_old_versions(
    serve: Serve, failure: Failure, identities: Certificates
) -> None:
    error = failure(serve(shown_by(identities.good, version=ssl.TLSVersion.TLSv1_1)))
    assert isinstance(error, TLSFailed)
    assert not isinstance(error, TLSModeMismatch)
    assert "no TLS version in common" in error.message
    assert "tls.min_version" in error.hint


def test_a_client_that_only_speaks_new_versions(
    serve: Serve, failure: Failure, identities: Certificates
) -> None:
    peer = serve(shown_by(identities.good, version=ssl.TLSVersion.TLSv1_2))
    error = failure(peer, TLSOptions(ca_file=str(identities.ca_file), min_version="TLSv1.3"))
    assert isinstance(error, TLSFailed)
    assert "no TLS version in common" in error.message


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_is_required(
    version: ssl.TLSVersion, serve: Serve, failure: Failure, identities: Certificates
) -> None:
    talk = shown_by(identities.good, version=version, client_ca=identities.ca_file)
    error = failure(serve(talk))
    assert isinstance(error, TLSFailed)
    assert "tls.cert_file" in error.hint
    if version == ssl.TLSVersion.TLSv1_3:
        assert error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        assert error.message.startswith("The server requires a client certificate")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_missing_client_certificate_also_shows_when_writing(
    version: ssl.TLSVersion,
    serve: Serve,
    connect: Connect,
    identities: Certificates,
    soon: Deadline,
) -> None:
    peer = serve(shown_by(identities.good, version=version, client_ca=identities.ca_file))
    stream = connect(peer)
    with pytest.raises(ssl.SSLError):  # noqa: PT012 -- whichever comes first
        stream.start_tls(context_for(TLSOptions(ca_file=str(identities.ca_file))), "localhost", soon)
        peer.wait_for_talk()
        while True:  # the server has hung up; the kernel says so at the first or second write
            stream.send(b"EHLO x\r\n", soon)


def test_a_client_certificate_of_a_stranger(serve: Serve, failure: Failure, identities: Certificates) -> None:
    peer = serve(shown_by(identities.good, client_ca=identities.ca_file))
    stranger = identities.stranger
    options = TLSOptions(
        ca_file=str(identities.ca_file),
        cert_file=str(stranger.cert_file),
        key_file=str(stranger.key_file),
    )
    error = failure(peer, options)
    assert isinstance(error, TLSFailed)
    assert error.message.startswith("The server does not accept the client certificate")


def test_the_right_client_certificate(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    def greet(connection: ssl.SSLSocket) -> None:
        certificate = connection.getpeercert() or {}
        connection.sendall(str(certificate.get("subjectAltName")).encode())

    context = server_context(identities.good, client_ca=identities.ca_file)
    stream = connect(serve(tls_talk(context, greet)))
    options = TLSOptions(ca_file=str(identities.ca_file), cert_file=str(identities.client.combined))
    stream.start_tls(context_for(options), "localhost", soon)
    assert b"client.lab.test" in stream.receive(soon)


def test_a_server_of_clear_text_that_greets_first(serve: Serve, failure: Failure) -> None:
    def greet(connection: object) -> None:
        connection.sendall(b"220 mail.example ESMTP \x1b[31m\r\n")  # type: ignore[attr-defined]
        wait_for_end(connection)  # type: ignore[arg-type]

    peer = serve(greet)
    error = failure(peer)
    assert isinstance(error, TLSModeMismatch)
    assert f"speaks clear text on port {peer.port}" in error.message
    assert '"220 mail.example ESMTP \\x1b[31m"' in error.message
    assert "security='starttls'" in error.hint
    assert error.stage == "tls"


@pytest.mark.parametrize(
    "answer", [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"500 \r\n"]
)
def test_a_server_of_clear_text_that_answers_the_handshake(
    answer: bytes, serve: Serve, failure: Failure
) -> None:
    def respond(connection: object) -> None:
        connection.recv(1)  # type: ignore[attr-defined]
        connection.sendall(answer)  # type: ignore[attr-defined]
        wait_for_end(connection)  # type: ignore[arg-type]

    error = failure(serve(respond))
    assert isinstance(error, TLSModeMismatch)
    assert answer.decode().strip() in error.message


def test_clear_text_after_starttls_is_not_for_the_eyes_of_a_client() -> None:
    injected = PlaintextBeforeTLS(b"250-AUTH PLAIN\r\n")
    error = tls_error(injected, server="m.example:587", host="m.example", mode="starttls")
    assert isinstance(error, ProtocolViolation)
    assert "after it had agreed to STARTTLS" in error.message


@pytest.mark.parametrize("hang_up", [reset, lambda connection: None])
def test_a_server_that_hangs_up(hang_up: Callable[..., None], serve: Serve, failure: Failure) -> None:
    def go(connection: object) -> None:
        connection.recv(65536)  # type: ignore[attr-defined]
        hang_up(connection)

    error = failure(serve(go))
    assert type(error) is TLSFailed
    assert error.message.startswith("The server ended the connection during the TLS handshake")
    assert error.is_transient
    assert error.stage == "tls"
    assert error.errno == (errno.ECONNRESET if hang_up is reset else None)


def test_a_server_that_is_silent(serve: Serve, failure: Failure) -> None:
    error = failure(serve(wait_for_end), seconds=0.05)
    assert isinstance(error, ConnectTimeout)
    assert error.stage == "tls"


def test_errors_of_our_own_come_back_as_they_are() -> None:
    mine = ConfigurationError("no name")
    assert tls_error(mine, server="m:25", host="m") is mine


def openssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] something")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("TLSV1_ALERT_PROTOCOL_VERSION", "tls.min_version"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "tls.ciphers"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "tls.cert_file"),
        ("TLSV1_UNRECOGNIZED_NAME", "tls.server_hostname"),
        ("DH_KEY_TOO_SMALL", "@SECLEVEL"),
        ("UNSAFE_LEGACY_RENEGOTIATION_DISABLED", "updated"),
        ("SOMETHING_NEW", ""),
    ],
)
def test_reasons_of_openssl(reason: str, hint: str) -> None:
    error = tls_error(openssl_error(reason), server="m.example:465", host="m.example")
    assert type(error) is TLSFailed
    assert reason.replace("_", " ").lower() in error.message
    assert hint in error.hint
    assert error.reason == reason
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_wrong_version_in_a_record_that_is_tls_is_no_clear_text() -> None:
    wrong = openssl_error("WRONG_VERSION_NUMBER")
    error = tls_error(wrong, server="m:465", host="m", first_bytes=b"\x15\x03\x00\x00\x02\x02\x28")
    assert type(error) is TLSFailed
    assert isinstance(tls_error(wrong, server="m:465", host="m", first_bytes=b""), TLSModeMismatch)


def test_a_certificate_problem_that_is_not_known_says_what_openssl_says() -> None:
    exc = ssl.SSLCertVerificationError(1, "verify failed")
    error = tls_error(exc, server="m:465", host="m")
    assert isinstance(error, CertificateRejected)
    assert "verify failed" in error.message
    exc.verify_code, exc.verify_message = 26, "unsuitable certificate purpose {x}"
    error = tls_error(exc, server="m:465", host="m")
    assert error.message == "The certificate of m is not accepted (unsuitable certificate purpose {x})"
