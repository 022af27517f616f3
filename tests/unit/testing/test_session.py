"""The healthy server: opening, STARTTLS, AUTH, order of commands, and what it calls a violation."""

from __future__ import annotations

import base64
import smtplib
import ssl
from typing import Any

import pytest

from mailbridge.testing import ScriptedServer

from .conftest import Certificate, Dial


def encoded(text: bytes) -> bytes:
    return base64.b64encode(text)


def test_ehlo_offers_what_is_configured(dial: Dial) -> None:
    with ScriptedServer(keywords=["PIPELINING", "SIZE 99", "X-OWN a b"], hostname="h.example") as server:
        client = dial(server)
        assert client.read_reply() == b"220 h.example ESMTP\r\n"
        assert client.say(b"EHLO c") == b"250-h.example\r\n250-PIPELINING\r\n250-SIZE 99\r\n250 X-OWN a b\r\n"


def test_ehlo_without_keywords(dial: Dial) -> None:
    with ScriptedServer(keywords=[]) as server:
        assert dial(server).greet().say(b"EHLO c") == b"250 mx.test.example\r\n"


def test_helo_offers_nothing(dial: Dial) -> None:
    with ScriptedServer(strict=False) as server:
        client = dial(server)
        client.read_reply()
        assert client.say(b"HELO c") == b"250 mx.test.example\r\n"
        assert client.say(b"MAIL FROM:<a@x> SIZE=1").startswith(b"555 Parameter")
        assert client.say(b"MAIL FROM:<a@x>") == b"250 Ok\r\n"


def test_enhanced_codes_only_where_offered(dial: Dial) -> None:
    with ScriptedServer(keywords=["ENHANCEDSTATUSCODES"]) as server:
        assert dial(server).greet().say(b"NOOP") == b"250 2.0.0 Ok\r\n"
    with ScriptedServer(keywords=[]) as server:
        assert dial(server).greet().say(b"NOOP") == b"250 Ok\r\n"


