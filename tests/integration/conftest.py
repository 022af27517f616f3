"""Mailers for the servers of the testbed; each is closed after its test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from mailbridge import Mailer, SMTPConfig
from tests.servers.certificates import Certificates

SECONDS = 10.0  # no answer on loopback takes longer, however busy the machine


class HasPort(Protocol):
    """An Endpoint, a Relay or an SmtpSink."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class Configure(Protocol):
    def __call__(self, server: HasPort, **options: Any) -> SMTPConfig: ...


class StartMailer(Protocol):
    def __call__(self, server: HasPort, **options: Any) -> Mailer: ...


@pytest.fixture
def configure(certificates: Certificates) -> Configure:
    """configure(server, **options): in the clear unless said otherwise; TLS trusts the CA of the tests."""

    def build(server: HasPort, **options: Any) -> SMTPConfig:
        given = {
            "host": "localhost",
            "port": server.port,
            "security": "none",
            "timeout": SECONDS,
            "local_hostname": "client.test",
        } | options
        tls = given.get("tls", {})
        if isinstance(tls, Mapping) and not {"ca_path", "context"} & set(tls):
            given["tls"] = {"ca_file": certificates.ca_file, **tls}
        oauth2 = given.get("oauth2")
        if isinstance(oauth2, Mapping) and "token_url" in oauth2:
            given["oauth2"] = {"tls": {"ca_file": certificates.ca_file}, **oauth2}
        return SMTPConfig(**given)

    return build


@pytest.fixture
def mailer(configure: Configure) -> Iterator[StartMailer]:
    """mailer(server, **options) makes one as `configure` says."""
    with ExitStack() as stack:

        def start(server: HasPort, **options: Any) -> Mailer:
            return stack.enter_context(Mailer(configure(server, **options)))

        yield start
