"""The servers as pytest fixtures.

A test asks for a server by the fixture of its name, or with `ask_for` for a program of its own; this is the
one way to leave a test out for a missing server. On a laptop it is skipped then, and the end of the run says
what was missing; with CI set it fails. A failed test shows the end of the log of each server that it used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from tests.servers.certificates import Certificates
from tests.servers.lab import Lab
from tests.servers.process import MissingServerError
from tests.servers.proxy_faults import Protocol
from tests.servers.relay import Relay
from tests.servers.scripted_proxy import ScriptedProxy
from tests.servers.sink import SmtpSink

LAB = pytest.StashKey[Lab]()
T = TypeVar("T")
# Each starts with the first test that asks for it. `dovecot_of_mock` asks `oauth2_mock` whose a token is.
SERVERS = (
    *("postfix", "dovecot", "exim", "opensmtpd", "stunnel", "redis"),
    *("squid", "tinyproxy", "dante", "microsocks", "ssh_tunnel", "haproxy", "nginx"),
    *("oauth2_mock", "dovecot_of_mock", "mailparser", "doveadm"),
)
_missing: dict[str, str] = {}  # what was asked for and could not be had, and why
StartRelay = Callable[..., Relay]  # (target, *, delay=0.0, cut_before=b"")
StartScriptedProxy = Callable[..., ScriptedProxy]  # (protocol, *, ...) as ScriptedProxy takes them
StartSmtpSink = Callable[..., SmtpSink]  # (*options)


def must_have_all_servers() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def ask_for(start: Callable[[], T]) -> T:
    try:
        return start()
    except MissingServerError as missing:
        _missing[missing.server] = str(missing)
        if must_have_all_servers():
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    lab = pytestconfig.stash[LAB] = Lab()
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def certificates(lab: Lab) -> Certificates:
    return lab.certificates


def _server(name: str) -> Callable[..., Any]:
    @pytest.fixture(scope="session", name=name)
    def running(lab: Lab) -> Any:
        return ask_for(getattr(lab, name))

    return running


# A fixture for each: the method of this name in Lab says what it is.
for _name in SERVERS:
    globals()[_name] = _server(_name)


@pytest.fixture
def smtp_sink(lab: Lab) -> Iterator[StartSmtpSink]:
    """smtp_sink(*options) starts one; it is stopped after the test."""

    def start(*options: str) -> SmtpSink:
        return ask_for(lambda: lab.smtp_sink(*options))

    yield start
    lab.stop_smtp_sinks()


@pytest.fixture
def relay() -> Iterator[StartRelay]:
    """relay(target, delay=0.0, cut_before=b"") starts one; it is stopped after the test."""
    with ExitStack() as stack:

        def start(target: tuple[str, int], *, delay: float = 0.0, cut_before: bytes = b"") -> Relay:
            return stack.enter_context(Relay(target, delay=delay, cut_before=cut_before))

        yield start


@pytest.fixture
def scripted_proxy() -> Iterator[StartScriptedProxy]:
    """scripted_proxy(protocol, ...) starts one; it is stopped after the test."""
    with ExitStack() as stack:

        def start(protocol: Protocol, **options: Any) -> ScriptedProxy:
            return stack.enter_context(ScriptedProxy(protocol, **options))

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    lab = item.config.stash.get(LAB, None)
    if report.failed and lab is not None:
        names = getattr(item, "fixturenames", ())
        report.sections += [(f"log of {name}", text) for name, text in lab.logs(names).items()]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, what in _missing.items():
        terminalreporter.write_line(f"LEFT OUT: every test with {name} ({what})", yellow=True)
