"""Contexts: verified by default, one for equal options, and clear words for files that don't fit."""

import os
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mailbridge.config.groups import TLSOptions
from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError
from mailbridge.net.tls import context
from mailbridge.net.tls.context import context_for, forget_contexts
from mailbridge.secret import Secret
from tests.servers.certificates import KEY_PASSWORD, Certificates
from tests.unit.net.conftest import Connect, Serve, server_context, tls_talk, wait_for_end


def test_verified_and_modern_by_default() -> None:
    context = context_for(TLSOptions())
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_flags == ssl.create_default_context().verify_flags


def test_strict_follows_python_and_can_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_python_3_13(**options: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_python_3_13)
    assert context_for(TLSOptions()).verify_flags & ssl.VERIFY_X509_STRICT
    relaxed = context_for(TLSOptions(strict=False))
    assert not relaxed.verify_flags & ssl.VERIFY_X509_STRICT
    assert relaxed.verify_mode == ssl.CERT_REQUIRED


def test_without_verification() -> None:
    context = context_for(TLSOptions(verify=False))
    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("TLSv1", ssl.TLSVersion.TLSv1),
        ("TLSv1.1", ssl.TLSVersion.TLSv1_1),
        ("TLSv1.2", ssl.TLSVersion.TLSv1_2),
        ("TLSv1.3", ssl.TLSVersion.TLSv1_3),
    ],
)
def test_min_version(version: Any, expected: ssl.TLSVersion) -> None:
    assert context_for(TLSOptions(min_version=version)).minimum_version == expected


