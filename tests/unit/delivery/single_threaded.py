"""The second driver of the policy: a fake clock, a fake pool, errors of the same replies, no waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass

from mailbridge import Envelope, MailbridgeError, SendResult, SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.delivery.policy import Flow, Policy
from mailbridge.delivery.router import Router
from mailbridge.delivery.steps import (
    Acquire,
    Outgoing,
    Pause,
    Release,
    Step,
    TakePermit,
    Transact,
    WaitForPermit,
)
from mailbridge.delivery.upstream import Upstream
from mailbridge.logs import Log
from mailbridge.message.priority import NORMAL_LANE
from mailbridge.ratelimit.permits import Permit
from mailbridge.rendering.render import render
from tests.unit.delivery.cases import Case
from tests.unit.delivery.clock import Clock, wait_by
from tests.unit.delivery.events import MAIL, OPENINGS, RECIPIENT, SENDER, TRANSACTIONS, Event, reply


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
    def is_worn(self) -> bool:
        return self.uses >= self.upstream.config.pool.max_messages

    def use_again(self) -> bool:
        if self.is_worn:
            return False
        self.uses += 1
        return True

    def is_wanted_before(self, lane: int) -> bool:
        return False


class SingleThreaded:
    """Runs the policy without threads, sockets and waiting. Holds no connection while time passes."""

    def __init__(self, case: Case, stack: ExitStack) -> None:
        self.clock = Clock()
        self.config = case.config(*range(2501, 2501 + len(case.servers)))
        self.upstreams = upstreams(self.config, self.clock)
        wait_by(self.sleep, self.upstreams)
        self.events = {
            id(each): list(events) for each, events in zip(self.upstreams, case.servers, strict=True)
        }
        self.idle: dict[int, list[FakeLease]] = {
            id(each): [FakeLease(FakeConnection(), each, uses=1) for _ in range(case.warm)]
            for each in self.upstreams
        }
        self.opened_by = dict.fromkeys(self.events, case.warm)
        self.taken_by = dict.fromkeys(self.events, 0)
        self.lease: FakeLease | None = None
        self.granted: Permit | None = None
        self.queue_seconds = 0.0  # what a caller is said to have waited for a connection of the pool

    @contextmanager
    def session(self) -> Iterator[Policy]:
        router = Router(self.upstreams, random=lambda: 0.0)
        self.policy = Policy(self.config, router, Log.of(self.config), clock=self.clock, random=lambda: 0.0)
        try:
            yield self.policy
        finally:
            self.give_back(Release())

    def send(self, deadline: float | None, session: Policy | None = None) -> SendResult:
        """One send of a mailer, whose connection is given back at its end; or one of a session."""
        if session is None:
            with self.session() as policy:
                return self.send(deadline, policy)
        message = Outgoing(Envelope(SENDER, [RECIPIENT]), render(MAIL))
        return self.run(session.deliver(message, NORMAL_LANE, Deadline.after(deadline, self.clock)))

    def run(self, flow: Flow[SendResult]) -> SendResult:
        try:
            step = flow.send(None)
            while True:
                try:
                    answer = self.perform(step)
                except MailbridgeError as error:
                    step = flow.throw(error)
                except BaseException as interrupt:
                    step = flow.throw(interrupt)
                    raise AssertionError(f"after an interrupt {step} was awaited") from interrupt
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: SendResult = end.value
            return result

    def perform(self, step: Step) -> object:
        match step:
            case Acquire():
                assert self.lease is None, "one is held already"
                self.lease = self.acquire(step)
                self.policy.lease = self.lease
                return self.lease
            case Transact():
                return self.transact(step)
            case Release():
                return self.give_back(step)
            case WaitForPermit():
                return step.permit.wait(step.limit)
            case TakePermit():
                self.granted = step.permit if step.permit.take(step.limit) else None
                return self.granted is not None
            case Pause():
                return self.sleep(step.seconds)

    def sleep(self, seconds: float) -> None:
        assert self.lease is None, "a connection is kept from others"
        self.clock.sleep(seconds)

    def acquire(self, step: Acquire) -> FakeLease:
        upstream = step.candidate.upstream
        key = id(upstream)
        if self.idle[key] and not step.fresh:
            lease = self.idle[key].pop()
            return FakeLease(lease.connection, upstream, lease.uses + 1, waited=self.queue_seconds)
        if (why := upstream.breaker.hold()) is not None:
            raise copy(why)
        upstream.login_breaker.check()
        self.opened_by[key] += 1
        events = self.events[key]
        if events and events[0] in OPENINGS:
            self.fail_to_open(upstream, OPENINGS[events.pop(0)], step.limit)
        return FakeLease(FakeConnection(), upstream, uses=1)

    def fail_to_open(self, upstream: Upstream, event: Event, limit: Deadline) -> None:
        assert event.error is not None
        error = event.error()
        if event.how == "silence":
            self.pass_time(limit)
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
        if step.permit is not None:
            assert self.granted is step.permit, "nobody has permitted it"
            step.permit.begin(step.limit)
            step.permit.departed()
        events = self.events[id(upstream)]
        event = TRANSACTIONS[events.pop(0) if events and events[0] in TRANSACTIONS else "taken"]
        if event.error is not None:
            if event.is_lost:
                self.lease.connection.is_open = False
                self.lease = self.policy.lease = None
            if event.how == "silence":
                self.pass_time(step.limit if event.stage == "content" else step.limit.before_content)
            raise event.error()
        self.taken_by[id(upstream)] += 1
        return SendResult(
            accepted=(RECIPIENT,),
            rejected={},
            response=reply("250 2.0.0 ok"),
            envelope=step.message.envelope,
            message_size=step.message.rendered.size,
            server=upstream.config.server,
        )

    def pass_time(self, limit: Deadline) -> None:
        assert limit.remaining is not None, "it would wait for ever"
        self.clock.now += limit.remaining

    def give_back(self, step: Release) -> None:
        lease, self.lease, self.policy.lease = self.lease, None, None
        if lease is not None and lease.connection.is_open and not step.reason and not lease.is_worn:
            self.idle[id(lease.upstream)].append(lease)

    @property
    def opened(self) -> list[int]:
        return list(self.opened_by.values())

    @property
    def taken(self) -> list[int]:
        return list(self.taken_by.values())

    @property
    def lent(self) -> int:
        return int(self.lease is not None)

    @property
    def kept(self) -> list[int]:
        return [len(idle) for idle in self.idle.values()]
