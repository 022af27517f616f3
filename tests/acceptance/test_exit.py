"""The end of a process: idle sessions say QUIT, nothing is warned of, and no server can hold it up.

All programs run in Python's development mode with warnings as errors, and must leave stderr empty.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from mailbridge.testing import Fault, ScriptedServer
from tests.acceptance.programs import (
    CHANNELS,
    disturbances,
    goodbyes,
    messages_by_connection,
    options_for,
    run,
    server_over,
)
from tests.acceptance.sending import committed
from tests.servers.certificates import Certificates

EXIT_SECONDS = 2.0  # whatever the servers do


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.mark.matrix
@pytest.mark.parametrize("channel", CHANNELS)
def test_who_forgets_to_close_leaves_politely_all_the_same(channel: str, certificates: Certificates) -> None:
    """A mailer of the program's own, and the process-wide one with three sessions."""
    program = """
        own = Mailer(CONFIG)
        send(1, own)
        with contextlib.ExitStack() as stack:
            for number in (2, 3, 4):
                session = stack.enter_context(mailer_for(CONFIG).session())
                session.send(message(number), envelope=envelope())
        leaving()
    """
    with server_over(channel, certificates) as server:
        ended = run(program, options_for(server, certificates))
        assert goodbyes(server) == [1, 1, 1, 1]
        assert messages_by_connection(server) == {1: [1], 2: [2], 3: [3], 4: [4]}
        assert disturbances(server) == []
        assert ended.exit_seconds < EXIT_SECONDS


# A shell lets what it starts in the background ignore SIGINT, and Python then leaves it so.
INTERRUPT = "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize("end", ["sys.exit(3)", "1 / 0", INTERRUPT])
def test_other_ways_to_leave(end: str, server: ScriptedServer) -> None:
    program = """
        sys.excepthook = lambda *_: None
        send(1)
        exec(sys.argv[1])
    """
    status = {"sys.exit(3)": 3, "1 / 0": 1}.get(end, -signal.SIGINT)
    run(program, options_for(server), end, status=status)
    assert goodbyes(server) == [1]


def test_os_exit_is_an_end_without_a_word(server: ScriptedServer) -> None:
    run("send(1); os._exit(0)", options_for(server))
    assert goodbyes(server) == [0]
    assert messages_by_connection(server) == {1: [1]}


def test_exit_handlers_can_still_send(server: ScriptedServer) -> None:
    """Handlers run in reverse order: one that was there before mailbridge comes after it."""
    program = """
        own = Mailer(CONFIG)
        held = mailer_for(CONFIG)
        send(1, own)
        send(2, held)

        def late():
            send(3, own)
            send(4, held)
            send(5)
    """
    run(program, options_for(server), before="import atexit; atexit.register(lambda: late())")
    assert goodbyes(server) == [1] * 5
    assert messages_by_connection(server) == {number: [number] for number in range(1, 6)}


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("stage", ["content", "final"])
def test_a_server_that_reads_and_says_nothing_any_more(
    stage: Literal["content", "final"], channel: str, certificates: Certificates, tmp_path: Path
) -> None:
    """One idle session, and one whose thread is in the middle of a message; both servers are dead."""
    program = """
        busy = Mailer(CONFIG)
        send(1)
        threading.Thread(target=send, args=(2, busy), kwargs={"size": 10_000_000}, daemon=True).start()
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.001)
        leaving()
    """
    has_begun = tmp_path / "the message has begun"

    def tell(_: str) -> None:
        if server.messages:
            has_begun.touch()

    faults = [Fault("idle", "stall", connection=1), Fault(stage, "stall", connection=2, occurrence=None)]
    with server_over(channel, certificates, faults=faults, data_reply=tell, strict=False) as server:
        ended = run(program, options_for(server, certificates), str(has_begun))
        assert ended.exit_seconds < EXIT_SECONDS
        assert committed(server) == {1: 1}


def test_a_session_that_is_never_given_back(server: ScriptedServer) -> None:
    program = """
        context = mailer_for(CONFIG).session()
        session = context.__enter__()
        session.send(message(1), envelope=envelope())
    """
    run(program, options_for(server))
    goodbyes(server)
    assert messages_by_connection(server) == {1: [1]}
