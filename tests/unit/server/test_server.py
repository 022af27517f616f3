"""A server's life: start and stop, from where and how often, and what it says to whom when it ends."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest

from mailbridge.errors import ConfigurationError
from mailbridge.server import MailServer, Session
from mailbridge.server.server import _SPARE_SECONDS, _STOP_SECONDS
from mailbridge.server.tls import server_context
from tests.receiving import MAIL, SECONDS, Caller, mailroom
from tests.servers.certificates import Certificates
from tests.servers.process import wait_until

pytestmark = pytest.mark.needs("aiosmtpd")

STOP_SECONDS = 2.0  # what `stop` may take
MARGIN = 2.0  # seconds that a busy machine may add


def keep_nothing(*_: object) -> None:
    """A hook for servers whose mails do not matter."""


def test_a_free_port_and_its_number() -> None:
    server = MailServer(on_message=keep_nothing)
    assert (server.port, server.is_running) == (0, False)
    with server:
        assert server.port > 0
        assert server.is_running
        with smtplib.SMTP("127.0.0.1", server.port, timeout=SECONDS) as client:
            assert client.noop()[0] == 250
        assert repr(server) == f"<MailServer 127.0.0.1:{server.port} running>"
    assert not server.is_running


def test_again_and_again() -> None:
    server = MailServer(on_message=keep_nothing)
    for _ in range(3):
        assert server.start() is server
        assert server.start() is server, "which changes nothing"
        with Caller(server.port) as caller:
            caller.hello()
        server.stop()
        server.stop()


def test_a_port_that_is_taken() -> None:
    with mailroom() as room, pytest.raises(OSError, match=r"[Aa]ddress"):
        MailServer("127.0.0.1", room.port, on_message=keep_nothing).start()


def test_a_loop_that_can_not_be_made_is_an_error_and_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    server = MailServer(on_message=keep_nothing)
    with monkeypatch.context() as patch:
        patch.setattr("asyncio.new_event_loop", fail)
        patch.setattr("asyncio.events.new_event_loop", fail)
        with pytest.raises(OSError, match="Too many open files"):
            server.start()
    assert not server.is_running
    with server, Caller(server.port) as caller:
        caller.hello()


def test_nobody_listens_afterwards() -> None:
    with mailroom() as room:
        port = room.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def test_no_threads_remain() -> None:
    before = set(threading.enumerate())
    with mailroom(hook_threads=3) as room:
        for _ in range(5):
            with Caller(room.port) as caller:
                caller.hello().send(MAIL + b"x\r\n.\r\nQUIT\r\n")
                caller.replies()
    assert wait_until(lambda: set(threading.enumerate()) <= before, SECONDS)


@pytest.mark.parametrize(("host", "to"), [("localhost", "127.0.0.1"), ("", "127.0.0.1"), ("::", "127.0.0.1")])
def test_hosts(host: str, to: str) -> None:
    with MailServer(host, on_message=keep_nothing) as server, Caller(server.port, host=to) as caller:
        caller.hello()


def test_replies_do_not_wait_for_the_client_s_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply of several lines is several writes; Nagle would hold back all but the first, for 40 ms."""
    accept, accepted = socket.socket.accept, []

    def keep(listening: socket.socket) -> tuple[socket.socket, object]:
        accepted.append(accept(listening))
        return accepted[-1]

    monkeypatch.setattr(socket.socket, "accept", keep)
    with mailroom() as room, Caller(room.port) as caller:
        caller.hello()
        ((ours, _),) = accepted
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class TestStopping:
    @pytest.fixture(autouse=True)
    def much_time_for_clients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that whoever is waited for can be told from a busy machine."""
        monkeypatch.setattr("mailbridge.server.connection.LINGER", SECONDS)

    def test_the_idle_are_told(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello()
            began = time.monotonic()
            room.server.stop(SECONDS)
            assert time.monotonic() - began < SECONDS / 2
            assert caller.codes() == ["421"]
            (record,) = room.records.of("close")
            assert record.reason == "server stopped"

    def test_the_idle_within_tls_are_told_and_not_waited_for(self, certificates: Certificates) -> None:
        """An idle client does not look at its connection, and so does not end TLS from its side."""
        tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
        with mailroom(tls=tls) as room, Caller(room.port) as caller:
            caller.hello()
            caller.ask(b"STARTTLS")
            caller.start_tls(str(certificates.ca_file))
            caller.ask(b"EHLO client.test")
            began = time.monotonic()
            room.server.stop(SECONDS)
            assert time.monotonic() - began < SECONDS / 2
            assert caller.codes() == ["421"]

    def test_a_mail_on_its_way_is_still_taken(self) -> None:
        is_in_hook, may_go_on = threading.Event(), threading.Event()

        def slow(*_: object) -> None:
            is_in_hook.set()
            may_go_on.wait(SECONDS)

        with mailroom(on_message=slow) as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n.\r\n")
            assert is_in_hook.wait(SECONDS)
            stopping = threading.Thread(target=room.server.stop)
            stopping.start()
            may_go_on.set()
            stopping.join(SECONDS)
            assert caller.codes() == ["250", "250", "354", "250", "421"]

    def test_a_mail_that_still_comes_is_still_taken(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n")
            assert [caller.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
            stopping = threading.Thread(target=room.server.stop)
            stopping.start()
            assert wait_until(lambda: not room.server.is_running, SECONDS)
            caller.send(b"y\r\n.\r\n")
            stopping.join(SECONDS)
            assert caller.codes() == ["250", "421"]
            assert room.contents == [b"x\r\ny\r\n"]

    def test_hooks_that_hang_hold_nobody(self) -> None:
        may_go_on = threading.Event()
        with mailroom(on_message=lambda *_: may_go_on.wait(SECONDS)) as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n.\r\n")
            assert [caller.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
            began = time.monotonic()
            room.server.stop()
            assert time.monotonic() - began < STOP_SECONDS + MARGIN
            assert _STOP_SECONDS + _SPARE_SECONDS < STOP_SECONDS
            assert caller.codes() in ([], ["reset"]), "what was not taken is not acknowledged"
            may_go_on.set()

    def test_handshakes_and_headers_hold_nobody(self, certificates: Certificates) -> None:
        tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
        with (
            mailroom(use_proxy=["127.0.0.2"], tls=tls, implicit_tls=True) as room,
            Caller(room.port) as handshake,
            Caller(room.port, source="127.0.0.2") as header,
        ):
            assert wait_until(lambda: len(room.records.of("connect")) == 1, SECONDS)
            began = time.monotonic()
            room.server.stop(SECONDS)
            assert time.monotonic() - began < SECONDS / 2
            assert handshake.codes() in ([], ["reset"])
            assert header.codes() in ([], ["reset"])

    def test_who_has_just_knocked_is_not_forgotten(self) -> None:
        """Stopped between the accept and the first step of what follows: the socket is closed."""
        for _ in range(20):
            with mailroom() as room:
                callers = [Caller(room.port) for _ in range(5)]
            for caller in callers:
                assert caller.codes() in ([], ["220"], ["220", "421"], ["421"], ["reset"])
                caller.close()
        gc.collect()  # which warns of sockets that nobody has closed

    def test_no_descriptors_left(self) -> None:
        with mailroom() as room:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with Caller(room.port) as first:
                first.hello()
                sock = socket.socket()
                resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
                try:
                    sock.connect(("127.0.0.1", room.port))
                    (record, *_) = room.wait_for("not_accepted")
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert record.levelname == "WARNING"
                sock.settimeout(SECONDS)
                assert sock.recv(3) == b"220", "as soon as there are some"
                sock.close()

    def test_a_hook_may_stop_its_own_server(self) -> None:
        with mailroom() as room:

            async def stop(*_: object) -> None:
                room.server.stop()

            room.server._policy.hooks["on_message"] = stop  # type: ignore[index]
            with Caller(room.port) as caller:
                caller.hello().send(MAIL + b"x\r\n.\r\n")
                assert caller.codes() == ["250", "250", "354", "250", "421"]


def test_a_forked_child_leaves_the_server_alone() -> None:
    with mailroom() as room:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            listening = room.server._running._listening  # type: ignore[union-attr]
            room.server.stop()
            os._exit(0 if listening.fileno() == -1 and not room.server.is_running else 1)
        assert os.waitpid(child, 0)[1] == 0
        with Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n.\r\nQUIT\r\n")
            assert caller.codes()[-1] == "221"


def test_a_program_that_forgets_to_stop_it_ends() -> None:
    code = (
        "from mailbridge.server import MailServer\nMailServer(on_message=print).start()\nprint('listening')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "listening\n", "")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"use_proxy": ["localhost"]}, "use_proxy"),
            ({"use_proxy": "10.0.0.1"}, "use_proxy"),
            ({"ignored_hosts": ["10.0.0.0/40"]}, "ignored_hosts"),
            ({"proxy_header_timeout": 0}, "proxy_header_timeout"),
            ({"port": 65_536}, "port"),
            ({"port": -1}, "port"),
            ({"require_starttls": True}, "require_starttls"),
            ({"implicit_tls": True}, "implicit_tls"),
            ({"tls": "cert.pem"}, "tls"),
            ({"tls": {}}, "cert_file"),
            ({"tls": {"cert": "x"}}, "tls.cert_file"),
            ({"tls": {"cert_file": "/nowhere/cert.pem"}}, "/nowhere/cert.pem"),
            ({"auth": {"u": "p"}}, "passwords are taken over TLS only"),
            ({"auth": {"u": 5}, "allow_insecure_auth": True}, "auth"),
            ({"auth": {"": "x"}, "allow_insecure_auth": True}, "auth"),
            ({"auth": "user:password", "allow_insecure_auth": True}, "auth"),
            ({"on_auth": keep_nothing}, "on_auth"),
            ({"on_connect": "print"}, "on_connect"),
            ({"on_message": None}, "on_message"),
            ({"max_message_size": 0}, "max_message_size"),
            ({"max_buffered_size": 10}, "max_buffered_size"),
            ({"max_recipients": "many"}, "max_recipients"),
            ({"max_connections": 0}, "max_connections"),
            ({"max_connections_per_client": 0}, "max_connections_per_client"),
            ({"idle_timeout": float("inf")}, "idle_timeout"),
            ({"hook_threads": 0}, "hook_threads"),
            ({"name": "two words"}, "name"),
            ({"name": "x\r\ny"}, "name"),
        ],
    )
    def test_a_wrong_one_is_named(self, options: dict[str, object], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            MailServer(**{"on_message": keep_nothing, **options})  # type: ignore[arg-type]

    def test_tls_of_both_kinds_can_not_be(self, certificates: Certificates) -> None:
        tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
        with pytest.raises(ConfigurationError, match="require_starttls"):
            MailServer(on_message=keep_nothing, tls=tls, implicit_tls=True, require_starttls=True)

    def test_a_context_for_clients_is_none_for_servers(self) -> None:
        with pytest.raises(ConfigurationError, match="PROTOCOL_TLS_SERVER"):
            MailServer(on_message=keep_nothing, tls=ssl.create_default_context())

    def test_certificates_from_files_go_with_tls_1_2_and_later(self, certificates: Certificates) -> None:
        good = certificates.good
        context = server_context({"cert_file": good.cert_file, "key_file": good.key_file})
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_NONE
        assert server_context(context) is context

    def test_a_key_with_a_password(self, certificates: Certificates) -> None:
        good = certificates.good
        tls = {"cert_file": good.cert_file, "key_file": good.locked_key_file}
        MailServer(on_message=keep_nothing, tls={**tls, "key_password": "open sesame"})
        with pytest.raises(ConfigurationError, match="tls"):
            MailServer(on_message=keep_nothing, tls=tls)

    def test_the_name_in_the_greeting(self) -> None:
        with MailServer(on_message=keep_nothing, name="mx.example") as server, Caller(server.port) as caller:
            assert caller.reply() == "220 mx.example ESMTP"
            assert caller.ask(b"EHLO c").startswith("250-mx.example\n")
            assert caller.ask(b"HELO c") == "250 mx.example"


class TestRecords:
    def test_their_logger_has_a_name_of_its_own(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        with MailServer(on_message=keep_nothing) as server, Caller(server.port) as caller:
            caller.hello().send(MAIL + b"Subject: not for logs\r\n.\r\nQUIT\r\n")
            caller.replies()
        ours = [record for record in caplog.records if record.name == "mailbridge.server"]
        assert [record.action for record in ours] == ["connect", "message", "close"]  # type: ignore[attr-defined]
        others = {record.name for record in caplog.records} - {"mailbridge.server", "asyncio"}
        assert others == set(), "aiosmtpd's own lines know neither the client nor the connection's name"
        assert "not for logs" not in caplog.text

    def test_what_is_in_them(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n.\r\nRCPT TO:<\x1b[2J>\r\nQUIT\r\n")
            caller.replies()
            caller.close()
            (closing,) = room.wait_for("close")
            connect, message, refuse, _ = room.records.all
            assert (connect.remote_address, connect.local_port) == ("127.0.0.1", room.port)
            assert (message.sender, message.recipients, message.size) == ("a@b.example", ["c@d.example"], 3)
            assert (refuse.code, refuse.reply[:3]) == (503, "503")
            assert (closing.messages, closing.reason) == (1, "QUIT")
            assert closing.seconds >= 0
            assert all("\x1b" not in record.getMessage() for record in room.records.all)

    def test_a_handler_that_fails_changes_nothing(self) -> None:
        class Failing(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise RuntimeError("disk full")

        logger = logging.Logger("failing")
        logger.addHandler(Failing())
        with mailroom(logger=logger) as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n.\r\nQUIT\r\n")
            assert caller.codes()[-2:] == ["250", "221"]


def test_a_session_is_one_thing_that_can_be_a_key() -> None:
    ends = {"remote_address": "a", "remote_port": 1, "local_address": "b", "local_port": 2}
    one, other = Session(id="x", **ends), Session(id="x", **ends)
    assert len({one, other, one}) == 2
