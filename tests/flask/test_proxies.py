"""MAILBRIDGE_PROXY in Flask: URLs, and handlers as callables and by their dotted path."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from mailbridge import ProxyFailed
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail, Message
from tests.flask.apps import RECIPIENT, app_for
from tests.servers.scripted_proxy import ScriptedProxy


def through_gate(proxy: Any, target: tuple[str, int], deadline: Any) -> tuple[socket.socket, bool]:
    """Whatever the target: it is at the port of the proxy."""
    assert target == ("mx.beyond.test", 2525)
    return socket.create_connection(("127.0.0.1", proxy.port), deadline.remaining), True


def send(**config: Any) -> None:
    app = app_for(None, MAILBRIDGE_HOST="mx.beyond.test", MAILBRIDGE_PORT=2525, **config)
    with app.app_context():
        Mail(app).send(Message("Subject", recipients=[RECIPIENT], body="Text"))


@pytest.mark.parametrize("handler", [through_gate, f"{__name__}.through_gate"])
def test_a_handler(handler: Any, server: ScriptedServer) -> None:
    # With starttls a message gets out only since the handler vouches for its socket.
    url = f"gate://gate.test:{server.port}"
    send(MAILBRIDGE_SECURITY="starttls", MAILBRIDGE_PROXY={"url": url, "handler": handler})
    assert len(server.messages) == 1


def test_a_url(server: ScriptedServer) -> None:
    with ScriptedProxy("socks5", target=("127.0.0.1", server.port)) as proxy:
        send(MAILBRIDGE_PROXY=f"socks5h://127.0.0.1:{proxy.port}")
        assert proxy.targets == ["mx.beyond.test:2525"]
    assert len(server.messages) == 1


def test_a_proxy_that_refuses() -> None:
    with (
        ScriptedProxy("connect", fault="403") as proxy,
        pytest.raises(ProxyFailed, match="403") as caught,
    ):
        send(MAILBRIDGE_PROXY=f"http://u:Sentinel@127.0.0.1:{proxy.port}")
    assert "Sentinel" not in f"{caught.value!r}{caught.value}"
