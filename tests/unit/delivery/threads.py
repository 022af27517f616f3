"""The driver with threads: `Mailer`, with real servers on loopback that do what a case says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mailbridge import Envelope, Mailer, SendResult
from mailbridge.delivery.session import Session
from mailbridge.testing import Fault, ScriptedServer
from tests.unit.delivery.cases import Case
from tests.unit.delivery.clock import Clock, wait_by
from tests.unit.delivery.events import (
    ALL,
    MAIL,
    OPENINGS,
    PASSWORD,
    RECIPIENT,
    SENDER,
    TRANSACTIONS,
    USER,
    Event,
)


class Threads:
    """`Mailer` and real servers on loopback."""

    def __init__(self, case: Case, stack: ExitStack) -> None:
        self.clock = Clock()
        self.servers = [
            stack.enter_context(
                ScriptedServer(
                    users={USER: PASSWORD}, auth_in_clear=True, faults=list(faults_of(events, case.warm))
                )
            )
            for events in case.servers
        ]
        config = case.config(*(server.port for server in self.servers))
        self.mailer = stack.enter_context(
            Mailer(config, clock=self.clock, sleep=self.clock.sleep, random=lambda: 0.0)
        )
        self.upstreams = self.mailer._router.upstreams
        wait_by(self.clock.sleep, self.upstreams)
        for upstream in self.upstreams:
            leases = [upstream.pool.acquire() for _ in range(case.warm)]
            for lease in leases:
                lease.pool.release(lease, reusable=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self.mailer.session() as session:
            yield session

    def send(self, deadline: float | None, session: Session | None = None) -> SendResult:
        sender = session if session is not None else self.mailer
        return sender.send(MAIL, envelope=Envelope(SENDER, [RECIPIENT]), deadline=deadline)

    @property
    def opened(self) -> list[int]:
        return [len(server.connections) for server in self.servers]

    @property
    def taken(self) -> list[int]:
        return [len(server.messages) for server in self.servers]

    @property
    def lent(self) -> int:
        return sum(upstream.pool.stats().lent for upstream in self.upstreams)

    @property
    def kept(self) -> list[int]:
        return [upstream.pool.stats().idle for upstream in self.upstreams]


def faults_of(events: Sequence[str], warm: int) -> Iterator[Fault]:
    reached = dict.fromkeys(ALL, 0)
    connections, is_open = warm, warm > 0
    for name in events:
        if name in OPENINGS:
            connections, is_open = connections + 1, False
            yield fault_of(OPENINGS[name], connection=connections, occurrence=1)
            continue
        connections += not is_open
        event = TRANSACTIONS[name]
        for stage in event.reaches:
            reached[stage] += 1
        if event.stage:
            yield fault_of(event, connection=None, occurrence=reached[event.stage])
        is_open = not event.is_lost


def fault_of(event: Event, **where: Any) -> Fault:
    if event.how == "close":
        return Fault(event.stage, "close", **where)  # type: ignore[arg-type]
    return Fault(event.stage, "reply", reply=event.how, **where)  # type: ignore[arg-type]