def test_unknown_command_and_quit(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        assert client.say(b"BURP").startswith(b"500 5.5.2")
        client.send(b"QUIT\r\n")
        assert client.read_to_end() == b"221 2.0.0 Bye\r\n"
        assert server.connections[0].closed_by == "server"
        assert server.connections[0].verbs == ("EHLO", "BURP", "QUIT")


def test_mail_needs_ehlo(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server)
        client.read_reply()
        assert client.say(b"MAIL FROM:<a@x>").startswith(b"503 ")


# -- AUTH ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_auth_with_smtplib(mechanism: str) -> None:
    with (
        ScriptedServer(users={"jo": "pass"}, auth=[mechanism]) as server,
        smtplib.SMTP(server.host, server.port, timeout=5) as client,
    ):
        client.login("jo", "pass")
        assert server.connections[0].user == "jo"
        client.sendmail("a@x", ["b@y"], "Subject: s\r\n\r\nt\r\n")
        assert len(server.messages) == 1


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_wrong_password(mechanism: str) -> None:
    with (
        ScriptedServer(users={"jo": "pass"}, auth=[mechanism]) as server,
        smtplib.SMTP(server.host, server.port, timeout=5) as client,
    ):
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login("jo", "guess")
        assert caught.value.smtp_code == 535
        assert server.connections[0].user is None
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail("a@x", ["b@y"], "t")
        assert refused.value.smtp_code == 530


def test_auth_dialogue(dial: Dial) -> None:
    with ScriptedServer(users={"jo": "pass"}) as server:
        client = dial(server).greet()
        assert client.say(b"AUTH PLAIN") == b"334 \r\n"
        assert client.say(b"*").startswith(b"501 ")
        assert client.say(b"AUTH LOGIN") == b"334 " + encoded(b"Username:") + b"\r\n"
        assert client.say(encoded(b"jo")) == b"334 " + encoded(b"Password:") + b"\r\n"
        assert client.say(b"!").startswith(b"501 ")
        assert client.say(b"AUTH PLAIN !").startswith(b"501 ")
        assert client.say(b"AUTH PLAIN =").startswith(b"535 ")
        assert client.say(b"AUTH XOAUTH2 abcd").startswith(b"504 ")
        assert client.say(b"AUTH PLAIN " + encoded(b"\0jo\0pass")).startswith(b"235 2.7.0")
        assert client.say(b"AUTH PLAIN " + encoded(b"\0jo\0pass")).startswith(b"503 ")
        assert server.connections[0].auth_responses == [b"*", encoded(b"jo"), b"!"]


def test_auth_is_not_offered_without_users(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server)
        client.read_reply()
        assert b"AUTH" not in client.say(b"EHLO c")
        assert client.say(b"AUTH PLAIN AHUAcA==").startswith(b"503 ")


@pytest.mark.parametrize("in_clear", [True, False])
def test_auth_before_tls(in_clear: bool, certificate: Certificate, dial: Dial) -> None:
    with ScriptedServer(
        users={"jo": "pass"},
        tls="starttls",
        certfile=certificate.certfile,
        keyfile=certificate.keyfile,
        auth_in_clear=in_clear,
    ) as server:
        client = dial(server)
        client.read_reply()
        assert (b"AUTH" in client.say(b"EHLO c")) is in_clear
        reply = client.say(b"AUTH PLAIN " + encoded(b"\0jo\0pass"))
        assert reply.startswith(b"235 " if in_clear else b"538 ")


# -- TLS ----------------------------------------------------------------------------------------------------


@pytest.fixture
def secured(certificate: Certificate) -> dict[str, Any]:
    return {"certfile": certificate.certfile, "keyfile": certificate.keyfile}


def test_starttls_with_smtplib(secured: dict[str, Any], certificate: Certificate) -> None:
    with (
        ScriptedServer(tls="starttls", users={"jo": "pass"}, require_tls=True, **secured) as server,
        smtplib.SMTP("localhost", server.port, timeout=5, local_hostname="c") as client,
    ):
        client.starttls(context=certificate.client_context())
        client.login("jo", "pass")
        client.sendmail("a@x", ["b@y"], "t")
        [record] = server.connections
        assert record.used_tls
        assert record.tls_version == "TLSv1.3"
        assert record.server_name == "localhost"
        assert record.clear_text == b"ehlo c\r\nSTARTTLS\r\n"
        assert len(server.messages) == 1


def test_implicit_tls_with_smtplib(secured: dict[str, Any], certificate: Certificate) -> None:
    with (
        ScriptedServer(tls="implicit", **secured) as server,
        smtplib.SMTP_SSL("localhost", server.port, timeout=5, context=certificate.client_context()) as client,
    ):
        assert not client.has_extn("starttls")
        client.sendmail("a@x", ["b@y"], "t")
        assert len(server.messages) == 1
        assert server.connections[0].clear_text == b""


def test_starttls_forgets_what_was_learnt(
    secured: dict[str, Any], certificate: Certificate, dial: Dial
) -> None:
    with ScriptedServer(tls="starttls", **secured) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"STARTTLS")
        client.start_tls(certificate.client_context())
        assert client.say(b"MAIL FROM:<a@x>").startswith(b"503 EHLO")
        assert b"STARTTLS" not in client.say(b"EHLO c")
        assert client.say(b"STARTTLS").startswith(b"502 ")
        assert client.say(b"RCPT TO:<b@y>").startswith(b"503 ")


def test_text_sneaked_in_behind_starttls_is_dropped(
    secured: dict[str, Any], certificate: Certificate, dial: Dial
) -> None:
    with ScriptedServer(tls="starttls", strict=False, **secured) as server:
        client = dial(server).greet()
        client.send(b"STARTTLS\r\nEHLO evil\r\n")
        client.read_reply()
        client.start_tls(certificate.client_context())
        assert client.say(b"EHLO c").startswith(b"250")
        assert b"EHLO evil" not in server.connections[0].commands
        assert server.connections[0].clear_text.endswith(b"STARTTLS\r\nEHLO evil\r\n")
        assert "bytes sent before the reply" in server.violations[0]


def test_starttls_is_not_available(dial: Dial) -> None:
    with ScriptedServer() as server:
        assert dial(server).greet().say(b"STARTTLS").startswith(b"502 ")


