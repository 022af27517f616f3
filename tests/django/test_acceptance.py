"""What a Django project gets by naming the backend: one pool per process, in requests of every kind."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.core.mail import EmailMessage, send_mail
from django.http import HttpRequest, HttpResponse
from django.test.utils import override_settings
from django.urls import path

import mailbridge
from mailbridge.testing import ReceivedMessage, ScriptedServer
from mailbridge_django import EmailBackend
from tests.django.conftest import Use, overridden, settings_for

ROOT = Path(__file__).parent.parent.parent


def send(number: int = 0) -> None:
    send_mail(f"{number}", "text", "a@x.example", ["b@y.example"])


def test_fifty_mails_make_one_connection(use: Use, server: ScriptedServer) -> None:
    use(server)
    for number in range(50):
        send(number)
    assert len(server.messages) == 50
    assert len(server.connections) == 1
    # The pool waits no round trip to find out whether the session is alive.
    assert "NOOP" not in server.connections[0].verbs


def test_fifty_mails_in_a_process_of_their_own(mode: str, server: ScriptedServer) -> None:
    """As above, with settings that are loaded once, and an interpreter that ends cleanly."""
    code = f"""
import django
from django.conf import settings
import warnings
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"The EMAIL_\\w+ setting is deprecated")
    settings.configure(**{settings_for(mode, server)!r})
django.setup()
from django.core.mail import send_mail
for number in range(50):
    send_mail("s", "text", "a@x.example", ["b@y.example"])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.messages) == 50
    assert len(server.connections) == 1
    server.wait_for(lambda: server.connections[0].is_closed)
    assert server.connections[0].verbs[-1] == "QUIT"


# -- ASGI -------------------------------------------------------------------------------------------------


def sync_view(request: HttpRequest) -> HttpResponse:
    send()
    return HttpResponse(threading.current_thread().name)


async def async_view(request: HttpRequest) -> HttpResponse:
    await sync_to_async(send)()
    return HttpResponse("sent")


urlpatterns = [path("sync/", sync_view), path("async/", async_view)]


async def get(application: Any, url: str) -> tuple[int, bytes]:
    """One request through the ASGI door, where each has a thread of its own for what is synchronous."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
    }
    sent: list[dict[str, Any]] = []
    incoming = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for event in incoming:
            return event
        await asyncio.Event().wait()  # the client stays until it is answered
        raise AssertionError("unreachable")

    async def answer(event: dict[str, Any]) -> None:
        sent.append(event)

    await application(scope, receive, answer)
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent)


@pytest.fixture
def slow_server() -> Iterator[ScriptedServer]:
    """A server that answers no message before five are under way, which proves that they really are."""
    five = threading.Barrier(5)

    def wait(message: ReceivedMessage) -> None:
        five.wait(timeout=10)

    with ScriptedServer(final_replies=wait) as running:
        yield running


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_ten_concurrent_asgi_requests_stay_within_the_pool(
    use: Use, slow_server: ScriptedServer, kind: str
) -> None:
    use(slow_server, pool={"max_size": 5}, timeout=15)

    async def all_at_once() -> list[tuple[int, bytes]]:
        application = get_asgi_application()
        return await asyncio.gather(*(get(application, f"/{kind}/") for _ in range(10)))

    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        answers = asyncio.run(all_at_once())
    assert [status for status, _ in answers] == [200] * 10
    if kind == "sync":
        assert len({body for _, body in answers}) > 1, "they all ran in one thread"
    assert len(slow_server.messages) == 10
    assert len(slow_server.connections) == 5


# -- threads, aliases, settings ---------------------------------------------------------------------------


def test_threads_share_the_pool(use: Use, server: ScriptedServer) -> None:
    use(server, pool={"max_size": 2})
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send, range(40)))
    assert len(server.messages) == 40
    assert len(server.connections) <= 2


def test_no_thread_is_left_behind(use: Use, server: ScriptedServer) -> None:
    use(server)
    before = {thread for thread in threading.enumerate() if not thread.name.startswith("scripted-smtp")}
    for _ in range(20):
        send()
    after = {thread for thread in threading.enumerate() if not thread.name.startswith("scripted-smtp")}
    assert after == before


def test_settings_that_change_count_at_once(mode: str, server: ScriptedServer) -> None:
    with overridden(**settings_for(mode, server)):
        send()
        [first] = server.connections
        with ScriptedServer() as other:
            with overridden(**settings_for(mode, other)):
                send()
            assert len(other.messages) == 1
        server.wait_for(lambda: first.is_closed)
        send()
    assert len(server.messages) == 2
    assert len(server.connections) == 2


def test_equal_settings_share_a_pool_and_others_do_not(server: ScriptedServer) -> None:
    options: dict[str, Any] = {"host": server.host, "port": server.port, "pool": {"max_size": 2}}
    mailers = {mailbridge.mailer_for(EmailBackend(**options).config) for _ in range(3)}
    mailers |= {mailbridge.mailer_for(EmailBackend(**options, timeout=3).config)}
    assert len(mailers) == 2


def test_a_session_that_died_while_idle_costs_no_mail(use: Use, server: ScriptedServer) -> None:
    use(server)
    send()
    server.connections[0].hang_up()
    send()
    assert len(server.messages) == 2
    assert len(server.connections) == 2


def test_the_warm_session_takes_two_round_trips(use: Use, server: ScriptedServer) -> None:
    use(server)
    send()
    message = EmailMessage("s", "text", "a@x.example", [f"{number}@y.example" for number in range(50)])
    assert message.send() == 1
    assert message.mailbridge_result.round_trips == 2
    assert message.mailbridge_result.connection_reused
