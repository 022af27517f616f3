"""Under gevent the pool's threads are greenlets, and a kill or a `gevent.Timeout` can come at any switch."""

import subprocess
import sys
from pathlib import Path

import pytest

# Left out in the environment of the core alone; wherever the extra `test` is installed, gevent is there.
gevent = pytest.importorskip("gevent")

ROOT = Path(__file__).parents[2]
SECONDS = 60

PROGRAM = """
from gevent import monkey
monkey.patch_all()

import random

import gevent
from mailbridge.errors import PoolTimeout
from mailbridge.deadline import Deadline
from mailbridge.config.groups import PoolOptions
from mailbridge.pool import Pool
from tests.unit.pool.fakes import World

assert monkey.is_module_patched("threading")


def new_pool(world, **options):
    return Pool(world.open, PoolOptions(**{"max_size": 1, "acquire_timeout": 20.0, **options}))


def settle(greenlet):
    greenlet.join(20)
    assert greenlet.dead, "hangs"
    return greenlet.value


def killed_while_waiting():
    pool = new_pool(World())
    lease = pool.acquire()
    waiting = gevent.spawn(pool.acquire)
    gevent.sleep(0)
    assert pool.stats().waiting == 1
    waiting.kill()
    assert (pool.stats().waiting, pool.stats().lent) == (0, 1)
    pool.release(lease, reusable=True)
    assert pool.acquire().connection is lease.connection


def killed_in_the_moment_of_the_hand_over():
    pool = new_pool(World())
    lease = pool.acquire()
    waiting = gevent.spawn(pool.acquire)
    gevent.sleep(0)
    waiting.kill(block=False)  # comes at the next switch, and by then it has got the place
    pool.release(lease, reusable=True)
    assert (pool.stats().waiting, pool.stats().lent) == (0, 1)
    settle(waiting)
    assert isinstance(waiting.value, gevent.GreenletExit)
    stats = pool.stats()
    assert (stats.lent, stats.opening, stats.closing) == (0, 0, 0)
    pool.acquire(Deadline.after(0))


def killed_while_opening():
    world = World()
    world.on_open = lambda _: gevent.sleep(60)
    pool = new_pool(world)
    opening = gevent.spawn(pool.acquire)
    gevent.sleep(0)
    assert pool.stats().opening == 1
    following = gevent.spawn(pool.acquire)
    gevent.sleep(0)
    world.on_open = lambda _: None
    opening.kill()
    assert settle(following).connection.number == 0
    assert pool.stats().size == 1


def timed_out_while_closing():
    world = World()
    pool = new_pool(world)
    lease = pool.acquire()
    world.on_close = lambda _: gevent.sleep(60)
    try:
        with gevent.Timeout(0.01):
            pool.release(lease, reusable=False)
    except gevent.Timeout:
        pass
    else:
        raise AssertionError("not timed out")
    assert lease.connection.abandons == 1
    assert pool.stats().size == 0


def served_in_order():
    pool = new_pool(World())
    served = []

    def use(number):
        with pool.acquire():
            served.append(number)
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(use, number) for number in range(20)], timeout=20)
    assert served == list(range(20))


def pool_timeout():
    pool = new_pool(World(), acquire_timeout=0.01)
    pool.acquire()
    try:
        pool.acquire()
    except PoolTimeout:
        return
    raise AssertionError("no time limit")


def closing_answers_everyone():
    world = World()
    pool = new_pool(world)
    lease = pool.acquire()
    waiting = [gevent.spawn(pool.acquire) for _ in range(5)]
    gevent.sleep(0)
    closing = gevent.spawn(pool.close, 20.0)
    gevent.joinall(waiting, timeout=20)
    assert [type(w.exception).__name__ for w in waiting] == ["PoolClosed"] * 5
    assert not closing.dead
    pool.release(lease, reusable=True)
    settle(closing)
    assert world.open_now == set()


def kills_at_random():
    world = World()
    pool = new_pool(world, max_size=4)
    chance = random.Random(7)
    world.on_open = world.on_look = world.on_close = lambda _: gevent.sleep(0)

    def work():
        for number in range(20):
            try:
                with gevent.Timeout(chance.random() * 0.002, False), pool.acquire(fresh=number % 7 == 0):
                    gevent.sleep(0)
            except OSError:
                pass

    workers = [gevent.spawn(work) for _ in range(40)]
    for victim in workers[::4]:
        gevent.sleep(0.001)
        victim.kill(block=False)
    gevent.joinall(workers, timeout=30)
    assert all(worker.dead for worker in workers)
    stats = pool.stats()
    assert (stats.lent, stats.opening, stats.closing, stats.waiting) == (0, 0, 0, 0), stats
    assert stats.size == len(world.open_now)
    assert world.most <= 4
    assert stats.closed_total["interrupted"] > 0
    assert stats.waits_total > 0


for scene in (
    killed_while_waiting,
    killed_in_the_moment_of_the_hand_over,
    killed_while_opening,
    timed_out_while_closing,
    served_in_order,
    pool_timeout,
    closing_answers_everyone,
    kills_at_random,
):
    scene()
    print(scene.__name__)
"""


def test_under_gevent() -> None:
    assert gevent.version_info
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-1] == "kills_at_random"
