"""The servers as pytest fixtures.

On a laptop a server that is not installed skips its tests; with CI set they fail.
A failed test shows the end of the log of each server that it used; the run ends by naming what was left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from tests.servers.certificates import Certificates
from tests.servers.dante import Dante
from tests.servers.doveadm import Doveadm
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.haproxy import HAProxy
from tests.servers.lab import Lab
from tests.servers.mailparser import Mailparser
from tests.servers.microsocks import Microsocks
from tests.servers.nginx import Nginx
from tests.servers.oauth2_mock import OAuth2Mock
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import Postfix
from tests.servers.process import MissingServerError
from tests.servers.proxy_faults import Protocol
from tests.servers.redis import Redis
from tests.servers.relay import Relay
from tests.servers.scripted_proxy import ScriptedProxy
from tests.servers.sink import SmtpSink
from tests.servers.squid import Squid
from tests.servers.ssh import SshTunnel
from tests.servers.stunnel import Stunnel
from tests.servers.tinyproxy import Tinyproxy

LAB = pytest.StashKey[Lab]()
T = TypeVar("T")
StartRelay = Callable[..., Relay]  # (target, *, delay=0.0, cut_before=b"")
StartScriptedProxy = Callable[..., ScriptedProxy]  # (protocol, *, ...) as ScriptedProxy takes them
StartSmtpSink = Callable[..., SmtpSink]  # (*options)


def must_have_all_servers() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def ask_for(start: Callable[[], T]) -> T:
    try:
        return start()
    except MissingServerError as missing:
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


@pytest.fixture(scope="session")
def postfix(lab: Lab) -> Postfix:
    return ask_for(lab.postfix)


@pytest.fixture(scope="session")
def dovecot(lab: Lab) -> Dovecot:
    return ask_for(lab.dovecot)


@pytest.fixture(scope="session")
def exim(lab: Lab) -> Exim:
    return ask_for(lab.exim)


@pytest.fixture(scope="session")
def opensmtpd(lab: Lab) -> OpenSmtpd:
    return ask_for(lab.opensmtpd)


@pytest.fixture(scope="session")
def stunnel(lab: Lab) -> Stunnel:
    return ask_for(lab.stunnel)


@pytest.fixture(scope="session")
def squid(lab: Lab) -> Squid:
    return ask_for(lab.squid)


@pytest.fixture(scope="session")
def tinyproxy(lab: Lab) -> Tinyproxy:
    return ask_for(lab.tinyproxy)


@pytest.fixture(scope="session")
def dante(lab: Lab) -> Dante:
    return ask_for(lab.dante)


@pytest.fixture(scope="session")
def microsocks(lab: Lab) -> Microsocks:
    return ask_for(lab.microsocks)


@pytest.fixture(scope="session")
def ssh_tunnel(lab: Lab) -> SshTunnel:
    return ask_for(lab.ssh_tunnel)


@pytest.fixture(scope="session")
def haproxy(lab: Lab) -> HAProxy:
    return ask_for(lab.haproxy)


@pytest.fixture(scope="session")
def nginx(lab: Lab) -> Nginx:
    return ask_for(lab.nginx)


@pytest.fixture(scope="session")
def redis(lab: Lab) -> Redis:
    return ask_for(lab.redis)


@pytest.fixture(scope="session")
def oauth2_mock(lab: Lab) -> OAuth2Mock:
    return ask_for(lab.oauth2_mock)


@pytest.fixture(scope="session")
def dovecot_of_mock(lab: Lab) -> Dovecot:
    """One that asks `oauth2_mock` whose a token is."""
    return ask_for(lab.dovecot_of_mock)


@pytest.fixture(scope="session")
def mailparser(lab: Lab) -> Mailparser:
    return ask_for(lab.mailparser)


@pytest.fixture(scope="session")
def doveadm(lab: Lab) -> Doveadm:
    return ask_for(lab.doveadm)


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lab = config.stash.get(LAB, None)
    for name, missing in lab.missing.items() if lab else ():
        terminalreporter.write_line(f"LEFT OUT: every test with {name} ({missing})", yellow=True)
