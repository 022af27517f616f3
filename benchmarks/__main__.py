"""Runs every client in a process of its own, counts what passes, and prints the tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.job import Job, Measured
from benchmarks.server import Target, running_server
from tests.servers.relay import Relay

ROOT = Path(__file__).resolve().parent.parent
DELAY = 0.005  # seconds each way
UNSEEN_ROUND_TRIPS = 2  # of each connection: the TCP handshake, and the greeting, which answers nothing
LONGEST = 30.0  # seconds for one client; the slowest takes a tenth of that

# What is compared, and how often each sends to 1 and to 50 recipients: so few that it takes a minute at most.
FRESH = {1: 8, 50: 3}
KEPT = {1: 25, 50: 4}
PEERS = (
    ("Django's own backend", "djangos_own", FRESH),
    ("Flask-Mail", "flask_mail", FRESH),
    ("mailbridge in Django, pool=False", "mailbridge_in_django_without_pool", FRESH),
    ("Django's own backend, kept open", "djangos_own_kept_open", KEPT),
    ("Flask-Mail, in mail.connect()", "flask_mail_kept_open", KEPT),
    ("smtplib, kept open", "smtplib_kept_open", KEPT),
    ("aiosmtplib, kept open", "aiosmtplib_kept_open", KEPT),
    ("mailbridge in Django", "mailbridge_in_django", KEPT),
    ("mailbridge in Flask", "mailbridge_in_flask", KEPT),
    ("mailbridge alone", "mailbridge_alone", KEPT),
)
REFERENCE = "mailbridge in Django"
IMPORTS = (
    "import smtplib",
    "import mailbridge",
    "from mailbridge import Mailer, Message, SMTPConfig",
    "import aiosmtplib",
)
NOTE = """\
A round trip is one wait for the server, connecting included. The session tickets of TLS 1.3 may count one
more for each connection. "Kept open" and mailbridge with its pool had their connection before the count.
Few messages were sent: look at large differences, not at small ones.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One client's numbers, each for one message but `messages` and `connections`."""

    name: str
    messages: int
    connections: int
    round_trips: float
    wall: float
    cpu: float

    def cells(self, reference: float | None) -> tuple[str, ...]:
        ratio = f"{self.wall / reference:.1f}" if reference else "-"
        return (
            self.name,
            str(self.messages),
            str(self.connections),
            f"{self.round_trips:.1f}",
            ratio,
            f"{self.cpu * 1000:.1f}",
        )


def main() -> None:
    began = time.monotonic()
    with running_server() as target:
        print(f"The server: {target.name}; STARTTLS and a login; {DELAY * 2000:.0f} ms away.\n")
        for recipients in (1, 50):
            rows = [row for peer in PEERS if (row := run(target, *peer, recipients)) is not None]
            print_rows(recipients, rows)
    print(NOTE)
    print_imports()
    print(f"\nIt took {time.monotonic() - began:.0f} s.")


def run(target: Target, name: str, peer: str, how_often: dict[int, int], recipients: int) -> Row | None:
    """What a client took; None, with a line that says so, if its library is not installed."""
    with Relay(target.address, delay=DELAY) as relay:
        job = Job(
            peer=peer,
            host=relay.host,
            port=relay.port,
            username=target.username,
            password=target.password,
            ca_file=str(target.ca_file),
            messages=how_often[recipients],
            recipients=recipients,
        )
        with client(job) as child:
            told = answer(child)
            if "missing" in told:
                print(f"({name} is left out: {told['missing']} is not installed.)")
                return None
            before = reading(relay)
            tell(child, "go")
            took = Measured(**answer(child))
            connections, round_trips = (now - then for now, then in zip(reading(relay), before, strict=True))
    return Row(
        name=name,
        messages=job.messages,
        connections=connections,
        round_trips=round_trips / job.messages,
        wall=took.wall / job.messages,
        cpu=took.cpu / job.messages,
    )


def reading(relay: Relay) -> tuple[int, int]:
    """Connections and round trips so far."""
    seen = relay.connections
    return len(seen), sum(one.round_trips for one in seen) + UNSEEN_ROUND_TRIPS * len(seen)


@contextmanager
def client(job: Job) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.client", json.dumps(asdict(job))]
    # Django's own backend has no option for a private authority; OpenSSL looks here for those it trusts.
    environment = {**os.environ, "SSL_CERT_FILE": job.ca_file}
    with subprocess.Popen(  # noqa: S603  # this interpreter, with our own module
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            yield child
            assert child.stdin is not None
            child.stdin.close()
            child.wait(LONGEST)
        finally:
            if child.poll() is None:
                child.kill()


def tell(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdin is not None
    child.stdin.write(word + "\n")
    child.stdin.flush()


def answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"{child.args!r} has failed; see above.")
    said: dict[str, Any] = json.loads(line)
    return said


def print_rows(recipients: int, rows: Sequence[Row]) -> None:
    reference = next((row.wall for row in rows if row.name == REFERENCE), None)
    heads = ("", "messages", "connections", "round trips/m.", "time", "CPU ms/m.")
    print(f"Messages to {recipients} recipient{'s' if recipients > 1 else ''}; time: {REFERENCE} = 1\n")
    print_table([heads, *(row.cells(reference) for row in rows)])
    print()


def print_imports() -> None:
    print("CPU of an import, in a fresh interpreter\n")
    rows = [(statement, cost) for statement in IMPORTS if (cost := import_cost(statement))]
    print_table(rows)


def import_cost(statement: str) -> str:
    """Milliseconds of CPU, the best of five; empty if it is not installed."""
    code = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    runs = [
        subprocess.run(  # noqa: S603  # this interpreter, with a statement of IMPORTS
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST
        )
        for _ in range(5)
    ]
    return f"{min(float(done.stdout) for done in runs) * 1000:.0f} ms" if not runs[0].returncode else ""


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join(("  " + name.ljust(widths[0]), *numbers)))


if __name__ == "__main__":
    main()
