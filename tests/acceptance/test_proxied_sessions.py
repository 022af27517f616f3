"""Whole sessions through proxies and handlers: TLS, logins and verify()."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mailbridge import (
    CertificateRejected,
    ConfigurationError,
    Mailer,
    ProxyURL,
    SMTPConfig,
)
from mailbridge.deadline import Deadline
from mailbridge.testing import ScriptedServer
from mailbridge.verify import STAGE_NAMES
from tests.acceptance.sending import USER, committed, envelope, message
from tests.servers.certificates import Certificates
from tests.servers.fixtures import StartScriptedProxy
from tests.servers.proxy_faults import Protocol

PASSWORD = "correct horse"
WAYS: list[tuple[str, Protocol]] = [
    ("http", "connect"),
    ("https", "connect"),
    ("socks4a", "socks4"),
    ("socks5h", "socks5"),
]


def mailer(**options: Any) -> Mailer:
    return Mailer(SMTPConfig.from_mapping({"host": "mail.lab.test", "port": 2525, "timeout": 5, **options}))


@pytest.fixture
def secure_server(certificates: Certificates) -> Iterator[Callable[..., ScriptedServer]]:
    started: list[ScriptedServer] = []

    def start(tls: Any, **options: Any) -> ScriptedServer:
        good = certificates.good
        server = ScriptedServer(tls=tls, certfile=good.cert_file, keyfile=good.key_file, **options)
        started.append(server.start())
        return server

    yield start
    for server in started:
        server.close()
        server.check()


# ---- TLS and logins


@pytest.mark.parametrize(("scheme", "protocol"), WAYS)
@pytest.mark.parametrize(("security", "tls"), [("starttls", "starttls"), ("tls", "implicit")])
def test_tls_and_login_through_each_kind_of_proxy(
    scheme: str,
    protocol: Protocol,
    security: str,
    tls: str,
    certificates: Certificates,
    scripted_proxy: StartScriptedProxy,
    secure_server: Callable[..., ScriptedServer],
) -> None:
    """Through an https proxy that is TLS inside TLS; each side is asked for its own name."""
    server = secure_server(tls, users={USER: PASSWORD})
    identity = certificates.good if scheme == "https" else None
    proxy = scripted_proxy(protocol, target=("127.0.0.1", server.port), identity=identity)
    value: Any = f"{scheme}://localhost:{proxy.port}"
    own = {"ca_file": str(certificates.ca_file)}
    if scheme == "https":
        value = {"url": value, "tls": own}
    login = {"username": USER, "password": PASSWORD}
    with mailer(proxy=value, security=security, tls=own, **login) as sender:
        assert sender.send(message(1), envelope=envelope()).accepted
    (connection,) = server.connections
    assert (connection.user, connection.used_tls) == (USER, True)
    assert connection.server_name == "mail.lab.test"
    assert proxy.connections[0].server_name == ("localhost" if scheme == "https" else None)
    assert PASSWORD.encode() not in proxy.connections[0].payload


@pytest.mark.parametrize(("scheme", "protocol"), WAYS)
@pytest.mark.parametrize(("security", "tls"), [("starttls", "starttls"), ("tls", "implicit")])
@pytest.mark.parametrize("is_own", [True, False])
def test_where_the_guard_hands_on_an_address_tls_still_asks_for_the_name(
    is_own: bool,
    scheme: str,
    protocol: Protocol,
    security: str,
    tls: str,
    certificates: Certificates,
    scripted_proxy: StartScriptedProxy,
    secure_server: Callable[..., ScriptedServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = secure_server(tls, strict=False)
    identity = certificates.good if scheme == "https" else None
    proxy = scripted_proxy(protocol, target=("127.0.0.1", server.port), identity=identity)
    own = {"ca_file": str(certificates.ca_file)}
    value = {"url": f"{scheme}://127.0.0.1:{proxy.port}", "tls": own if scheme == "https" else None}
    host = "mail.lab.test" if is_own else "another.test"
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.4.4", 2525))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *_: rows if name == host else [])
    options = {"host": host, "proxy": value, "security": security, "tls": own}
    with mailer(**options, allow_internal_networks=False) as sender:
        if is_own:
            assert sender.send(message(1), envelope=envelope()).server == "mail.lab.test:2525"
        else:
            with pytest.raises(CertificateRejected) as caught:
                sender.send(message(1), envelope=envelope())
            assert (caught.value.stage, caught.value.server) == ("tls", "another.test:2525")
    assert proxy.targets == ["8.8.4.4:2525"]
    if is_own:
        assert [connection.server_name for connection in server.connections] == [host]


@pytest.mark.parametrize(
    ("trusts_server", "trusts_proxy", "stage"), [(True, False, "proxy"), (False, True, "tls")]
)
def test_trust_in_one_is_no_trust_in_the_other(
    trusts_server: bool,
    trusts_proxy: bool,
    stage: str,
    certificates: Certificates,
    scripted_proxy: StartScriptedProxy,
    secure_server: Callable[..., ScriptedServer],
) -> None:
    server = secure_server("starttls", strict=False)
    proxy = scripted_proxy("connect", target=("127.0.0.1", server.port), identity=certificates.good)
    trust = {"ca_file": str(certificates.ca_file)}
    value = {"url": f"https://localhost:{proxy.port}", "tls": trust if trusts_proxy else None}
    with (
        mailer(proxy=value, tls=trust if trusts_server else None) as sender,
        pytest.raises(CertificateRejected) as caught,
    ):
        sender.send(message(1), envelope=envelope())
    assert caught.value.stage == stage
    assert bool(server.connections) is trusts_proxy


def test_a_server_behind_a_proxy_is_not_loopback(scripted_proxy: StartScriptedProxy) -> None:
    """Though the name says so and both are on this machine: the bytes go through somebody else."""
    with ScriptedServer(users={USER: PASSWORD}, auth_in_clear=True) as server:
        proxy = scripted_proxy("socks5", target=("127.0.0.1", server.port))
        options: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": server.port,
            "security": "none",
            "username": USER,
            "password": PASSWORD,
        }
        with mailer(**options) as direct:
            assert direct.send(message(1), envelope=envelope()).accepted
        options["proxy"] = f"socks5://127.0.0.1:{proxy.port}"
        with mailer(**options) as proxied, pytest.raises(ConfigurationError, match="clear text"):
            proxied.send(message(2), envelope=envelope())
        with mailer(**options, allow_insecure_auth=True) as proxied:
            assert proxied.send(message(3), envelope=envelope()).accepted
        assert committed(server) == {1: 1, 3: 1}
        assert not any(line.startswith(b"AUTH") for line in server.connections[1].commands)


# ---- handlers


Handler = Callable[[ProxyURL, tuple[str, int], Deadline], Any]


def by(handler: Handler) -> dict[str, Any]:
    return {"url": "gate://gate.test:7", "handler": handler}


def test_a_plain_socket_gets_starttls(
    certificates: Certificates, secure_server: Callable[..., ScriptedServer]
) -> None:
    server = secure_server("starttls", users={USER: PASSWORD})
    own = {"ca_file": str(certificates.ca_file)}
    handler = by(lambda *_: socket.create_connection(("127.0.0.1", server.port), 5))
    with mailer(proxy=handler, tls=own, username=USER, password=PASSWORD) as sender:
        assert sender.send(message(1), envelope=envelope()).accepted
    assert server.connections[0].used_tls


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_secured_socket_gets_no_starttls_and_may_carry_a_login(security: str) -> None:
    """As with a tunnel of IPsec or ssh: the handler vouches for it."""
    with ScriptedServer(users={USER: PASSWORD}, auth_in_clear=True) as server:
        handler = by(lambda *_: (socket.create_connection(("127.0.0.1", server.port), 5), True))
        with mailer(proxy=handler, security=security, username=USER, password=PASSWORD) as sender:
            assert sender.send(message(1), envelope=envelope()).accepted
        (connection,) = server.connections
        assert "STARTTLS" not in connection.verbs
        assert connection.user == USER


def test_an_unsecured_socket_carries_no_login() -> None:
    with ScriptedServer(users={USER: PASSWORD}, auth_in_clear=True) as server:
        handler = by(lambda *_: (socket.create_connection(("127.0.0.1", server.port), 5), False))
        with (
            mailer(proxy=handler, security="none", username=USER, password=PASSWORD) as sender,
            pytest.raises(ConfigurationError, match="clear text"),
        ):
            sender.send(message(1), envelope=envelope())


def test_a_handlers_own_tls(certificates: Certificates, secure_server: Callable[..., ScriptedServer]) -> None:
    server = secure_server("implicit", users={USER: PASSWORD})

    def handler(*_: object) -> tuple[ssl.SSLSocket, bool]:
        context = ssl.create_default_context(cafile=str(certificates.ca_file))
        raw = socket.create_connection(("127.0.0.1", server.port), 5)
        return context.wrap_socket(raw, server_hostname="localhost"), True

    with mailer(proxy=by(handler), username=USER, password=PASSWORD) as sender:
        assert sender.send(message(1, size=400_000), envelope=envelope()).accepted
        assert sender.send(message(2), envelope=envelope()).accepted
    assert committed(server) == {1: 1, 2: 1}
    assert len(server.connections) == 1


# ---- verify()


@pytest.mark.parametrize(("scheme", "protocol"), [way for way in WAYS if way[0] != "https"])
def test_verify_tells_of_the_proxy(
    scheme: str, protocol: Protocol, scripted_proxy: StartScriptedProxy
) -> None:
    with ScriptedServer() as server:
        proxy = scripted_proxy(protocol, target=("127.0.0.1", server.port))
        url = f"{scheme.replace('5h', '5')}://127.0.0.1:{proxy.port}"
        with mailer(proxy=url, security="none") as sender:
            report = sender.verify()
    assert report.ok
    stage = report["proxy"]
    assert (stage.status, 0 < stage.seconds < 5) == ("ok", True)
    assert url in stage.detail
    assert "mail.lab.test:2525" in stage.detail
    assert f"127.0.0.1:{proxy.port}" in report["tcp"].detail
    assert [one.name for one in report] == list(STAGE_NAMES)


def test_verify_tells_why_the_proxy_failed(scripted_proxy: StartScriptedProxy) -> None:
    proxy = scripted_proxy("connect", fault="407 offering Basic")
    with mailer(proxy=f"http://127.0.0.1:{proxy.port}") as sender:
        report = sender.verify()
    assert not report.ok
    stage = report["proxy"]
    assert stage.status == "failed"
    assert "answered 407" in stage.detail
    assert "user:password@" in stage.hint
    assert stage.seconds > 0
    assert [one.name for one in report if one.status == "failed"] == ["proxy"]


def test_verify_without_a_proxy_and_with_a_handler() -> None:
    with ScriptedServer() as server:
        options: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "security": "none"}
        with mailer(**options) as sender:
            assert sender.verify()["proxy"].status == "skipped"
        handler = by(lambda *_: socket.create_connection(("127.0.0.1", server.port), 5))
        with mailer(**options, proxy=handler) as sender:
            report = sender.verify()
    assert report.ok
    assert (report["proxy"].status, report["tcp"].status) == ("ok", "skipped")
    assert "handler" in report["proxy"].detail
