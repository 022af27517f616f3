"""Secrets show nowhere, whatever the server does with them and wherever somebody looks.

Secret are the password and all SASL responses: as they are, in base64, URL-encoded, cut short. The user
name by itself is none; it stands in configurations and in what servers say of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from mailbridge import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    MailbridgeError,
    Mailer,
    ProtocolViolation,
    ReplyTimeout,
    SMTPConfig,
    SMTPConnection,
)
from mailbridge.net.stream import Stream
from mailbridge.smtp import xtext
from mailbridge.testing import Dialogue, Fault, ScriptedServer
from tests.acceptance.sending import USER, committed, envelope, mailer_for, message
from tests.servers.process import free_ports

pytestmark = pytest.mark.matrix

# With everything in it that quoting and escaping change.
PASSWORD = "Sent'inel \\Pass/W\u00f6rd&42+7?"
PLAIN_RESPONSE = f"\0{USER}\0{PASSWORD}".encode()
# What the scripted server asks in its first exchange on its first connection, after EHLO and AUTH.
CHALLENGE = b"<1.2@mx.test.example>"
DIGEST = hmac.new(PASSWORD.encode(), CHALLENGE, hashlib.md5).hexdigest()
CRAM_RESPONSE = f"{USER} {DIGEST}".encode()
# What an access token may hold (RFC 6750 section 2.1).
TOKEN = "ya29.Tok3n-Sentinel_Words~42+7/x=="


def spelled(data: bytes) -> str:
    return base64.b64encode(data).decode()


FORMS = [
    PASSWORD,
    DIGEST,
    *(spelled(data) for data in (PASSWORD.encode(), USER.encode(), PLAIN_RESPONSE, CRAM_RESPONSE)),
    base64.urlsafe_b64encode(PASSWORD.encode()).decode(),
    quote(PASSWORD),
    quote_plus(PASSWORD),
    xtext.escape(PASSWORD.encode().decode("latin-1")),
    repr(PASSWORD)[1:-1],
    repr(PASSWORD.encode())[2:-1],
    json.dumps(PASSWORD)[1:-1],
    PASSWORD.encode("unicode_escape").decode(),
    TOKEN,
    quote(TOKEN),
    # Within a longer response, wherever the three bytes of a group begin.
    *(spelled(bytes(shift) + TOKEN.encode())[4:-4] for shift in range(3)),
]
# So much of a secret in a row is a leak, even if the rest is cut off.
TELLING = 12
RUNS = {form[i : i + TELLING] for form in FORMS for i in range(len(form) - TELLING + 1)}


def leaks(text: str) -> list[str]:
    return sorted(run for run in RUNS if run in text)


def test_the_scanner_finds_what_it_looks_for() -> None:
    assert leaks(f"535 unknown: AUTH PLAIN {spelled(PLAIN_RESPONSE)}")
    assert leaks(f"535 unknown: AUTH PLAIN {spelled(PLAIN_RESPONSE)[:20]}...")
    assert leaks(repr({"password": PASSWORD}))
    assert leaks(repr(PLAIN_RESPONSE))
    assert not leaks(f"the user {USER} is no secret")


def test_the_scanner_finds_tokens_in_responses() -> None:
    assert leaks(f"AUTH XOAUTH2 {spelled(f'user={USER}{chr(1)}auth=Bearer {TOKEN}'.encode())}")
    assert leaks(f"AUTH OAUTHBEARER {spelled(f'n,a={USER},{chr(1)}auth=Bearer {TOKEN}'.encode())}")


# ---- everywhere that somebody could look


def linked(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, shown or suppressed, and the errors of earlier attempts."""
    found: list[BaseException | None] = [error]
    seen = set()
    while found:
        one = found.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found += [one.__cause__, one.__context__, *getattr(one, "attempts", ())]
        yield one


def views_of_error(error: BaseException) -> Iterator[str]:
    for one in linked(error):
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)), repr(one.__reduce__()))
        yield from views_of_frames(one)
    if isinstance(error, MailbridgeError):
        yield from pickled(error)


