"""The libraries that a configuration's first send will use, loaded when the configuration is built.

A process that forks while one of its threads imports a module has a child that waits for that import
for ever: module locks are not freed by a fork. So nothing is left to be imported by the threads that
send. Which libraries are needed is known from the configuration; what is not installed is left out,
since the configuration was refused where it can't do without.
"""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.proxies import ProxyURL


class Wanted(Protocol):
    """The options that decide; `SMTPConfig` has them."""

    @property
    def host(self) -> str: ...
    @property
    def auth(self) -> tuple[str, ...]: ...
    @property
    def password(self) -> object: ...
    @property
    def oauth2(self) -> OAuth2Options | None: ...
    @property
    def proxy(self) -> tuple[ProxyURL, ...]: ...


def load_libraries(config: Wanted) -> None:
    """Import what connecting and logging in will need."""
    for name in _names(config):
        _load(name)


@cache
def _load(name: str) -> None:
    if find_spec(name.partition(".")[0]) is not None:
        import_module(name)


def _names(config: Wanted) -> Iterator[str]:
    yield "encodings.idna"  # what getaddrinfo() encodes names with
    if not config.host.isascii():
        yield "idna"
    if any(proxy.scheme.startswith("socks") for proxy in config.proxy):
        yield from ("socks", "mailbridge.net.proxy.socks")
    if config.oauth2 is not None and config.oauth2.grant not in ("static", "callable"):
        yield from ("oauthlib.oauth2", "jwt")
    is_scram_wanted = not config.auth or any(name.startswith("SCRAM") for name in config.auth)
    if config.password is not None and is_scram_wanted:
        yield from ("scramp", "asn1crypto.x509")
    if {"GSSAPI", "NTLM"} & set(config.auth):
        yield "spnego"
