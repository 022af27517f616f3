"""What proxies get to hear, and what of it may show elsewhere: no credentials anywhere, no raw separators.

Secret are the password, and the token of Basic credentials that holds it: as they are, in base64,
URL-encoded, escaped, cut short.
"""

from __future__ import annotations

import base64
import http.server
import json
import logging
import pickle
import threading
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from mailbridge import ConfigurationError, MailbridgeError, Mailer, SMTPConfig, open_channel
from mailbridge.testing import ScriptedServer
from tests.acceptance.sending import envelope, message
from tests.servers.proxy_faults import FAULTS, Protocol
from tests.servers.scripted_proxy import ScriptedProxy

pytestmark = pytest.mark.campaign

USER = "proxy us@er/name"
PASSWORD = "Sent'inel@ Pass/W\u00f6rd&42+7?\\#"
TOKEN = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
FORMS = [
    PASSWORD,
    TOKEN,
    base64.b64encode(PASSWORD.encode()).decode(),
    base64.b64encode(PASSWORD.encode()).decode()[:-1],
    quote(PASSWORD, safe=""),
    quote(PASSWORD),
    repr(PASSWORD)[1:-1],
    repr(PASSWORD.encode())[2:-1],
    PASSWORD.encode().decode("latin-1"),
    json.dumps(PASSWORD)[1:-1],
]
# So much of a secret in a row is a leak, even if the rest is cut off.
TELLING = 12
RUNS = {form[i : i + TELLING] for form in FORMS for i in range(len(form) - TELLING + 1)}
SCHEMES: dict[Protocol, str] = {"connect": "http", "socks4": "socks4a", "socks5": "socks5"}
BEYOND = "mx.beyond.test"


def leaks(text: str) -> list[str]:
    return sorted(run for run in RUNS if run in text)


def test_the_scanner_finds_what_it_looks_for() -> None:
    assert leaks(f"Proxy-Authorization: Basic {TOKEN}")
    assert leaks(f"You sent {TOKEN[:20]}...")
    assert leaks(repr(PASSWORD.encode()))
    assert leaks(f"http://{quote(USER)}:{quote(PASSWORD, safe='')}@proxy")
    assert not leaks("The proxy http://127.0.0.1:3128 answered 407")


def linked(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    found = [error]
    while found:
        one = found.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            found += [one.__cause__, one.__context__, *getattr(one, "attempts", ())]
            yield one


def views_of(error: BaseException) -> Iterator[str]:
    """What somebody may see of an error: its texts, its frames with their locals, and its pickle."""
    for one in linked(error):
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)))
        stack = traceback.TracebackException.from_exception(one, capture_locals=True).stack
        yield from (f"{frame.line} {frame.locals}" for frame in stack if frame.filename != __file__)
    yield pickle.dumps(error).decode("latin-1")


def credentials(protocol: Protocol) -> str:
    user = quote(USER, safe="")
    return f"{user}@" if protocol == "socks4" else f"{user}:{quote(PASSWORD, safe='')}@"


def config_for(protocol: Protocol, proxy: ScriptedProxy, /, **options: Any) -> SMTPConfig:
    options = {
        "host": BEYOND,
        "port": 2525,
        "security": "none",
        "proxy": f"{SCHEMES[protocol]}://{credentials(protocol)}{proxy.host}:{proxy.port}",
        "timeouts": {"connect": 0.4, "greeting": 0.4},
        "debug": True,
        **options,
    }
    return SMTPConfig.from_mapping(options)


CASES = [
    (protocol, fault, with_login)
    for protocol, table in FAULTS.items()
    for fault in table
    for with_login in (True, False)
    if with_login or table[fault].stage != "auth"
]