def test_mail_before_required_tls(secured: dict[str, Any], dial: Dial) -> None:
    with ScriptedServer(tls="starttls", require_tls=True, **secured) as server:
        assert dial(server).greet().say(b"MAIL FROM:<a@x>").startswith(b"530 ")


def test_clients_certificate(secured: dict[str, Any], certificate: Certificate, dial: Dial) -> None:
    with ScriptedServer(tls="implicit", client_ca=certificate.certfile, **secured) as server:
        context = certificate.client_context()
        context.load_cert_chain(certificate.certfile, certificate.keyfile)
        client = dial(server)
        client.start_tls(context)
        client.greet()
        shown = server.connections[0].client_certificate
        assert shown is not None
        assert shown["subject"] == ((("commonName", "localhost"),),)
        client = dial(server)
        client.start_tls(certificate.client_context())
        with pytest.raises(ssl.SSLError):  # TLS 1.3: it shows at the first read
            client.read_line()
        server.wait_for(lambda: server.connections[1].is_closed)
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(server.connections[1].tls_error)


def test_a_client_that_does_not_trust(secured: dict[str, Any], dial: Dial) -> None:
    with ScriptedServer(tls="implicit", **secured) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            dial(server).start_tls(ssl.create_default_context())
        server.wait_for(lambda: server.connections[0].is_closed)
        assert server.connections[0].tls_error is not None
        assert not server.connections[0].used_tls


def test_session_resumption(secured: dict[str, Any], certificate: Certificate, dial: Dial) -> None:
    with ScriptedServer(tls="implicit", **secured) as server:
        context, session = certificate.client_context(), None
        for _ in range(2):
            client = dial(server)
            client.start_tls(context, session)
            client.greet()
            assert isinstance(client.sock, ssl.SSLSocket)
            session = client.sock.session
        assert [record.tls_session_reused for record in server.connections] == [False, True]


# -- violations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"NOOP\nRSET\r\n", "bare LF"),
        (b"NOOP a\rb\r\n", "bare CR"),
        (b"NOOP \xff\r\n", "8-bit"),
        (b"NOOP " + b"x" * 3000 + b"\r\n", "3007 bytes"),
        (b"RSET\r\nRSET\r\n", "pipelining that was not offered"),
        (b"NOOP\r\nRSET\r\n", "before the reply to b'NOOP'"),
        (b"MAIL FROM: <a@x>\r\n", "malformed path"),
        (b"MAIL FROM:<a@x> BODY=8BITMIME\r\n", "not offered"),
    ],
)
def test_violations_are_told(sent: bytes, words: str, dial: Dial) -> None:
    with ScriptedServer(keywords=[], strict=False) as server:
        client = dial(server).greet()
        client.send(sent)
        client.read_reply()
        assert any(words in violation for violation in server.violations)
    server = ScriptedServer(keywords=[])
    with pytest.raises(AssertionError, match="connection 1"), server:  # noqa: PT012 - leaving the server's context raises
        client = dial(server).greet()
        client.send(sent)
        client.read_reply()


@pytest.mark.parametrize("last", [b"EHLO c", b"NOOP", b"DATA", b"QUIT", b"AUTH PLAIN AHUAcA=="])
def test_commands_that_end_a_group(last: bytes, dial: Dial) -> None:
    with ScriptedServer(strict=False) as server:
        client = dial(server).greet()
        client.send(b"RSET\r\n" + last + b"\r\nRSET\r\n")
        client.read_reply()
        client.read_reply()
        assert len(server.violations) == 1
        assert repr(last) in server.violations[0]


def test_a_pipelining_client_is_fine(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        group = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"
        client.send(group)
        assert [client.read_reply()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        client.send(b"one\r\n.\r\n" + group)
        assert [client.read_reply()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        client.send(b"two\r\n.\r\nQUIT\r\n")
        assert client.read_to_end().startswith(b"250 ")
        assert [message.content for message in server.messages] == [b"one\r\n", b"two\r\n"]


def test_replies_to_a_group_come_together(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        client.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRSET\r\n")
        assert client.sock.recv(1000).count(b"\r\n") == 3
