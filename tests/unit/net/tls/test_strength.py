"""Small keys pass with old versions of TLS that were asked for, and with no other; the log says so."""

import logging
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailbridge import CertificateRejected
from mailbridge.config.groups import TLSOptions
from mailbridge.deadline import Deadline
from mailbridge.net.tls.context import context_for, forget_contexts
from mailbridge.net.tls.handshake import Handshake
from tests.servers.certificates import PrivateKey, make_authority, pem_of, sign_leaf, write, write_identity
from tests.unit.net.conftest import Connect, Serve, tls_talk, wait_for_end

OLD, NEW = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2


def server_with(key: PrivateKey, version: ssl.TLSVersion, folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server that speaks `version` alone and shows `key`; and who signed that."""
    authority = make_authority("mailbridge test CA")
    leaf = sign_leaf(key, ["localhost"], authority, datetime.now(UTC) + timedelta(days=10))
    identity = write_identity(folder, "leaf", leaf, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.load_cert_chain(identity.combined)
    return context, str(write(folder / "ca.pem", pem_of(authority.cert)))


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@pytest.mark.parametrize(
    ("key", "version", "options", "passes"),
    [
        (rsa_key(1024), OLD, {"min_version": "TLSv1.1"}, True),
        (rsa_key(1024), NEW, {"min_version": "TLSv1.1"}, False),
        (rsa_key(1024), NEW, {"min_version": "TLSv1"}, False),
        (rsa_key(1024), ssl.TLSVersion.TLSv1_3, {"min_version": "TLSv1"}, False),
        (rsa_key(1024), NEW, {}, False),
        (rsa_key(1024), NEW, {"min_version": "TLSv1", "ciphers": "DEFAULT:@SECLEVEL=0"}, True),
        (rsa_key(1024), NEW, {"min_version": "TLSv1", "verify": False}, True),
        (rsa_key(2048), NEW, {"min_version": "TLSv1"}, True),
        (ec.generate_private_key(ec.SECP256R1()), ssl.TLSVersion.TLSv1_3, {"min_version": "TLSv1"}, True),
    ],
)
def test_small_keys_pass_with_old_versions_only(
    key: PrivateKey,
    version: ssl.TLSVersion,
    options: dict[str, object],
    passes: bool,
    serve: Serve,
    connect: Connect,
    tmp_path: Path,
    soon: Deadline,
) -> None:
    context, ca_file = server_with(key, version, tmp_path)
    peer = serve(tls_talk(context, wait_for_end))
    tls = TLSOptions(**{"ca_file": ca_file, **options})  # type: ignore[arg-type]
    stream = connect(peer)
    handshake = Handshake(stream, tls, host="localhost", server=peer.server)
    if passes:
        handshake.perform(mode="tls", deadline=soon)
        assert stream.tls is not None
        return
    with pytest.raises(CertificateRejected, match="too weak for OpenSSL"):
        handshake.perform(mode="tls", deadline=soon)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"min_version": "TLSv1"}, True),
        ({"min_version": "TLSv1.1"}, True),
        ({"min_version": "TLSv1.2"}, False),
        ({"min_version": "TLSv1", "ciphers": "DEFAULT:@SECLEVEL=0"}, False),
    ],
)
def test_a_lowered_level_is_told_once_and_only_its_own(
    options: dict[str, object], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    forget_contexts()
    usual = context_for(TLSOptions()).security_level
    with caplog.at_level(logging.WARNING, "mailbridge"):
        for _ in range(2):
            context_for(TLSOptions(**options))  # type: ignore[arg-type]
    assert [record.action for record in caplog.records] == ["weak_tls"] * warned  # type: ignore[attr-defined]
    assert context_for(TLSOptions()).security_level == usual > 0
