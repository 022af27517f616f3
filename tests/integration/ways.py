"""Every way through a single real proxy of the testbed, as values of the option `proxy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.servers.certificates import Certificates
from tests.servers.microsocks import PASSWORD as SOCKS_PASSWORD
from tests.servers.microsocks import USERNAME as SOCKS_USER
from tests.servers.squid import PASSWORD as HTTP_PASSWORD
from tests.servers.squid import USERNAME as HTTP_USER

HTTP_LOGIN = f"{HTTP_USER}:{HTTP_PASSWORD}@"  # of Squid and of tinyproxy
SOCKS_LOGIN = f"{SOCKS_USER}:{SOCKS_PASSWORD}@"


@dataclass(frozen=True, slots=True)
class Way:
    """`server` is a fixture, `service` its endpoint; a proxy that `resolves` is given the server's name."""

    scheme: str
    server: str
    service: str
    login: str = ""
    resolves: bool = True

    def __str__(self) -> str:
        return f"{self.scheme}-{self.server}-{self.service}"


WAYS = [
    Way("http", "squid", "open"),
    Way("http", "squid", "basic", HTTP_LOGIN),
    Way("https", "squid", "https"),
    Way("http", "tinyproxy", "open"),
    Way("http", "tinyproxy", "basic", HTTP_LOGIN),
    Way("socks4", "dante", "endpoint", resolves=False),
    Way("socks5", "dante", "endpoint"),
    Way("socks5h", "microsocks", "open"),
    Way("socks", "microsocks", "password", SOCKS_LOGIN),
    Way("socks4", "ssh_tunnel", "endpoint", "somebody@", resolves=False),
    Way("socks4a", "ssh_tunnel", "endpoint"),
    Way("socks5", "ssh_tunnel", "endpoint"),
]


class Proxied:
    """A way with its proxy running."""

    def __init__(self, way: Way, request: pytest.FixtureRequest, certificates: Certificates) -> None:
        self.way = way
        self.server = request.getfixturevalue(way.server)
        self.endpoint = getattr(self.server, way.service)
        url = f"{way.scheme}://{way.login}{self.endpoint}"
        is_tls = way.scheme == "https"
        self.option: Any = {"url": url, "tls": {"ca_file": certificates.ca_file}} if is_tls else url
        #: A name for 127.0.0.1; where the proxy resolves it, one that this machine does not know.
        self.target_host = self.server.known_name if way.resolves else "localhost"
