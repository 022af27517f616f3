"""OPTIONS["proxy"] in Django: URLs, handlers by their dotted path, and what is wrong with one."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from django.core import mail

from mailbridge import ConfigurationError, ProxyFailed
from mailbridge.testing import ScriptedServer
from tests.django.conftest import Use
from tests.servers.scripted_proxy import ScriptedProxy


def send() -> int:
    return mail.send_mail("Subject", "Text", "from@a.example", ["to@b.example"])


def through_gate(proxy: Any, target: tuple[str, int], deadline: Any) -> tuple[socket.socket, bool]:
    """Whatever the target: it is at the port of the proxy."""
    assert target == ("mx.beyond.test", 2525)
    return socket.create_connection(("127.0.0.1", proxy.port), deadline.remaining), True


def test_a_handler_by_its_dotted_path(server: ScriptedServer, use: Use) -> None:
    handler = {"url": f"gate://gate.test:{server.port}", "handler": f"{__name__}.through_gate"}
    # With starttls as the default, a message gets out only since the handler vouches for its socket.
    use(host="mx.beyond.test", port=2525, proxy=handler)
    assert send() == 1
    assert len(server.messages) == 1


def test_a_url(server: ScriptedServer, use: Use) -> None:
    with ScriptedProxy("socks5", target=("127.0.0.1", server.port)) as proxy:
        use(
            host="mx.beyond.test",
            port=2525,
            security="none",
            proxy=f"socks5h://127.0.0.1:{proxy.port}",
        )
        assert send() == 1
        assert proxy.targets == ["mx.beyond.test:2525"]


def test_a_proxy_that_refuses(use: Use) -> None:
    with ScriptedProxy("connect", fault="403") as proxy:
        use(
            host="mx.beyond.test", port=25, security="none", proxy=f"http://u:Sentinel@127.0.0.1:{proxy.port}"
        )
        with pytest.raises(ProxyFailed, match="403") as caught:
            send()
    assert "Sentinel" not in f"{caught.value!r}{caught.value}"


def test_a_path_that_leads_nowhere(use: Use) -> None:
    use(host="mx.beyond.test", proxy={"url": "gate://gate.test:7", "handler": "nowhere.at_all"})
    with pytest.raises(ConfigurationError, match=r"proxy\.handler"):
        send()
