"""Faults: what a scripted server does wrong, where, and when.

A `Fault` is a value; `FaultPlan` decides which one is due; performing.py carries it out. A fault fires once
(or every time, with `occurrence=None`) and the server is healthy before and after it. The meaning of stages
belongs to the session, and nothing here decides whether a message is committed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

__all__ = ["Fault", "FaultPlan", "Kind", "Stage", "Then", "as_wire"]

Stage = Literal[
    "connect",
    "greeting",
    "ehlo",
    "helo",
    "starttls",
    "tls",
    "ehlo_tls",
    "auth",
    "mail",
    "rcpt",
    "data",
    "chunk",
    "content",
    "final",
    "idle",
    "rset",
    "noop",
    "quit",
    "script",
]
Kind = Literal[
    "close",
    "reset",
    "silence",
    "stall",
    "half",
    "garbage",
    "endless",
    "endless_line",
    "drip",
    "double",
    "split",
    "late",
    "extra",
    "reply",
    "early",
    "mixed",
    "wrong_code",
    "four_digits",
]
Then = Literal["continue", "close", "reset", "silence"]

# The regular reply goes out, whole, whatever else happens to it: so what it promised holds.
KEEPS_REPLY: frozenset[Kind] = frozenset({"double", "split", "late", "extra"})
NEEDS_REPLY: frozenset[Kind] = frozenset({"extra", "reply"})
# Before the greeting there is no reply that could be cut or doubled.
NOT_AT_CONNECT: frozenset[Kind] = frozenset({"half", "double", "split", "extra", "mixed", "four_digits"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at one place.

    `stage` is the reply to that command, and besides: "connect", right after accept and before implicit TLS;
    "greeting"; "tls", in place of the server's first handshake flight; "ehlo_tls", the EHLO after STARTTLS;
    "auth", each reply of an AUTH exchange; "content", once `after` bytes of content were read; "final", the
    reply to the dot or to BDAT LAST, in LMTP each recipient's; "chunk", the reply to a BDAT that is not the
    last; "idle", right behind the final one. A reset at "connect" or "greeting" may be met by the client's
    connect() already.

    `kind`:

    * close: FIN, without close_notify. reset: RST. silence: reads, never answers. stall: does not even read.
    * half: the first `at` bytes of the reply (default: half of it), then `then` (default: silence).
    * garbage: bytes that are no SMTP, or `reply`. wrong_code: 999. four_digits. mixed: two codes, one reply.
    * endless: continuation lines without end. endless_line: one line without end. drip: a continuation line
      every `interval` seconds (default 0.2) for ever; in a handshake a byte of the flight.
    * double: the reply twice. extra: the reply with `reply` behind it in one segment. late: the reply, after
      `delay`. split: byte by byte, or in two at byte `at`, `interval` seconds apart (default 0.001).
    * reply: `reply` instead. early: the same, by default 552, for "content"; no answer to the dot follows.

    `occurrence`: fires when the stage is reached for this time, from 1; None: every time. `connection`:
    counts on that connection only, from 1; None: counts over all connections together. `delay`: seconds to
    wait first. `reply`: a str is completed by CRLF, bytes go out as they are. `commit`, for "final": whether
    the message is committed before the fault; None: yes if the reply that goes out whole is 2yz. `then`: what
    follows a fault that does not itself end the connection; by default it continues, after a 421 it closes.

    Raises ValueError for an unknown stage or kind, a kind that makes no sense at the stage, a missing
    `reply`.
    """

    stage: Stage
    kind: Kind
    _: KW_ONLY
    occurrence: int | None = 1
    connection: int | None = 1
    reply: str | bytes | None = None
    commit: bool | None = None
    after: int = 1
    at: int | None = None
    delay: float = 0.0
    interval: float | None = None
    then: Then | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("stage", Stage), ("kind", Kind)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; known: {', '.join(get_args(allowed))}"
                )
        if self.then is not None and self.then not in get_args(Then):
            raise ValueError(f"unknown then={self.then!r}; known: {', '.join(get_args(Then))}")
        if self.kind in NEEDS_REPLY and self.reply is None:
            raise ValueError(f"the fault {self.kind!r} needs reply=")
        if self.kind == "late" and not self.delay:
            raise ValueError("the fault 'late' needs delay= in seconds")
        if self.stage == "connect" and self.kind in NOT_AT_CONNECT:
            raise ValueError(f"the fault {self.kind!r} needs a reply to spoil; at 'connect' there is none")
        for name in ("occurrence", "connection"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} counts from 1, or is None; got {value}")

    @property
    def keeps_reply(self) -> bool:
        """Whether the regular reply still goes out whole."""
        return self.kind in KEEPS_REPLY


class FaultPlan:
    """The faults of one server with their counters. Safe between threads."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._lock = threading.Lock()
        self._faults = tuple(faults)
        self._seen = [0] * len(self._faults)
        self._fired: list[Fault] = []

    def take(self, stage: Stage, connection: int) -> Fault | None:
        """The fault due as `stage` is reached on `connection`; every fault for the stage counts this."""
        with self._lock:
            due: Fault | None = None
            for index, fault in enumerate(self._faults):
                if fault.stage != stage or fault.connection not in (None, connection):
                    continue
                self._seen[index] += 1
                if due is None and fault.occurrence in (None, self._seen[index]):
                    due = fault
            return due

    def note_fired(self, fault: Fault) -> None:
        with self._lock:
            self._fired.append(fault)

    @property
    def fired(self) -> tuple[Fault, ...]:
        with self._lock:
            return tuple(self._fired)

    @property
    def unfired(self) -> tuple[Fault, ...]:
        with self._lock:
            return tuple(fault for fault in self._faults if fault not in self._fired)


def as_wire(reply: str | bytes) -> bytes:
    """A reply given by the user as bytes: a str gets its CRLF, bytes are taken as they are."""
    if isinstance(reply, bytes):
        return reply
    return reply.encode("utf-8", "surrogateescape") + (b"" if reply.endswith("\n") else b"\r\n")
