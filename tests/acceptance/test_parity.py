"""The examples in the documents of Nodemailer and NexoMailer, as a program here says them, over the wire.

docs/parity.md names where each of their options is; this shows that they come together.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from mailbridge import (
    ConnectTimeout,
    Envelope,
    GreetingRefused,
    Mailer,
    Message,
    ProxyURL,
    ReplyTimeout,
    SMTPConfig,
    SMTPConnection,
    register_proxy,
    register_sasl,
)
from mailbridge.config import proxies
from mailbridge.smtp.sasl import registry
from mailbridge.testing import Dialogue, Fault, ScriptedServer
from tests.servers.certificates import Certificates

FROM, TO = "sender@example.com", "recipient@example.com"
TEXT = f"From: {FROM}\r\nTo: {TO}\r\nSubject: Test\r\n\r\nHello!"


@pytest.fixture
def registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(proxies, "_registered", {})
    monkeypatch.setattr(registry, "registered", {})


@pytest.fixture
def under_tls(certificates: Certificates) -> Iterator[ScriptedServer]:
    """A server on a port for TLS, which wants a login."""
    good = certificates.good
    with ScriptedServer(
        tls="implicit", certfile=good.cert_file, keyfile=good.key_file, users={"username": "password"}
    ) as server:
        yield server


def at(server: ScriptedServer, **options: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port, "timeout": 5, **options}


def sent(mailer: Mailer) -> None:
    """One message in and out."""
    with mailer:
        result = mailer.send(Message(subject="Test", sender=FROM, to=[TO], text="Hello!"))
    assert result.accepted == (TO,)


# ---- SMTP transport


def test_a_pooled_transport_from_a_url_with_tls(
    under_tls: ScriptedServer, certificates: Certificates
) -> None:
    url = f"smtps://username:password@localhost:{under_tls.port}/?pool.max_size=1"
    with Mailer.from_url(f"{url}&family=ipv4", tls={"ca_file": str(certificates.ca_file)}) as mailer:
        for _ in range(3):
            mailer.send(Message(subject="Test", sender=FROM, to=[TO], text="Hello!"))
    assert len(under_tls.connections) == 1
    assert len(under_tls.messages) == 3


def test_a_connection_for_each_message_upgraded_by_starttls(certificates: Certificates) -> None:
    good = certificates.good
    with ScriptedServer(
        tls="starttls", certfile=good.cert_file, keyfile=good.key_file, users={"username": "password"}
    ) as server:
        auth = {"username": "username", "password": "password"}
        tls = {"ca_file": str(certificates.ca_file), "server_hostname": "localhost"}
        with Mailer(SMTPConfig.from_mapping(at(server, pool=False, tls=tls, **auth))) as mailer:
            for _ in range(2):
                mailer.send(Message(subject="Test", sender=FROM, to=[TO], text="Hello!"))
        assert len(server.connections) == 2
        assert all(b"STARTTLS" in each.commands for each in server.connections)


def test_a_self_signed_certificate_is_allowed_on_demand(certificates: Certificates) -> None:
    bad = certificates.self_signed
    with ScriptedServer(
        tls="implicit", certfile=bad.cert_file, keyfile=bad.key_file, users={"u": "p"}
    ) as server:
        auth = {"username": "u", "password": "p"}
        config = SMTPConfig.from_mapping(at(server, security="tls", tls={"verify": False}, **auth))
        sent(Mailer(config))


def test_common_values_for_all_messages() -> None:
    with ScriptedServer() as server:
        options = at(server, security="none", defaults={"sender": FROM, "headers": {"X-Shop": "1"}})
        with Mailer(SMTPConfig.from_mapping(options)) as mailer:
            mailer.send(Message(subject="Test", to=[TO], text="Hello!"))
        (message,) = server.messages
        assert message.sender == FROM
        assert b"X-Shop: 1\r\n" in message.content


def test_a_token_that_is_there_already() -> None:
    token = {"access_token": "ya29.A0AR", "expires": 4102444800}
    dialogue = Dialogue(
        "S: 220 hi",
        "C: EHLO .*",
        "S: 250-hi\nS: 250 AUTH XOAUTH2",
        "C= AUTH XOAUTH2 dXNlcj11c2VyQGV4YW1wbGUuY29tAWF1dGg9QmVhcmVyIHlhMjkuQTBBUgEB",
        "S: 235 2.7.0 Accepted",
        "C: QUIT",
        "S: 221 bye",
    )
    with ScriptedServer([dialogue], strict=False) as server:
        options = at(server, security="none", username="user@example.com", oauth2=token)
        with SMTPConnection(SMTPConfig.from_mapping(options)) as connection:
            assert connection.authenticated
            assert connection.mechanism == "XOAUTH2"
            connection.quit()


@pytest.mark.usefixtures("registers")
def test_a_mechanism_of_one_s_own() -> None:
    class Reversed:
        """The password, from the last letter to the first, for whatever the server asks."""

        name = "X-REVERSED"

        def __init__(self, credentials: Any) -> None:
            self.credentials = credentials

        def initial(self) -> bytes | None:
            return None

        def step(self, challenge: bytes) -> bytes:
            assert challenge == b"well?"
            return bytes(self.credentials.password.reveal()[::-1], "ascii")

    register_sasl("X-REVERSED", Reversed)
    dialogue = Dialogue(
        "S: 220 hi",
        "C: EHLO .*",
        "S: 250-hi\nS: 250 AUTH PLAIN X-REVERSED",
        "C= AUTH X-REVERSED",
        "S: 334 d2VsbD8=",  # well?
        "C= ZHJvd3NzYXA=",  # drowssap
        "S: 235 2.7.0 Accepted",
        "C: QUIT",
        "S: 221 bye",
    )
    with ScriptedServer([dialogue], strict=False) as server:
        auth = {"username": "username", "password": "password", "auth": "X-REVERSED"}
        with SMTPConnection(SMTPConfig.from_mapping(at(server, security="none", **auth))) as connection:
            assert connection.mechanism == "X-REVERSED"
            connection.quit()


def test_verify(under_tls: ScriptedServer, certificates: Certificates) -> None:
    auth = {"username": "username", "password": "password"}
    tls = {"ca_file": str(certificates.ca_file), "server_hostname": "localhost"}
    report = Mailer(SMTPConfig.from_mapping(at(under_tls, security="tls", tls=tls, **auth))).verify()
    assert report.ok
    assert {"tcp", "tls", "auth"} <= {stage.name for stage in report if stage.status == "ok"}
    wrong = SMTPConfig.from_mapping(at(under_tls, security="tls", tls=tls, **{**auth, "password": "no"}))
    assert Mailer(wrong).verify()["auth"].status == "failed"
    assert under_tls.messages == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [("client.example.com", b"EHLO client.example.com"), ("[192.0.2.1]", b"EHLO [192.0.2.1]")],
)
def test_the_name_in_ehlo(given: str, said: bytes) -> None:
    with ScriptedServer() as server:
        sent(Mailer(SMTPConfig.from_mapping(at(server, security="none", local_hostname=given))))
        assert server.connections[0].commands[0] == said


def test_starttls_that_is_offered_is_left_alone_on_demand(certificates: Certificates) -> None:
    good = certificates.good
    with ScriptedServer(tls="starttls", certfile=good.cert_file, keyfile=good.key_file) as server:
        sent(Mailer(SMTPConfig.from_mapping(at(server, security="none"))))
        assert b"STARTTLS" not in server.connections[0].commands


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_the_login_that_is_asked_for(method: str) -> None:
    with ScriptedServer(users={"username": "password"}) as server:
        auth = {"username": "username", "password": "password", "auth": method}
        sent(Mailer(SMTPConfig.from_mapping(at(server, security="none", **auth))))
        assert any(each.startswith(b"AUTH " + method.encode()) for each in server.connections[0].commands)


@pytest.mark.parametrize(
    ("option", "fault", "error"),
    [
        ("connect", Fault("tls", "silence"), ConnectTimeout),
        ("greeting", Fault("greeting", "silence"), ReplyTimeout),
        ("command", Fault("mail", "silence"), ReplyTimeout),
        ("final", Fault("final", "silence"), ReplyTimeout),
    ],
)
def test_each_time_limit(
    option: str, fault: Fault, error: type[Exception], certificates: Certificates
) -> None:
    good = certificates.good
    tls = {"tls": "implicit", "certfile": good.cert_file, "keyfile": good.key_file}
    under_tls = {"security": "tls", "tls": {"verify": False}}
    is_of_tls = option == "connect"
    with ScriptedServer(faults=[fault], **(tls if is_of_tls else {})) as server:
        options = at(server, timeouts={option: 0.2}, **(under_tls if is_of_tls else {"security": "none"}))
        with Mailer(SMTPConfig.from_mapping(options)) as mailer, pytest.raises(error):
            mailer.send(Message(subject="Test", sender=FROM, to=[TO], text="Hello!"))


# ---- SMTP connection


def test_the_complete_example() -> None:
    rejected = "gone@example.com"
    with ScriptedServer(
        users={"username": "password"}, rcpt_replies={rejected: "550 5.1.1 Nobody"}
    ) as server:
        connection = SMTPConnection(SMTPConfig.from_mapping(at(server, security="none", debug=True)))
        assert not connection.authenticated
        connection.connect()
        assert connection.allows_auth
        connection.login(username="username", password="password")
        assert connection.authenticated
        info = connection.send(Envelope(FROM, [TO, rejected]), TEXT)
        assert info.accepted == (TO,)
        assert list(info.rejected) == [rejected]
        (error,) = info.rejected_errors
        assert error.reply is not None
        assert error.reply.code == 550
        assert info.response.code == 250
        assert info.message_size == len(TEXT) + 2  # the last line ends, too
        assert min(info.timings["envelope"], info.timings["data"]) >= 0
        assert info.connection_id == connection.id
        assert connection.reset().code == 250
        assert connection.last_reply is not None
        assert (connection.last_reply.code, connection.secure) == (250, False)
        connection.quit()
        assert not connection.is_open
        (message,) = server.messages
        assert message.content.endswith(b"\r\n\r\nHello!\r\n")


def test_reports_are_asked_for() -> None:
    dsn = {"ret": "HDRS", "envid": "unique-id-123", "notify": "SUCCESS,FAILURE"}
    with ScriptedServer(keywords=["PIPELINING", "DSN"]) as server:
        envelope = Envelope(FROM, [TO], dsn={**dsn, "orcpt": "rfc822;original@example.com"})
        with SMTPConnection(SMTPConfig.from_mapping(at(server, security="none"))) as connection:
            connection.send(envelope, TEXT)
        mail, rcpt = server.connections[0].commands[1:3]
    assert mail == b"MAIL FROM:<sender@example.com> RET=HDRS ENVID=unique-id-123"
    assert rcpt == (
        b"RCPT TO:<recipient@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;original@example.com"
    )


# ---- proxies


@pytest.mark.usefixtures("registers")
def test_a_handler_that_connects_by_itself() -> None:
    asked: list[tuple[str, tuple[str, int]]] = []
    with ScriptedServer() as server:

        def connect(proxy: ProxyURL, target: tuple[str, int], deadline: Any) -> socket.socket:
            asked.append((str(proxy), target))
            return socket.create_connection(("127.0.0.1", server.port), deadline.remaining)

        register_proxy("myproxy", connect)
        config = SMTPConfig(host="smtp.example.com", security="none", proxy="myproxy://127.0.0.1:9999")
        sent(Mailer(config))
    assert asked == [("myproxy://127.0.0.1:9999", ("smtp.example.com", 25))]


@pytest.mark.usefixtures("registers")
def test_a_handler_whose_socket_is_encrypted_already(certificates: Certificates) -> None:
    good = certificates.good
    with ScriptedServer(tls="implicit", certfile=good.cert_file, keyfile=good.key_file) as server:

        def connect(*_: Any) -> tuple[socket.socket, bool]:
            context = ssl.create_default_context(cafile=os.fspath(certificates.ca_file))
            plain = socket.create_connection(("127.0.0.1", server.port), 5)
            return context.wrap_socket(plain, server_hostname="localhost"), True

        register_proxy("myproxys", connect)
        sent(Mailer(SMTPConfig(host="smtp.example.com", proxy="myproxys://127.0.0.1:9999")))
        assert b"STARTTLS" not in server.connections[0].commands


# ---- NexoMailer


def test_a_provider_as_a_fallback() -> None:
    """The first one is down for a while; the second has what an enterprise sets up."""
    with (
        ScriptedServer(faults=[Fault("greeting", "reply", reply="554 5.3.2 closed for today")]) as first,
        ScriptedServer(users={"u": "p"}) as second,
    ):
        servers = [
            {
                **at(second),
                "priority": 2,
                "username": "u",
                "password": "p",
                "local_hostname": "my-custom-app",
            },
            {**at(first), "priority": 1},
        ]
        config = SMTPConfig(
            servers=servers, security="none", pool={"max_size": 10}, timeouts={"connect": 5, "command": 10}
        )
        with Mailer(config) as mailer:
            result = mailer.send(Message(subject="Test", sender=FROM, to=[TO], text="Hello!"))
        assert result.server == f"127.0.0.1:{second.port}"
        (failure,) = result.failed_servers.values()
        assert isinstance(failure, GreetingRefused)
        assert (len(first.messages), len(second.messages)) == (0, 1)
        assert second.connections[0].commands[0] == b"EHLO my-custom-app"
