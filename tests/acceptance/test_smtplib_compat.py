"""Code that was written for smtplib, and so for Django's own backend, goes on catching.

Each scenario is run twice, through smtplib and through mailbridge, against servers that fail in the same
way. What smtplib raises is asked for its classes: an `except` for any of them has to catch ours too. Where
it does not, the class stands in NOT_CAUGHT with the reason.
"""

from __future__ import annotations

import errno
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import partial
from typing import Any

import pytest

from mailbridge import Envelope, MailbridgeError, Mailer, SMTPConfig
from mailbridge.testing import Fault, ScriptedServer
from tests.acceptance.sending import PASSWORD, RECIPIENT, SENDER, USER
from tests.servers.certificates import Certificates

pytestmark = pytest.mark.matrix

SECONDS = 5.0
SHORT = 0.3
OTHER = "other@b.example"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A server that fails, and how the client is set up against it."""

    faults: tuple[Fault, ...] = ()
    server: dict[str, Any] = field(default_factory=dict)
    security: str = "none"
    password: str | None = None
    trusts: str = "ca_file"  # which attribute of the certificates is trusted
    certificate: str = "good"
    sender: str = SENDER
    recipients: tuple[str, ...] = (RECIPIENT,)
    seconds: float = SECONDS


def at(stage: str, kind: str, **options: Any) -> tuple[Fault, ...]:
    return (Fault(stage, kind, **options),)  # type: ignore[arg-type]  # Fault checks what it is given


LOGIN = {"users": {USER: PASSWORD}}
NO_UTF8 = {"keywords": ["PIPELINING", "8BITMIME"]}
SCENARIOS: dict[str, Scenario] = {
    "no greeting": Scenario(faults=at("greeting", "close")),
    # Not at once: a reset that is faster than the client's connect() is a connection that failed.
    "greeting reset": Scenario(faults=at("greeting", "reset", delay=0.1)),
    "greeting late": Scenario(faults=at("greeting", "silence"), seconds=SHORT),
    "greeting 421": Scenario(faults=at("greeting", "reply", reply="421 4.3.2 Busy")),
    "greeting 554": Scenario(faults=at("greeting", "reply", reply="554 5.7.1 No")),
    "EHLO refused": Scenario(
        faults=(*at("ehlo", "reply", reply="550 No"), *at("helo", "reply", reply="550 No"))
    ),
    "EHLO closed": Scenario(faults=at("ehlo", "close")),
    "STARTTLS not offered": Scenario(security="starttls"),
    "STARTTLS refused": Scenario(
        security="starttls", server={"tls": "starttls"}, faults=at("starttls", "reply", reply="454 4.7.0 No")
    ),
    "self-signed certificate": Scenario(
        security="starttls", server={"tls": "starttls"}, certificate="self_signed"
    ),
    "expired certificate": Scenario(security="starttls", server={"tls": "starttls"}, certificate="expired"),
    "certificate of another host": Scenario(
        security="tls", server={"tls": "implicit"}, certificate="wrong_host"
    ),
    "unknown authority": Scenario(security="tls", server={"tls": "implicit"}, trusts="other_ca_file"),
    "TLS on a clear port": Scenario(security="tls"),
    "handshake closed": Scenario(security="tls", server={"tls": "implicit"}, faults=at("tls", "close")),
    "handshake reset": Scenario(security="tls", server={"tls": "implicit"}, faults=at("tls", "reset")),
    "handshake late": Scenario(
        security="tls", server={"tls": "implicit"}, faults=at("tls", "silence"), seconds=SHORT
    ),
    "handshake garbage": Scenario(
        security="starttls", server={"tls": "starttls"}, faults=at("tls", "garbage")
    ),
    "login refused": Scenario(server=LOGIN, password="wrong"),
    "login refused for now": Scenario(
        server=LOGIN, password=PASSWORD, faults=at("auth", "reply", reply="454 4.7.0 Later", occurrence=None)
    ),
    "login closed": Scenario(server=LOGIN, password=PASSWORD, faults=at("auth", "close")),
    "login not offered": Scenario(password=PASSWORD),
    "no mechanism in common": Scenario(server=LOGIN | {"auth": ["GSSAPI"]}, password=PASSWORD),
    "sender refused": Scenario(server={"mail_replies": "553 5.7.1 Not you"}),
    "sender refused for now": Scenario(server={"mail_replies": "451 4.7.1 Not yet"}),
    "recipient refused": Scenario(server={"rcpt_replies": "550 5.1.1 Nobody"}),
    "recipients refused, each for its own": Scenario(
        server={"rcpt_replies": {RECIPIENT: "550 5.1.1 Nobody", OTHER: "450 4.2.1-Later\r\n"}},
        recipients=(RECIPIENT, OTHER),
    ),
    "DATA refused": Scenario(server={"data_reply": "554 5.7.1 No"}),
    "content refused": Scenario(server={"final_replies": "554-5.7.1 Spam\r\n554 5.7.1 Go away"}),
    "content refused for now": Scenario(server={"final_replies": "452 4.3.1 Full"}),
    "MAIL closed": Scenario(faults=at("mail", "close")),
    "RCPT reset": Scenario(faults=at("rcpt", "reset")),
    "DATA late": Scenario(faults=at("data", "silence"), seconds=SHORT),
    "closed after the dot": Scenario(faults=at("final", "close")),
    "late after the dot": Scenario(faults=at("final", "silence"), seconds=SHORT),
    "MAIL 421": Scenario(faults=at("mail", "reply", reply="421 4.3.2 Closing")),
    "RCPT 421": Scenario(faults=at("rcpt", "reply", reply="421 4.3.2 Closing")),
    "DATA 421": Scenario(faults=at("data", "reply", reply="421 4.3.2 Closing")),
    "dot 421": Scenario(faults=at("final", "reply", reply="421 4.3.2 Closing")),
    "no SMTPUTF8": Scenario(server=NO_UTF8, recipients=("b\u00fcro@b.example",)),
}

GOODBYE = "421 ends the session and not this command only: that is a SMTPServerDisconnected"
KIND_OF_END = "how the connection ended is in errno; ssl.SSLError and ConnectionError catch"
NOT_CAUGHT: dict[tuple[str, type[BaseException]], str] = {
    ("MAIL 421", smtplib.SMTPSenderRefused): GOODBYE,
    ("MAIL 421", smtplib.SMTPResponseException): GOODBYE,
    ("RCPT 421", smtplib.SMTPRecipientsRefused): GOODBYE,
    ("DATA 421", smtplib.SMTPDataError): GOODBYE,
    ("DATA 421", smtplib.SMTPResponseException): GOODBYE,
    ("dot 421", smtplib.SMTPDataError): GOODBYE,
    ("dot 421", smtplib.SMTPResponseException): GOODBYE,
    ("STARTTLS refused", smtplib.SMTPResponseException): "it is a SMTPNotSupportedError, with smtp_code",
    ("handshake closed", ssl.SSLEOFError): KIND_OF_END,
    ("handshake reset", ConnectionResetError): KIND_OF_END,
    (
        "handshake garbage",
        ssl.SSLError,
    ): "clear text after the 220: an attack, no fault of TLS",
}


@contextmanager
def failing(scenario: Scenario, certificates: Certificates) -> Iterator[ScriptedServer]:
    identity = getattr(certificates, scenario.certificate)
    options = dict(scenario.server)
    if "tls" in options:
        options |= {"certfile": identity.cert_file, "keyfile": identity.key_file}
    with ScriptedServer(faults=scenario.faults, strict=False, **options) as server:
        yield server


def email(scenario: Scenario) -> EmailMessage:
    message = EmailMessage()
    message["From"] = SENDER
    message["Subject"] = "Hello"
    message.set_content("Hello\n")
    return message


def by_smtplib(scenario: Scenario, server: ScriptedServer, certificates: Certificates) -> None:
    """What Django's backend does with smtplib: open, STARTTLS, login, sendmail."""
    context = ssl.create_default_context(cafile=str(getattr(certificates, scenario.trusts)))
    common: dict[str, Any] = {"timeout": scenario.seconds, "local_hostname": "[127.0.0.1]"}
    client: smtplib.SMTP
    if scenario.security == "tls":
        client = smtplib.SMTP_SSL(server.host, server.port, context=context, **common)
    else:
        client = smtplib.SMTP(server.host, server.port, **common)
    try:
        if scenario.security == "starttls":
            client.starttls(context=context)
        if scenario.password is not None:
            client.login(USER, scenario.password)
        client.send_message(email(scenario), scenario.sender, list(scenario.recipients))
    finally:
        client.close()


