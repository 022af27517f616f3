"""Sessions: really resumed by a server, given out once, never under another name or context."""

import os
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest

from mailbridge.config.groups import TLSOptions
from mailbridge.deadline import Deadline
from mailbridge.net.tls.context import SessionStore, context_for, sessions
from mailbridge.net.tls.handshake import Handshake
from mailbridge.net.tls.sessions import trust_of
from tests.servers.certificates import Certificates
from tests.unit.net.conftest import Connect, Serve, echo, server_context, tls_talk

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
@pytest.mark.parametrize("tickets", [True, False])
def test_the_second_connection_resumes(
    version: ssl.TLSVersion,
    tickets: bool,
    serve: Serve,
    connect: Connect,
    identities: Certificates,
    soon: Deadline,
) -> None:
    reused: list[bool | None] = []
    server_side = server_context(identities.good, version=version)
    if not tickets:
        server_side.options |= ssl.OP_NO_TICKET  # the server keeps the sessions itself

    def talk(connection: ssl.SSLSocket) -> None:
        reused.append(connection.session_reused)
        echo(connection)
        with suppress(OSError):
            connection.unwrap()  # OpenSSL's cache keeps no session that the server ends without it

    peer = serve(tls_talk(server_side, talk))
    context = context_for(TLSOptions(ca_file=str(identities.ca_file)))
    store = SessionStore()
    for is_resumed in (False, True, True):
        stream = connect(peer)
        session = store.recall(trust_of(context), "localhost", peer.server)
        assert (session is not None) is is_resumed
        stream.start_tls(context, "localhost", soon, session=session)
        assert stream.tls is not None
        assert stream.tls.resumed is is_resumed
        assert stream.tls.verified
        assert stream.tls.subject == "localhost"
        stream.send(b"x", soon)
        assert stream.receive(soon) == b"x"
        store.remember(trust_of(context), "localhost", peer.server, stream.tls_session)
        stream.close()
        peer.wait_for_talk()
    assert reused == [False, True, True]


def a_session(serve: Serve, connect: Connect, identities: Certificates, soon: Deadline) -> ssl.SSLSession:
    peer = serve(tls_talk(server_context(identities.good), echo))
    stream = connect(peer)
    stream.start_tls(context_for(TLSOptions(ca_file=str(identities.ca_file))), "localhost", soon)
    stream.send(b"x", soon)
    stream.receive(soon)
    session = stream.tls_session
    assert session is not None
    return session


RELAXED: dict[str, Callable[[ssl.SSLContext], object]] = {
    "no name": lambda context: setattr(context, "check_hostname", False),
    "no certificate": lambda context: (
        setattr(context, "check_hostname", False),
        setattr(context, "verify_mode", ssl.CERT_NONE),
    ),
    "flags": lambda context: setattr(context, "verify_flags", ssl.VerifyFlags.VERIFY_DEFAULT),
    "common name": lambda context: setattr(context, "hostname_checks_common_name", True),
    "small keys": lambda context: context.set_ciphers("DEFAULT:@SECLEVEL=0"),
}


def strict_context(identities: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(identities.ca_file))
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize("how", RELAXED)
@pytest.mark.parametrize("when", ["before the handshake", "before it is kept", "before it is resumed"])
def test_a_session_is_resumed_only_under_the_settings_that_verified_it(
    how: str, when: str, serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    """A context of the user's own may be changed at any time."""
    peer = serve(tls_talk(server_context(identities.good), echo))
    context = strict_context(identities)
    options = TLSOptions(context=context)
    sessions.forget()

    def resumed(*, before_keeping: Callable[[], object] = lambda: None) -> bool:
        stream = connect(peer)
        handshake = Handshake(stream, options, host="localhost", server=peer.server)
        handshake.perform(mode="tls", deadline=soon)
        stream.send(b"x", soon)
        assert stream.receive(soon) == b"x"
        before_keeping()
        handshake.remember_session()
        assert stream.tls is not None
        is_resumed = stream.tls.resumed
        stream.close()
        peer.wait_for_talk()
        return is_resumed

    def relax() -> None:
        RELAXED[how](context)

    def restore() -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        context.hostname_checks_common_name = False
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.set_ciphers("DEFAULT:@SECLEVEL=1")

    restore()
    if when == "before the handshake":
        relax()
        assert not resumed()
        restore()  # "switched on later"
    elif when == "before it is kept":
        relax()
        assert not resumed(before_keeping=restore)
    else:
        assert not resumed()
        relax()
    assert not resumed()
    assert resumed()


def test_a_session_is_given_out_once_and_only_for_the_same_connection(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    session = a_session(serve, connect, identities, soon)
    context, other = ssl.create_default_context(), ssl.create_default_context()
    store = SessionStore()
    store.remember(trust_of(context), "a.example", "m.example:25", session)
    assert store.recall(trust_of(other), "a.example", "m.example:25") is None
    assert store.recall(trust_of(context), "b.example", "m.example:25") is None
    assert store.recall(trust_of(context), None, "m.example:25") is None
    assert store.recall(trust_of(context), "a.example", "m.example:587") is None
    assert store.recall(trust_of(context), "a.example", "m.example:25") is session
    assert store.recall(trust_of(context), "a.example", "m.example:25") is None


def test_the_store_is_bounded_and_can_forget(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    session = a_session(serve, connect, identities, soon)
    context = ssl.create_default_context()
    store = SessionStore(limit=2)
    for server in ("one:25", "two:25", "one:25", "three:25"):
        store.remember(trust_of(context), None, server, session)
    assert store.recall(trust_of(context), None, "two:25") is None
    assert store.recall(trust_of(context), None, "one:25") is session
    assert store.recall(trust_of(context), None, "three:25") is session
    store.remember(trust_of(context), None, "one:25", session)
    store.forget()
    assert store.recall(trust_of(context), None, "one:25") is None


def test_nothing_to_remember() -> None:
    store = SessionStore()
    context = ssl.create_default_context()
    store.remember(trust_of(context), None, "m:25", None)
    assert store.recall(trust_of(context), None, "m:25") is None


def test_a_child_starts_without_the_parents_sessions(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    session = a_session(serve, connect, identities, soon)
    context = ssl.create_default_context()
    sessions.remember(trust_of(context), None, "m:25", session)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the peers are alive
        child = os.fork()
    if child == 0:
        os._exit(0 if sessions.recall(trust_of(context), None, "m:25") is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert sessions.recall(trust_of(context), None, "m:25") is session
