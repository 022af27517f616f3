"""Somebody sits in the line: what goes out in clear text, and what is believed of it.

With `security` "starttls" or "tls" nothing but EHLO, STARTTLS and QUIT goes out unencrypted, whatever
the other side says, and nothing said before TLS counts after it (RFC 3207 sections 4.2 and 6).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mailbridge import (
    AuthenticationFailed,
    CertificateRejected,
    ConfigurationError,
    ConnectionLost,
    GreetingRefused,
    MailbridgeError,
    Mailer,
    NotSupported,
    ProtocolViolation,
    SMTPConnection,
    TLSFailed,
    TLSModeMismatch,
)
from mailbridge.net.dialer import Dialed, Target, dial
from mailbridge.net.proxy import route as reaching_module
from mailbridge.testing import Dialogue, Fault, ScriptedServer
from tests.acceptance.sending import PASSWORD, USER, committed, config_for, envelope, mailer_for, message
from tests.servers.certificates import Certificates, Identity

pytestmark = pytest.mark.matrix

# One line each: a ClientHello is random, and may hold CR and LF itself.
MAY_BE_CLEAR = re.compile(rb"(EHLO [^ \r\n]+|STARTTLS|QUIT)\r\n")
CLIENT_HELLO = b"\x16\x03"


def assert_clear_text_is_harmless(server: ScriptedServer) -> None:
    """Every clear line is one of the three; the rest, if any, is the beginning of a TLS handshake."""
    for connection in server.connections:
        rest = MAY_BE_CLEAR.sub(b"", bytes(connection.clear_text))
        assert rest == b"" or rest.startswith(CLIENT_HELLO), rest
        assert connection.auth_responses == []


@pytest.mark.parametrize("rest", [CLIENT_HELLO + b"\x01\r\n\xaa \0", b"AUTH=PLAIN\r\n", b"MAIL\r\n\x16\x03"])
def test_nothing_but_the_three_lines_is_taken_for_harmless(rest: bytes) -> None:
    assert MAY_BE_CLEAR.sub(b"", b"EHLO [127.0.0.1]\r\nSTARTTLS\r\n" + rest) == rest


@contextmanager
def attacked(
    certificates: Certificates, *faults: Fault, dialogues: tuple[Dialogue, ...] = (), **options: Any
) -> Iterator[tuple[ScriptedServer, Mailer]]:
    """A server with STARTTLS and AUTH, in clear text too, and a mailer that wants both."""
    identity: Identity = options.pop("identity", certificates.good)
    server_options = {"users": {USER: PASSWORD}, "auth_in_clear": True, "require_auth": False}
    wanted: dict[str, Any] = {"security": "starttls", "username": USER, "password": PASSWORD, "timeout": 5}
    wanted["tls"] = {"ca_file": str(certificates.ca_file)}
    with (
        ScriptedServer(
            dialogues,
            faults=faults,
            tls=None if dialogues else "starttls",
            certfile=identity.cert_file,
            keyfile=identity.key_file,
            strict=False,
            **server_options,  # type: ignore[arg-type]
        ) as server,
        mailer_for(
            server,
            **wanted | options,
        ) as mailer,
    ):
        yield server, mailer


def check_refused(
    server: ScriptedServer, mailer: Mailer, kind: type[MailbridgeError] | tuple[type[MailbridgeError], ...]
) -> MailbridgeError:
    with pytest.raises(kind) as caught:
        mailer.send(message(1), envelope=envelope())
    assert not caught.value.outcome_unknown
    assert committed(server) == {}
    assert len(server.connections) == 1
    server.wait_for(lambda: server.connections[0].is_closed)
    assert_clear_text_is_harmless(server)
    return caught.value


# ---- injection: clear text that wants to be read as said under TLS

FAKE = "250-mx.test.example\r\n250 AUTH PLAIN"
INJECTIONS = {
    "in one segment with the 220": (Fault("starttls", "extra", reply=FAKE), ProtocolViolation),
    "a fragment with the 220": (Fault("starttls", "extra", reply=b"250-AUTH="), ProtocolViolation),
    "one byte with the 220": (Fault("starttls", "extra", reply=b"2"), ProtocolViolation),
    "an empty line with the 220": (Fault("starttls", "extra", reply=b"\r\n"), ProtocolViolation),
    "in place of the ServerHello": (Fault("tls", "reply", reply=FAKE), ProtocolViolation),
    # By then the handshake has begun, and it is TLS that finds what is no record of its own.
    "behind the server's flight": (Fault("tls", "extra", reply=FAKE), TLSFailed),
    "a 220 before it was asked": (Fault("ehlo", "extra", reply="220 2.0.0 Ready"), ProtocolViolation),
    "all of it before it was asked": (
        Fault("ehlo", "extra", reply=f"220 2.0.0 Ready\r\n{FAKE}"),
        ProtocolViolation,
    ),
    "half a 220 before it was asked": (Fault("ehlo", "extra", reply=b"220 2.0.0 Rea"), ProtocolViolation),
}


@pytest.mark.parametrize("place", INJECTIONS)
def test_injected_clear_text(certificates: Certificates, place: str) -> None:
    fault, kind = INJECTIONS[place]
    with attacked(certificates, fault) as (server, mailer):
        check_refused(server, mailer, kind)
        assert server.unfired == ()
        if fault.stage != "tls":
            assert not server.connections[0].used_tls, "a handshake was made in spite of it"
        mailer.send(message(2), envelope=envelope())
        assert (committed(server), server.connections[1].user) == ({2: 1}, USER)


@pytest.mark.parametrize("place", ["starttls", "tls"])
def test_injected_in_a_segment_of_its_own(certificates: Certificates, place: str) -> None:
    """After the 220, while the client is on its way to the handshake: seen before it or in it."""
    opening = (
        "S: 220 mx.test.example\nC: EHLO .*\nS: 250-mx.test.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 Go"
    )
    pause = "! pause 0.02\n" if place == "tls" else ""
    dialogue = Dialogue(f"{opening}\n{pause}! garbage 250 AUTH PLAIN\n! silence")
    with attacked(certificates, dialogues=(dialogue,)) as (server, mailer):
        check_refused(server, mailer, ProtocolViolation)


# ---- stripping: no STARTTLS, or none that works

NO_STARTTLS: dict[str, tuple[str, type[MailbridgeError]]] = {
    "not offered": ("S: 250-mx\nS: 250 AUTH PLAIN LOGIN", NotSupported),
    "nothing is offered": ("S: 250 mx", NotSupported),
    "not even a name": ("S: 250", NotSupported),
    "an empty line": ("S: 250-mx\nS: 250 ", NotSupported),
    "a longer word": ("S: 250-mx\nS: 250-STARTTLSX\nS: 250 XSTARTTLS", NotSupported),
    "in the name's line": ("S: 250 STARTTLS", NotSupported),
    "500 to EHLO": ("S: 500 5.5.1 What?", GreetingRefused),
    "502 to EHLO": ("S: 502 5.5.1 Not implemented", GreetingRefused),
    "550 to EHLO": ("S: 550 5.7.1 You?", GreetingRefused),
    "421 to EHLO": ("S: 421 4.3.2 Busy\n! close", ConnectionLost),
    "354 to EHLO": ("S: 354 Go ahead", GreetingRefused),
    "235 to EHLO": ("S: 235 2.7.0 Welcome", NotSupported),
}


@pytest.mark.parametrize("has_credentials", [True, False], ids=["with login", "without"])
@pytest.mark.parametrize("how", NO_STARTTLS)
def test_starttls_is_stripped(certificates: Certificates, how: str, has_credentials: bool) -> None:
    said, kind = NO_STARTTLS[how]
    dialogue = Dialogue(f"S: 220 mx.test.example\nC: EHLO .*\n{said}" + ("" if "!" in said else "\n! eof"))
    options = {} if has_credentials else {"username": None, "password": None}
    with attacked(certificates, dialogues=(dialogue,), **options) as (server, mailer):
        check_refused(server, mailer, kind)


@pytest.mark.parametrize(
    "code", [200, 221, 235, 250, 334, 354, 421, 451, 454, 500, 501, 502, 503, 530, 538, 554]
)
@pytest.mark.parametrize("security", ["starttls", "opportunistic"])
def test_starttls_is_answered_otherwise(certificates: Certificates, code: int, security: str) -> None:
    """Once asked for, TLS is not given up, by "opportunistic" neither: who has answered?"""
    fault = Fault("starttls", "reply", reply=f"{code} Whatever", then="continue")
    with attacked(certificates, fault, security=security) as (server, mailer):
        error = check_refused(server, mailer, (NotSupported, ConnectionLost))
        assert error.reply is not None
        assert error.reply.code == code
        assert server.connections[0].verbs == ("EHLO", "STARTTLS")


@pytest.mark.parametrize(
    "said", ["554 5.7.1 No", "421 4.3.2 Busy", "250 Hello", "354 Go", "220-AUTH PLAIN\r\n554 No"]
)
@pytest.mark.parametrize("security", ["starttls", "opportunistic"])
def test_no_greeting(certificates: Certificates, said: str, security: str) -> None:
    with attacked(certificates, Fault("greeting", "reply", reply=said), security=security) as (
        server,
        mailer,
    ):
        check_refused(server, mailer, (GreetingRefused, ProtocolViolation))
        assert server.connections[0].verbs == ()


@pytest.mark.parametrize(
    "greeting", ["220 mx.test.example ESMTP", "554 No", "250-AUTH PLAIN\r\n250 STARTTLS"]
)
def test_clear_text_where_tls_is_due_from_the_start(certificates: Certificates, greeting: str) -> None:
    """A server of clear text, or somebody who speaks for it: not a word of SMTP goes out."""
    fault = Fault("greeting", "reply", reply=greeting)
    with attacked(certificates, fault, security="tls") as (server, mailer):
        check_refused(server, mailer, TLSModeMismatch)


@pytest.mark.parametrize("which", ["self_signed", "expired", "wrong_host"])
def test_a_certificate_that_proves_nothing(certificates: Certificates, which: str) -> None:
    with attacked(certificates, identity=getattr(certificates, which)) as (server, mailer):
        check_refused(server, mailer, CertificateRejected)
        assert server.connections[0].verbs == ("EHLO", "STARTTLS")


# ---- what was learnt before TLS

BEFORE_TLS = """
    S: 220 mx.test.example
    C: EHLO .*
    S: 250-mx.test.example
    S: 250-PIPELINING
    S: 250-SIZE 10
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-AUTH PLAIN LOGIN CRAM-MD5
    S: 250 STARTTLS
    C: STARTTLS
    S: 220 Go
    ! tls
    C: EHLO .*
