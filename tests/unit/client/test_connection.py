"""The low-level client: what each method says, takes and leaves behind."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailbridge import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Envelope,
    InvalidMessage,
    Mailer,
    Message,
    MessageRefused,
    NobodyListens,
    RecipientsRefused,
    SMTPConfig,
    SMTPConnection,
    render,
)
from mailbridge.client.opening import _leads_to_loopback
from mailbridge.testing import DEFAULT_KEYWORDS, Fault, ScriptedServer

CHUNKING = (*DEFAULT_KEYWORDS, "CHUNKING", "BINARYMIME")
RAW = b"From: a@x.example\r\nTo: b@y.example\r\nMessage-ID: <1@x.example>\r\n\r\n.Hi\r\n"
ENVELOPE = Envelope("a@x.example", ["b@y.example", "c@y.example"])


def config_for(server: ScriptedServer, **options: object) -> SMTPConfig:
    settings = {"host": "127.0.0.1", "port": server.port, "security": "none", "timeout": 10}
    return SMTPConfig.from_mapping({**settings, **options})


def test_the_life_of_a_session() -> None:
    with ScriptedServer(users={"u": "p"}) as server:
        connection = SMTPConnection(config_for(server))
        before = (connection.is_open, connection.secure, connection.authenticated, connection.allows_auth)
        assert before == (False, False, False, False)
        assert connection.last_reply is None
        connection.connect()
        assert (connection.is_open, connection.allows_auth) == (True, True)
        assert "PIPELINING" in connection.capabilities
        connection.login(username="u", password="p")
        assert connection.authenticated
        assert connection.last_reply is not None
        assert connection.last_reply.code == 235
        result = connection.send(ENVELOPE, RAW)
        assert result.accepted == ENVELOPE.recipients
        assert result.connection_id == connection.id
        assert connection.noop().code == connection.reset().code == 250
        assert connection.quit().code == 221
        assert not connection.is_open
        assert server.connections[0].verbs == (
            *("EHLO", "AUTH", "MAIL", "RCPT", "RCPT", "DATA", "NOOP", "RSET", "QUIT"),
        )
        assert server.messages[0].content == RAW


def test_what_is_told_of_a_message() -> None:
    with (
        ScriptedServer(rcpt_replies={"c@y.example": "550 5.1.1 nobody"}) as server,
        SMTPConnection(config_for(server)) as connection,
    ):
        result = connection.send(ENVELOPE, RAW)
    assert (result.accepted, list(result.rejected)) == (("b@y.example",), ["c@y.example"])
    [error] = result.rejected_errors
    assert isinstance(error, RecipientsRefused)
    assert (error.smtp_code, error.server) == (550, config_for(server).server)
    assert error.recipients == {"c@y.example": (550, b"5.1.1 nobody")}
    assert result.response.code == 250
    assert result.message_size == len(RAW)
    assert {"envelope", "data", "total"} <= result.timings.keys()
    assert result.timings["envelope"] > 0 < result.timings["data"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mail.eml"
    path.write_bytes(RAW)
    return path


CONTENTS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: RAW,
    "bare line feeds": lambda path: RAW.replace(b"\r\n", b"\n"),
    "str": lambda path: RAW.decode(),
    "path": lambda path: path,
    "file": lambda path: path.open("rb"),
    "buffer": lambda path: io.BytesIO(RAW),
    "iterator": lambda path: iter([RAW[:10], RAW[10:]]),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_every_kind_of_content(kind: str, path: Path) -> None:
    content = CONTENTS[kind](path)
    try:
        with ScriptedServer() as server, SMTPConnection(config_for(server)) as connection:
            connection.send(ENVELOPE, content)  # type: ignore[arg-type]
            assert [m.content for m in server.messages] == [RAW]
    finally:
        if isinstance(content, io.BufferedReader):
            assert not content.closed, "what the caller has opened is the caller's"
            content.close()


def test_text_becomes_utf_8() -> None:
    with ScriptedServer() as server, SMTPConnection(config_for(server)) as connection:
        connection.send(ENVELOPE, "Subject: x\n\nGrüße\n")
        assert server.messages[0].content == "Subject: x\r\n\r\nGrüße\r\n".encode()
        with pytest.raises(InvalidMessage, match="UTF-8"):
            connection.send(ENVELOPE, "Subject: x\n\n\ud800\n")
        assert connection.is_open


@pytest.mark.parametrize("kind", [Message, EmailMessage])
def test_a_message_tells_its_envelope(kind: type) -> None:
    if kind is Message:
        message: object = Message("x", "a@x.example", ["b@y.example"], text="x")
    else:
        message = EmailMessage()
        message["From"], message["To"] = "a@x.example", "b@y.example"
    with ScriptedServer() as server, SMTPConnection(config_for(server)) as connection:
        connection.send(None, message)  # type: ignore[arg-type]
        connection.send(ENVELOPE, message)  # type: ignore[arg-type]
        assert [m.recipients for m in server.messages] == [("b@y.example",), ENVELOPE.recipients]


def test_bytes_need_an_envelope() -> None:
    with (
        ScriptedServer() as server,
        SMTPConnection(config_for(server)) as connection,
        pytest.raises(InvalidMessage, match="envelope"),
    ):
        connection.send(None, RAW)


# ---- the end


def test_close_says_goodbye_and_abort_does_not() -> None:
    with ScriptedServer() as server:
        for end in ("close", "abort"):
            connection = SMTPConnection(config_for(server))
            connection.connect()
            getattr(connection, end)()
            getattr(connection, end)()
            assert not connection.is_open
            with pytest.raises(ConnectionLost, match="closed"):
                connection.noop()
        server.wait_for(lambda: all(c.is_closed for c in server.connections))
        assert [c.verbs for c in server.connections] == [("EHLO", "QUIT"), ("EHLO",)]


def test_an_error_in_the_block_ends_the_session_without_a_word() -> None:
    with ScriptedServer() as server:
        with pytest.raises(KeyError), SMTPConnection(config_for(server)) as connection:
            raise KeyError
        assert not connection.is_open
        server.wait_for(lambda: server.connections[0].is_closed)
        assert server.connections[0].verbs == ("EHLO",)


def test_a_session_is_connected_once() -> None:
    with ScriptedServer() as server, SMTPConnection(config_for(server)) as connection:
        with pytest.raises(ConfigurationError, match="once"):
            connection.connect()
        assert connection.is_open
        connection.quit()
        with pytest.raises(ConfigurationError, match="once"):
            connection.connect()


def test_an_empty_line_on_an_idle_session_is_nothing() -> None:
    with ScriptedServer() as server, Mailer(config_for(server)) as mailer:
        for _ in range(3):
            mailer.send(RAW, envelope=ENVELOPE)
            server.connections[0].push(b"\r\n")
        assert len(server.connections) == 1


def test_a_deadline_in_seconds() -> None:
    with (
        ScriptedServer(faults=[Fault("noop", "silence")]) as server,
        SMTPConnection(config_for(server)) as connection,
    ):
        with pytest.raises(DeadlineExceeded):
            connection.noop(0.05)
        assert not connection.is_open


# ---- login


def test_credentials_of_the_configuration_or_others() -> None:
    with ScriptedServer(users={"u": "p", "v": "q"}) as server:
        with SMTPConnection(config_for(server, username="u", password="p")) as connection:
            connection.login()  # is done already
        connection = SMTPConnection(config_for(server, username="u", password="p"))
        connection.connect()
        connection.login(username="v", password="q", auth="LOGIN")
        assert connection.mechanism == "LOGIN"
        connection.quit()
        assert [c.user for c in server.connections] == ["u", "v"]


def test_a_login_is_for_the_whole_session() -> None:
    with ScriptedServer(users={"u": "p", "v": "q"}) as server:
        with SMTPConnection(config_for(server, username="u", password="p")) as connection:
            with pytest.raises(ConfigurationError, match="logged in already"):
                connection.login(username="v", password="q")
            assert connection.is_open
            connection.send(ENVELOPE, RAW)
        assert server.connections[0].user == "u"


def test_a_token_in_the_place_of_a_password() -> None:
    with (
        ScriptedServer(users={"u": "token"}, auth=["XOAUTH2"]) as server,
        SMTPConnection(config_for(server)) as connection,
    ):
        connection.login(username="u", oauth2=lambda: "token")
        assert (connection.authenticated, connection.mechanism) == (True, "XOAUTH2")


def test_refused_credentials_that_were_given_show_nowhere() -> None:
    with ScriptedServer(users={"u": "p"}) as server, SMTPConnection(config_for(server)) as connection:
        with pytest.raises(AuthenticationFailed) as caught:
            connection.login(username="u", password="hunter2")
        assert not connection.is_open
    trace = caught.value.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals["__name__"]
        if module.startswith("mailbridge."):
            assert "hunter2" not in repr(trace.tb_frame.f_locals), module
        trace = trace.tb_next


@pytest.mark.parametrize(
    "given", [{"username": "u"}, {"password": "p"}, {"oauth2": lambda: "x"}, {"username": "u", "auth": "NO"}]
)
def test_credentials_that_make_no_sense(given: dict[str, object]) -> None:
    with (
        ScriptedServer(users={"u": "p"}) as server,
        SMTPConnection(config_for(server)) as connection,
        pytest.raises(ConfigurationError),
    ):
        connection.login(**given)  # type: ignore[arg-type]


def test_a_password_in_clear_text_is_refused_as_ever() -> None:
    with ScriptedServer(users={"u": "p"}) as server:
        connection = SMTPConnection(config_for(server))
        connection.connect()
        assert connection._way is not None
        connection._way = replace(connection._way, is_loopback=False)
        with pytest.raises(ConfigurationError, match="clear text"):
            connection.login(username="u", password="p")
        assert not connection.is_open


# ---- sockets of the caller's


@pytest.fixture
def listener() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def test_a_connected_socket_is_the_way_to_the_server(listener: ScriptedServer) -> None:
    """Whatever the configuration names as host is not asked."""
    sock = socket.create_connection(("127.0.0.1", listener.port))
    config = SMTPConfig(host="nowhere.invalid", port=1, security="none", timeout=10)
    with SMTPConnection(config, sock=sock) as connection:
        connection.send(ENVELOPE, RAW)
        assert connection.reached is None
    assert sock.fileno() == -1
    assert len(listener.messages) == 1


class Peer:
    """As much of a socket as the question needs, where this machine has no such peer."""

    def __init__(self, family: int, peer: object) -> None:
        self.family = family
        self.peer = peer

    def getpeername(self) -> object:
        if isinstance(self.peer, OSError):
            raise self.peer
        return self.peer


@pytest.mark.parametrize(
    ("family", "peer", "is_loopback"),
    [
        (socket.AF_INET, ("127.0.0.1", 25), True),
        (socket.AF_INET, ("127.8.8.8", 25), True),
        (socket.AF_INET6, ("::1", 25, 0, 0), True),
        (socket.AF_INET6, ("::ffff:127.0.0.1", 25, 0, 0), True),
        (socket.AF_INET, ("192.0.2.1", 25), False),
        (socket.AF_INET, ("0.0.0.0", 25), False),
        (socket.AF_INET6, ("fe80::1%lo", 25, 0, 1), False),
        (socket.AF_INET6, ("64:ff9b::7f00:1", 25, 0, 0), False),  # NAT64: the gateway's 127.0.0.1
        (socket.AF_INET6, ("2002:7f00:1::", 25, 0, 0), False),  # 6to4
        (socket.AF_INET, OSError(107, "Transport endpoint is not connected"), False),
        (socket.AF_INET6, OSError(107, "Transport endpoint is not connected"), False),
        (socket.AF_UNIX, "/run/tunnel", False),
        (socket.AF_UNIX, "", False),
        (getattr(socket, "AF_VSOCK", 40), (2, 25), False),
        (12345, b"", False),
    ],
)
def test_a_given_socket_counts_as_loopback_by_its_peer(family: int, peer: object, is_loopback: bool) -> None:
    assert _leads_to_loopback(Peer(family, peer)) is is_loopback  # type: ignore[arg-type]


@pytest.mark.parametrize("allows", [False, True])
def test_credentials_over_a_given_unix_socket_are_asked_for(allows: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)

    def serve() -> None:
        with theirs, theirs.makefile("rwb", buffering=0) as lines:
            lines.write(b"220 hi\r\n")
            while verb := lines.readline()[:4]:
                lines.write(b"250-me\r\n250 AUTH PLAIN\r\n" if verb == b"EHLO" else b"235 Ok\r\n")

    server = threading.Thread(target=serve)
    server.start()
    config = SMTPConfig(
        host="x", security="none", username="u", password="p", timeout=10, allow_insecure_auth=allows
    )
    connection = SMTPConnection(config, sock=ours)
    connection.connect()
    try:
        if allows:
            connection.login()
        else:
            with pytest.raises(ConfigurationError, match="clear text"):
                connection.login()
        assert connection.authenticated is allows
    finally:
        connection.abort()
        server.join(10)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_secured_socket_needs_no_tls(listener: ScriptedServer, security: str) -> None:
    sock = socket.create_connection(("127.0.0.1", listener.port))
    with SMTPConnection(config_for(listener, security=security), sock=sock, secured=True) as connection:
        assert connection.secure
        connection.send(ENVELOPE, RAW)
    assert "STARTTLS" not in listener.connections[0].verbs


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_socket_that_was_not_connected_is(listener: ScriptedServer, host: str) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    with SMTPConnection(config_for(listener, host=host), sock=sock) as connection:
        connection.send(ENVELOPE, RAW)
        assert connection.reached is not None
        assert connection.reached.is_loopback
    assert sock.fileno() == -1


def test_a_unix_socket_that_was_not_connected(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    with ScriptedServer(unix_path=path) as server:
        config = SMTPConfig(host=f"unix:{path}", timeout=10)
        with SMTPConnection(config, sock=socket.socket(socket.AF_UNIX)) as connection:
            connection.send(ENVELOPE, RAW)
        assert len(server.messages) == 1


def test_a_socket_that_nobody_answers_is_closed(listener: ScriptedServer) -> None:
    sock, config = socket.socket(), config_for(listener)
    listener.refuse()
    with pytest.raises(NobodyListens):
        SMTPConnection(config, sock=sock).connect()
    assert sock.fileno() == -1


def test_internal_networks_are_refused_to_given_sockets_too(listener: ScriptedServer) -> None:
    config = config_for(listener, allow_internal_networks=False)
    with pytest.raises(ConnectFailed, match="internal"), socket.socket() as sock:
        SMTPConnection(config, sock=sock).connect()
    assert listener.connections == ()


def test_a_socket_that_has_lost_its_peer_is_not_connected_anew(listener: ScriptedServer) -> None:
    """It may have been a way through something; past that leads no way."""
    with socket.create_server(("127.0.0.1", 0)) as gate:
        sock = socket.create_connection(gate.getsockname())
        peer, _ = gate.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    with pytest.raises(ConnectionLost):
        SMTPConnection(config_for(listener), sock=sock).connect()
    assert listener.connections == ()


def test_sockets_that_can_not_be_used(listener: ScriptedServer) -> None:
    for kind, options, secured in (
        ((socket.AF_INET, socket.SOCK_DGRAM), {}, False),
        ((socket.AF_INET, socket.SOCK_STREAM), {}, True),
        ((socket.AF_UNIX, socket.SOCK_STREAM), {}, False),
        ((socket.AF_INET, socket.SOCK_STREAM), {"proxy": "http://127.0.0.1:1"}, False),
    ):
        with socket.socket(*kind) as sock, pytest.raises(ConfigurationError):
            SMTPConnection(config_for(listener, **options), sock=sock, secured=secured)


# ---- chunks, LMTP, progress: what the flows do, on a real connection


def test_all_or_none_takes_two_round_trips_with_chunking() -> None:
    for keywords, trips in ((CHUNKING, 2), (DEFAULT_KEYWORDS, 3)):
        with ScriptedServer(keywords=keywords) as server:
            with SMTPConnection(config_for(server, partial="all-or-none")) as connection:
                result = connection.send(ENVELOPE, RAW)
                assert result.round_trips == trips
            assert server.messages[0].content == RAW
            assert bool(server.messages[0].chunks) == (keywords is CHUNKING)


def test_chunking_is_not_used_where_it_is_disabled_or_not_needed() -> None:
    for options in ({"partial": "all-or-none", "disable": ["chunking"]}, {"partial": "deliver"}):
        with ScriptedServer(keywords=CHUNKING) as server:
            with SMTPConnection(config_for(server, **options)) as connection:
                connection.send(ENVELOPE, RAW)
            assert "DATA" in server.connections[0].verbs
            assert server.messages[0].chunks == ()


def test_binary_content_goes_in_chunks_as_it_is() -> None:
    body = bytes(range(256)) * 10
    content = b"Subject: x\r\nContent-Transfer-Encoding: binary\r\n\r\n" + body
    with ScriptedServer(keywords=CHUNKING) as server, SMTPConnection(config_for(server)) as connection:
        connection.send(Envelope("a@x.example", "b@y.example", body="binarymime"), content)
        assert server.messages[0].content == content
        assert "BODY=BINARYMIME" in server.messages[0].mail_parameters


def test_the_message_after_a_refused_chunk_begins_with_rset() -> None:
    fault = Fault("chunk", "reply", reply="452 4.3.1 no room")
    with ScriptedServer(keywords=CHUNKING, faults=[fault]) as server:
        with SMTPConnection(config_for(server, partial="all-or-none", pipelining="off")) as connection:
            with pytest.raises(MessageRefused) as caught:
                connection.send(ENVELOPE, RAW + (b"y" * 70 + b"\r\n") * 20_000)
            assert caught.value.stage == "content"
            assert connection.is_open
            connection.send(ENVELOPE, RAW)
        server.wait_for(lambda: server.connections[0].is_closed)  # nobody awaits the answer to QUIT
        verbs = server.connections[0].verbs
        assert verbs[verbs.index("BDAT") :] == (*("BDAT", "RSET", "MAIL", "RCPT", "RCPT", "BDAT", "QUIT"),)


def test_the_message_after_one_that_could_not_be_read_begins_with_rset(tmp_path: Path) -> None:
    """Between RCPT and the first chunk the two sides are in step; but a transaction is open."""
    path = tmp_path / "large.eml"
    path.write_bytes(LARGE)
    with ScriptedServer(keywords=CHUNKING) as server:
        with SMTPConnection(config_for(server, partial="all-or-none")) as connection:
            content = render(path)
            path.write_bytes(LARGE + b"more\r\n")
            with pytest.raises(InvalidMessage, match="changed") as caught:
                connection.send(ENVELOPE, content)
            assert not caught.value.outcome_unknown
            connection.send(ENVELOPE, RAW)
            assert "RSET" in server.connections[0].verbs
        assert [m.content for m in server.messages] == [RAW]


def test_a_refused_rset_does_not_make_a_failed_transaction_clean() -> None:
    """The server may still hold it: its recipients would get the next message."""
    faults = [
        Fault("rset", "reply", reply="502 what", occurrence=None, connection=None),
        Fault("data", "reply", reply="451 4.3.0 not now"),
    ]
    with ScriptedServer(faults=faults) as server, SMTPConnection(config_for(server)) as connection:
        with pytest.raises(MessageRefused):
            connection.send(ENVELOPE, RAW)
        assert connection.reset().code == 502
        with pytest.raises(ConnectionLost, match="RSET"):
            connection.send(ENVELOPE, RAW)
        assert server.messages == ()


def test_lmtp_tells_for_each_recipient() -> None:
    replies = {"c@y.example": "452 4.2.2 full"}
    with (
        ScriptedServer(lmtp=True, final_replies=replies) as server,
        Mailer(config_for(server, protocol="lmtp")) as mailer,
    ):
        result = mailer.send(RAW, envelope=ENVELOPE)
        assert mailer.verify(mail_from="a@x.example", rcpt_to=["b@y.example"]).ok
    assert (result.accepted, result.rejected["c@y.example"].code) == (("b@y.example",), 452)
    assert [m.recipients for m in server.messages] == [("b@y.example",)]
    assert server.connections[0].verbs[0] == "LHLO"


def test_a_recipient_over_quota_is_not_one_too_many() -> None:
    """452 without an enhanced code, after the content: the message is not sent to it again."""
    with ScriptedServer(lmtp=True, final_replies={"c@y.example": "452 is over quota"}) as server:
        with SMTPConnection(config_for(server, protocol="lmtp")) as connection:
            result = connection.send(ENVELOPE, RAW)
        assert list(result.rejected) == ["c@y.example"]
        assert server.connections[0].verbs.count("MAIL") == 1


def test_too_many_recipients_for_one_transaction_of_lmtp() -> None:
    with ScriptedServer(lmtp=True, max_recipients=1) as server:
        with SMTPConnection(config_for(server, protocol="lmtp")) as connection:
            assert connection.send(ENVELOPE, RAW).accepted == ENVELOPE.recipients
        assert [m.recipients[0] for m in server.messages] == list(ENVELOPE.recipients)


def test_lmtp_lost_between_the_answers() -> None:
    fault = Fault("final", "close", occurrence=2, commit=True)
    with (
        ScriptedServer(lmtp=True, faults=[fault]) as server,
        SMTPConnection(config_for(server, protocol="lmtp")) as connection,
        pytest.raises(ConnectionLost, match=r"accepted before, for b@y\.example") as caught,
    ):
        connection.send(ENVELOPE, RAW)
    assert caught.value.outcome_unknown
    assert caught.value.accepted == ("b@y.example",)


LARGE = RAW + (b"y" * 70 + b"\r\n") * 50_000


@pytest.mark.parametrize("options", [{}, {"partial": "all-or-none"}])
def test_progress(options: dict[str, str]) -> None:
    told: list[tuple[int, int]] = []
    with ScriptedServer(keywords=CHUNKING) as server, Mailer(config_for(server, **options)) as mailer:
        mailer.send(LARGE, envelope=ENVELOPE, progress=lambda *so_far: told.append(so_far))
        assert server.messages[0].content == LARGE
    size = len(LARGE)
    assert (told[0], told[-1]) == ((0, size), (size, size))
    assert len(told) > 3
    assert told == sorted(set(told))


@pytest.mark.parametrize("options", [{}, {"partial": "all-or-none"}])
def test_what_progress_raises_before_the_end_keeps_the_message_back(options: dict[str, str]) -> None:
    def refuse(sent: int, size: int) -> None:
        raise KeyError(sent)

    with ScriptedServer(keywords=CHUNKING) as server, Mailer(config_for(server, **options)) as mailer:
        with pytest.raises(KeyError) as caught:
            mailer.send(RAW, envelope=ENVELOPE, progress=refuse)
        assert not hasattr(caught.value, "outcome_unknown")
        mailer.send(RAW, envelope=ENVELOPE)
        assert [m.connection for m in server.messages] == [2]


def test_what_progress_raises_at_the_end_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def late(sent: int, size: int) -> None:
        if sent == size:
            raise KeyError(sent)

    with ScriptedServer() as server, Mailer(config_for(server)) as mailer:
        assert mailer.send(RAW, envelope=ENVELOPE, progress=late).accepted
        assert len(server.messages) == 1
    assert "progress raised KeyError" in caplog.text


def test_an_interrupt_at_the_end_says_that_the_message_may_be_sent() -> None:
    def interrupt(sent: int, size: int) -> None:
        if sent == size:
            raise KeyboardInterrupt

    with ScriptedServer() as server, SMTPConnection(config_for(server)) as connection:
        with pytest.raises(KeyboardInterrupt) as caught:
            connection.send(ENVELOPE, RAW, progress=interrupt)
        assert caught.value.outcome_unknown  # type: ignore[attr-defined]
        assert len(server.messages) == 1
