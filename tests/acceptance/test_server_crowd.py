"""Many at once: a thousand connections that go nowhere, two hundred senders, and every mail arrives.

The server runs in a process of its own, whose memory is its own; smtp-source, from Postfix, is the load.
"""

from __future__ import annotations

import json
import resource
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.receiving import MAIL, SECONDS, mailroom
from tests.servers.fixtures import ask_for
from tests.servers.process import MissingServerError, find_program, wait_until

pytestmark = pytest.mark.needs("aiosmtpd")

HALF_OPEN = 1000
SENDERS = 200
MAILS = 1000
SIZE = 20_000  # bytes of each
FILES = 4096  # descriptors that the test and the server each need at most
STOP_SECONDS = 4.0  # two, and what a busy machine adds
LISTED = "127.0.0.51"  # who must send a header, and does not

SERVER = f"""
import json, resource, sys, threading, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, hard))
from mailbridge.server import MailServer

lock, taken = threading.Lock(), {{}}

def on_message(session, envelope, content):
    with lock:
        taken[envelope.recipients] = taken.get(envelope.recipients, 0) + 1

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

server = MailServer(
    on_message=on_message,
    use_proxy=["{LISTED}"],
    proxy_header_timeout=120,
    max_connections=1500,
    max_connections_per_client=1500,
    max_message_size=100_000,
)
server.start()
print(json.dumps(server.port), flush=True)
for line in sys.stdin:
    if line == "look\\n":
        distinct, total = len(taken), sum(taken.values())
        print(json.dumps({{"distinct": distinct, "total": total, "resident": resident()}}), flush=True)
    else:
        began = time.monotonic()
        server.stop()
        print(json.dumps(time.monotonic() - began), flush=True)
"""


class Server:
    """The process, asked by lines."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer())

    def ask(self, what: str):  # type: ignore[no-untyped-def]  # whatever it says
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self):  # type: ignore[no-untyped-def]
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def limits() -> tuple[int, int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES:
        raise MissingServerError("a crowd", f"it needs {FILES} open files (ulimit -Hn), {hard} are allowed")
    return soft, hard


@pytest.fixture
def server() -> Iterator[Server]:
    soft, hard = ask_for(limits)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    found = Server()
    yield found
    found.end()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_open(port: int, number: int) -> socket.socket:
    """In turn: silent, silent where a header is due, in the middle of a command, and of a mail."""
    source = LISTED if number % 4 == 1 else "127.0.0.1"
    sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS, source_address=(source, 0))
    sock.sendall(
        [b"", b"PROXY TCP4 192.", b"EHLO client.t", b"EHLO client.test\r\n" + MAIL + b"Subject: "][number % 4]
    )
    return sock


@pytest.mark.timeout(120)
def test_a_crowd(server: Server) -> None:
    smtp_source = ask_for(lambda: find_program("smtp-source", "smtp-source", package="postfix"))
    with ExitStack() as stack:
        crowd = [stack.enter_context(half_open(server.port, number)) for number in range(HALF_OPEN)]
        for sock in crowd[0::4]:
            assert sock.recv(3) == b"220", "all are inside, none was turned away"
        before = server.ask("look")["resident"]
        command = [smtp_source, "-s", str(SENDERS), "-m", str(MAILS), "-l", str(SIZE), "-N"]
        command += ["-f", "a@b.example", "-t", "c@d.example", f"inet:127.0.0.1:{server.port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        after = server.ask("look")
        assert (after["distinct"], after["total"]) == (MAILS, MAILS), "each once"
        # All that can be on its way at a time, twice (it is copied once), and as much for what is around it.
        assert after["resident"] - before < 4 * SENDERS * SIZE + 20_000_000
        assert server.ask("stop") < STOP_SECONDS


def test_what_was_acknowledged_before_a_stop_was_taken() -> None:
    acknowledged: set[str] = set()
    with mailroom(hook_threads=4) as room:

        def deliver(sender: int) -> None:
            try:
                with smtplib.SMTP("127.0.0.1", room.port, timeout=SECONDS) as client:
                    for number in range(10_000):
                        name = f"r{sender}-{number}@d.example"
                        client.sendmail("a@b.example", [name], b"x\r\n")
                        acknowledged.add(name)
            except (OSError, smtplib.SMTPException):
                return  # the server has stopped

        senders = [threading.Thread(target=deliver, args=(sender,)) for sender in range(20)]
        for thread in senders:
            thread.start()
        assert wait_until(lambda: len(acknowledged) > 100, SECONDS)
        room.server.stop()
        for thread in senders:
            thread.join(SECONDS)
        taken = [envelope.recipients[0] for _, envelope, _ in room.mails]
    assert acknowledged <= set(taken)
    assert len(taken) == len(set(taken)) < 20 * 10_000
