"""The faults of the tables: at each step of a dialogue, in each way, and how long such a case takes.

Cases that take a time limit to its end are run side by side.
"""

from __future__ import annotations

from typing import Any

import pytest

from mailbridge.testing import Fault
from tests.servers.certificates import Certificates

REPLIES = {"421": "421 4.3.2 Closing", "4yz": "450 4.7.1 Not now", "5yz": "550 5.7.1 Never"}
TAKES_ALL_ITS_TIME = {"silence", "half", "drip"}
# Seconds, for the stage of a case that takes all its time; whatever else is said in that stage, too, must be
# said within it.
LIMIT = 0.8
# The same where nobody reads the content: on another connection all of it must get through within the limit.
LIMIT_FOR_CONTENT = 2.0
PATIENT = 10.0  # seconds, where the limit must not be what ends the case
# More than the buffers of both sides can hold, so that the dot stays here until the server reads on.
BIG = 8 << 20
SMALL = 0


def fault_at(step: str, how: str, *, occurrence: int = 1) -> Fault:
    stage = {"implicit": "tls", "challenge": "auth", "verdict": "auth"}.get(step, step)
    occurrence = 2 if step == "verdict" else occurrence
    options: dict[str, object] = {"occurrence": occurrence, "connection": 1}
    kind = how
    if how in REPLIES:
        kind, options["reply"] = "reply", REPLIES[how]
    elif how == "silence" and step == "content":
        kind = "stall"  # does not even read, so that the content never gets to its end
    elif how == "reset" and step in ("connect", "greeting"):
        options["delay"] = 0.1  # one that is faster than the client's connect() is a ConnectFailed
    elif how == "drip":
        options["interval"] = LIMIT / 8
    if step == "final" and how not in REPLIES:
        options["commit"] = True  # the worst case: the server has it, and the caller is not told
    return Fault(stage, kind, **options)  # type: ignore[arg-type]  # Fault checks what it is given


def time_limit(step: str, how: str) -> float:
    """Seconds that the case takes by its nature; 0 if the server's bytes are enough to know."""
    if how not in TAKES_ALL_ITS_TIME:
        return 0.0
    return LIMIT_FOR_CONTENT if (step, how) == ("content", "silence") else LIMIT


def timeouts(step: str, how: str) -> dict[str, float]:
    """Time limits of which only that of the step can run out."""
    patient = dict.fromkeys(("connect", "greeting", "command", "data", "final"), PATIENT)
    if not (limit := time_limit(step, how)):
        return patient
    own = {"connect": "greeting", "greeting": "greeting", "tls": "connect", "implicit": "connect"}
    own["final"] = "final"
    if how == "silence":  # else there is the beginning of an answer, and its rest is waited for
        own["content"] = "data"
    return patient | {own.get(step, "command"): limit}


def ending_at_once(found: list[Any]) -> Any:
    """Those that cost no time. Of content there is so much that it is not sent side by side."""
    return [
        pytest.param(*case, id=f"{case[0]}-{case[1]}")
        for case in found
        if case[0] == "content" or case[1] not in TAKES_ALL_ITS_TIME
    ]


def ending_in_time(found: list[Any]) -> Any:
    """The others, by step."""
    others = [case for case in found if case[0] != "content" and case[1] in TAKES_ALL_ITS_TIME]
    steps = dict.fromkeys(case[0] for case in others)
    return [pytest.param([case for case in others if case[0] == step], id=step) for step in steps]


def both_ways(certificates: Certificates, found: list[Any]) -> list[Any]:
    """The cases, pipelined and in lockstep."""
    return [(certificates, *case, pipelining) for case in found for pipelining in (True, False)]
