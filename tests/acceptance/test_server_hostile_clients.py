"""Clients that do not keep to the rules: no mail is made up, nobody is held for ever, memory stays bounded.

Each test stands for something that aiosmtpd by itself lets pass, or that nobody should have to find out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from pathlib import Path

import pytest

from mailbridge.server.connection import Line
from tests.receiving import MAIL, SECONDS, Caller, mailroom
from tests.servers.certificates import Certificates
from tests.servers.process import wait_until

pytestmark = pytest.mark.needs("aiosmtpd")

SECOND_MAIL = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<victim@d.example>\r\nDATA\r\n"


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


class TestSmuggling:
    """RFC 5321 section 2.3.8: a line ends in CRLF, and CR and LF are nowhere else."""

    @pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n"])
    def test_the_end_of_a_mail_is_nothing_but_the_end(self, end: bytes) -> None:
        smuggled = b"Subject: one" + end + SECOND_MAIL.replace(b"\r\n", b"\n") + b"two"
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + smuggled + b"\r\n.\r\nQUIT\r\n")
            codes = caller.codes()
            assert codes == ["250", "250", "354", "554", "221"], "one mail, refused as a whole"
            assert room.mails == []

    @pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0"])
    def test_a_bare_byte_in_a_mail_refuses_it_and_the_session_goes_on(self, byte: bytes) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"a" + byte + b"b\r\n.\r\n" + MAIL + b"good\r\n.\r\nQUIT\r\n")
            assert caller.codes() == ["250", "250", "354", "554", "250", "250", "354", "250", "221"]
            assert room.contents == [b"good\r\n"]

    @pytest.mark.parametrize("command", [b"NOOP\n", b"NOOP\rQUIT\r\n", b"NOOP \0\r\n", b"\nQUIT\r\n"])
    def test_a_bare_byte_in_a_command_ends_the_session(self, command: bytes) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(command + SECOND_MAIL)
            assert caller.codes() == ["521"]

    def test_dots(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"..one\r\n...\r\n.two\r\n \r\n..\r\n.\r\n" + MAIL + b".\r\nQUIT\r\n")
            caller.replies()
            assert room.contents == [b".one\r\n..\r\ntwo\r\n \r\n.\r\n", b""]

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
    def test_the_end_may_be_cut_anywhere(self, size: int) -> None:
        text = MAIL + b"..a\r\n.b\r\n\r\n.\r\nQUIT\r\n"
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello()
            caller.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(text), size):
                caller.send(text[start : start + size])
            assert caller.codes() == ["250", "250", "354", "250", "221"]
            assert room.contents == [b".a\r\nb\r\n\r\n"]


class TestBounds:
    def test_a_line_without_end(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(b"NOOP " + b"x" * 20_000)
            assert caller.codes() == ["521"]

    def test_a_long_command(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"NOOP " + b"x" * 5000).startswith("500 ")
            assert caller.ask(b"NOOP").startswith("250 "), "and the session goes on"

    def test_a_long_line_in_a_mail_is_no_matter(self) -> None:
        line = b"x" * 200_000 + b"\r\n"
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + line + b".\r\nQUIT\r\n")
            caller.replies()
            assert room.contents == [line]

    def test_the_size_of_a_mail(self) -> None:
        exactly = b"x" * 96 + b"\r\n" + b"..\r\n"  # 101 bytes without the dot that stuffs
        with mailroom(max_message_size=101) as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + exactly + b".\r\n" + MAIL + b"x" + exactly + b".\r\nQUIT\r\n")
            assert caller.codes() == ["250", "250", "354", "250", "250", "250", "354", "552", "221"]
            assert [len(content) for content in room.contents] == [101]

    def test_a_size_that_is_announced_is_refused_at_once(self) -> None:
        with mailroom(max_message_size=1000) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"MAIL FROM:<a@b.example> SIZE=1001").startswith("552 ")
            assert caller.ask(b"MAIL FROM:<a@b.example> SIZE=1000").startswith("250 ")

    def test_a_mail_without_end(self) -> None:
        """It is read for a while, so that the client may hear why, and kept in memory not at all."""
        piece = b"x" * 998 + b"\r\n"
        with mailroom(max_message_size=1_000_000) as room, Caller(room.port) as caller:
            caller.hello().send(MAIL)
            before, sent = resident_bytes(), 0
            with contextlib.suppress(ConnectionError):
                while sent < 200_000_000:
                    caller.send(piece * 100)
                    sent += 100_000
            assert sent < 20_000_000
            assert resident_bytes() - before < 20_000_000
            (record, *_) = room.wait_for("refuse")
            assert record.code == 421

    def test_many_short_lines_take_no_more_memory_than_they_have(self) -> None:
        content = b"\r\n" * 4_000_000
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL)
            assert [caller.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
            before = resident_bytes()
            caller.send(content + b".\r\n")
            assert caller.reply().startswith("250 ")
            assert resident_bytes() - before < 10 * len(content)
            assert room.contents == [content]

    def test_all_mails_together_have_a_bound(self) -> None:
        with (
            mailroom(max_message_size=1000, max_buffered_size=1500) as room,
            Caller(room.port) as first,
            Caller(room.port) as second,
        ):
            first.hello().send(MAIL + b"x" * 998 + b"\r\n")
            assert [first.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
            assert wait_until(lambda: room.reception._budget.lent == 1000, SECONDS)
            second.hello().send(MAIL + b"x" * 998 + b"\r\n.\r\n")
            assert [second.reply()[:3] for _ in range(4)] == ["250", "250", "354", "452"]
            first.send(b".\r\n")
            assert first.reply().startswith("250 ")
            second.send(MAIL + b"x" * 998 + b"\r\n.\r\n")
            assert [second.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]

    def test_recipients_beyond_the_limit_do_not_spoil_the_others(self) -> None:
        rcpt = b"".join(b"RCPT TO:<r%d@d.example>\r\n" % number for number in range(500))
        with mailroom(max_recipients=3) as room, Caller(room.port) as caller:
            caller.hello().send(b"MAIL FROM:<a@b.example>\r\n" + rcpt + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
            assert caller.codes() == ["250", *["250"] * 3, *["452"] * 497, "354", "250", "221"]
            (mail,) = room.mails
            assert mail[1].recipients == ("r0@d.example", "r1@d.example", "r2@d.example")

    def test_connections_beyond_the_limit(self) -> None:
        with mailroom(max_connections=2) as room:
            with Caller(room.port) as one, Caller(room.port) as two:
                one.hello()
                two.hello()
                with Caller(room.port) as third:
                    assert third.codes() == ["421"]
                one.ask(b"QUIT")
            assert wait_until(lambda: not room.reception._visits, SECONDS)
            with Caller(room.port) as fourth:
                fourth.hello()

    def test_connections_of_one_client_beyond_its_limit_leave_room_for_others(self) -> None:
        with (
            mailroom(max_connections_per_client=2) as room,
            Caller(room.port) as one,
            Caller(room.port) as two,
        ):
            one.hello()
            two.hello()
            with Caller(room.port) as third:
                assert third.reply().startswith("421 4.7.0 Too many connections from your address")
            assert "too many connections from this address" in room.wait_for("refuse")[-1].getMessage()
            with Caller(room.port, source="127.0.0.2") as other:
                other.hello()
            one.ask(b"QUIT")
            assert wait_until(lambda: len(room.reception._visits) == 1, SECONDS)
            with Caller(room.port) as fourth:
                fourth.hello()
            reception = room.reception
        assert not reception._clients

    def test_half_open_connections_of_one_client_count(self) -> None:
        with mailroom(max_connections_per_client=2) as room, Caller(room.port), Caller(room.port):
            assert wait_until(lambda: len(room.reception._visits) == 2, SECONDS)
            with Caller(room.port) as third:
                assert third.codes() == ["421"]

    def test_behind_a_proxy_the_client_that_it_names_counts(self) -> None:
        """The proxy itself may have as many as there are."""

        def caller(source: str) -> Caller:
            return Caller(room.port, f"PROXY TCP6 {source} ::1 1 25\r\n".encode(), source="127.0.0.2")

        with mailroom(max_connections_per_client=1, use_proxy=["127.0.0.2"]) as room:
            with caller("2001:db8::1") as one, caller("2001:db8:0:1::1") as other:
                one.hello()
                other.hello()
                with caller("2001:db8::ffff") as same_network:
                    assert same_network.codes() == ["421"], "who has one address of IPv6 has 2^64"
            assert wait_until(lambda: not room.reception._visits, SECONDS)
            with caller("2001:db8::ffff") as later:
                later.hello()

    def test_half_open_connections_count(self) -> None:
        with (
            mailroom(max_connections=2, use_proxy=["127.0.0.2"]) as room,
            Caller(room.port, source="127.0.0.2"),
            Caller(room.port, source="127.0.0.2"),
        ):
            assert wait_until(lambda: len(room.reception._visits) == 2, SECONDS)
            with Caller(room.port) as third:
                assert third.codes() == ["421"]


class TestPatience:
    def test_unknown_commands(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(b"WIZ\r\n" * 100)
            assert 1 <= len(caller.replies()) <= 10

    @pytest.mark.parametrize("command", [b"NOOP", b"RSET", b"EHLO again.test", b"VRFY a", b"HELP"])
    def test_commands_that_lead_nowhere(self, command: bytes) -> None:
        with mailroom(max_recipients=1) as room, Caller(room.port) as caller:
            caller.hello()
            caller.sock.settimeout(SECONDS)

            def pipe() -> None:
                with contextlib.suppress(OSError):
                    caller.send((command + b"\r\n") * 3000)

            talking = threading.Thread(target=pipe)
            talking.start()
            replies = caller.replies()
            talking.join(SECONDS)
            assert 500 < len(replies) < 1100
            assert "421" in [reply[:3] for reply in replies[-2:]]

    def test_refusals(self) -> None:
        with mailroom(max_recipients=1) as room, Caller(room.port) as caller:
            caller.hello().send(b"MAIL FROM:<no\r\n" * 200)
            codes = caller.codes()
            assert codes == ["501"] * (len(codes) - 1) + ["421"]
            assert 20 < len(codes) < 60

    def test_a_delivered_mail_pays(self) -> None:
        with mailroom(max_recipients=1) as room, Caller(room.port) as caller:
            caller.hello().send((b"NOOP\r\n" * 300 + MAIL + b"x\r\n.\r\n") * 5 + b"QUIT\r\n")
            assert caller.codes()[-1] == "221"
            assert len(room.mails) == 5

    @pytest.mark.parametrize("verb", [b"GET / HTTP/1.1", b"POST / HTTP/1.1", b"OPTIONS * HTTP/1.1"])
    def test_http_ends_at_its_first_line(self, verb: bytes) -> None:
        page = verb + b"\r\nHost: x\r\n\r\nEHLO x\r\n" + MAIL + b"x\r\n.\r\n"
        with mailroom() as room, Caller(room.port, page) as caller:
            assert caller.codes() == ["220", "421"]
            assert room.mails == []


class TestTime:
    def test_silence(self) -> None:
        with mailroom(idle_timeout=0.5) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.codes() == ["421"]
            room.wait_for("close")

    @pytest.mark.parametrize("start", [b"", MAIL], ids=["a command", "a mail"])
    def test_a_byte_now_and_then_is_silence(self, start: bytes) -> None:
        with mailroom(idle_timeout=0.5) as room, Caller(room.port) as caller:
            caller.hello().send(start)
            began, is_over = time.monotonic(), False
            caller.sock.settimeout(0.1)
            while not is_over and time.monotonic() - began < SECONDS:
                with contextlib.suppress(TimeoutError):
                    caller.send(b"x")
                    is_over = b"421 " in caller.sock.recv(500)
            assert is_over
            assert time.monotonic() - began < SECONDS / 2

    def test_replies_that_nobody_reads(self) -> None:
        """The client sends commands and never looks at the answers, until both buffers are full."""
        options = {"idle_timeout": 0.5, "max_recipients": 1_000_000, "name": "x" * 250}
        with mailroom(**options) as room, socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(SECONDS)
            sock.connect(("127.0.0.1", room.port))
            with contextlib.suppress(ConnectionError):
                while True:
                    sock.sendall(b"HELO x\r\n" * 1000)
            (record,) = room.wait_for("close")
            assert record.reason == "replies not read"

    def test_a_slow_hook_is_not_silence(self) -> None:
        with (
            mailroom(idle_timeout=0.5, on_message=lambda *_: time.sleep(0.8)) as room,
            Caller(room.port) as caller,
        ):
            caller.hello().send(MAIL + b"x\r\n.\r\n")
            assert [caller.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]

    def test_a_handshake_that_never_comes(self, certificates: Certificates) -> None:
        tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
        with mailroom(idle_timeout=0.3, tls=tls, implicit_tls=True) as room, Caller(room.port) as caller:
            assert caller.codes() in ([], ["reset"])
            (record,) = room.wait_for("refuse")
            assert "handshake" in record.reason
            room.wait_for("close")


class TestEnds:
    def test_who_stops_sending_still_hears_everything(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.send(b"EHLO client.test\r\n" + MAIL + b"x\r\n.\r\n")
            caller.finish_sending()
            assert caller.codes() == ["220", "250", "250", "250", "354", "250"]
            assert room.contents == [b"x\r\n"]

    def test_half_a_mail_is_none(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n")
            caller.finish_sending()
            assert caller.codes() == ["250", "250", "354"]
            assert room.mails == []

    @pytest.mark.parametrize(
        "said", [b"", b"EHLO x\r\n", b"EHLO x\r\n" + MAIL, b"EHLO x\r\n" + MAIL + b"x\r\n"]
    )
    def test_a_reset(self, said: bytes) -> None:
        with mailroom() as room:
            Caller(room.port, said).hang_up_hard()
            room.wait_for("close")
            assert room.mails == []
            with Caller(room.port) as caller:
                caller.hello()
            assert room.records.of("failure") == []

    def test_the_last_reply_arrives_although_more_was_sent(self) -> None:
        """Closed with unread input a socket resets the connection, and replies in flight are lost."""
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(b"NOOP\n" + b"x" * 500_000)
            assert caller.codes() == ["521"]

    def test_the_line_stays_open_for_what_is_still_on_its_way(self) -> None:
        """A reset would reach the proxy in between before it has passed the reply on."""
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"NOOP\nNOOP").startswith("521 ")
            for _ in range(10):
                caller.send(b"NOOP\r\n")
                time.sleep(0.01)
            assert caller.codes() == []

    def test_a_client_that_does_not_hang_up_is_not_waited_for(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"QUIT").startswith("221 ")
            room.wait_for("close")


class TestStartTls:
    @pytest.fixture
    def tls(self, certificates: Certificates) -> dict[str, Path]:
        return {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}

    def test_commands_in_the_same_segment(self, tls: dict[str, Path]) -> None:
        with mailroom(tls=tls) as room, Caller(room.port) as caller:
            caller.hello().send(b"STARTTLS\r\nEHLO injected.test\r\n" + MAIL)
            assert caller.codes() == ["421"]
            (record,) = room.wait_for("refuse")
            assert record.reason == "clear text behind STARTTLS"

    def test_commands_after_the_reply(self, tls: dict[str, Path], certificates: Certificates) -> None:
        with mailroom(tls=tls) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"STARTTLS").startswith("220 ")
            caller.send(b"EHLO injected.test\r\n" + MAIL)
            replies = caller.replies()
            assert [reply for reply in replies if reply[:3].isdigit()] == []
            (record,) = room.wait_for("refuse")
            assert "handshake" in record.reason
            assert room.sessions[0].client_hostname == "client.test"

    def test_commands_between_the_reply_and_the_handshake(
        self, tls: dict[str, Path], certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However long the server takes from its 220 to TLS: what comes meanwhile is no command."""
        send, has_come = Line._send, threading.Event()

        async def send_slowly(line: Line, text: str) -> None:
            await send(line, text)
            while text.startswith("220 2.0.0") and not has_come.is_set():
                await asyncio.sleep(0.01)

        monkeypatch.setattr(Line, "_send", send_slowly)
        with mailroom(tls=tls) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"STARTTLS").startswith("220 ")
            caller.send(b"EHLO injected.test\r\n")
            time.sleep(0.1)  # for the bytes to arrive; later they would be refused too
            has_come.set()
            with pytest.raises((ConnectionError, ssl.SSLError)):
                caller.start_tls(str(certificates.ca_file))
            room.wait_for("close")
            assert room.sessions[0].client_hostname == "client.test"

    def test_everything_before_is_forgotten(self, tls: dict[str, Path], certificates: Certificates) -> None:
        with mailroom(tls=tls, auth={"u": "p"}, require_auth=False) as room, Caller(room.port) as caller:
            caller.hello()
            caller.ask(b"MAIL FROM:<a@b.example>")
            assert caller.ask(b"STARTTLS").startswith("220 ")
            caller.start_tls(str(certificates.ca_file))
            session = room.sessions[0]
            assert caller.ask(b"RCPT TO:<c@d.example>").startswith("503 ")
            assert caller.ask(b"MAIL FROM:<a@b.example>").startswith("503 "), "EHLO comes first"
            assert session.client_hostname is None
            keywords = caller.ask(b"EHLO inside.test")
            assert "STARTTLS" not in keywords
            assert "AUTH PLAIN LOGIN" in keywords
            assert session.tls is not None
            assert session.tls.version.startswith("TLSv1.")

    def test_tls_within_tls(self, tls: dict[str, Path], certificates: Certificates) -> None:
        with mailroom(tls=tls) as room, Caller(room.port) as caller:
            caller.hello()
            caller.ask(b"STARTTLS")
            caller.start_tls(str(certificates.ca_file))
            caller.ask(b"EHLO inside.test")
            assert caller.ask(b"STARTTLS").startswith("503 ")

    def test_many_failed_handshakes_leave_nothing(self, tls: dict[str, Path]) -> None:
        with mailroom(tls=tls) as room:
            for _ in range(20):
                with Caller(room.port) as caller:
                    caller.hello()
                    caller.ask(b"STARTTLS")
                    caller.send(b"no handshake\r\n")
                    caller.replies()
            room.wait_for("close", 20)
            assert wait_until(lambda: not room.reception._visits, SECONDS)
            assert room.records.of("failure") == []


def test_unread_bytes_reset_by_us_are_no_failure() -> None:
    with mailroom() as room:
        callers = [Caller(room.port) for _ in range(20)]
        for caller in callers:
            caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.send(b"EHLO x\r\n" * 50)
            caller.close()
        room.wait_for("close", 20)
        assert room.records.of("failure") == []
