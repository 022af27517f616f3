"""Every fault of a proxy: what the caller is told, how soon, and that nothing is left behind.

The tables in proxy_verdicts.py say for each fault what the sender has to see. Each case has a pool of one and
ends by sending through the same proxy once it is healthy, so that a slot that a failure kept would show, and
by counting descriptors.
"""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mailbridge import (
    CertificateRejected,
    ConnectTimeout,
    DeadlineExceeded,
    MailbridgeError,
    Mailer,
    ProtocolViolation,
    ProxyFailed,
    SMTPConfig,
    TLSFailed,
)
from mailbridge.delivery.breakers import COOLDOWN
from mailbridge.testing import ScriptedServer
from tests.acceptance.proxy_verdicts import EXPECTED, FINE, Told
from tests.acceptance.sending import MARGIN, ShiftedClock, committed, envelope, message
from tests.servers.certificates import Certificates
from tests.servers.proxy_faults import FAULTS, HARMLESS, Protocol
from tests.servers.scripted_proxy import ScriptedProxy

pytestmark = pytest.mark.campaign

CONNECT = 0.4  # seconds, for the whole way to the server
USER, PASSWORD = "proxy-user", "proxy-password"
SCHEMES: dict[Protocol, tuple[str, ...]] = {
    "connect": ("http",),
    "socks4": ("socks4a",),
    "socks5": ("socks5",),
}


CASES = [(protocol, fault) for protocol, table in FAULTS.items() for fault in table]


def test_the_tables_know_every_fault() -> None:
    for protocol, table in FAULTS.items():
        assert set(EXPECTED[protocol]) | HARMLESS >= set(table)
        assert set(EXPECTED[protocol]) <= set(table)


def descriptors() -> int:
    gc.collect()  # what a cycle holds would be a ResourceWarning here, which is an error
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    before, running = descriptors(), threading.active_count()
    yield
    assert descriptors() <= before
    assert threading.active_count() <= running


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


def url_of(proxy: ScriptedProxy, scheme: str, credentials: str = "") -> str:
    return f"{scheme}://{credentials}{proxy.host}:{proxy.port}"


def mailer_through(proxy: Any, *, clock: ShiftedClock | None = None, **options: Any) -> Mailer:
    """To a name that only the proxy knows, with one slot and little time."""
    options = {
        "host": "mx.beyond.test",
        "port": 2525,
        "security": "none",
        "proxy": proxy,
        "timeouts": {"connect": CONNECT, "greeting": CONNECT},
        "pool": {"max_size": 1, "acquire_timeout": 1},
        "debug": True,
        **options,
    }
    return Mailer(SMTPConfig.from_mapping(options), clock=clock or ShiftedClock())


def credentials_for(protocol: Protocol, *, wrong: bool = False) -> str:
    if protocol == "socks4":
        return f"{USER}@"
    return f"{USER}:{PASSWORD}{'?' if wrong else ''}@".replace("?", "%3F")


