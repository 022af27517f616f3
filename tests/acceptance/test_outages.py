"""A server is down, or lets in fewer than the pool may have: few attempts, and every mail arrives.

The attempts are counted by what listens, never by what the client says of itself.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from mailbridge import MailbridgeError, Mailer, SendResult, SMTPConfig
from mailbridge.testing import ScriptedServer
from tests.acceptance.crowd import in_threads
from tests.acceptance.sending import MARGIN, PASSWORD, USER, committed, envelope, message, number_of

SECONDS = 2.0  # how long the outage lasts
THREADS = 200
MOST_ATTEMPTS = 8
MAX_SIZE = 10


class Outage:
    """Listens where a server should be, counts who comes, and hangs up on them."""

    def __init__(self, port: int = 0) -> None:
        self.attempts = 0
        self._socket = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._refuse, daemon=True)
        self._thread.start()

    def _refuse(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.attempts += 1
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            visitor.close()

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def mailer_for(*ports: int, **options: Any) -> Mailer:
    where = [{"host": "127.0.0.1", "port": port, "priority": number} for number, port in enumerate(ports)]
    servers = {"servers": where} if len(ports) > 1 else {"host": "127.0.0.1", "port": ports[0]}
    settings = {"security": "none", "timeout": 10, "pool": {"max_size": MAX_SIZE}, **servers}
    return Mailer(SMTPConfig.from_mapping(settings | options))


def send_all(mailer: Mailer, *, deadline: float | None = 15) -> dict[int, SendResult | MailbridgeError]:
    """What became of a message of each of the threads."""
    outcomes: dict[int, SendResult | MailbridgeError] = {}

    def send(number: int) -> None:
        try:
            outcomes[number] = mailer.send(message(number), envelope=envelope(), deadline=deadline)
        except MailbridgeError as error:
            outcomes[number] = error

    in_threads(partial(send, number) for number in range(THREADS))
    return outcomes


@contextmanager
def after(seconds: float, outages: list[Outage]) -> Iterator[list[ScriptedServer]]:
    """The servers take the place of the outages after so many seconds."""
    servers = [ScriptedServer(port=outage.port) for outage in outages]

    def recover() -> None:
        for outage, server in zip(outages, servers, strict=True):
            outage.end()
            server.start()

    timer = threading.Timer(seconds, recover)
    timer.start()
    try:
        yield servers
    finally:
        timer.join()
        for server in servers:
            server.close()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
def test_an_outage_costs_few_attempts_and_no_mail(count: int, is_warm: bool) -> None:
    before = [ScriptedServer().start() for _ in range(count)]
    with mailer_for(*(server.port for server in before), retry={"attempts": 6}) as mailer:
        if is_warm:
            in_threads([partial(mailer.send, message(n), envelope=envelope()) for n in range(50)])
        for server in before:
            server.close()
        outages = [Outage(server.port) for server in before]
        with after(SECONDS, outages) as servers:
            outcomes = send_all(mailer)
    assert [outcome for outcome in outcomes.values() if not isinstance(outcome, SendResult)] == []
    taken = sum((committed(server) for server in servers), Counter[int]())
    assert taken == Counter(dict.fromkeys(range(THREADS), 1))
    assert all(outage.attempts <= MOST_ATTEMPTS for outage in outages), [each.attempts for each in outages]
    assert all(len(server.connections) <= MAX_SIZE for server in servers), "a herd came afterwards"


def test_without_retry_an_outage_is_told_at_once() -> None:
    outage = Outage()
    with mailer_for(outage.port) as mailer:
        began = time.monotonic()
        outcomes = send_all(mailer, deadline=None)
        assert time.monotonic() - began < MARGIN
    outage.end()
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, MailbridgeError)]
    assert len(errors) == THREADS
    assert all(error.is_transient and not error.outcome_unknown for error in errors)
    hints = Counter(error.hint or "" for error in errors)
    assert sum("the next try is in" in hint for hint in hints.elements()) >= THREADS - MOST_ATTEMPTS
    assert outage.attempts <= MOST_ATTEMPTS


def test_a_deadline_ends_the_wait_for_a_server_that_stays_away() -> None:
    outage = Outage()
    with mailer_for(outage.port, retry={"attempts": 50}) as mailer:
        began = time.monotonic()
        outcomes = send_all(mailer, deadline=1.5)
        assert time.monotonic() - began < 1.5 + MARGIN
    outage.end()
    assert len(outcomes) == THREADS
    assert all(isinstance(outcome, MailbridgeError) for outcome in outcomes.values())
    assert outage.attempts <= MOST_ATTEMPTS


class Narrow(socketserver.ThreadingTCPServer):
    """A mail server that turns away, at one stage and with one reply, whoever is one too many."""

    daemon_threads = True

    def __init__(self, limit: int, stage: str, reply: str) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.limit, self.stage, self.reply = limit, stage, reply
        self.lock = threading.Lock()
        self.live = self.turned_away = 0
        self.taken: Counter[int] = Counter()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def enter(self) -> bool:
        with self.lock:
            if self.live >= self.limit:
                self.turned_away += 1
                return False
            self.live += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.live -= 1


class Visit(socketserver.StreamRequestHandler):
    """One connection: commands one by one, and a moment for each message."""

    server: Narrow

    def handle(self) -> None:
        is_in = False
        try:
            for stage, answer in self._stages():
                if stage == self.server.stage and not is_in:
                    is_in = self.server.enter()
                    if not is_in:
                        self._say(self.server.reply)
                        return
                self._say(answer)
        except OSError:
            pass
        finally:
            if is_in:
                self.server.leave()

    def _stages(self) -> Iterator[tuple[str, str]]:
        yield "greeting", "220 narrow ESMTP"
        for line in self.rfile:
            match line.split()[0].upper():
                case b"EHLO":
                    yield "ehlo", "250-narrow\r\n250 AUTH PLAIN"
                case b"AUTH":
                    yield "auth", "235 2.7.0 welcome"
                case b"DATA":
                    yield "data", "354 go on"
                    content = b"".join(iter(self.rfile.readline, b".\r\n"))
                    time.sleep(0.005)  # a message takes its time, so that all are wanted at once
                    with self.server.lock:
                        self.server.taken[number_of(content)] += 1
                    yield "final", "250 2.0.0 taken"
                case b"QUIT":
                    return
                case _:
                    yield "other", "250 2.1.0 fine"

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("greeting", "421 4.7.0 too many connections"),
        ("greeting", "451 too many connections"),
        ("ehlo", "421 too many connections"),
        ("auth", "432 4.3.2 Concurrent connections limit exceeded"),
        ("auth", "454 4.7.0 too many concurrent logins"),
    ],
)
def test_a_server_that_lets_few_in_gets_all_the_mail_on_those(stage: str, reply: str) -> None:
    with (
        Narrow(2, stage, reply) as server,
        mailer_for(server.server_address[1], username=USER, password=PASSWORD) as mailer,
    ):
        outcomes: dict[int, SendResult] = {}

        def send(first: int) -> None:
            for number in range(first, first + 5):
                outcomes[number] = mailer.send(message(number), envelope=envelope())

        in_threads(partial(send, 5 * n) for n in range(20))
        stats = mailer.stats()
        server.shutdown()
    assert server.taken == Counter(dict.fromkeys(range(100), 1))
    assert len(outcomes) == 100
    assert stats.effective_size == 2
    assert 1 <= server.turned_away < MAX_SIZE