def test_a_name_in_the_subject_alone_proves_nothing_unless_asked_for(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    options = TLSOptions(ca_file=str(identities.ca_file), strict=False)
    peer = serve(tls_talk(server_context(identities.common_name), wait_for_end))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(peer).start_tls(context_for(options), "localhost", soon)
    stream = connect(peer)
    stream.start_tls(context_for(replace(options, allow_common_name=True)), "localhost", soon)
    assert stream.tls is not None
    assert stream.tls.verified


def test_ciphers() -> None:
    context = context_for(TLSOptions(ciphers="ECDHE-RSA-AES256-GCM-SHA384"))
    older = {c["name"] for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"}
    assert older == {"ECDHE-RSA-AES256-GCM-SHA384"}
    with pytest.raises(ConfigurationError, match=r"tls\.ciphers.*NO-SUCH"):
        context_for(TLSOptions(ciphers="NO-SUCH"))


def test_equal_options_share_a_context(identities: Certificates) -> None:
    def options() -> TLSOptions:
        return TLSOptions(
            ca_file=str(identities.ca_file),
            cert_file=str(identities.client.cert_file),
            key_file=str(identities.client.locked_key_file),
            key_password=Secret(KEY_PASSWORD),
        )

    first = context_for(options())
    assert context_for(options()) is first
    assert context_for(replace(options(), server_hostname="other.example")) is first
    assert context_for(replace(options(), min_version="TLSv1.3")) is not first
    assert context_for(replace(options(), verify=False)) is not first
    forget_contexts()
    assert context_for(options()) is not first


def test_a_context_of_the_users_own_is_taken_as_it_is() -> None:
    mine = ssl.create_default_context()
    assert context_for(TLSOptions(context=mine)) is mine


def test_a_file_that_changes_makes_a_new_context(identities: Certificates, tmp_path: Path) -> None:
    copy = tmp_path / "ca.pem"
    copy.write_bytes(identities.ca_file.read_bytes())
    options = TLSOptions(ca_file=str(copy))
    first = context_for(options)
    assert context_for(options) is first
    os.utime(copy, ns=(1, 1))
    assert context_for(options) is not first


def test_the_number_of_contexts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "MOST_CONTEXTS", 2)
    options = [TLSOptions(ciphers=f"DEFAULT:@SECLEVEL={level}") for level in (1, 2, 3)]
    first, second = context_for(options[0]), context_for(options[1])
    assert context_for(options[0]) is first  # used again, so that the other is the oldest
    context_for(options[2])
    assert context_for(options[0]) is first
    assert context_for(options[1]) is not second


def test_threads_that_build_at_once_get_the_same_context(monkeypatch: pytest.MonkeyPatch) -> None:
    both_build = threading.Barrier(2, timeout=10)
    create = ssl.create_default_context

    def slowly(**options: Any) -> ssl.SSLContext:
        both_build.wait()  # nobody waits for the other's build: no lock is held here
        return create(**options)

    monkeypatch.setattr(ssl, "create_default_context", slowly)
    found: list[ssl.SSLContext] = []
    threads = [threading.Thread(target=lambda: found.append(context_for(TLSOptions()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 2
    assert found[0] is found[1]


def test_a_child_builds_its_own() -> None:
    inherited = context_for(TLSOptions())
    child = os.fork()
    if child == 0:
        os._exit(0 if context_for(TLSOptions()) is not inherited else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert context_for(TLSOptions()) is inherited


@pytest.mark.parametrize("option", ["ca_file", "ca_path", "cert_file"])
def test_files_that_are_missing(option: str, tmp_path: Path) -> None:
    path = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigurationError, match=rf"tls\.{option}.*missing\.pem.*No such file") as caught:
        context_for(TLSOptions(**{option: path}))
    assert caught.value.stage == "config"


def test_a_key_file_that_is_missing(identities: Certificates, tmp_path: Path) -> None:
    options = TLSOptions(cert_file=str(identities.client.cert_file), key_file=str(tmp_path / "missing.key"))
    with pytest.raises(ConfigurationError, match=r"tls\.key_file.*missing\.key"):
        context_for(options)


def test_a_folder_for_a_file_and_a_file_for_a_folder(identities: Certificates, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tls\.ca_file.*Is a directory"):
        context_for(TLSOptions(ca_file=str(tmp_path)))
    with pytest.raises(ConfigurationError, match=r"tls\.ca_path.*Not a directory"):
        context_for(TLSOptions(ca_path=str(identities.ca_file)))


@pytest.mark.parametrize("content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_ca_file_without_certificates(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"tls\.ca_file.*no certificates in PEM format.*ca\.pem"):
        context_for(TLSOptions(ca_file=str(path)))


def test_a_client_certificate_in_each_form(identities: Certificates) -> None:
    client = identities.client
    context_for(TLSOptions(cert_file=str(client.combined)))
    context_for(TLSOptions(cert_file=str(client.cert_file), key_file=str(client.key_file)))


def test_a_locked_key(identities: Certificates, capfd: pytest.CaptureFixture[str]) -> None:
    options = TLSOptions(
        cert_file=str(identities.client.cert_file), key_file=str(identities.client.locked_key_file)
    )
    with pytest.raises(ConfigurationError, match=r"tls\.key_file.*is encrypted.*Set tls\.key_password"):
        context_for(options)
    with pytest.raises(ConfigurationError, match=r"tls\.key_password.*does not open") as caught:
        context_for(replace(options, key_password=Secret("wrong horse")))
    assert "wrong horse" not in f"{caught.value!r} {caught.value} {caught.value.__context__!r}"
    context_for(replace(options, key_password=Secret(KEY_PASSWORD)))
    assert capfd.readouterr() == ("", ""), "nobody must be asked on the terminal"


def test_a_password_beyond_openssls_limit(identities: Certificates) -> None:
    options = TLSOptions(
        cert_file=str(identities.client.cert_file),
        key_file=str(identities.client.locked_key_file),
        key_password=Secret("x" * 5000),
    )
    with pytest.raises(ConfigurationError, match=r"tls\.key_password"):
        context_for(options)


def test_a_key_that_belongs_to_another_certificate(identities: Certificates) -> None:
    options = TLSOptions(cert_file=str(identities.client.cert_file), key_file=str(identities.good.key_file))
    with pytest.raises(ConfigurationError, match=r"tls\.key_file.*does not belong to the certificate"):
        context_for(options)


def test_a_certificate_without_its_key(identities: Certificates) -> None:
    path = str(identities.client.cert_file)
    with pytest.raises(ConfigurationError, match=r"tls\.cert_file.*client\.pem"):
        context_for(TLSOptions(cert_file=path))


def test_an_old_server_can_be_allowed(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    context = server_context(identities.good, version=ssl.TLSVersion.TLSv1_1)
    stream = connect(serve(tls_talk(context, wait_for_end)))
    options = TLSOptions(ca_file=str(identities.ca_file), min_version="TLSv1.1")
    stream.start_tls(context_for(options), "localhost", soon)
    assert stream.tls is not None
    assert stream.tls.version == "TLSv1.1"
    assert stream.tls.verified


def test_an_authority_in_a_folder(
    serve: Serve, connect: Connect, identities: Certificates, tmp_path: Path, soon: Deadline
) -> None:
    context = ssl.create_default_context(cafile=str(identities.ca_file))
    (tmp_path / f"{subject_hash(context.get_ca_certs(binary_form=True)[0]):08x}.0").write_bytes(
        identities.ca_file.read_bytes()
    )
    stream = connect(serve(tls_talk(server_context(identities.good), wait_for_end)))
    stream.start_tls(context_for(TLSOptions(ca_path=str(tmp_path))), "localhost", soon)
    assert stream.tls is not None


def subject_hash(certificate: bytes) -> int:
    """OpenSSL's X509_NAME_hash: SHA-1 over the canonical form of the subject, whose strings are
    UTF8String in lower case, without the outer SEQUENCE; its first four bytes, the lowest first.
    """
    import hashlib

    from cryptography import x509

    [attribute] = x509.load_der_x509_certificate(certificate).subject
    text = str(attribute.value).lower().encode()
    oid = bytes.fromhex("0603550403")  # commonName
    value = b"\x0c" + bytes([len(text)]) + text
    pair = b"\x30" + bytes([len(oid + value)]) + oid + value
    canonical = b"\x31" + bytes([len(pair)]) + pair
    return int.from_bytes(hashlib.sha1(canonical).digest()[:4], "little")
