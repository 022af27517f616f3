"""One table of outcomes, and two drivers of the policy that must agree on it.

A case says, for each server, what becomes of its connections and transactions, one after the other. The first
driver is `Session`, with threads and sockets, against `ScriptedServer`. The second is `SingleThreaded` below:
a fake clock, a fake pool, and errors made of the same replies. Neither waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from mailbridge import (
    AuthenticationFailed,
    ConnectionLost,
    Envelope,
    GreetingRefused,
    MailbridgeError,
    Mailer,
    MessageRefused,
    RecipientsRefused,
    Reply,
    SenderRefused,
    SendResult,
    SMTPConfig,
)
from mailbridge.deadline import Deadline
from mailbridge.delivery.policy import Flow, Policy
from mailbridge.delivery.router import Candidate, Router
from mailbridge.delivery.steps import Acquire, Outgoing, Pause, Release, Step, Transact
from mailbridge.delivery.upstream import Upstream
from mailbridge.logs import Log
from mailbridge.message.priority import NORMAL_LANE
from mailbridge.rendering.render import render
from mailbridge.testing import Fault, ScriptedServer

MAIL = b"From: a@x.example\r\nTo: b@y.example\r\nSubject: x\r\n\r\nHello\r\n"
SENDER, RECIPIENT = "a@x.example", "b@y.example"
USER, PASSWORD = "user", "password"


def reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    status = rest.split(" ")[0]
    return Reply(int(code), (rest,), tuple(map(int, status.split("."))))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Event:
    """What becomes of a transaction: the fault of a server, and the error that it is for the policy.

    `reaches` are the stages that a server counts for it, since all commands go out in one flight.
    """

    stage: str
    how: str
    error: Callable[[], MailbridgeError] | None
    reaches: tuple[str, ...] = ("mail", "rcpt", "data")

    @property
    def is_lost(self) -> bool:
        return self.how == "close" or self.how.startswith("421")


def lost(stage: str, text: str = "", *, unknown: bool = False) -> MailbridgeError:
    error = ConnectionLost("lost", stage=stage, reply=reply(text) if text else None)
    error.outcome_unknown = unknown
    return error


def refused(stage: str, text: str) -> MailbridgeError:
    if stage == "mail":
        return SenderRefused("no", sender=SENDER, stage="mail_from", reply=reply(text))
    if stage == "rcpt":
        return RecipientsRefused("no", rejected={RECIPIENT: reply(text)}, stage="rcpt_to")
    if stage == "greeting":
        return GreetingRefused("no", stage=stage, reply=reply(text))
    if stage == "auth":
        return AuthenticationFailed("no", stage=stage, reply=reply(text))
    return MessageRefused("no", stage=stage, reply=reply(text))


def refusal(stage: str, text: str, *reaches: str) -> Event:
    return Event(stage, text, lambda: refused(stage, text), reaches or ("mail", "rcpt", "data"))


ALL = ("mail", "rcpt", "data", "final")
TRANSACTIONS = {
    "taken": Event("", "", None, ALL),
    "mail 451": refusal("mail", "451 4.3.0 no"),
    "mail 550": refusal("mail", "550 5.7.1 no"),
    "mail 421": Event("mail", "421 4.3.2 bye", lambda: lost("mail_from", "421 4.3.2 bye"), ("mail",)),
    "mail lost": Event("mail", "close", lambda: lost("mail_from"), ("mail",)),
    "rcpt 450": refusal("rcpt", "450 4.2.1 no"),
    "rcpt 550": refusal("rcpt", "550 5.1.1 no"),
    "data 451": refusal("data", "451 4.3.0 no"),
    "final 451": refusal("final", "451 4.3.0 no", *ALL),
    "final 554": refusal("final", "554 5.6.0 no", *ALL),
    "final lost": Event("final", "close", lambda: lost("final", unknown=True), ALL),
}
OPENINGS = {
    "greeting 421": refusal("greeting", "421 4.3.2 no"),
    "greeting 554": refusal("greeting", "554 5.7.1 no"),
    "greeting lost": Event("greeting", "close", lambda: lost("greeting")),
    "auth 535": refusal("auth", "535 5.7.8 no"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`servers`: for each, its events in order; after them all goes well. `told` is what comes of each send.

    A name of OPENINGS is what becomes of the next connection, one of TRANSACTIONS of the next transaction.
    `opened` and `taken` count, for each server, connections and messages; `pauses` are in seconds.
    """

    servers: Sequence[Sequence[str]]
    told: Sequence[str]
    opened: Sequence[int]
    taken: Sequence[int]
    attempts: int = 1
    pauses: Sequence[float] = ()
    deadline: float | None = None

    def config(self, *ports: int) -> SMTPConfig:
        servers = [
            {"host": "127.0.0.1", "port": port, "priority": number, "username": USER, "password": PASSWORD}
            for number, port in enumerate(ports, start=1)
        ]
        retry = {"attempts": self.attempts, "first_delay": 1.0, "factor": 2.0}
        return SMTPConfig.from_mapping(
            {"security": "none", "timeout": 10, "retry": retry, "servers": servers}
        )


