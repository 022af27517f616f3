"""Sessions: really resumed by a server, given out once, never under another name or context."""

import os
import ssl
import warnings
from contextlib import suppress

import pytest

from mailbridge.net.deadline import Deadline
from mailbridge.net.tls import SessionStore, context_for, sessions
from mailbridge.options import TLSOptions
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
        session = store.recall(context, "localhost", peer.server)
        assert (session is not None) is is_resumed
        stream.start_tls(context, "localhost", soon, session=session)
        assert stream.tls is not None
        assert stream.tls.resumed is is_resumed
        assert stream.tls.verified
        assert stream.tls.subject == "localhost"
        stream.send(b"x", soon)
        assert stream.receive(soon) == b"x"
        store.remember(context, "localhost", peer.server, stream.tls_session)
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


def test_a_session_is_given_out_once_and_only_for_the_same_connection(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    session = a_session(serve, connect, identities, soon)
    context, other = ssl.create_default_context(), ssl.create_default_context()
    store = SessionStore()
    store.remember(context, "a.example", "m.example:25", session)
    assert store.recall(other, "a.example", "m.example:25") is None
    assert store.recall(context, "b.example", "m.example:25") is None
    assert store.recall(context, None, "m.example:25") is None
    assert store.recall(context, "a.example", "m.example:587") is None
    assert store.recall(context, "a.example", "m.example:25") is session
    assert store.recall(context, "a.example", "m.example:25") is None


def test_the_store_is_bounded_and_can_forget(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    session = a_session(serve, connect, identities, soon)
    context = ssl.create_default_context()
    store = SessionStore(limit=2)
    for server in ("one:25", "two:25", "one:25", "three:25"):
        store.remember(context, None, server, session)
    assert store.recall(context, None, "two:25") is None
    assert store.recall(context, None, "one:25") is session
    assert store.recall(context, None, "three:25") is session
    store.remember(context, None, "one:25", session)
    store.forget()
    assert store.recall(context, None, "one:25") is None


def test_nothing_to_remember() -> None:
    store = SessionStore()
    context = ssl.create_default_context()
    store.remember(context, None, "m:25", None)
    assert store.recall(context, None, "m:25") is None


def test_a_child_starts_without_the_parents_sessions(
    serve: Serve, connect: Connect, identities: Certificates, soon: Deadline
) -> None:
    session = a_session(serve, connect, identities, soon)
    context = ssl.create_default_context()
    sessions.remember(context, None, "m:25", session)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the peers are alive
        child = os.fork()
    if child == 0:
        os._exit(0 if sessions.recall(context, None, "m:25") is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert sessions.recall(context, None, "m:25") is session
