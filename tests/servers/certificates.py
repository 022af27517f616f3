"""Certificates made on the fly: what a mail server may show, good and bad.

They carry what Python 3.13 checks by default (VERIFY_X509_STRICT): key usage and key identifiers.
Nothing here is kept from one run to the next, and no key is used outside loopback.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAMES = ("localhost", "mail.lab.test", "127.0.0.1", "::1")
KEY_PASSWORD = "open sesame"
DAY = datetime.timedelta(days=1)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key, as files in PEM."""

    cert_file: Path
    key_file: Path
    combined: Path  # the certificate, then the key
    locked_key_file: Path  # the same key, encrypted with KEY_PASSWORD


@dataclass(frozen=True, slots=True)
class Certificates:
    """`ca_file` signs good, wrong_host, expired and client; `other_ca_file` signs the stranger."""

    ca_file: Path
    other_ca_file: Path
    good: Identity  # SERVER_NAMES
    wrong_host: Identity  # other.lab.test only
    expired: Identity  # SERVER_NAMES, ended in 2020
    self_signed: Identity  # SERVER_NAMES, no authority behind it
    common_name: Identity  # "localhost" in the subject, and no subjectAltName
    client: Identity  # for client authentication
    stranger: Identity  # like client, but signed by other_ca_file


@dataclass(frozen=True, slots=True)
class Authority:
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(folder: Path) -> Certificates:
    folder.mkdir(parents=True, exist_ok=True)
    ca, other = make_authority("mailbridge test CA"), make_authority("mailbridge other CA")
    today = datetime.datetime.now(datetime.UTC)
    past = datetime.datetime(2020, 1, 31, tzinfo=datetime.UTC)

    def issue(
        name: str,
        names: Sequence[str],
        issuer: Authority | None = ca,
        until: datetime.datetime = today + 30 * DAY,
        has_names: bool = True,
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        return write_identity(folder, name, sign_leaf(key, names, issuer, until, has_names), key)

    return Certificates(
        ca_file=write(folder / "ca.pem", pem_of(ca.cert)),
        other_ca_file=write(folder / "other_ca.pem", pem_of(other.cert)),
        good=issue("good", SERVER_NAMES),
        wrong_host=issue("wrong_host", ["other.lab.test"]),
        expired=issue("expired", SERVER_NAMES, until=past),
        self_signed=issue("self_signed", SERVER_NAMES, issuer=None),
        common_name=issue("common_name", ["localhost"], has_names=False),
        client=issue("client", ["client.lab.test"]),
        stranger=issue("stranger", ["stranger.lab.test"], issuer=other),
    )


def make_authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    until = datetime.datetime.now(datetime.UTC) + 30 * DAY
    # Valid from before 2020, so that the expired certificate is bad for one reason only.
    start = datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)
    builder = begin(subject, subject, key, start, until)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(key_usage(signs_certificates=True), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def sign_leaf(
    key: PrivateKey,
    names: Sequence[str],
    issuer: Authority | None,
    until: datetime.datetime,
    has_names: bool = True,
) -> x509.Certificate:
    """A certificate for servers and clients; without an issuer it signs itself.

    Without `has_names` the first name stands in the subject alone, as it did before RFC 6125.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    issuer_name = issuer.cert.subject if issuer else subject
    signing_key = issuer.key if issuer else key
    builder = begin(subject, issuer_name, key, until - 60 * DAY, until)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    if has_names:
        alternatives = x509.SubjectAlternativeName([general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(authority, critical=False)
    )
    return builder.sign(signing_key, hashes.SHA256())


def begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    start: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem_of(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def write_identity(folder: Path, name: str, cert: x509.Certificate, key: PrivateKey) -> Identity:
    def key_in_pem(encryption: serialization.KeySerializationEncryption) -> bytes:
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    clear = key_in_pem(serialization.NoEncryption())
    locked = key_in_pem(serialization.BestAvailableEncryption(KEY_PASSWORD.encode()))
    return Identity(
        cert_file=write(folder / f"{name}.pem", pem_of(cert)),
        key_file=write(folder / f"{name}.key", clear),
        combined=write(folder / f"{name}.combined.pem", pem_of(cert) + clear),
        locked_key_file=write(folder / f"{name}.locked.key", locked),
    )


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    # Servers read their keys under users of their own; these keys are worth nothing outside this folder.
    path.chmod(0o644)
    return path
