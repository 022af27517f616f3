"""Who a client is behind a PROXY header: which headers count, deadlines, and whom to believe."""

from __future__ import annotations

import socket
import time

import pytest

from mailbridge.proxy_protocol.crc32c import crc32c
from mailbridge.server import Session
from tests.receiving import MAIL, SECONDS, Caller, Mailroom, mailroom

pytestmark = pytest.mark.needs("aiosmtpd")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + (56324).to_bytes(2) + (25).to_bytes(2)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
PORTS = (56324).to_bytes(2) + (25).to_bytes(2)
OWN = ("127.0.0.1", None)  # the socket's own end, whatever its port


def v2(block: bytes = FOUR, codes: bytes = b"\x21\x11", length: int | None = None) -> bytes:
    claimed = len(block) if length is None else length
    return SIGNATURE + codes + claimed.to_bytes(2) + block


def tlv(kind: int, value: bytes, length: int | None = None) -> bytes:
    return bytes((kind,)) + (len(value) if length is None else length).to_bytes(2) + value


def with_crc(wrong_by: int = 0) -> bytes:
    zeroed = v2(FOUR + tlv(3, bytes(4)))
    return zeroed[:-4] + (crc32c(zeroed) ^ wrong_by).to_bytes(4)


# One of each kind. The grammar has its tables in tests/unit/proxy_protocol/test_header.py.
BELIEVED = {
    "TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n", ("192.0.2.1", 56324)),
    "IPv4 in the clothes of IPv6": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 56324 25\r\n",
        ("192.0.2.1", 56324),
    ),
    "UNKNOWN with addresses, to be ignored": (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", OWN),
    "v2 over IPv6": (v2(SIX + PORTS, b"\x21\x21"), ("2001:db8::1", 56324)),
    "v2 from a UNIX socket with an odd name": (
        v2(b"\0a\nb\xff".ljust(108, b"\0") + bytes(108), b"\x21\x31"),
        ("unix:\\x00a\\nb\\udcff", 0),
    ),
    "v2 LOCAL with addresses, to be ignored": (v2(FOUR, b"\x20\x11"), OWN),
    "v2 of an unspecified family": (v2(b"", b"\x21\x00"), OWN),
    "v2 as long as allowed": (v2(FOUR + tlv(4, bytes(536 - 16 - 12 - 3))), ("192.0.2.1", 56324)),
}
REFUSED = {
    "LF alone": b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\n",
    "no header": b"EHLO client.test\r\n",
    "2000 bytes without an end": b"PROXY TCP4 " + b"1" * 1989,
    "v2 cut off": v2()[:20],
    "v2 longer than allowed": v2(FOUR + tlv(4, bytes(536 - 16 - 12 - 2))),
    "v2 with a wrong checksum": with_crc(wrong_by=1),
    "v2 over datagrams": v2(FOUR, b"\x21\x12"),
    "TLS at once": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


def is_served(caller: Caller) -> bool:
    return caller.reply().startswith("220 ")


def where_from(room: Mailroom) -> tuple[str, int | None]:
    (session,) = room.sessions
    is_own = session.remote_address == "127.0.0.1"
    return (session.remote_address, None if is_own else session.remote_port)


@pytest.mark.parametrize("cut", ["whole", "byte by byte"])
@pytest.mark.parametrize("name", BELIEVED)
def test_a_header_that_is_believed(name: str, cut: str) -> None:
    header, expected = BELIEVED[name]
    with mailroom(use_proxy=["127.0.0.1"]) as room, Caller(room.port) as caller:
        caller.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [header] if cut == "whole" else [bytes((byte,)) for byte in header]:
            caller.send(piece)
        assert is_served(caller)
        assert where_from(room) == expected
        assert room.sessions[0].proxy_address == "127.0.0.1"
        (record,) = room.records.of("proxy")
        assert record.connection_id == room.sessions[0].id


@pytest.mark.parametrize("name", REFUSED)
def test_a_header_that_is_refused(name: str) -> None:
    with mailroom(use_proxy=["127.0.0.1"]) as room, Caller(room.port, REFUSED[name]) as caller:
        if name == "v2 cut off":
            caller.finish_sending()
        assert caller.codes() == ["421"]
        assert room.sessions == []
        (record,) = room.wait_for("refuse")
        assert record.code == 421
        assert record.reason


@pytest.mark.parametrize("header", [BELIEVED["TCP4"][0], with_crc()], ids=["v1", "v2"])
def test_what_comes_in_the_same_segment_belongs_to_smtp(header: bytes) -> None:
    session = b"EHLO client.test\r\n" + MAIL + b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
    with mailroom(use_proxy=["127.0.0.1"]) as room, Caller(room.port, header + session) as caller:
        assert caller.codes() == ["220", "250", "250", "250", "354", "250", "221"]
        assert room.contents == [b"Subject: x\r\n\r\nx\r\n"]
        assert where_from(room) == ("192.0.2.1", 56324)


@pytest.mark.parametrize(
    "drip", [b"", b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25", SIGNATURE], ids=["silent", "v1", "v2"]
)
def test_the_header_has_an_absolute_deadline(drip: bytes) -> None:
    """A byte now and then, more often than the time limit, does not hold the connection."""
    with (
        mailroom(use_proxy=["127.0.0.1"], proxy_header_timeout=0.3) as room,
        Caller(room.port) as caller,
    ):
        began = time.monotonic()
        caller.sock.settimeout(0.05)
        answer = b""
        for at in range(200):
            if at < len(drip):
                caller.send(drip[at : at + 1])
            try:
                answer = caller.sock.recv(100)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"421 ")
        assert time.monotonic() - began < SECONDS / 2
        assert room.sessions == []


def test_a_reset_in_the_middle_of_the_header() -> None:
    with mailroom(use_proxy=["127.0.0.1"]) as room:
        Caller(room.port, b"PROXY TCP4 192.").hang_up_hard()
        room.wait_for("close")
        assert room.sessions == []
        with Caller(room.port, BELIEVED["TCP4"][0]) as caller:
            assert is_served(caller)


def test_an_unlisted_peer_has_no_say_in_its_address() -> None:
    with mailroom(use_proxy=["10.0.0.0/8"]) as room, Caller(room.port, BELIEVED["TCP4"][0]) as caller:
        assert is_served(caller)
        assert caller.reply().startswith("500 ")
        assert caller.ask(b"EHLO client.test").startswith("250-")
        assert where_from(room) == OWN
        assert room.sessions[0].proxy_address is None


@pytest.mark.parametrize("header", [BELIEVED["TCP4"][0], v2()], ids=["v1", "v2"])
def test_without_use_proxy_nobody_is_believed(header: bytes) -> None:
    with mailroom() as room, Caller(room.port, header) as caller:
        assert is_served(caller)
        assert caller.reply()[:1] == "5"
        assert where_from(room) == OWN


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104"])
def test_a_listener_for_both_families_knows_its_ipv4_peers(entry: str) -> None:
    header = BELIEVED["TCP4"][0]
    with mailroom(host="::", use_proxy=[entry]) as room, Caller(room.port, header) as caller:
        assert is_served(caller)
        assert where_from(room) == ("192.0.2.1", 56324)
        assert room.sessions[0].proxy_address == "127.0.0.1"


@pytest.mark.parametrize("everybody", [True, ["*"]])
def test_believing_everybody_warns(everybody: object) -> None:
    with mailroom(use_proxy=everybody) as room, Caller(room.port, BELIEVED["TCP4"][0]) as caller:
        assert is_served(caller)
        (record,) = room.records.of("spoofable")
        assert record.levelname == "WARNING"
        assert "any address" in record.getMessage()


def test_the_vectors_are_on_the_session() -> None:
    within = bytes((1,)) + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client.example")
    block = FOUR + tlv(2, b"mail.example") + tlv(5, b"\0unique") + tlv(0x20, within) + tlv(0xE0, b"own")
    with mailroom(use_proxy=["127.0.0.1"]) as room, Caller(room.port, v2(block)) as caller:
        assert is_served(caller)
        vectors = room.sessions[0].proxy_tlvs
        assert vectors.ssl is not None
        assert (vectors.ssl.is_encrypted, vectors.ssl.version, vectors.ssl.cn) == (
            True,
            "TLSv1.3",
            "client.example",
        )
        assert (vectors.authority, vectors.unique_id, vectors.alpn) == ("mail.example", b"\0unique", None)
        assert vectors.all[-1] == (0xE0, b"own")
        assert room.sessions[0].tls is None, "TLS to the proxy is not TLS to us"


def test_one_name_for_the_connection_everywhere() -> None:
    hello = BELIEVED["TCP4"][0] + b"EHLO client.test\r\n" + MAIL + b"x\r\n.\r\nRCPT\r\nQUIT\r\n"
    with mailroom(use_proxy=["127.0.0.1"]) as room, Caller(room.port, hello) as caller:
        caller.replies()
        room.wait_for("close")
        (mail,) = room.mails
        assert room.records.events == ["proxy", "connect", "message", "refuse", "close"]
        assert {record.connection_id for record in room.records.all} == {room.sessions[0].id, mail[0].id}
        assert {record.remote_address for record in room.records.all} == {"192.0.2.1"}
        assert all(f"[{mail[0].id}]" in record.getMessage() for record in room.records.all)


class TestIgnoredHosts:
    """Health checks: judged by the client's address, which is the header's."""

    def test_neither_hooks_nor_records(self) -> None:
        header = b"PROXY TCP4 192.0.2.77 198.51.100.2 56324 25\r\n"
        with (
            mailroom(use_proxy=["127.0.0.1"], ignored_hosts=["192.0.2.64/26"]) as room,
            Caller(room.port, header + b"EHLO check.test\r\n" + MAIL + b"QUIT\r\n") as caller,
        ):
            assert caller.codes() == ["220", "250", "550", "503", "503", "221"], "and no mail is lost on it"
            assert (room.sessions, room.mails, room.records.all) == ([], [], [])

    def test_not_by_the_address_of_the_proxy(self) -> None:
        with (
            mailroom(use_proxy=["127.0.0.1"], ignored_hosts=["127.0.0.1"]) as room,
            Caller(room.port, BELIEVED["TCP4"][0]) as caller,
        ):
            assert is_served(caller)
            assert [session.remote_address for session in room.sessions] == ["192.0.2.1"]
            assert room.records.of("connect")

    def test_a_check_of_the_proxy_itself(self) -> None:
        with (
            mailroom(use_proxy=["127.0.0.1"], ignored_hosts=["127.0.0.1"]) as room,
            Caller(room.port, v2(b"", b"\x20\x00")) as caller,
        ):
            assert is_served(caller)
            assert room.sessions == []

    def test_a_check_that_only_connects(self) -> None:
        with mailroom(use_proxy=["127.0.0.1"], ignored_hosts=["127.0.0.1"]) as room:
            with Caller(room.port) as caller:
                caller.finish_sending()
                assert caller.codes() == ["421"]
            assert room.records.all == []


def test_the_hook_is_told_before_the_greeting() -> None:
    told: list[Session] = []
    with mailroom(use_proxy=["127.0.0.1"], on_connect=told.append) as room, Caller(room.port) as caller:
        caller.send(BELIEVED["TCP4"][0])
        assert is_served(caller)
        assert [session.client_hostname for session in told] == [None]