"""


def test_mechanisms_from_before_tls_are_forgotten(certificates: Certificates) -> None:
    dialogue = Dialogue(f"{BEFORE_TLS}\nS: 250 mx.test.example\n! eof")
    with attacked(certificates, dialogues=(dialogue,)) as (server, mailer):
        error = check_refused(server, mailer, NotSupported)
        assert isinstance(error, NotSupported)
        assert error.extension == "AUTH"


def test_a_weaker_mechanism_from_before_tls_is_not_taken(certificates: Certificates) -> None:
    dialogue = Dialogue(f"{BEFORE_TLS}\nS: 250-mx\nS: 250 AUTH XOAUTH2 X-NEW\n! eof")
    with attacked(certificates, dialogues=(dialogue,)) as (server, mailer):
        check_refused(server, mailer, AuthenticationFailed)


def test_extensions_from_before_tls_are_forgotten(certificates: Certificates) -> None:
    """Neither a parameter nor a flight that only the clear text had offered; a second STARTTLS is ignored."""
    dialogue = Dialogue(
        f"""{BEFORE_TLS}
        S: 250-mx.test.example
        S: 250 STARTTLS
        C= MAIL FROM:<from@a.example>
        S: 250 Ok
        C= RCPT TO:<to@b.example>
        S: 250 Ok
        C= DATA
        S: 354 Go
        C: ...
        C= .
        S: 250 Ok
        C: QUIT
        S: 221 Bye"""
    )
    options = {"username": None, "password": None}
    with attacked(certificates, dialogues=(dialogue,), **options) as (server, mailer):
        assert mailer.send(message(1), envelope=envelope()).round_trips > 6
        mailer.close()
        assert committed(server) == {1: 1}


@pytest.mark.parametrize("said", ["500 What?", "421 Busy", "554 No"])
def test_ehlo_under_tls_is_refused(certificates: Certificates, said: str) -> None:
    with attacked(certificates, Fault("ehlo_tls", "reply", reply=said)) as (server, mailer):
        check_refused(server, mailer, (GreetingRefused, ConnectionLost))
        assert server.connections[0].verbs == ("EHLO", "STARTTLS", "EHLO")


# ---- AUTH in clear text


class FarSocket(socket.socket):
    """A socket that leads to another machine, as far as it says."""

    def getpeername(self) -> Any:
        return ("192.0.2.7", 25)


def far_connection(server: ScriptedServer, **options: Any) -> SMTPConnection:
    """A session in clear text with a login, on a given socket."""
    sock = FarSocket(socket.AF_INET, socket.SOCK_STREAM)
    sock.connect((server.host, server.port))
    secured = options.pop("secured", False)
    options = {"security": "none", "username": USER, "password": PASSWORD} | options
    return SMTPConnection(config_for(server, **options), sock=sock, secured=secured)


def login_server() -> ScriptedServer:
    return ScriptedServer(users={USER: PASSWORD})


@pytest.mark.parametrize("security", ["none", "opportunistic"])
def test_no_login_in_clear_text_to_another_machine(security: str) -> None:
    with login_server() as server:
        connection = far_connection(server, security=security)
        connection.connect()
        with pytest.raises(ConfigurationError, match="clear text"):
            connection.login()
        assert not connection.is_open
        server.wait_for(lambda: server.connections[0].is_closed)
        assert server.connections[0].verbs == ("EHLO",)
        assert_clear_text_is_harmless(server)


def test_nor_by_a_mailer(monkeypatch: pytest.MonkeyPatch) -> None:
    def far(target: Target, **options: Any) -> Dialed:
        return replace(dial(target, **options), is_loopback=False)

    monkeypatch.setattr(reaching_module, "dial", far)
    with (
        login_server() as server,
        mailer_for(server, username=USER, password=PASSWORD) as mailer,
    ):
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="clear text"):
                mailer.send(message(1), envelope=envelope())
        assert all(connection.verbs in ((), ("EHLO",)) for connection in server.connections)
        assert_clear_text_is_harmless(server)
        assert mailer.stats().idle == 0


@pytest.mark.parametrize("options", [{"allow_insecure_auth": True}, {"secured": True}], ids=str)
def test_unless_the_user_takes_the_risk_or_has_secured_it(options: dict[str, Any]) -> None:
    with login_server() as server:
        connection = far_connection(server, **options)
        connection.connect()
        connection.login()
        assert server.connections[0].user == USER
        connection.quit()


def test_this_very_machine_is_exempt() -> None:
    with login_server() as server, mailer_for(server, username=USER, password=PASSWORD) as mailer:
        mailer.send(message(1), envelope=envelope())
        assert (committed(server), server.connections[0].user) == ({1: 1}, USER)


@pytest.mark.parametrize("code", [200, 221, 250, 252, 354, 503])
def test_only_235_is_a_login(code: int) -> None:
    """smtplib takes 503 for one: a message would be sent without the login that was asked for."""
    fault = Fault("auth", "reply", reply=f"{code} Whatever", occurrence=2)
    server = ScriptedServer(faults=[fault], users={USER: PASSWORD}, require_auth=False)
    with server, mailer_for(server, username=USER, password=PASSWORD) as mailer:
        with pytest.raises((AuthenticationFailed, ConnectionLost)):
            mailer.send(message(1), envelope=envelope())
        assert (committed(server), server.connections[0].verbs) == ({}, ("EHLO", "AUTH"))


def test_a_login_that_is_not_offered_is_not_left_out() -> None:
    """A message without the configured login is another message than was asked for."""
    with ScriptedServer() as server, mailer_for(server, username=USER, password=PASSWORD) as mailer:
        with pytest.raises(NotSupported, match="AUTH"):
            mailer.send(message(1), envelope=envelope())
        assert committed(server) == {}
        assert server.connections[0].verbs == ("EHLO",)
