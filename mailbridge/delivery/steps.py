"""The steps that the policy awaits: where it would block, or somebody else's code runs.

A driver performs each of them: `delivery.session` with threads, on pools and sockets.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mailbridge.deadline import Deadline
from mailbridge.delivery.router import Candidate
from mailbridge.message.envelope import Envelope
from mailbridge.ratelimit.permits import Permit
from mailbridge.rendering.render import Rendered
from mailbridge.results import SendResult
from mailbridge.smtp.flows.content import Progress


class Connected(Protocol):
    """What the policy reads of a connection."""

    @property
    def id(self) -> str: ...

    @property
    def round_trips(self) -> int: ...

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time spent on it so far, by stage."""

    def unusable_reason(self) -> str | None:
        """Why it can't be used again; None if it can. Never blocks."""


class Held(Protocol):
    """A connection on loan; `pool.Lease`."""

    @property
    def connection(self) -> Connected: ...

    @property
    def uses(self) -> int:
        """By how many callers and messages so far, this one included: 1 means that it was opened for it."""

    @property
    def waited(self) -> float: ...

    def use_again(self) -> bool: ...

    def is_wanted_before(self, lane: int) -> bool:
        """Whether a message of an earlier lane waits for a connection."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message as it goes out. No repr shows what it says."""

    envelope: Envelope = field(repr=False)
    rendered: Rendered = field(repr=False)
    progress: Progress | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Acquire:
    """Lend a connection with the server of `candidate`; with `fresh` a new one. Gives a `Held`.

    The driver holds it, too: whatever happens, it is given back when the caller's run of messages ends.
    Raises `MailbridgeError`. Failures to open are told to `Upstream.note` where they happen.
    """

    candidate: Candidate
    limit: Deadline
    lane: int
    fresh: bool

    def __await__(self) -> Generator["Acquire", Held, Held]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Transact:
    """Send the message on the connection that is held. Gives a `SendResult`, or raises.

    A connection that is closed afterwards has been given back.
    """

    message: Outgoing
    permit: Permit | None
    limit: Deadline

    def __await__(self) -> Generator["Transact", SendResult, SendResult]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Release:
    """Give back the connection that is held, if one is; "stale" as one that can't be used again."""

    reason: str = ""

    def __await__(self) -> Generator["Release", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class WaitForPermit:
    """Return when permission to send is near. Raises `DeadlineExceeded`."""

    permit: Permit
    limit: Deadline

    def __await__(self) -> Generator["WaitForPermit", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class TakePermit:
    """Permission to send, if there still is one: the rate limiter may be the user's own function."""

    permit: Permit
    limit: Deadline

    def __await__(self) -> Generator["TakePermit", bool, bool]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Pause:
    """Let so many seconds pass."""

    seconds: float

    def __await__(self) -> Generator["Pause", None, None]:
        return (yield self)


Step = Acquire | Transact | Release | WaitForPermit | TakePermit | Pause
#: What a driver gives back for a step.
Answer = Any
