#!/usr/bin/env python
"""A demonstration: a Django site and a Flask app send mail through mailbridge. Run it by `make demo`.

Everything happens on this machine and ends by itself: the server, the certificates and the database are made
for it. The exit status is 0 only if every mail arrived.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailbridge.inbox import ReceivedMail
    from testproject.demo_server import Cost, DemoServer

LONGEST = 30.0  # seconds; it takes about five
INDENT = "   "


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What became of one round of visits: what should have arrived, what did, and what it took."""

    name: str
    expected: tuple[tuple[str, str], ...]
    arrived: tuple[ReceivedMail, ...]
    cost: Cost
    seconds: float

    @property
    def missing(self) -> list[tuple[str, str]]:
        """What should have arrived and did not."""
        return list((Counter(self.expected) - Counter(map(facts, self.arrived))).elements())

    @property
    def surplus(self) -> list[tuple[str, str]]:
        """What arrived, or arrived twice, and should not have."""
        return list((Counter(map(facts, self.arrived)) - Counter(self.expected)).elements())

    def row(self) -> tuple[str, ...]:
        count = len(self.arrived)
        per_mail = f"{self.cost.round_trips / count:.1f}" if count else "-"
        numbers = (count, self.cost.connections, self.cost.round_trips, per_mail, f"{self.seconds:.1f} s")
        return (self.name, *map(str, numbers))


def main() -> int:
    faulthandler.dump_traceback_later(LONGEST, exit=True)  # whatever hangs, the demo does not
    from testproject.demo_server import DELAY, DemoServer

    print("mailbridge: a Django site and a Flask app send mail to a server on this machine.")
    with DemoServer() as server:
        away = f"{DELAY * 2000:.0f} ms away"
        print(f"{INDENT}The server wants STARTTLS and a login. It is {away}, behind a relay that counts")
        print(f"{INDENT}round trips. No account, no network; nothing is left at the end.")
        os.environ |= {"MAILBRIDGE_URL": server.url, "MAILBRIDGE_CA_FILE": str(server.ca_file)}
        is_well, visits = tell(server)
        faulthandler.cancel_dump_traceback_later()
        is_well = all_arrived(visits) and is_well
        if is_well and sys.stdin.isatty() and sys.stdout.isatty():
            print(f"\nLook at them at {server.page_url} (Enter ends the demo).", end=" ", flush=True)
            sys.stdin.readline()
    return 0 if is_well else 1


def all_arrived(visits: Sequence[Visit]) -> bool:
    """Say how many mails arrived, and which did not, or should not have."""
    expected = sum(len(visit.expected) for visit in visits)
    missing = [(visit.name, mail) for visit in visits for mail in visit.missing]
    surplus = [(visit.name, mail) for visit in visits for mail in visit.surplus]
    print(f"\n{expected - len(missing)} of {expected} mails arrived as they should.")
    for name, (recipient, subject) in missing:
        print(f"{INDENT}missing ({name}): {subject!r} to {recipient}")
    for name, (recipient, subject) in surplus:
        print(f"{INDENT}not expected ({name}): {subject!r} to {recipient}")
    return not missing and not surplus


def tell(server: DemoServer) -> tuple[bool, list[Visit]]:
    """The story, chapter by chapter; whether the server was in order, and the visits."""
    from testproject import demo_visitors as visitors

    visitors.prepare()
    chapter(1, "Is everything in order?   python testproject/manage.py verify_smtp")
    is_well = verify_smtp()
    server.wait_until_all_have_left()  # what a TLS session says at its end belongs to no mail

    chapter(2, "The Django site: five contact forms and a forgotten password")
    by_django = visit("mailbridge, Django site", server, visitors.visit_django)
    print_arrived(by_django.arrived)

    chapter(3, "The Flask app, with the same configuration: four contact forms")
    by_flask = visit("mailbridge, Flask app", server, visitors.visit_flask)
    print_arrived(by_flask.arrived)

    chapter(4, "The pool of this process, which both of them used")
    print_pool()

    chapter(5, "The Django site once more, sending by Django's own SMTP backend; side by side:")
    with visitors.djangos_own_backend(server):
        by_djangos_own = visit("Django's own backend", server, visitors.visit_django)
    print_comparison(by_djangos_own, by_django, by_flask)
    return is_well, [by_django, by_flask, by_djangos_own]


def chapter(number: int, title: str) -> None:
    print(f"\n{number}  {title}\n")


def verify_smtp() -> bool:
    from django.core.management import CommandError, call_command

    try:
        call_command("verify_smtp")
    except CommandError as error:
        print(error)
        return False
    return True


def visit(name: str, server: DemoServer, visitors: Callable[[], Iterable[tuple[str, str]]]) -> Visit:
    """Let them in, and note what arrived and what it took."""
    before, cost_before, began = len(server.messages), server.cost(), time.monotonic()
    expected = tuple(visitors())
    seconds = time.monotonic() - began
    return Visit(
        name=name,
        expected=expected,
        arrived=server.messages[before:],
        cost=server.cost() - cost_before,
        seconds=seconds,
    )


def facts(message: ReceivedMail) -> tuple[str, str]:
    """Recipient and subject, as the server got them."""
    return ", ".join(message.recipients), message.reading.subject


def print_arrived(messages: Iterable[ReceivedMail]) -> None:
    clients: dict[str, int] = {}  # in the order in which they came
    rows = [
        (str(clients.setdefault(one.client, len(clients) + 1)), one.sender, *facts(one), str(one.size))
        for one in messages
    ]
    table(("connection", "from", "to", "subject", "bytes"), rows)


def print_pool() -> None:
    from testproject import flask_app

    with flask_app.create_app().app_context():
        stats = flask_app.mail.mailer.stats()
    lines = (
        (stats.opened_total, "connections opened"),
        (stats.reused_total, "times a mail went over one that was there already"),
        (stats.idle, "idle now, for the next mail"),
        (stats.max_size, "may be open at once"),
        (stats.waits_total, "times a mail had to wait for a connection"),
    )
    for number, text in lines:
        print(f"{INDENT}{number:>3}  {text}")


def print_comparison(*visits: Visit) -> None:
    heads = ("sent by", "mails", "connections", "round trips", "per mail", "time")
    table(heads, [visit.row() for visit in visits])
    print(f"\n{INDENT}A round trip is one wait for the server, connecting included. The Flask app found the")
    print(f"{INDENT}connection that the Django site had opened. More peers and more recipients: make bench")


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they must be; numbers stand to the right."""
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [all(cell[:1].isdigit() for cell in column[1:]) for column in columns]
    for row in (heads, *rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        )
        print(f"{INDENT}{'  '.join(cells)}".rstrip())


if __name__ == "__main__":
    # `testproject` and `tests` must be importable, so the folder above this one stands on the path.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.exit(main())
