"""What a session can be bound to: both sides must come to the same bytes."""

import hashlib
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mailbridge.deadline import Deadline
from mailbridge.net.stream import Stream
from mailbridge.net.tls.channel_binding import channel_bindings, server_end_point
from tests.servers.certificates import Certificates
from tests.unit.net.conftest import Connect, MemoryServer, Serve, server_context, tls_talk, wait_for_end

pytest.importorskip("asn1crypto", reason="the extra scram is not installed")

MemoryPair = Callable[..., tuple[Stream, MemoryServer]]
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.example.com")])


def certificate(key: Any, algorithm: Any, **options: Any) -> bytes:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, algorithm, **options).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def test_nothing_to_bind_to_in_the_clear(memory_pair: MemoryPair) -> None:
    stream, _ = memory_pair()
    stream.tls = None  # as where TLS ends at a proxy
    assert channel_bindings(stream) == {}


def test_tls_1_2(memory_pair: MemoryPair, identities: Certificates) -> None:
    stream, server = memory_pair(ssl.TLSVersion.TLSv1_2)
    bindings = channel_bindings(stream)
    assert bindings["tls-unique"] == server.tls.get_channel_binding("tls-unique")
    assert bindings.keys() == {"tls-unique", "tls-server-end-point"}


def test_tls_1_3_has_no_tls_unique(memory_pair: MemoryPair, identities: Certificates) -> None:
    """RFC 8446 section C.5: OpenSSL would give one all the same."""
    stream, _ = memory_pair(ssl.TLSVersion.TLSv1_3)
    found = channel_bindings(stream)
    der = ssl.PEM_cert_to_DER_cert(identities.good.cert_file.read_text())
    assert found["tls-server-end-point"] == hashlib.sha256(der).digest()
    assert found.keys() - {"tls-exporter"} == {"tls-server-end-point"}


def test_tls_exporter_where_python_has_it(memory_pair: MemoryPair, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = memory_pair(ssl.TLSVersion.TLSv1_3)
    monkeypatch.setattr(ssl, "CHANNEL_BINDING_TYPES", ["tls-unique", "tls-exporter"])

    class Newer:
        """The session, as a Python that can give this binding would show it."""

        def version(self) -> str:
            return "TLSv1.3"

        def getpeercert(self, binary_form: bool) -> None:
            return None

        def get_channel_binding(self, kind: str) -> bytes:
            return kind.encode()

    monkeypatch.setattr(Stream, "ssl_object", Newer())
    assert channel_bindings(stream) == {"tls-exporter": b"tls-exporter"}


def test_tls_at_a_proxy_is_not_the_servers(serve: Serve, connect: Connect, identities: Certificates) -> None:
    stream = connect(serve(tls_talk(server_context(identities.good), wait_for_end)))
    context = ssl.create_default_context(cafile=str(identities.ca_file))
    stream.start_tls(context, "localhost", Deadline.after(10), to_proxy=True)
    assert stream.ssl_object is not None
    assert channel_bindings(stream) == {}


class TestServerEndPoint:
    """RFC 5929 section 4.1: the hash of the certificate's signature, and at least SHA-256."""

    @pytest.mark.parametrize(
        "algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512(), hashes.SHA224()]
    )
    def test_the_hash_of_the_signature(self, rsa_key: rsa.RSAPrivateKey, algorithm: Any) -> None:
        der = certificate(rsa_key, algorithm)
        assert server_end_point(der) == hashlib.new(algorithm.name, der).digest()

    def test_ecdsa(self) -> None:
        der = certificate(ec.generate_private_key(ec.SECP384R1()), hashes.SHA384())
        assert server_end_point(der) == hashlib.sha384(der).digest()

    def test_pss(self, rsa_key: rsa.RSAPrivateKey) -> None:
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=padding.PSS.DIGEST_LENGTH)
        der = certificate(rsa_key, hashes.SHA384(), rsa_padding=pss)
        assert server_end_point(der) == hashlib.sha384(der).digest()

    @pytest.mark.parametrize(
        ("oid", "expected"), [("2a864886f70d010105", "sha256"), ("2a864886f70d010104", "sha256")]
    )
    def test_sha_1_and_md5_count_as_sha_256(
        self, rsa_key: rsa.RSAPrivateKey, oid: str, expected: str
    ) -> None:
        """Nobody signs with these any more: the algorithm is written into a certificate of today."""
        modern = bytes.fromhex("2a864886f70d01010b")
        der = certificate(rsa_key, hashes.SHA256()).replace(modern, bytes.fromhex(oid))
        assert server_end_point(der) == hashlib.new(expected, der).digest()

    def test_ed25519_has_none(self) -> None:
        assert server_end_point(certificate(ed25519.Ed25519PrivateKey.generate(), None)) is None

    @pytest.mark.parametrize("der", [b"", b"\x30\x03abc", b"no certificate"])
    def test_what_is_no_certificate_has_none(self, der: bytes) -> None:
        assert server_end_point(der) is None

    def test_without_the_library_there_is_none(
        self, rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "asn1crypto.x509", None)
        assert server_end_point(certificate(rsa_key, hashes.SHA256())) is None
