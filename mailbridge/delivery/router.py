"""Which of several servers a message is offered to, and in which order. Asks nobody, waits for nothing.

By priority, among equals by chance and weight. Chance rather than turns: a process that sends one mail and
ends would always take the first turn, and workers that start together would take turns together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from typing import Protocol, TypeVar

from mailbridge.deadline import NEVER, Deadline
from mailbridge.delivery.breakers import not_asked
from mailbridge.delivery.upstream import Upstream
from mailbridge.errors import MailbridgeError


class Weighted(Protocol):
    """What has a place in the order."""

    @property
    def priority(self) -> int: ...

    @property
    def weight(self) -> int: ...


W = TypeVar("W", bound=Weighted)


def in_order(servers: Iterable[W], random: Callable[[], float], *, preferred: W | None = None) -> list[W]:
    """All of `servers`, the lowest priority number first, equals in an order drawn by weight.

    `preferred` is the first of its equals, because there is a session with it already.
    """
    order: list[W] = []
    for _, group in groupby(sorted(servers, key=lambda each: each.priority), key=lambda each: each.priority):
        equals = list(group)
        if preferred is not None and preferred in equals:
            equals.remove(preferred)
            order.append(preferred)
        while equals:
            order.append(equals.pop(_drawn(equals, random)))
    return order


def _drawn(servers: Sequence[Weighted], random: Callable[[], float]) -> int:
    """The index of one, each as likely as its weight."""
    if len(servers) == 1:
        return 0
    point = random() * sum(server.weight for server in servers)
    for index, server in enumerate(servers):
        point -= server.weight
        if point < 0:
            return index
    return len(servers) - 1  # a `random` that gives 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server to try now, with the seconds that its session may take to open (infinity: no limit).

    `others` counts the servers behind it that nothing is known against; they share what is left of `whole`,
    the time for the send.
    """

    upstream: Upstream
    open_within: float
    others: int
    whole: Deadline = NEVER

    def opening_limit(self, limit: Deadline) -> Deadline:
        """When its session must be open, within `limit`: not so late that the others have no time left."""
        seconds = min(self.open_within, self._share)
        return limit if seconds == inf else limit.within(seconds)

    def sending_limit(self, limit: Deadline) -> Deadline:
        """The time for a message. Its content, and the answer to that, can't be cut short to no harm."""
        return limit.with_commands_within(self._share) if self.others else limit

    @property
    def _share(self) -> float:
        left = self.whole.remaining
        return inf if left is None or not self.others else left / (self.others + 1)


@dataclass(slots=True)
class AttemptLog:
    """What failed so far for one message: all errors in their order, and the last one of each server."""

    errors: list[MailbridgeError] = field(default_factory=list)
    by_server: dict[str, MailbridgeError] = field(default_factory=dict)

    def note(self, upstream: Upstream, error: MailbridgeError) -> None:
        self.errors.append(error)
        self.by_server[upstream.name] = error

    def note_passed_over(self, upstream: Upstream) -> None:
        """It was not asked, for what it did to earlier messages."""
        error = upstream.breaker.error
        if error is not None and upstream.name not in self.by_server:
            self.by_server[upstream.name] = not_asked(error, upstream.breaker.seconds_left)

    def others_than(self, error: MailbridgeError) -> tuple[MailbridgeError, ...]:
        return tuple(each for each in self.errors if each is not error)

    def of_others(self, taker: Upstream | None) -> dict[str, MailbridgeError]:
        """Why the others did not get it; without tracebacks, which hold the message."""
        own = taker.name if taker is not None else None
        kept = {name: copy(error) for name, error in self.by_server.items() if name != own}
        for error in kept.values():
            error.attempts = ()
        return kept


class Router:
    """The servers of one mailer. Holds no state but theirs."""

    def __init__(self, upstreams: Sequence[Upstream], *, random: Callable[[], float]) -> None:
        self.upstreams = tuple(upstreams)
        self._random = random

    def candidates(
        self, attempt_log: AttemptLog, whole: Deadline = NEVER, *, preferred: Upstream | None = None
    ) -> Iterator[Candidate]:
        """The servers to offer one message to, until one has it or `whole`, the time for it, is over.

        Those that are passed over come last, who is due soonest first: no message is refused without
        having been offered to everybody. A server is asked whether it is passed over when its turn comes.
        """
        if len(self.upstreams) == 1:
            yield Candidate(self.upstreams[0], inf, 0)
            return
        order = in_order(self.upstreams, self._random, preferred=preferred)
        passed_over: list[Upstream] = []
        for number, upstream in enumerate(order, start=1):
            open_within = upstream.breaker.open_within()
            if open_within is None:
                attempt_log.note_passed_over(upstream)
                passed_over.append(upstream)
            else:
                others = sum(not each.breaker.is_open for each in order[number:])
                yield Candidate(upstream, open_within, others, whole)
        for upstream in sorted(passed_over, key=lambda each: each.breaker.seconds_left):
            yield Candidate(upstream, inf, 0)

    @property
    def seconds_held(self) -> float:
        """How long no server can be asked; 0 if one can."""
        return min(upstream.seconds_held for upstream in self.upstreams)
