"""What is told about a TLS session, and that nothing is told of a certificate nobody checked."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest

from mailbridge.config.groups import TLSOptions
from mailbridge.deadline import Deadline
from mailbridge.net.tls.context import TLSFacts, context_for
from tests.servers.certificates import SERVER_NAMES, Certificates
from tests.unit.net.conftest import Connect, Serve, server_context, tls_talk, wait_for_end


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_verified_session(
    version: ssl.TLSVersion, serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    context = server_context(identities.good, version=version)
    stream = connect(serve(tls_talk(context, wait_for_end)))
    stream.start_tls(context_for(TLSOptions(ca_file=str(identities.ca_file))), "localhost", soon)
    facts = stream.tls
    assert facts is not None
    assert facts.version == version.name.replace("_", ".")
    assert "AES" in facts.cipher or "CHACHA" in facts.cipher
    assert facts.verified
    assert not facts.resumed
    assert facts.subject == "localhost"
    assert facts.issuer == "mailbridge test CA"
    assert set(facts.names) >= set(SERVER_NAMES) - {"::1"}
    assert facts.not_after is not None
    assert facts.days_left(datetime.now(UTC)) == 29
    assert facts.days_left(facts.not_after + timedelta(seconds=1)) == -1


def test_an_unverified_certificate_is_not_read(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    stream = connect(serve(tls_talk(server_context(identities.good), wait_for_end)))
    stream.start_tls(context_for(TLSOptions(verify=False)), "any.example", soon)
    facts = stream.tls
    assert facts is not None
    assert stream.secure
    assert not facts.verified
    assert (facts.subject, facts.issuer, facts.names, facts.not_after) == ("", "", (), None)
    assert facts.days_left(datetime.now(UTC)) is None
    assert "certificate not verified" in str(facts)


def test_a_chain_without_a_checked_name_is_not_verified(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    context = ssl.create_default_context(cafile=str(identities.ca_file))
    context.check_hostname = False
    stream = connect(serve(tls_talk(server_context(identities.wrong_host), wait_for_end)))
    stream.start_tls(context_for(TLSOptions(context=context)), "localhost", soon)
    assert stream.tls is not None
    assert not stream.tls.verified
    assert stream.tls.names == ("other.lab.test",)


def test_in_words() -> None:
    facts = TLSFacts(
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        verified=True,
        resumed=True,
        names=("a.example", "b.example"),
        not_after=datetime(2030, 1, 31, tzinfo=UTC),
    )
    assert str(facts) == (
        "TLSv1.3, TLS_AES_256_GCM_SHA384, certificate for a.example, b.example until 2030-01-31, resumed"
    )