@pytest.mark.parametrize(("protocol", "fault", "with_login"), CASES)
def test_no_credentials_show_whatever_the_proxy_does(
    protocol: Protocol, fault: str, with_login: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With a proxy that asks for the login, and with one that does not."""
    caplog.set_level(logging.DEBUG)
    account = {"username": USER, "password": PASSWORD} if with_login else {}
    with (
        ScriptedServer() as server,
        ScriptedProxy(protocol, target=("127.0.0.1", server.port), fault=fault, **account) as proxy,
    ):
        config = config_for(protocol, proxy)
        with Mailer(config) as mailer:
            views = [repr(config), repr(mailer), str(mailer.verify())]
            try:
                views.append(repr(mailer.send(message(1), envelope=envelope())))
            except MailbridgeError as error:
                views += views_of(error)
    views += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    assert [leak for view in views for leak in leaks(view)] == []


@pytest.mark.parametrize("protocol", FAULTS)
def test_the_proxy_gets_the_credentials_as_they_are(protocol: Protocol) -> None:
    with (
        ScriptedServer() as server,
        ScriptedProxy(protocol, target=("127.0.0.1", server.port), username=USER, password=PASSWORD) as proxy,
    ):
        with Mailer(config_for(protocol, proxy, timeouts={"connect": 5})) as mailer:
            assert mailer.send(message(1), envelope=envelope()).accepted
        assert proxy.credentials == [(USER, "" if protocol == "socks4" else PASSWORD)]
        if protocol == "connect":
            (request,) = proxy.requests
            assert (
                request
                == (
                    f"CONNECT {BEYOND}:2525 HTTP/1.1\r\n"
                    f"Host: {BEYOND}:2525\r\nProxy-Authorization: Basic {TOKEN}\r\n\r\n"
                ).encode()
            )


class Quoting(http.server.BaseHTTPRequestHandler):
    """A proxy of the standard library that quotes the credentials decoded, in its status line."""

    def do_CONNECT(self) -> None:  # the name is http.server's
        decoded = base64.b64decode(self.headers["Proxy-Authorization"].split()[1])
        self.wfile.write(b"HTTP/1.1 403 No entry for " + decoded + b"\r\n\r\n")

    def log_message(self, *_: object) -> None: ...


def test_a_proxy_that_quotes_the_decoded_password() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Quoting) as proxy:
        thread = threading.Thread(target=proxy.handle_request, daemon=True)
        thread.start()
        url = f"http://{credentials('connect')}127.0.0.1:{proxy.server_port}"
        config = SMTPConfig(host=BEYOND, security="none", proxy=url, timeout=5)
        with Mailer(config) as mailer, pytest.raises(MailbridgeError, match="403") as caught:
            mailer.send(message(1), envelope=envelope())
        thread.join(5)
    assert [leak for view in views_of(caught.value) for leak in leaks(view)] == []


# ---- separators of the protocols never get through raw

BAD = ["\r", "\n", "\r\n", "\0", " ", "@", "/", "\r\nX-Injected: 1", "\x7f", "\t", "?", "#", "\\"]
PROTOCOLS: list[Protocol] = ["connect", "socks4", "socks5"]


def said(proxy: ScriptedProxy) -> bytes:
    return b"".join(connection.request + connection.payload for connection in proxy.connections)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_in_the_host_of_the_configuration(protocol: Protocol, bad: str) -> None:
    with ScriptedProxy(protocol, greeting=b"220 mx.test\r\n") as proxy:
        with pytest.raises(ConfigurationError):
            Mailer(config_for(protocol, proxy, host=f"mx{bad}injected.test")).send(
                message(1), envelope=envelope()
            )
        assert proxy.connections == []


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_in_the_host_of_a_channel(protocol: Protocol, bad: str) -> None:
    with ScriptedProxy(protocol, greeting=b"220 mx.test\r\n") as proxy:
        with pytest.raises(ConfigurationError):
            open_channel(config_for(protocol, proxy), f"token{bad}injected.test", 443, tls=False)
        assert b"injected" not in said(proxy)


@pytest.mark.parametrize("port", ["25\r\nX-Injected: 1", "25", 0, -1, 65536, 70000, 2.5, None])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_in_the_port_of_a_channel(protocol: Protocol, port: Any) -> None:
    with ScriptedProxy(protocol, greeting=b"220 mx.test\r\n") as proxy:
        with pytest.raises(ConfigurationError, match="port"):
            open_channel(config_for(protocol, proxy), "token.test", port, tls=False)
        assert proxy.connections == []


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_encoded", [True, False])
@pytest.mark.parametrize("part", ["user", "password", "host"])
def test_in_the_url_of_the_proxy(protocol: Protocol, bad: str, is_encoded: bool, part: str) -> None:
    """Each is refused, or goes out as the protocol spells it: base64, or a length and the bytes."""
    parts = {"user": "user", "password": "password", "host": "localhost"}
    if protocol == "socks4" and part == "password":
        return
    parts[part] += (quote(bad, safe="") if is_encoded else bad) + "injected"
    login = parts["user"] if protocol == "socks4" else f"{parts['user']}:{parts['password']}"
    with (
        ScriptedServer() as server,
        ScriptedProxy(protocol, target=("127.0.0.1", server.port)) as proxy,
    ):
        url = f"{SCHEMES[protocol]}://{login}@{parts['host']}:{proxy.port}"
        problem = send_through(protocol, proxy, url)
        if problem is not None:
            assert proxy.connections == []
            if (part, bad, is_encoded) == ("host", "@", False):  # then "injected" is a host, which is fine
                return
            assert isinstance(problem, ConfigurationError), problem
            assert "injected" not in str(problem)
            return
        assert part != "host"
        assert bad in " @/?#\\"
        (connection,) = proxy.connections
        assert connection.target == f"{BEYOND}:2525"
        if protocol == "connect":
            meant = {name: text.replace(quote(bad, safe=""), bad) for name, text in parts.items()}
            assert connection.credentials == (meant["user"], meant["password"])
            assert b"injected" not in connection.request


def send_through(protocol: Protocol, proxy: ScriptedProxy, url: str) -> MailbridgeError | None:
    try:
        with Mailer(config_for(protocol, proxy, proxy=url, timeouts={"connect": 5})) as mailer:
            mailer.send(message(1), envelope=envelope())
    except MailbridgeError as error:
        return error
    return None
