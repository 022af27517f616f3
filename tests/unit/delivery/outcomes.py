"""One table of outcomes, and two drivers of the policy that must agree on it.

A case says, for each server, what becomes of its connections and transactions, one after the other. The first
driver is `Session`, with threads and sockets, against `ScriptedServer`; the second has neither.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.unit.delivery.cases import Case, Story, told
from tests.unit.delivery.single_threaded import SingleThreaded
from tests.unit.delivery.threads import Threads

DRIVERS: dict[str, Callable[[Case, ExitStack], Threads | SingleThreaded]] = {
    "threads": Threads,
    "single-threaded": SingleThreaded,
}


def story_of(case: Case, driver: Threads | SingleThreaded) -> Story:
    """What the driver makes of the case. In a session, "gave up" says that no connection could be had."""
    names, story = [upstream.config.server for upstream in driver.upstreams], Story()
    with ExitStack() as stack:
        session: Any = stack.enter_context(driver.session()) if case.session else None
        for _ in case.told:
            text = told(names, lambda: driver.send(case.deadline, session))
            gave_up = session is not None and session.failure is not None
            story.told.append(text + " gave up" * gave_up)
    story.opened, story.taken, story.pauses = driver.opened, driver.taken, driver.clock.pauses
    return story