def by_mailbridge(scenario: Scenario, server: ScriptedServer, certificates: Certificates) -> None:
    config = SMTPConfig(
        host=server.host,
        port=server.port,
        security=scenario.security,  # type: ignore[arg-type]  # one of them
        username=USER if scenario.password is not None else None,
        password=scenario.password,
        tls={"ca_file": str(getattr(certificates, scenario.trusts))},
        timeout=scenario.seconds,
    )
    with Mailer(config) as mailer:
        mailer.send(email(scenario), envelope=Envelope(scenario.sender, scenario.recipients))


Send = Callable[[Scenario, ScriptedServer, Certificates], None]


def raised_by(send: Send, scenario: Scenario, certificates: Certificates) -> Exception:
    with failing(scenario, certificates) as server, pytest.raises(Exception) as caught:  # noqa: PT011
        send(scenario, server, certificates)
    return caught.value


def habits(error: BaseException) -> list[type[BaseException]]:
    """The classes by which code may catch this."""
    return [kind for kind in type(error).__mro__ if issubclass(kind, Exception) and kind is not Exception]


def compare(name: str, theirs: Exception, ours: Exception) -> None:
    assert isinstance(ours, MailbridgeError)
    assert isinstance(ours, smtplib.SMTPException)
    assert isinstance(ours, OSError)
    expected = {kind for where, kind in NOT_CAUGHT if where == name}
    missed = {kind for kind in habits(theirs) if not isinstance(ours, kind)}
    assert missed == expected, f"smtplib: {theirs!r}, ours: {ours!r}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_catches_smtplib_catches_us(name: str, certificates: Certificates) -> None:
    theirs = raised_by(by_smtplib, SCENARIOS[name], certificates)
    ours = raised_by(by_mailbridge, SCENARIOS[name], certificates)
    compare(name, theirs, ours)
    # What people read off an error, by the class that has it.
    for kind, names in ATTRIBUTES.items():
        if isinstance(theirs, kind) and isinstance(ours, kind):
            for attribute in names:
                assert getattr(ours, attribute) == getattr(theirs, attribute), attribute


