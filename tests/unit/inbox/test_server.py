"""mailbridge.inbox.server: the server and the page, joined, and taken apart again."""

from __future__ import annotations

import json
import logging
import socket
import urllib.request

import pytest

pytestmark = [pytest.mark.needs("flask"), pytest.mark.needs("aiosmtpd")]

from mailbridge.inbox import Inbox  # noqa: E402  # after the marks
from mailbridge.inbox.server import InboxServer  # noqa: E402


def total(page: str | None) -> int:
    assert page is not None
    with urllib.request.urlopen(f"{page}api/messages", timeout=20) as answer:
        return int(json.load(answer)["total"])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_page_answers_under_its_own_address(host: str) -> None:
    with InboxServer(Inbox(), http_host=host, http_port=0) as server:
        assert total(server.page_url) == 0


def test_other_pages_of_the_process_keep_their_log(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger("werkzeug").level
    with caplog.at_level(logging.INFO), InboxServer(Inbox(), http_port=0) as server:
        total(server.page_url)
    assert logging.getLogger("werkzeug").level == before
    assert "GET" not in caplog.text


def test_a_port_that_is_taken_gives_the_page_s_port_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = InboxServer(Inbox(), port=taken.getsockname()[1], http_port=0)
        with pytest.raises(OSError, match="in use"):
            server.start()
    assert server.page_url is not None
    port = int(server.page_url.rstrip("/").rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        pass
