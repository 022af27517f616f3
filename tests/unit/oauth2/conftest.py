"""What the tests of OAuth2 share: a scripted token server, configurations for it, and a search for leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import pytest

from mailbridge import SMTPConfig
from mailbridge.oauth2 import shared
from tests.servers.token_server import TokenServer

# The environment without extras runs what needs none.
collect_ignore_glob = [] if find_spec("oauthlib") and find_spec("jwt") else ["test_*.py"]

StartTokenServer = Callable[..., TokenServer]
Configure = Callable[..., SMTPConfig]
CLIENT_SECRET = "cl1ent/S3cret+Wert=&?"


@pytest.fixture(autouse=True)
def no_tokens_from_before() -> Iterator[None]:
    shared.forget_sources()
    yield
    shared.forget_sources()


@pytest.fixture
def token_server() -> Iterator[StartTokenServer]:
    """token_server(**options) starts one; it is stopped after the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> TokenServer:
            return stack.enter_context(TokenServer(**options))

        yield start


@pytest.fixture
def configure() -> Configure:
    """configure(server, oauth2={...}, **options): spends a refresh token at `server`."""

    def build(server: TokenServer, *, oauth2: dict[str, Any] | None = None, **options: Any) -> SMTPConfig:
        asked = {
            "token_url": server.url,
            "client_id": "the-client",
            "client_secret": CLIENT_SECRET,
            "refresh_token": "first-refresh-token",
            "allow_insecure_token_url": True,
        } | (oauth2 or {})
        return SMTPConfig(username="user@example.com", oauth2=asked, **({"timeout": 10} | options))

    return build