ATTRIBUTES: dict[type[BaseException], tuple[str, ...]] = {
    smtplib.SMTPResponseException: ("smtp_code", "smtp_error"),
    smtplib.SMTPSenderRefused: ("sender",),
    smtplib.SMTPRecipientsRefused: ("recipients",),
    ssl.SSLCertVerificationError: ("verify_code", "verify_message", "reason"),
}


# ---- where there is no server to fail


def both(host: str, port: int, seconds: float = SECONDS) -> tuple[Exception, Exception]:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        smtplib.SMTP(host, port, timeout=seconds)
    config = SMTPConfig(host=host, port=port, security="none", timeout=seconds)
    with Mailer(config) as mailer, pytest.raises(MailbridgeError) as ours:
        mailer.send(b"Subject: Hello\r\n\r\nHello", envelope=Envelope(SENDER, [RECIPIENT]))
    return theirs.value, ours.value


def test_nobody_listens() -> None:
    with ScriptedServer() as server:
        server.refuse()
        theirs, ours = both(server.host, server.port)
    compare("nobody listens", theirs, ours)
    assert isinstance(theirs, ConnectionRefusedError)
    assert (getattr(ours, "errno", None), ours.args != ()) == (errno.ECONNREFUSED, True)


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    theirs, ours = both("no-such-host.example", 25)
    compare("no such host", theirs, ours)
    assert isinstance(ours, socket.gaierror)
    assert ours.errno == socket.EAI_NONAME


def test_nobody_answers_the_connection() -> None:
    """A listener whose queue is full: the kernel drops what comes, as a firewall would."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        theirs, ours = both(address[0], address[1], SHORT)
    compare("nobody answers", theirs, ours)
    assert isinstance(ours, TimeoutError)


# ---- the clauses themselves, as they stand in projects


def verdict(send: Callable[[], None]) -> str:
    """The order of clauses that smtplib's documentation suggests for sendmail()."""
    try:
        send()
    except smtplib.SMTPAuthenticationError as error:
        return f"password: {error.smtp_code}"
    except smtplib.SMTPRecipientsRefused as error:
        return f"recipients: {sorted((a, code) for a, (code, _) in error.recipients.items())}"
    except smtplib.SMTPSenderRefused as error:
        return f"sender {error.sender}: {error.smtp_code}"
    except smtplib.SMTPDataError as error:
        return f"data: {error.smtp_code} {error.smtp_error!r}"
    except smtplib.SMTPConnectError as error:
        return f"connect: {error.smtp_code}"
    except smtplib.SMTPHeloError as error:
        return f"helo: {error.smtp_code}"
    except smtplib.SMTPNotSupportedError:
        return "not supported"
    except smtplib.SMTPServerDisconnected:
        return "disconnected"
    except ssl.SSLCertVerificationError as error:
        return f"certificate: {error.verify_code}"
    except ssl.SSLError:
        return "tls"
    except smtplib.SMTPException:
        return "smtp"
    except TimeoutError:
        return "timeout"
    except ConnectionError:
        return "connection"
    except OSError:
        return "os"
    return "sent"


# Where the order of the clauses tells the two apart, because ours is more than one of theirs.
OTHER_VERDICTS = {
    "EHLO refused": ("helo: 550", "connect: 550"),
    "STARTTLS refused": ("smtp", "not supported"),
    "handshake reset": ("connection", "tls"),
    "handshake late": ("timeout", "smtp"),
    "handshake garbage": ("tls", "smtp"),
    "no mechanism in common": ("smtp", "password: -1"),
    "MAIL 421": (f"sender {SENDER}: 421", "disconnected"),
    "RCPT 421": (f"recipients: [('{RECIPIENT}', 421)]", "disconnected"),
    "DATA 421": ("data: 421 b'4.3.2 Closing'", "disconnected"),
    "dot 421": ("data: 421 b'4.3.2 Closing'", "disconnected"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_clauses_as_they_stand_in_projects(name: str, certificates: Certificates) -> None:
    verdicts = []
    for send in (by_smtplib, by_mailbridge):
        with failing(SCENARIOS[name], certificates) as server:
            verdicts.append(verdict(partial(send, SCENARIOS[name], server, certificates)))
    if name in OTHER_VERDICTS:
        assert tuple(verdicts) == OTHER_VERDICTS[name]
    else:
        assert verdicts[0] == verdicts[1]
