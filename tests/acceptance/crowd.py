"""Doing things in many threads at once, within a time limit, without losing an error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

SECONDS = 20


def in_threads(acts: Iterable[Callable[[], object]]) -> None:
    """Runs each in a thread, all at once; the first error of any of them is raised."""
    acts = list(acts)
    start = threading.Barrier(len(acts))
    errors: list[BaseException] = []

    def run(act: Callable[[], object]) -> None:
        try:
            start.wait(SECONDS)
            act()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), "hangs"
    if errors:
        raise errors[0]


def side_by_side(check: Callable[..., object], cases: Iterable[tuple[Any, ...]]) -> None:
    """Checks all cases at the same time: they spend it waiting. An error names its case."""

    def checked(*case: Any) -> None:
        try:
            check(*case)
        except BaseException as error:
            error.add_note(f"The case: {case}")
            raise

    in_threads(partial(checked, *case) for case in cases)
