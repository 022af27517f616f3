"""Rates as the server sees them: never too many, over connections, threads and processes; urgent mail first.

What counts is when the server reads MAIL, by its own clock, which is that of this machine. For the limit of
one process nothing is allowed for: a message has left after the server answered its DATA, so whatever the
machine does in between, the one that takes its place comes `per` seconds later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailbridge import Mailer
from mailbridge.testing import ScriptedServer
from tests.acceptance.crowd import in_threads
from tests.acceptance.programs import options_for, run
from tests.acceptance.sending import committed, config_for, envelope, message
from tests.rates import is_within
from tests.servers.redis import Redis

CROWD = """
first, threads, each = map(int, sys.argv[1:])
with Mailer(CONFIG) as mailer:
    def send(number):
        for more in range(each):
            mailer.send(message(number * each + more), envelope=envelope())
    in_threads([lambda n=n: send(first + n) for n in range(threads)])
    stats = mailer.stats()
    assert stats.opened_total <= CONFIG.pool.max_size, stats
"""


class Arrivals:
    """When the server read each MAIL."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, sender: str) -> None:
        self.times.append(time.monotonic())


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals()


@pytest.fixture
def server(arrivals: Arrivals) -> Iterator[ScriptedServer]:
    with ScriptedServer(mail_replies=arrivals) as server:
        yield server


def test_five_connections_and_twenty_threads_keep_the_limit_of_five_seconds(
    server: ScriptedServer, arrivals: Arrivals
) -> None:
    options = options_for(server, rate={"limit": 40, "per": 5.0})
    run(CROWD, options, "0", "20", "3")
    assert committed(server) == dict.fromkeys(range(60), 1)
    assert len(server.connections) <= 5
    assert is_within(arrivals.times, 40, 5.0)
    assert max(arrivals.times) - min(arrivals.times) < 9, "the limit is used: the third window is not"


def test_one_in_half_a_second_is_never_two_over_five_connections(
    server: ScriptedServer, arrivals: Arrivals
) -> None:
    run(CROWD, options_for(server, rate={"limit": 1, "per": 0.5}), "0", "6", "1")
    assert committed(server) == dict.fromkeys(range(6), 1)
    assert is_within(arrivals.times, 1, 0.5)
    assert max(arrivals.times) - min(arrivals.times) < 4


@pytest.mark.needs("redis")
def test_three_processes_share_a_limit_over_redis(
    server: ScriptedServer, arrivals: Arrivals, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE", "30 5")
    monkeypatch.setenv("RATE_PLACE", redis.url)
    _three_processes(server, "over_redis")
    assert is_within(arrivals.times, 30, 5.0)
    assert max(arrivals.times) - min(arrivals.times) < 9


@pytest.mark.needs("django")
@pytest.mark.parametrize("limiter", ["over_files", "over_database"])
def test_three_processes_share_a_limit_over_djangos_cache(
    limiter: str,
    server: ScriptedServer,
    arrivals: Arrivals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RATE", "15 1")
    monkeypatch.setenv("RATE_PLACE", str(tmp_path))
    _three_processes(server, limiter)
    assert is_within(arrivals.times, 15, 1.0)


def _three_processes(server: ScriptedServer, limiter: str) -> None:
    """Each with its own connections, 42 messages in all."""
    options = options_for(server, rate=f"tests.acceptance.limiters.{limiter}")
    with ThreadPoolExecutor(3) as pool:
        for ended in [pool.submit(run, CROWD, options, str(7 * n), "7", "2") for n in range(3)]:
            ended.result()
    assert committed(server) == dict.fromkeys(range(42), 1)
    assert len({each.connection for each in server.messages}) > 3


def test_a_password_reset_overtakes_twenty_that_wait(server: ScriptedServer) -> None:
    with Mailer(config_for(server, rate={"limit": 5, "per": 1.0})) as mailer:
        begun = threading.Barrier(21)

        def bulk(number: int) -> None:
            begun.wait(10)
            mailer.send(message(number), envelope=envelope())

        def urgent() -> None:
            begun.wait(10)
            server.wait_for(lambda: len(server.messages) == 5)  # for the next one there is a second's time
            mailer.send(message(99), envelope=envelope(), priority="high")

        in_threads([*(lambda n=n: bulk(n) for n in range(20)), urgent])  # type: ignore[misc]
        senders = list(committed(server))
    assert len(senders) == 21
    # Five go together, in any order.
    assert 99 in senders[5:10]
