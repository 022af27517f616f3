"""gunicorn and Celery as they are run: whatever they fork, and however they end their workers.

The mail server is the judge. An environment that runs the whole suite has both; where one is missing
its tests fail rather than being left out.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailbridge.testing import ReceivedMessage, ScriptedServer
from tests.acceptance.crowd import SECONDS, in_threads
from tests.acceptance.programs import (
    CHANNELS,
    disturbances,
    environment,
    goodbyes,
    messages_by_connection,
    options_for,
    server_over,
)
from tests.acceptance.sending import committed, number_of
from tests.servers.certificates import Certificates
from tests.servers.process import LOOPBACK, Endpoint, Program, free_port, tail, wait_until

FOLDER = Path(__file__).parent / "apps"


class Pair:
    """Holds messages 2 and 3 back until both are there, so that two workers are at it."""

    def __init__(self) -> None:
        self._meeting = threading.Barrier(2)

    def __call__(self, received: ReceivedMessage) -> None:
        if number_of(received.content) in (2, 3):
            self._meeting.wait(SECONDS)


@contextmanager
def running(options: dict[str, object], output: Path, *command: str, **env: str) -> Iterator[Program]:
    """A program with these options in its environment, ended by TERM: it has to go by itself."""
    wanted = environment(options, **env)
    changed = [f"{name}={value}" for name, value in wanted.items() if os.environ.get(name) != value]
    program = Program(["env", *changed, sys.executable, *command], output=output)
    try:
        yield program
        os.kill(program.pid, signal.SIGTERM)
        assert wait_until(lambda: not program.is_running, SECONDS), "it does not end"
    except BaseException as error:
        error.add_note(tail(output))
        raise
    finally:
        program.stop()


@contextmanager
def gunicorn(options: dict[str, object], output: Path, *flags: str, **env: str) -> Iterator[Endpoint]:
    endpoint = free_port()
    command = ["-m", "gunicorn", "tests.acceptance.apps.wsgi", "--bind", str(endpoint)]
    command += ["--config", str(FOLDER / "gunicorn_conf.py"), *flags]
    with running(options, output, *command, **env) as program:
        program.wait_until_listening([endpoint], output)
        yield endpoint


def ask(endpoint: Endpoint, number: int) -> int:
    """Has the application send this message; the pid of the worker that did."""
    connection = http.client.HTTPConnection(LOOPBACK, endpoint.port, timeout=SECONDS)
    try:
        connection.request("GET", f"/{number}")
        answer = connection.getresponse()
        assert answer.status == 200
        return int(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("channel", CHANNELS)
def test_gunicorn_with_preload(channel: str, certificates: Certificates, tmp_path: Path) -> None:
    """The master sent a mail before it forked two workers, and sends its last one when they are gone."""
    output = tmp_path / "gunicorn.log"
    with server_over(channel, certificates, final_replies=Pair()) as server:
        options = options_for(server, certificates)
        with gunicorn(options, output, "--preload", "-w", "2", SEND_AT_IMPORT="yes") as endpoint:
            in_threads([lambda n=n: ask(endpoint, n) for n in (2, 3)])
            for number in range(4, 10):
                ask(endpoint, number)
        assert goodbyes(server) == [1, 1, 1]
        found = messages_by_connection(server)
        assert found.pop(1) == [1, 99]
        assert sorted(sent[0] for sent in found.values()) == [2, 3]
        assert sorted(number for sent in found.values() for number in sent) == list(range(2, 10))
        assert disturbances(server) == []


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_gunicorn_with_threads_and_greenlets(kind: str, certificates: Certificates, tmp_path: Path) -> None:
    flags = ("-w", "1", "-k", kind, *(("--threads", "8") if kind == "gthread" else ()))
    with server_over("tls1.3", certificates) as server:
        options = options_for(server, certificates, pool={"max_size": 3})
        with gunicorn(options, tmp_path / "gunicorn.log", *flags) as endpoint:
            in_threads([lambda n=n: ask(endpoint, n) for n in range(24)])
        assert committed(server) == dict.fromkeys(range(24), 1)
        assert set(goodbyes(server)) == {1}
        assert len(server.connections) <= 3
        assert disturbances(server) == []


def test_a_worker_of_gunicorn_that_is_ended_by_itself(tmp_path: Path) -> None:
    """Its session says QUIT, and the worker in its place has its own."""
    with ScriptedServer() as server:
        with gunicorn(options_for(server), tmp_path / "gunicorn.log", "-w", "1") as endpoint:
            worker = ask(endpoint, 1)
            os.kill(worker, signal.SIGTERM)
            server.wait_for(lambda: server.connections[0].is_closed)
            assert ask(endpoint, 2) != worker
        assert goodbyes(server) == [1, 1]
        assert messages_by_connection(server) == {1: [1], 2: [2]}


def test_celery_prefork(certificates: Certificates, tmp_path: Path) -> None:
    """The main process sent a mail before it forked two children, and sends its last when they are gone.

    The children leave by os._exit, without Python's exit handlers: QUIT comes by Celery's own signal.
    (Celery takes five seconds to end such a worker, whether it has sent mail or not.)
    """
    command = ["-m", "celery", "-A", "tests.acceptance.apps.tasks", "worker", "-P", "prefork", "-c", "2"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with server_over("tls1.3", certificates, final_replies=Pair()) as server:
        options = options_for(server, certificates)
        with running(options, tmp_path / "celery.log", *command):
            server.wait_for(lambda: len(server.messages) == 7, SECONDS)
        assert goodbyes(server) == [1, 1, 1]
        found = messages_by_connection(server)
        assert found.pop(1) == [1, 99]
        assert sorted(number for sent in found.values() for number in sent) == list(range(2, 8))
        assert disturbances(server) == []
