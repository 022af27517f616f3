"""A clock that nobody has to wait for."""

from collections.abc import Callable, Sequence

from mailbridge.delivery.upstream import Upstream


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


def wait_by(sleep: Callable[[float], None], upstreams: Sequence[Upstream]) -> None:
    """Who waits for the rate moves the clock."""
    for upstream in upstreams:
        if upstream.limiter is not None:
            upstream.limiter.pause = lambda _, seconds: sleep(seconds)