def views_of_frames(error: BaseException) -> Iterator[str]:
    """What error pages show: frames with their locals. Those of this file are the tests' own."""
    for frame in traceback.TracebackException.from_exception(error, capture_locals=True).stack:
        if frame.filename != __file__:
            yield f"{frame.line} {frame.locals}"


def pickled(value: object) -> Iterator[str]:
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        data = pickle.dumps(value, protocol)
        yield from (data.decode("latin-1"), repr(pickle.loads(data)))


def views_of_log(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    for record in caplog.records:
        yield from (record.getMessage(), repr(record.args), repr(vars(record)))
        assert record.levelno < logging.ERROR, record


def views_of_mailer(mailer: Mailer) -> Iterator[str]:
    (upstream,) = mailer._router.upstreams
    for connection in (
        mailer,
        upstream,
        upstream.pool,
        mailer.config,
        mailer.stats(),
        upstream.login_breaker,
        upstream.breaker,
    ):
        yield from (repr(connection), str(connection))
        with suppress(TypeError):
            yield repr(vars(connection))
    if not callable(mailer.config.password):  # what a callable is pickled as is not ours
        yield from pickled(mailer.config)
    for place in upstream.pool.here().places:
        if place.connection is not None:
            yield from views_of_connection(place.connection)


def views_of_connection(connection: SMTPConnection) -> Iterator[str]:
    yield from (repr(connection), repr(vars(connection)), repr(connection.last_reply))
    driver = connection._driver
    assert driver is not None
    for part in (driver, driver.wire, driver.stream, connection._state):
        yield repr(part)
        with suppress(TypeError):
            yield repr(vars(part))


def assert_hidden(*groups: Iterator[str]) -> None:
    for group in groups:
        for text in group:
            assert not leaks(text), f"{leaks(text)} in {text}"


Log = pytest.LogCaptureFixture


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def login_server(mechanism: str, *faults: Fault) -> ScriptedServer:
    return ScriptedServer(faults=faults, users={USER: PASSWORD}, auth=[mechanism], strict=False)


def login_mailer(server: ScriptedServer, **options: Any) -> Mailer:
    return mailer_for(server, username=USER, password=PASSWORD, debug=True, **{"timeout": 5} | options)


# ---- what the server does with what it was sent

RESPONSES = {
    "PLAIN": [PLAIN_RESPONSE],
    "LOGIN": [USER.encode(), PASSWORD.encode()],
    "CRAM-MD5": [CRAM_RESPONSE],
}
DECODED = {"PLAIN": PASSWORD, "LOGIN": PASSWORD, "CRAM-MD5": DIGEST}
# The how-manieth answer of an AUTH exchange is the verdict.
VERDICT = {"PLAIN": 1, "LOGIN": 3, "CRAM-MD5": 2}


def quoted_line(mechanism: str) -> str:
    """The last line of the exchange, as a server that quotes it has it."""
    response = spelled(RESPONSES[mechanism][-1])
    return f"AUTH PLAIN {response}" if mechanism == "PLAIN" else response


# By name: what the server says with {line} and {text} of the secret in it, and what the caller is told.
ECHOES: dict[str, tuple[str, type[MailbridgeError]]] = {
    "refused": ("535 5.7.8 Unknown: {line}", AuthenticationFailed),
    "refused, decoded": ("535 5.7.8 Wrong password {text}", AuthenticationFailed),
    "refused, in quotes": ("535 5.7.8 Wrong password {text!r}", AuthenticationFailed),
    "refused, cut short": ("535 5.7.8 Unknown: {line:.30}...", AuthenticationFailed),
    "refused, in lines": ("535-5.7.8 {line}\r\n535-{text}\r\n535 {line}", AuthenticationFailed),
    "refused for now": ("454 4.7.0 Later: {line} {text}", AuthenticationFailed),
    "not the code that it takes": ("250 2.0.0 {line} {text}", AuthenticationFailed),
    "goodbye": ("421 4.7.0 {line} {text}", ConnectionLost),
    "two answers": ("235 2.7.0 Welcome\r\n235 2.7.0 {line} {text}", ProtocolViolation),
    "no SMTP": ("{line}\r\n{text}", ProtocolViolation),
    "four digits": ("5350 {line} {text}", ProtocolViolation),
    "two codes": ("535-no\r\n501 {line} {text}", ProtocolViolation),
    "a code in the challenge": ("334 {line} {text}!", ProtocolViolation),
}
CUT_OFF: dict[str, tuple[str, type[MailbridgeError]]] = {
    "close": ("535 {line} {text}", ConnectionLost),
    "reset": ("", ConnectionLost),
    "silence": ("535 {line} {text}", ReplyTimeout),
}
FLOODS = {
    "a very long line": "535 " + "{line} {text} " * 300,
    "very many lines": "535-{line} {text}\r\n" * 300,
}


def said(mechanism: str, template: str) -> str:
    return template.format(line=quoted_line(mechanism), text=DECODED[mechanism])


def check_failed_login(fault: Fault, mechanism: str, kind: type[MailbridgeError], log: Log) -> None:
    timeout = 0.3 if kind is ReplyTimeout else 5.0
    with login_server(mechanism, fault) as server, login_mailer(server, timeout=timeout) as mailer:
        with pytest.raises(kind) as caught:
            mailer.send(message(1), envelope=envelope())
        assert type(caught.value) is kind
        assert server.unfired == ()
        assert committed(server) == {}
        assert_hidden(views_of_error(caught.value), views_of_log(log), views_of_mailer(mailer))
        with suppress(MailbridgeError):  # a refusal that is remembered is told again
            mailer.send(message(1), envelope=envelope())
        assert_hidden(views_of_log(log), views_of_mailer(mailer))


@pytest.mark.parametrize("mechanism", RESPONSES)
@pytest.mark.parametrize("echo", ECHOES)
def test_the_server_quotes_it(mechanism: str, echo: str, log: Log) -> None:
    template, kind = ECHOES[echo]
    fault = Fault("auth", "reply", reply=said(mechanism, template), occurrence=VERDICT[mechanism])
    check_failed_login(fault, mechanism, kind, log)


@pytest.mark.parametrize("mechanism", RESPONSES)
@pytest.mark.parametrize("end", CUT_OFF)
def test_the_server_quotes_it_in_half_a_reply(mechanism: str, end: Any, log: Log) -> None:
    template, kind = CUT_OFF[end]
    half = said(mechanism, template).encode()
    fault = Fault("auth", "garbage", reply=half, then=end, occurrence=VERDICT[mechanism])
    check_failed_login(fault, mechanism, kind, log)


@pytest.mark.parametrize("mechanism", RESPONSES)
@pytest.mark.parametrize("flood", FLOODS)
def test_the_server_quotes_it_too_often(mechanism: str, flood: str, log: Log) -> None:
    reply = said(mechanism, FLOODS[flood])
    fault = Fault("auth", "reply", reply=reply, occurrence=VERDICT[mechanism])
    check_failed_login(fault, mechanism, ProtocolViolation, log)


TOKEN_ECHOES: dict[str, tuple[str, type[MailbridgeError]]] = ECHOES | {
    "an error that quotes": ("334 {challenge}", AuthenticationFailed),
    "a challenge that is none": ("334 {text}", ProtocolViolation),
}


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("echo", TOKEN_ECHOES)
@pytest.mark.parametrize("padding", ["", "~" * 500])
def test_the_server_quotes_a_token(mechanism: str, echo: str, padding: str, log: Log) -> None:
    """A short one goes out with the command; a long one is asked for first."""
    token, (template, kind) = TOKEN + padding, TOKEN_ECHOES[echo]
    (free,) = free_ports(1)
    start = {
        "XOAUTH2": f"user={USER}\x01",
        "OAUTHBEARER": f"n,a={USER},\x01host=127.0.0.1\x01port={free.port}\x01",
    }
    line = spelled(f"{start[mechanism]}auth=Bearer {token}\x01\x01".encode())
    reply = template.format(line=line, text=token, challenge=spelled(f'{{"t":"{token}"}}'.encode()))
    fault = Fault("auth", "reply", reply=reply, occurrence=2 if padding else 1)
    auth = {"username": USER, "oauth2": {"access_token": token}, "auth": mechanism}
    server = ScriptedServer(
        faults=[fault], users={USER: "another"}, auth=[mechanism], strict=False, port=free.port
    )
    with server, mailer_for(server, debug=True, timeout=5, **auth) as mailer:
        with pytest.raises(kind) as caught:
            mailer.send(message(1), envelope=envelope())
        assert (server.unfired, committed(server)) == ((), {})
        assert line in wire_text(server)
        assert_hidden(views_of_error(caught.value), views_of_log(log), views_of_mailer(mailer))


def wire_text(server: ScriptedServer) -> str:
    """What the server was really sent."""
    said = [line for one in server.connections for line in (*one.commands, *one.auth_responses)]
    return b"\n".join(said).decode()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
@pytest.mark.parametrize(
    ("occurrence", "reply", "kind"),
    [
        (1, "535 5.7.8 no", AuthenticationFailed),
        (1, "235 2.7.0 welcome", AuthenticationFailed),  # without a proof of the server's
        (1, "334 dj1BQUFB", ProtocolViolation),
        (1, "garbage", ProtocolViolation),
        (2, "535 5.7.8 no", AuthenticationFailed),
        (2, "235 2.7.0 welcome", AuthenticationFailed),
        (2, "334 dj1BQUFB", AuthenticationFailed),  # v=AAAA
        (2, "334 !", ProtocolViolation),
        (3, "535 5.7.8 no", AuthenticationFailed),
        (3, "334 dj1BQUFB", ProtocolViolation),
    ],
)
def test_scram_that_goes_wrong(
    mechanism: str, occurrence: int, reply: str, kind: type[MailbridgeError], log: Log
) -> None:
    pytest.importorskip("scramp", reason="the extra scram is not installed")
    fault = Fault("auth", "reply", reply=reply, occurrence=occurrence)
    with login_server(mechanism, fault) as server, login_mailer(server) as mailer:
        with pytest.raises(kind) as caught:
            mailer.send(message(1), envelope=envelope())
        assert (server.unfired, committed(server)) == ((), {})
        assert_hidden(views_of_error(caught.value), views_of_log(log), views_of_mailer(mailer))


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("code", ["235 2.7.0", "535 5.7.8", "garbage"])
def test_the_server_quotes_it_byte_by_byte(mechanism: str, code: str, log: Log) -> None:
    """Each byte is a read of its own, so that no reader sees more of the secret than that."""
    asks = (
        []
        if mechanism == "PLAIN"
        else ["C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", "C: .*", "S: 334 UGFzc3dvcmQ6"]
    )
    steps = ["S: 220 hi", "C: EHLO .*", f"S: 250-hi\nS: 250 AUTH {mechanism}", *asks, "C: .*"]
    verdict = f"S: {code} {quoted_line(mechanism)} {DECODED[mechanism]}"
    dialogue = Dialogue(*steps, verdict, "C: ...\nC: QUIT" if code.startswith("2") else "! eof", feed="byte")
    with ScriptedServer([dialogue], strict=False) as server, login_mailer(server) as mailer:
        with suppress(MailbridgeError):
            mailer.connect()
        assert_hidden(views_of_log(log), views_of_mailer(mailer))
        mailer.close()


@pytest.mark.parametrize("mechanism", RESPONSES)
def test_a_login_that_goes_well(mechanism: str, log: Log) -> None:
    reply = said(mechanism, "235 2.7.0 Welcome {line} {text}")
    fault = Fault("auth", "reply", reply=reply, occurrence=VERDICT[mechanism])
    with login_server(mechanism, fault) as server, login_mailer(server) as mailer:
        mailer.connect()
        assert server.unfired == ()
        assert any(f"AUTH {mechanism} ***" in record.getMessage() for record in log.records)
        assert_hidden(views_of_log(log), views_of_mailer(mailer))


@pytest.mark.parametrize("mechanism", RESPONSES)
def test_a_quotation_that_comes_later(mechanism: str, log: Log) -> None:
    """Unasked, on the idle session; and as the answer to MAIL."""
    line = quoted_line(mechanism)
    fault = Fault("mail", "reply", reply=f"550 5.7.1 You said {line}")
    with login_server(mechanism, fault) as server, login_mailer(server) as mailer:
        mailer.connect()
        with pytest.raises(MailbridgeError) as caught:
            mailer.send(message(1), envelope=envelope())
        assert_hidden(views_of_error(caught.value))
        server.connections[-1].push(f"250 2.0.0 You said {line}\r\n".encode())
        mailer.send(message(2), envelope=envelope())
        assert len(server.connections) == 2
        assert any("the server said" in record.getMessage() for record in log.records)
        assert_hidden(views_of_log(log), views_of_mailer(mailer))


LATER = {
    "as it is": PASSWORD,
    "base64": spelled(PASSWORD.encode()),
    "percent": quote(PASSWORD, safe=""),
    "form": quote_plus(PASSWORD),
    "xtext": xtext.escape(PASSWORD.encode().decode("latin-1")),
    "escaped": repr(PASSWORD)[1:-1],
    "cut short": PASSWORD[3:17],
}


@pytest.mark.parametrize("form", LATER)
def test_a_password_that_is_quoted_later(form: str, log: Log) -> None:
    """In the answer to MAIL, byte by byte: in the log, the error and its pickle."""
    steps = [
        "S: 220 hi",
        "C: EHLO .*",
        "S: 250-hi\nS: 250 AUTH PLAIN",
        "C: AUTH .*",
        "S: 235 ok",
        "C: MAIL .*",
    ]
    said = f"S: 550 5.7.1 You said {LATER[form]} then"
    with (
        ScriptedServer([Dialogue(*steps, said, "C: ...\nC: QUIT", feed="byte")], strict=False) as server,
        login_mailer(server) as mailer,
    ):
        with pytest.raises(MailbridgeError) as caught:
            mailer.send(message(1), envelope=envelope())
        assert "You said *** then" in str(caught.value)
        assert any("You said *** then" in record.getMessage() for record in log.records)
        assert_hidden(views_of_error(caught.value), views_of_log(log), views_of_mailer(mailer))


@pytest.mark.parametrize("mechanism", RESPONSES)
@pytest.mark.parametrize("echo", ["refused", "refused for now"])
def test_a_logger_of_one_s_own_hears_no_more(mechanism: str, echo: str, log: Log) -> None:
    """Every line about the failure, on whatever logger, with all its fields."""
    template, _ = ECHOES[echo]
    fault = Fault("auth", "reply", reply=said(mechanism, template), occurrence=VERDICT[mechanism])
    options = {"logger": "shop.mail", "retry": {"attempts": 2, "first_delay": 0.001}}
    with (
        login_server(mechanism, fault) as server,
        login_mailer(server, **options) as mailer,
        suppress(MailbridgeError),  # a login that was refused for now is tried again, and accepted
    ):
        mailer.send(message(1), envelope=envelope())
    loggers = {record.name for record in log.records}
    assert {"shop.mail", "shop.mail.smtp"} <= loggers <= {"shop.mail", "shop.mail.smtp", "shop.mail.pool"}
    assert any(record.__dict__.get("action") == "connection_failed" for record in log.records)
    assert_hidden(views_of_log(log))


def interrupt_at_the_secret(
    patch: pytest.MonkeyPatch, mechanism: str, where: str, interrupt: type[BaseException]
) -> None:
    """Raise while the last line of the exchange is being sent, or while its answer is awaited."""
    response = spelled(RESPONSES[mechanism][-1]).encode()
    send, receive = Stream.send, Stream.receive
    was_sent: list[bool] = []

    def sending(stream: Stream, data: bytes, *arguments: Any, **options: Any) -> int:
        if response in bytes(data):
            was_sent.append(True)
            if where == "send":
                raise interrupt
        return send(stream, data, *arguments, **options)

    def receiving(stream: Stream, *arguments: Any, **options: Any) -> bytes:
        if was_sent:
            raise interrupt
        return receive(stream, *arguments, **options)

    patch.setattr(Stream, "send", sending)
    patch.setattr(Stream, "receive", receiving)


@pytest.mark.parametrize("mechanism", RESPONSES)
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, TimeoutError, BrokenPipeError])
@pytest.mark.parametrize("where", ["send", "receive"])
def test_an_interrupted_login(
    mechanism: str, interrupt: type[BaseException], where: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No frame that an error comes through keeps what was about to be sent."""
    with login_server(mechanism) as server, login_mailer(server) as mailer:
        with monkeypatch.context() as patch:
            interrupt_at_the_secret(patch, mechanism, where, interrupt)
            with pytest.raises((interrupt, ConnectionLost)) as caught:
                mailer.send(message(1), envelope=envelope())
        assert_hidden(views_of_error(caught.value), views_of_log(log), views_of_mailer(mailer))
        if interrupt is not TimeoutError:  # a server that was silent is left alone for a while
            mailer.send(message(2), envelope=envelope())
            assert committed(server) == {2: 1}


def test_locals_of_whoever_was_handling_an_error_before_are_left_alone() -> None:
    """A login from an except clause must not empty the frames of the error that led there."""

    def failing() -> None:
        precious = "a local of the caller's"
        raise LookupError(len(precious))

    fault = Fault("auth", "reply", reply="535 5.7.8 No")
    with login_server("PLAIN", fault) as server, login_mailer(server) as mailer:
        try:
            failing()
        except LookupError as first:
            with pytest.raises(AuthenticationFailed):
                mailer.connect()
            shown = traceback.TracebackException.from_exception(first, capture_locals=True).format()
            assert "a local of the caller's" in "".join(shown)


# Options that a password or a token may be put into by mistake. Some take any text, and then nothing is said.
MISPLACED = [
    *("auth", "oauth2", "rate", "retry", "pool", "debug", "dkim", "tls", "timeout", "timeouts", "service"),
    *("security", "protocol", "family", "port", "host", "source_address", "local_hostname", "proxy_protocol"),
    *(
        "proxy",
        "proxy.handler",
        "disable",
        "pipelining",
        "partial",
        "servers",
        "allow_insecure_auth",
        "guard_names",
    ),
    *("oauth2.provider", "oauth2.grant", "oauth2.token_store", "oauth2.expires", "oauth2.scope"),
    *("oauth2.on_refresh", "oauth2.extra_params", "tls.min_version", "tls.verify", "pool.max_size"),
]


@pytest.mark.parametrize(
    "secret", [TOKEN, PASSWORD, TOKEN.replace(".", ""), f"smtp://u:{TOKEN}@h", f"a.{TOKEN}.b"]
)
@pytest.mark.parametrize("option", MISPLACED)
def test_a_secret_in_the_place_of_another_option(option: str, secret: str) -> None:
    name, _, inner = option.partition(".")
    login = {} if name == "oauth2" else {"password": "another"}
    given = {name: {inner: secret} if inner else secret}
    host = {} if name in ("servers", "service") else {"host": "x.example"}
    try:
        config = SMTPConfig.from_mapping({**host, "username": USER, **login, **given})
    except ConfigurationError as error:
        assert_hidden(views_of_error(error))
    else:
        assert option in {"local_hostname", "host", "disable"}, config


def test_scope_is_not_shown() -> None:
    token = {"access_token": "another", "scope": TOKEN}
    config = SMTPConfig.from_mapping({"host": "x.example", "username": USER, "oauth2": token})
    assert_hidden(iter([repr(config), repr(config.oauth2)]))


# ---- verify


@pytest.mark.parametrize("mechanism", RESPONSES)
@pytest.mark.parametrize("echo", ECHOES)
def test_verify(mechanism: str, echo: str, log: Log) -> None:
    fault = Fault("auth", "reply", reply=said(mechanism, ECHOES[echo][0]), occurrence=VERDICT[mechanism])
    with login_server(mechanism, fault) as server, login_mailer(server) as mailer:
        report = mailer.verify()
        assert report["auth"].status == "failed"
        assert_hidden(
            iter([str(report), repr(report), report.as_json(), *pickled(report)]), views_of_log(log)
        )


# ---- configurations


def test_a_configuration_and_its_parts() -> None:
    config = SMTPConfig(
        host="x.example", username=USER, password=PASSWORD, tls={"cert_file": "c", "key_password": PASSWORD}
    )
    for value in (config, config.password, config.tls, {"config": config}, [config]):
        assert_hidden(iter([repr(value), str(value), f"{value}", *pickled(value)]))
    url = f"smtp://{quote(USER)}:{quote(PASSWORD, safe='')}@x.example"
    assert SMTPConfig.from_url(url).password == config.password
    assert_hidden(iter([repr(SMTPConfig.from_url(url))]))


BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "an unknown name": {"hots": "x.example"},
    "a bad value": {"port": "many"},
    "no user": {"username": None},
    "not a string": {"password": PASSWORD.encode()},
    "a group that is wrong": {"tls": {"key_password": PASSWORD, "verify": "perhaps"}},
    "no such option of a group": {"timeouts": {"forever": 1}},
}


def options(name: str) -> dict[str, Any]:
    return {"host": "x.example", "username": USER, "password": PASSWORD} | BAD_OPTIONS[name]


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_a_configuration_that_cannot_be_made(name: str) -> None:
    for make in (SMTPConfig.from_mapping, lambda given: SMTPConfig(**given)):
        with pytest.raises(ConfigurationError) as caught:
            make(options(name))
        assert_hidden(views_of_error(caught.value))


BAD_URLS = {
    "scheme": "http://{user}:{password}@x.example",
    "port": "smtp://{user}:{password}@x.example:many",
    "option": "smtp://{user}:{password}@x.example?hots=1",
    "path": "smtp://{user}:{password}@x.example/path",
    "value": "smtp://{user}:{password}@x.example?port=0",
    "space": "smtp://{user}:{password}@x.example/ ",
    "encoding": "smtp://{user}:{password}%ff@x.example",
}


def url(name: str) -> str:
    return BAD_URLS[name].format(user=quote(USER), password=quote(PASSWORD, safe=""))


@pytest.mark.parametrize("name", BAD_URLS)
def test_a_url_that_cannot_be_read(name: str) -> None:
    for make in (SMTPConfig.from_url, Mailer.from_url):
        with pytest.raises(ConfigurationError) as caught:
            make(url(name))
        assert_hidden(views_of_error(caught.value))


@pytest.mark.parametrize("given", [lambda: PASSWORD.encode(), lambda: [PASSWORD], lambda: PASSWORD + "\0"])
def test_a_callable_that_gives_a_password_nobody_can_use(given: Callable[[], Any], log: Log) -> None:
    with (
        login_server("PLAIN") as server,
        mailer_for(server, username=USER, password=given, debug=True) as mailer,
    ):
        with pytest.raises(ConfigurationError) as caught:
            mailer.send(message(1), envelope=envelope())
        assert_hidden(views_of_error(caught.value), views_of_log(log), views_of_mailer(mailer))