@pytest.mark.parametrize(("protocol", "fault"), CASES)
def test_a_fault_is_told_in_time_and_keeps_nothing(
    protocol: Protocol, fault: str, clock: ShiftedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    told = FINE if fault in HARMLESS else EXPECTED[protocol][fault]
    needs_login = FAULTS[protocol][fault].stage == "auth"
    account = {"username": USER, "password": PASSWORD} if needs_login else {}
    with (
        nothing_left_behind(),
        ScriptedServer() as server,
        ScriptedProxy(protocol, target=("127.0.0.1", server.port), fault=fault, **account) as proxy,
        mailer_through(
            url_of(proxy, SCHEMES[protocol][0], credentials_for(protocol) if needs_login else ""),
            clock=clock,
        ) as mailer,
    ):
        began = time.monotonic()
        if told.kind is None:
            assert mailer.send(message(1), envelope=envelope()).accepted
        else:
            with pytest.raises(told.kind) as caught:
                mailer.send(message(1), envelope=envelope())
            check(caught.value, told)
            assert committed(server) == {}
        assert time.monotonic() - began < 2 * CONNECT + MARGIN
        assert mailer.stats().lent == 0
        proxy.fault = None
        clock.ahead += COOLDOWN + 1
        assert mailer.send(message(2), envelope=envelope()).accepted
        assert committed(server)[2] == 1
    assert PASSWORD not in caplog.text


def check(error: MailbridgeError, told: Told) -> None:
    assert type(error) is told.kind
    assert error.stage == told.stage
    assert re.search(told.words, str(error)), str(error)
    assert "mx.beyond.test:2525" in str(error)
    assert str(error).isprintable()
    # Credentials that a proxy refuses, or a place that it does not let us go to, stay refused.
    is_refusal = (
        told.status in (403, 407)
        or "methods were rejected" in str(error)
        or "authentication failed" in str(error)
    )
    assert error.is_transient or told.kind is ProtocolViolation or is_refusal
    assert not error.outcome_unknown
    if isinstance(error, ProxyFailed):
        assert error.status == told.status
    if told.stage == "proxy":
        assert "127.0.0.1:" in str(error), "it names the proxy"


@pytest.mark.parametrize(
    ("scheme", "protocol"),
    [
        ("http", "connect"),
        ("https", "connect"),
        ("socks4", "socks4"),
        ("socks4a", "socks4"),
        ("socks5", "socks5"),
        ("socks5h", "socks5"),
        ("socks", "socks5"),
    ],
)
def test_every_reply_may_come_byte_by_byte(
    scheme: str, protocol: Protocol, certificates: Certificates
) -> None:
    tls = {"identity": certificates.good} if scheme == "https" else {}
    account = {"username": USER, "password": PASSWORD}
    with (
        ScriptedServer() as server,
        ScriptedProxy(
            protocol, target=("127.0.0.1", server.port), byte_by_byte=True, **account, **tls
        ) as proxy,
    ):
        value: dict[str, Any] = {"url": url_of(proxy, scheme, credentials_for(protocol))}
        if tls:
            value["tls"] = {"ca_file": str(certificates.ca_file)}
        options = {"host": "127.0.0.1"} if scheme == "socks4" else {}
        with mailer_through(value, timeouts={"connect": 5}, **options) as mailer:
            assert mailer.send(message(1), envelope=envelope()).accepted
        assert proxy.credentials == [(USER, "" if protocol == "socks4" else PASSWORD)]
        assert committed(server) == {1: 1}


@pytest.mark.parametrize("protocol", FAULTS)
@pytest.mark.parametrize("byte_by_byte", [False, True])
def test_the_greeting_may_come_in_one_segment_with_the_reply(protocol: Protocol, byte_by_byte: bool) -> None:
    with (
        ScriptedServer() as server,
        ScriptedProxy(
            protocol, target=("127.0.0.1", server.port), coalesces=True, byte_by_byte=byte_by_byte
        ) as proxy,
        mailer_through(url_of(proxy, SCHEMES[protocol][0]), timeouts={"connect": 5}) as mailer,
    ):
        assert mailer.send(message(1), envelope=envelope()).accepted
        assert committed(server) == {1: 1}


@pytest.mark.parametrize(
    ("scheme", "protocol", "words"),
    [
        ("http", "connect", "answered 407.*does not accept these credentials"),
        ("socks5", "socks5", "authentication failed.*does not accept these credentials"),
        ("socks4a", "socks4", "refused: 0x5[bd]"),
    ],
)
def test_wrong_credentials(scheme: str, protocol: Protocol, words: str) -> None:
    with ScriptedProxy(protocol, greeting=b"", username=USER + "x", password=PASSWORD) as proxy:
        wrong = credentials_for(protocol, wrong=True)
        with (
            mailer_through(url_of(proxy, scheme, wrong)) as mailer,
            pytest.raises(ProxyFailed, match=words) as caught,
        ):
            mailer.send(message(1), envelope=envelope())
        assert PASSWORD not in f"{caught.value!r}"


@pytest.mark.parametrize(
    ("scheme", "protocol", "words"),
    [
        ("http", "connect", "answered 407.*write them into its URL"),
        ("socks5", "socks5", "methods were rejected.*write them into its URL"),
    ],
)
def test_no_credentials_where_some_are_wanted(scheme: str, protocol: Protocol, words: str) -> None:
    with (
        ScriptedProxy(protocol, greeting=b"", username=USER, password=PASSWORD) as proxy,
        mailer_through(url_of(proxy, scheme)) as mailer,
        pytest.raises(ProxyFailed, match=words),
    ):
        mailer.send(message(1), envelope=envelope())


def test_nobody_listens_at_the_proxys_address(clock: ShiftedClock) -> None:
    with nothing_left_behind(), ScriptedServer() as server:
        with ScriptedProxy("socks5", target=("127.0.0.1", server.port)) as gone:
            pass
        with (
            mailer_through(url_of(gone, "socks5"), clock=clock) as mailer,
            pytest.raises(ProxyFailed, match="can't be reached: Connection refused") as caught,
        ):
            mailer.send(message(1), envelope=envelope())
        assert (caught.value.stage, caught.value.server) == ("proxy", "mx.beyond.test:2525")
        assert f"127.0.0.1:{gone.port}" in caught.value.message


# ---- deadlines


@pytest.mark.parametrize("protocol", FAULTS)
def test_the_deadline_of_the_send_counts_too(protocol: Protocol) -> None:
    with (
        ScriptedProxy(protocol, fault="drip") as proxy,
        mailer_through(url_of(proxy, SCHEMES[protocol][0]), timeouts={"connect": 30}) as mailer,
    ):
        began = time.monotonic()
        with pytest.raises((DeadlineExceeded, ConnectTimeout)):
            mailer.send(message(1), envelope=envelope(), deadline=0.3)
        assert time.monotonic() - began < 0.3 + MARGIN


def test_a_proxy_without_tls_under_https_meets_the_deadline() -> None:
    with ScriptedProxy("connect", fault="silence at once") as proxy:
        began = time.monotonic()
        with (
            mailer_through(url_of(proxy, "https")) as mailer,
            pytest.raises(ConnectTimeout, match=r"TLS to the proxy https://127.0.0.1.*time limit") as caught,
        ):
            mailer.send(message(1), envelope=envelope())
        assert caught.value.stage == "proxy"
        assert time.monotonic() - began < CONNECT + MARGIN


@pytest.mark.parametrize(
    ("own_tls", "fault", "kind", "words"),
    [
        (None, None, CertificateRejected, r"TLS to the proxy.*not trusted.*proxy\.tls"),
        ({"server_hostname": "other"}, None, CertificateRejected, r"TLS to the proxy.*proxy\.tls"),
        (None, "close at once", TLSFailed, "TLS to the proxy https://127.0.0.1"),
    ],
)
def test_tls_of_the_proxy_fails_with_the_proxys_name_and_options(
    own_tls: dict[str, Any] | None,
    fault: str | None,
    kind: type[TLSFailed],
    words: str,
    certificates: Certificates,
    clock: ShiftedClock,
) -> None:
    with (
        nothing_left_behind(),
        ScriptedServer() as server,
        ScriptedProxy(
            "connect", target=("127.0.0.1", server.port), fault=fault, identity=certificates.good
        ) as proxy,
    ):
        value = {"url": url_of(proxy, "https"), "tls": own_tls}
        with (
            mailer_through(value, clock=clock, timeouts={"connect": 5}) as mailer,
            pytest.raises(kind, match=words) as caught,
        ):
            mailer.send(message(1), envelope=envelope())
        assert caught.value.stage == "proxy"
        assert "starttls" not in str(caught.value)


def test_a_row_of_failures_leaks_nothing(clock: ShiftedClock) -> None:
    """Many different failures in one mailer: the slot and every descriptor come back each time."""
    with (
        nothing_left_behind(),
        ScriptedServer() as server,
        ScriptedProxy("connect", target=("127.0.0.1", server.port)) as proxy,
        mailer_through(url_of(proxy, "http"), clock=clock) as mailer,
    ):
        quick = [f for f, told in EXPECTED["connect"].items() if told.kind is ProxyFailed]
        for fault in quick:
            proxy.fault = fault  # type: ignore[assignment]  # the setter takes names
            clock.ahead += COOLDOWN + 1
            with pytest.raises(ProxyFailed):
                mailer.send(message(1), envelope=envelope())
        proxy.fault = None
        clock.ahead += COOLDOWN + 1
        assert mailer.send(message(2), envelope=envelope()).accepted
        assert mailer.stats().lent == 0