@dataclass
class Story:
    """What came of a case."""

    told: list[str] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def note(self, names: Sequence[str], send: Callable[[], SendResult]) -> None:
        try:
            result = send()
        except MailbridgeError as error:
            doubt = " unknown" if error.outcome_unknown else ""
            code = error.reply.code if error.reply is not None else ""
            if isinstance(error, RecipientsRefused):
                [refusal] = error.rejected.values()
                code = refusal.code
            self.told.append(" ".join(f"{type(error).__name__} {error.stage} {code}{doubt}".split()))
        else:
            again = " again" if result.connection_reused else ""
            self.told.append(f"server {names.index(result.server) + 1} attempt {result.attempts}{again}")


class Clock:
    """Moves only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(round(seconds, 3))
        self.now += seconds


def upstreams(config: SMTPConfig, clock: Clock) -> list[Upstream]:
    return [
        Upstream(
            options,
            name=options.config.server,
            is_alone=len(config.endpoints) == 1,
            before_opening=lambda: None,
            clock=clock,
            random=lambda: 0.0,
        )
        for options in config.endpoints
    ]


# ---- with threads


def with_threads(case: Case) -> Story:
    """The case with `Mailer` and real servers on loopback."""
    story, clock = Story(), Clock()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                ScriptedServer(users={USER: PASSWORD}, auth_in_clear=True, faults=list(faults_of(events)))
            )
            for events in case.servers
        ]
        config = case.config(*(server.port for server in servers))
        mailer = Mailer(config, clock=clock, sleep=clock.sleep, random=lambda: 0.0)
        names = [endpoint.config.server for endpoint in config.endpoints]
        envelope = Envelope(SENDER, [RECIPIENT])
        with mailer:
            for _ in case.told:
                story.note(names, lambda: mailer.send(MAIL, envelope=envelope, deadline=case.deadline))
        story.opened = [len(server.connections) for server in servers]
        story.taken = [len(server.messages) for server in servers]
    story.pauses = clock.pauses
    return story


def faults_of(events: Sequence[str]) -> Iterator[Fault]:
    reached = dict.fromkeys(ALL, 0)
    connections = 0
    for name in events:
        if name in OPENINGS:
            connections += 1
            yield fault_of(OPENINGS[name], connection=connections, occurrence=1)
            continue
        connections = max(connections, 1)
        event = TRANSACTIONS[name]
        for stage in event.reaches:
            reached[stage] += 1
        if event.stage:
            yield fault_of(event, connection=None, occurrence=reached[event.stage])
        connections += event.is_lost


def fault_of(event: Event, **where: Any) -> Fault:
    if event.how == "close":
        return Fault(event.stage, "close", **where)  # type: ignore[arg-type]
    return Fault(event.stage, "reply", reply=event.how, **where)  # type: ignore[arg-type]


# ---- in one thread


class FakeConnection:
    id = "fake"
    round_trips = 0

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.is_open = True

    def unusable_reason(self) -> str | None:
        return None if self.is_open else "closed"


@dataclass
class FakeLease:
    connection: FakeConnection
    upstream: Upstream
    uses: int
    waited: float = 0.0

    @property
    def reused(self) -> bool:
        return self.uses > 1

    def use_again(self) -> bool:
        self.uses += 1
        return True

    def is_wanted_before(self, lane: int) -> bool:
        return False


class SingleThreaded:
    """Runs the policy without threads, sockets and waiting."""

    def __init__(self, case: Case) -> None:
        self.clock = Clock()
        config = case.config(*range(2501, 2501 + len(case.servers)))
        self.upstreams = upstreams(config, self.clock)
        self.events = {
            id(each): list(events) for each, events in zip(self.upstreams, case.servers, strict=True)
        }
        self.opened = dict.fromkeys(self.events, 0)
        self.taken = dict.fromkeys(self.events, 0)
        self.idle: dict[int, list[FakeLease]] = {key: [] for key in self.events}
        self.lease: FakeLease | None = None
        router = Router(self.upstreams, random=lambda: 0.0)
        self.policy = Policy(config, router, Log.of(config), clock=self.clock, random=lambda: 0.0)

    def send(self, deadline: float | None) -> SendResult:
        """One send of a mailer: the connection is given back at its end."""
        message = Outgoing(Envelope(SENDER, [RECIPIENT]), render(MAIL))
        limit = Deadline.after(deadline, self.clock)
        try:
            return self.run(self.policy.deliver(message, NORMAL_LANE, limit))
        finally:
            self.give_back(Release())

    def run(self, flow: Flow[SendResult]) -> SendResult:
        try:
            step = flow.send(None)
            while True:
                try:
                    answer = self.perform(step)
                except MailbridgeError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: SendResult = end.value
            return result

    def perform(self, step: Step) -> object:
        match step:
            case Acquire():
                self.lease = self.acquire(step.candidate, fresh=step.fresh)
                self.policy.lease = self.lease
                return self.lease
            case Transact():
                return self.transact(step)
            case Release():
                return self.give_back(step)
            case Pause():
                return self.clock.sleep(step.seconds)
            case _:
                raise AssertionError(f"no rate is set, and {step} was awaited")

    def acquire(self, candidate: Candidate, *, fresh: bool) -> FakeLease:
        upstream = candidate.upstream
        key = id(upstream)
        if fresh:
            self.idle[key].clear()
        if self.idle[key]:
            lease = self.idle[key].pop()
            lease.uses += 1
            return lease
        if (why := upstream.breaker.hold()) is not None:
            raise copy(why)
        upstream.login_breaker.check()
        self.opened[key] += 1
        events = self.events[key]
        if events and events[0] in OPENINGS:
            self.fail_to_open(upstream, OPENINGS[events.pop(0)])
        return FakeLease(FakeConnection(), upstream, uses=1)

    def fail_to_open(self, upstream: Upstream, event: Event) -> None:
        assert event.error is not None
        error = event.error()
        try:
            if error.stage == "auth":
                with upstream.login_breaker.attempt(Deadline()):
                    raise error
            raise error
        except MailbridgeError:
            upstream._note_failure(error, 0)
            raise

    def transact(self, step: Transact) -> SendResult:
        assert self.lease is not None
        upstream = self.lease.upstream
        events = self.events[id(upstream)]
        event = TRANSACTIONS[events.pop(0) if events and events[0] in TRANSACTIONS else "taken"]
        if event.error is not None:
            if event.is_lost:
                self.lease.connection.is_open = False
                self.lease = self.policy.lease = None
            raise event.error()
        self.taken[id(upstream)] += 1
        return SendResult(
            accepted=(RECIPIENT,),
            rejected={},
            response=reply("250 2.0.0 ok"),
            envelope=step.message.envelope,
            message_size=step.message.rendered.size,
            server=upstream.config.server,
        )

    def give_back(self, step: Release) -> None:
        lease, self.lease, self.policy.lease = self.lease, None, None
        if lease is not None and lease.connection.is_open and not step.reason:
            self.idle[id(lease.upstream)].append(lease)


def single_threaded(case: Case) -> Story:
    """The case without sockets and without waiting."""
    driver, story = SingleThreaded(case), Story()
    names = [upstream.config.server for upstream in driver.upstreams]
    for _ in case.told:
        story.note(names, lambda: driver.send(case.deadline))
    story.opened, story.taken = list(driver.opened.values()), list(driver.taken.values())
    story.pauses = driver.clock.pauses
    return story


DRIVERS = {"threads": with_threads, "single-threaded": single_threaded}

CASES = {
    # One server
    "a warm connection": Case(
        servers=[[]], told=["server 1 attempt 1", "server 1 attempt 1 again"], opened=[1], taken=[2]
    ),
    "a stale connection is replaced, which is no attempt": Case(
        servers=[["taken", "mail lost"]],
        told=["server 1 attempt 1", "server 1 attempt 1"],
        opened=[2],
        taken=[2],
    ),
    "one that says goodbye to MAIL, too": Case(
        servers=[["taken", "mail 421"]],
        told=["server 1 attempt 1", "server 1 attempt 1"],
        opened=[2],
        taken=[2],
    ),
    "but once only": Case(
        servers=[["taken", "mail lost", "mail lost"]],
        told=["server 1 attempt 1", "ConnectionLost mail_from"],
        opened=[2],
        taken=[1],
    ),
    "a new connection that is lost is not replaced": Case(
        servers=[["mail lost"]], told=["ConnectionLost mail_from"], opened=[1], taken=[0]
    ),
    "what may have been accepted is never sent again": Case(
        servers=[["taken", "final lost"]],
        told=["server 1 attempt 1", "ConnectionLost final unknown"],
        opened=[1],
        taken=[1],
        attempts=5,
    ),
    "a refusal is final": Case(
        servers=[["rcpt 550"]],
        told=["RecipientsRefused rcpt_to 550", "server 1 attempt 1 again"],
        opened=[1],
        taken=[1],
        attempts=3,
    ),
    "a transient refusal is told where there is no retry": Case(
        servers=[["mail 451"]], told=["SenderRefused mail_from 451"], opened=[1], taken=[0]
    ),
    "and tried again with it": Case(
        servers=[["mail 451", "data 451"]],
        told=["server 1 attempt 3 again"],
        opened=[1],
        taken=[1],
        attempts=3,
        pauses=[1.0, 2.0],
    ),
    "as often as it says": Case(
        servers=[["final 451", "final 451", "final 451"]],
        told=["MessageRefused final 451"],
        opened=[1],
        taken=[0],
        attempts=3,
        pauses=[1.0, 2.0],
    ),
    "but not beyond the deadline": Case(
        servers=[["final 451", "final 451", "final 451"]],
        told=["MessageRefused final 451"],
        opened=[1],
        taken=[0],
        attempts=3,
        pauses=[1.0],
        deadline=2.5,
    ),
    "a login that was refused is not tried for the next message": Case(
        servers=[["auth 535"]],
        told=["AuthenticationFailed auth 535", "AuthenticationFailed auth 535"],
        opened=[1],
        taken=[0],
        attempts=3,
    ),
    "three failures open the breaker, and the fourth message is told without a connection": Case(
        servers=[["greeting lost", "greeting lost", "greeting lost"]],
        told=["ConnectionLost greeting"] * 4,
        opened=[3],
        taken=[0],
    ),
    "with retry the message waits for the probe": Case(
        servers=[["greeting lost", "greeting lost", "greeting lost"]],
        told=["server 1 attempt 4"],
        opened=[4],
        taken=[1],
        attempts=4,
        pauses=[1.0, 2.0, 4.0],
    ),
    # Two servers
    "the next server gets what the first could not take": Case(
        servers=[["greeting 421"], []],
        told=["server 2 attempt 1", "server 1 attempt 1"],
        opened=[2, 1],
        taken=[1, 1],
    ),
    "also what it lost before the content": Case(
        servers=[["mail lost"], []], told=["server 2 attempt 1"], opened=[1, 1], taken=[0, 1]
    ),
    "also for a refused login": Case(
        servers=[["auth 535"], []],
        told=["server 2 attempt 1", "server 2 attempt 1 again"],
        opened=[1, 1],
        taken=[0, 2],
    ),
    "never what the first may have": Case(
        servers=[["final lost"], []], told=["ConnectionLost final unknown"], opened=[1, 0], taken=[0, 0]
    ),
    "never what the first refused": Case(
        servers=[["mail 550"], []], told=["SenderRefused mail_from 550"], opened=[1, 0], taken=[0, 0]
    ),
    "nor what it refused for its content": Case(
        servers=[["final 554"], []], told=["MessageRefused final 554"], opened=[1, 0], taken=[0, 0]
    ),
    "nor a recipient that is greylisted": Case(
        servers=[["rcpt 450"], []], told=["RecipientsRefused rcpt_to 450"], opened=[1, 0], taken=[0, 0]
    ),
    "after three failures the first is asked last": Case(
        servers=[["greeting 554"] * 3, []],
        told=["server 2 attempt 1", *["server 2 attempt 1 again"] * 3],
        opened=[3, 1],
        taken=[0, 4],
    ),
    "if all fail, the last transient error is told": Case(
        servers=[["greeting 421"], ["greeting 554"]],
        told=["GreetingRefused greeting 421"],
        opened=[1, 1],
        taken=[0, 0],
    ),
    "and retry asks all again": Case(
        servers=[["greeting 421"], ["greeting lost"]],
        told=["server 1 attempt 2"],
        opened=[2, 1],
        taken=[1, 0],
        attempts=2,
        pauses=[1.0],
    ),
}
