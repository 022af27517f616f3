"""What the pool's tests lend instead of connections, and a clock that moves when told to."""

import threading
from collections.abc import Callable
from typing import Any

from mailbridge.config.groups import PoolOptions
from mailbridge.deadline import Deadline
from mailbridge.pool import Lease, Pool

# Long enough for any thread of a busy machine; a test that needs it all has failed.
PATIENCE = 20.0


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Thing:
    """Knows what was done to it. Closing twice is allowed, as with a socket."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.flaw: str | None = None
        self.looks = 0
        self.closes = 0
        self.abandons = 0

    def unusable_reason(self) -> str | None:
        self.looks += 1
        self.world.on_look(self)
        return self.flaw

    def close(self) -> None:
        self.closes += 1
        self.world.on_close(self)
        self.world.forget(self)

    def abandon(self) -> None:
        self.abandons += 1
        self.world.forget(self)

    def __repr__(self) -> str:
        return f"<Thing {self.number}>"


def nothing(_: Any) -> None:
    pass


class World:
    """The server's side: all things ever opened, those open now, and the most there ever were at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened: list[Thing] = []
        self.open_now: set[Thing] = set()
        self.most = 0
        self.deadlines: list[Deadline] = []
        self.on_open: Callable[[Deadline], None] = nothing
        self.on_look: Callable[[Thing], None] = nothing
        self.on_close: Callable[[Thing], None] = nothing

    def open(self, deadline: Deadline) -> Thing:
        self.deadlines.append(deadline)
        self.on_open(deadline)
        with self.lock:
            connection = Thing(self, len(self.opened))
            self.opened.append(connection)
            self.open_now.add(connection)
            self.most = max(self.most, len(self.open_now))
        return connection

    def forget(self, connection: Thing) -> None:
        with self.lock:
            self.open_now.discard(connection)


def pool_of(world: World, clock: FakeClock | None = None, **options: Any) -> Pool[Thing]:
    """A pool with no jitter, unless the test gives its own clock no meaning."""
    options = {"max_size": 2, "acquire_timeout": PATIENCE, **options}
    return Pool(
        world.open,
        PoolOptions(**options),
        name="smtp.example.com:587",
        clock=clock or FakeClock(),
        random=lambda: 0.5,
    )


class Borrower(threading.Thread):
    """A thread that acquires once; `lease` or `error` tells how it ended."""

    def __init__(self, pool: Pool[Thing], **arguments: Any) -> None:
        super().__init__(daemon=True)
        self.pool = pool
        self.arguments = arguments
        self.lease: Lease[Thing] | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.lease = self.pool.acquire(**self.arguments)
        except BaseException as error:
            self.error = error

    def result(self) -> Lease[Thing]:
        self.finish()
        assert self.error is None, self.error
        assert self.lease is not None
        return self.lease

    def failure(self) -> BaseException:
        self.finish()
        assert self.error is not None
        return self.error

    def finish(self) -> None:
        self.join(PATIENCE)
        assert not self.is_alive(), f"still waiting in {self.pool!r}"


def queue_one(pool: Pool[Thing], **arguments: Any) -> Borrower:
    """A borrower that stands in the queue when this returns."""
    before = pool.stats().waiting
    borrower = Borrower(pool, **arguments)
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if pool.stats().waiting == before + 1:
            return borrower
        pause.wait(0.001)
    raise AssertionError(f"nobody queued in {pool!r}")
