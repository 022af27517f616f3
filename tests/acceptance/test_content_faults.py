"""Large content in the hands of a pool: sent again from its beginning where that is safe, never half.

Whatever happens, no temporary file outlives the call, not even where the error is kept.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mailbridge import (
    ConnectionLost,
    Envelope,
    InvalidMessage,
    MailbridgeError,
    MessageRefused,
    NotSupported,
    RetryOptions,
    SendResult,
    SMTPConnection,
    render,
)
from mailbridge.rendering import files
from mailbridge.testing import DEFAULT_KEYWORDS, Fault, ScriptedServer
from tests.acceptance.sending import (
    RECIPIENT,
    SENDER,
    committed,
    config_for,
    connection_of,
    envelope,
    mailer_for,
    message,
)

pytestmark = pytest.mark.campaign

SIZE = 2_500_000  # beyond what is held in memory
LARGE = message(1, size=SIZE)
# Beyond the buffers of both sockets: its end is not written before its beginning was read.
LARGER = message(1, size=20_000_000)
AT_ONCE = RetryOptions(attempts=2, first_delay=0)


class Content:
    """The same large message, as a source of one kind; made anew for each send."""

    def __init__(self, way: str, path: Path) -> None:
        self.way, self.path = way, path
        self.files: list[BinaryIO] = []

    def __call__(self, data: bytes = LARGE) -> Any:
        if self.way == "iterator":
            return (data[at : at + 100_000] for at in range(0, len(data), 100_000))
        self.path.write_bytes(data)
        if self.way == "path":
            return self.path
        self.files.append(self.path.open("rb"))
        return self.files[-1]


@pytest.fixture(params=["path", "file", "iterator"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Content]:
    content = Content(request.param, tmp_path / "large.eml")
    yield content
    for file in content.files:
        assert file.tell() == 0  # and still open
        file.close()


def spools() -> list[str]:
    """Temporary files without a name that are open."""
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    shown = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [link for link in shown if link.startswith(tempfile.gettempdir()) and "(deleted)" in link]


@pytest.fixture(autouse=True)
def no_temporary_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where nobody else has any
    yield
    assert spools() == []


def test_it_arrives_as_it_is(content: Content) -> None:
    with ScriptedServer() as server, mailer_for(server) as mailer:
        results = mailer.send_many([(content(), envelope()), (message(2), envelope())])
        assert [type(result) for result in results] == [SendResult, SendResult]
        first = results[0]
        assert isinstance(first, SendResult)
        assert (first.message_size, first.message_id) == (len(LARGE), "<number-1@a.example>")
        assert server.messages[0].content == LARGE
        assert f"SIZE={len(LARGE)}".encode() in bytes(server.connections[0].clear_text)
        assert mailer.stats().opened_total == 1


def test_a_dead_session_is_replaced(content: Content) -> None:
    fault = Fault("mail", "close", occurrence=2)
    with ScriptedServer(faults=[fault]) as server, mailer_for(server) as mailer:
        mailer.send(message(2), envelope=envelope())
        assert mailer.send(content(), envelope=envelope()).attempts == 1
        assert server.unfired == ()
        assert [m.content for m in server.messages[1:]] == [LARGE]


FAULTS = {
    "refused for now": Fault("final", "reply", reply="451 4.3.0 Later"),
    "refused on the way": Fault("content", "early", reply="452 4.3.1 Full", after=900_000),
    "cut on the way": Fault("content", "reset", after=900_000),
    "refused before": Fault("data", "reply", reply="451 4.3.0 Later"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_it_is_sent_again_from_its_beginning(content: Content, fault: Fault) -> None:
    data = LARGER if fault.kind == "reset" else LARGE
    with ScriptedServer(faults=[fault]) as server, mailer_for(server, retry=AT_ONCE) as mailer:
        assert mailer.send(content(data), envelope=envelope()).attempts == 2
        assert server.unfired == ()
        assert [m.content == data for m in server.messages] == [True]


def test_the_next_server_gets_it_from_its_beginning(content: Content) -> None:
    fault = Fault("content", "reset", after=900_000)
    with ScriptedServer(faults=[fault]) as first, ScriptedServer() as second:
        servers = [
            {"host": server.host, "port": server.port, "priority": number}
            for number, server in enumerate((first, second), 1)
        ]
        with mailer_for(first, servers=servers, host=None, port=None) as mailer:
            mailer.send(content(LARGER), envelope=envelope())
        assert (first.messages, first.unfired) == ((), ())
        assert [m.content == LARGER for m in second.messages] == [True]


def test_what_may_have_arrived_is_not_sent_again(content: Content) -> None:
    fault = Fault("final", "close", commit=True)
    with ScriptedServer(faults=[fault]) as server, mailer_for(server, retry=AT_ONCE) as mailer:
        with pytest.raises(ConnectionLost) as caught:
            mailer.send(content(), envelope=envelope())
        assert caught.value.outcome_unknown
        assert committed(server) == {1: 1}
    assert spools() == []  # with the error, and its traceback, still there


def test_errors_of_a_batch_keep_nothing_open(content: Content) -> None:
    with ScriptedServer(final_replies=lambda _: "554 5.6.0 No") as server, mailer_for(server) as mailer:
        outcomes = mailer.send_many([(content(), envelope()) for _ in range(3)])
        assert [type(outcome) for outcome in outcomes] == [MessageRefused] * 3
        assert spools() == []
        assert server.messages == ()


class Ours(Exception):
    pass


def failing() -> Iterator[bytes]:
    yield LARGE
    raise Ours


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (failing, Ours),
        (lambda: iter([LARGE, "text"]), InvalidMessage),
        (lambda: iter([LARGE, b"\0\r\n"]), InvalidMessage),
        (lambda: iter([LARGE, b"x" * 999]), InvalidMessage),
        (lambda: Path("/nonexistent/large.eml"), InvalidMessage),
    ],
)
def test_what_fails_when_it_is_read_opens_no_session(
    source: Callable[[], Any], kind: type[Exception]
) -> None:
    with ScriptedServer() as server, mailer_for(server) as mailer:
        with pytest.raises(kind):
            mailer.send(source(), envelope=envelope())
        assert server.connections == ()


def test_in_a_batch_it_is_the_error_of_that_message(tmp_path: Path) -> None:
    with ScriptedServer() as server, mailer_for(server) as mailer:
        outcomes = mailer.send_many(
            [(message(1), envelope()), (tmp_path / "none.eml", envelope()), (message(3), envelope())]
        )
        assert [type(outcome) for outcome in outcomes] == [SendResult, InvalidMessage, SendResult]
        assert connection_of(server, 1) == connection_of(server, 3)


@pytest.mark.parametrize("source", [Path("x"), iter([LARGE])])
def test_an_envelope_is_needed(source: Any) -> None:
    with ScriptedServer() as server, mailer_for(server) as mailer:
        with pytest.raises(InvalidMessage, match="need envelope"):
            mailer.send(source)
        assert server.connections == ()


CHANGES: dict[str, Callable[[Path], None]] = {
    "appended": lambda path: path.write_bytes(LARGE + b"more\r\n"),
    "cut short": lambda path: os.truncate(path, SIZE // 2),
    "rewritten": lambda path: path.write_bytes(b"Y" + LARGE[1:]),
}


@pytest.mark.parametrize("keywords", [DEFAULT_KEYWORDS, ("PIPELINING",)])
@pytest.mark.parametrize("partial", ["deliver", "all-or-none"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_meanwhile_is_never_committed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    partial: str,
    keywords: Any,
) -> None:
    content = Content("path", tmp_path / "large.eml")
    path, pread, calls = content(), os.pread, 0
    reads = len(LARGE) // files.PIECE_SIZE + 2  # to its end, once

    def read(descriptor: int, size: int, position: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == reads + 4:
            modified = path.stat().st_mtime_ns
            while path.stat().st_mtime_ns == modified:  # the clock of the file system has ticks
                change(path)
        return pread(descriptor, size, position)

    monkeypatch.setattr(files.os, "pread", read)
    with (
        ScriptedServer(keywords=keywords) as server,
        mailer_for(server, partial=partial, retry=AT_ONCE) as mailer,
    ):
        with pytest.raises(InvalidMessage, match="the file changed while it was being sent") as caught:
            mailer.send(path, envelope=envelope())
        assert calls > reads + 4
        assert (caught.value.outcome_unknown, caught.value.stage) == (False, "content")
        server.wait_for(lambda: server.connections[0].is_closed)
        assert server.messages == ()
        mailer.send(message(2), envelope=envelope())
        assert connection_of(server, 2) == 2


def test_eight_bit_content_that_is_large_needs_the_extension(content: Content) -> None:
    data = LARGE + "ü\r\n".encode()
    with ScriptedServer() as server, mailer_for(server) as mailer:
        mailer.send(content(data), envelope=envelope())
        assert "BODY=8BITMIME" in bytes(server.connections[0].clear_text).decode()
    with ScriptedServer(keywords=["PIPELINING"]) as server, mailer_for(server) as mailer:
        with pytest.raises(NotSupported, match="too large to be encoded anew") as caught:
            mailer.send(content(data), envelope=envelope())
        assert caught.value.extension == "8BITMIME"
        assert mailer.send(content(), envelope=envelope()).connection_reused  # nothing was said


def test_binary_content_goes_as_it_is(content: Content) -> None:
    data = b"Message-ID: <1@a.example>\r\n\r\n" + bytes(range(256)) * 10_000 + b"\r"
    keywords = [*DEFAULT_KEYWORDS, "CHUNKING", "BINARYMIME"]
    delivery_options = Envelope(SENDER, [RECIPIENT], body="binarymime")
    with ScriptedServer(keywords=keywords) as server, mailer_for(server) as mailer:
        assert mailer.send(content(data), envelope=delivery_options).message_size == len(data)
        assert server.messages[0].content == data
        assert f"BODY=BINARYMIME SIZE={len(data)}".encode() in bytes(server.connections[0].clear_text)
    with ScriptedServer() as server, mailer_for(server) as mailer:
        with pytest.raises(NotSupported, match="BINARYMIME"):
            mailer.send(content(data), envelope=delivery_options)
        assert server.messages == ()


def test_what_is_rendered_may_go_several_times(content: Content) -> None:
    rendered = render(content())
    with ScriptedServer() as server, mailer_for(server) as mailer:
        for _ in range(2):
            mailer.send(rendered, envelope=envelope())
        assert [m.content for m in server.messages] == [LARGE, LARGE]
        rendered.close()
        if content.way == "iterator":
            with pytest.raises(InvalidMessage, match="temporary file"):
                mailer.send(rendered, envelope=envelope())
            mailer.send(message(2), envelope=envelope())


def test_the_connection_takes_it_too(content: Content) -> None:
    with ScriptedServer() as server:
        connection = SMTPConnection(config_for(server))
        connection.connect()
        assert connection.send(envelope(), content()).message_size == len(LARGE)
        connection.quit()
        assert [m.content for m in server.messages] == [LARGE]


def test_an_interrupt_keeps_nothing_open() -> None:
    def pieces() -> Iterator[bytes]:
        yield LARGE
        raise KeyboardInterrupt

    with ScriptedServer() as server, mailer_for(server) as mailer:
        with pytest.raises(KeyboardInterrupt) as caught:
            mailer.send(pieces(), envelope=envelope())
        assert spools() == []
        assert server.connections == ()
        assert caught.value is not None


def test_a_deadline_holds_while_large_content_is_sent(content: Content) -> None:
    """The server stops reading: what is under way ends in time, and leaves nothing behind."""
    fault = Fault("content", "stall", after=300_000)
    with ScriptedServer(faults=[fault]) as server, mailer_for(server) as mailer:
        began = time.monotonic()
        with pytest.raises(MailbridgeError) as caught:
            mailer.send(content(LARGER), envelope=envelope(), deadline=1.0)
        assert time.monotonic() - began < 4
        assert not caught.value.outcome_unknown
        assert server.messages == ()
