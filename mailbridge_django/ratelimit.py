"""`CacheRateLimiter`: one limit for all workers that share one of Django's caches.

    # myproject/mail.py
    limiter = CacheRateLimiter("mail", limit=14, per=1.0)

    # settings.py
    MAILERS = {"default": {..., "OPTIONS": {"rate": "myproject.mail.limiter"}}}

The times of the last messages are kept under one key, and a lock guards them: `cache.add`, which one worker
wins; for the cache in files, whose `add` two can win, a lock on a file, which holds on one machine.

Takes a cache that does not throw entries out at will, since a time that is lost is a message too many: give
the database and files a MAX_ENTRIES that is never reached (300, if nothing is said). In the database it can't
work inside a transaction, where nobody else sees what is written and a rollback undoes it; that is an error.
Under a deadline it runs on a thread and a connection of its own, outside the transaction of the caller.
It costs some round trips to the cache for each message: where there is Redis, `RedisRateLimiter` is better.
Times are those of the machines' clocks, which must agree.
"""

import fcntl
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.core.cache import BaseCache, caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.db import connections, router

from mailbridge import RateOptions

PREFIX = "mailbridge-rate-"
# Added to `per`: what lies between the permission and the moment at which a message leaves.
SLACK = 0.1
# A worker that dies with the lock holds the others up so long; far more than it takes to read and write.
LOCK_SECONDS = 10
# Longer, so that one death makes nobody else fail.
WAIT_SECONDS = 15.0
# How long writing is tried; well below LOCK_SECONDS.
KEEP_SECONDS = 2.0
# How often another worker's lock is asked for; each costs a round trip to the cache.
POLL_SECONDS = 0.01


class CacheRateLimiter:
    """At most `limit` messages in any `per` seconds (1.0), over all who use the `key` in the cache `alias`.

    `slack` (0.1 s) is added to `per`. Limiters of equal arguments are equal. The cache is opened when first
    used. Each call raises what the cache does, TimeoutError after 15 s without the lock, OSError if the cache
    does not keep what is written, RuntimeError inside a transaction: the send fails with `RateUnavailable`.
    """

    def __init__(
        self,
        key: str,
        *,
        limit: int,
        per: float = 1.0,
        alias: str = "default",
        slack: float = SLACK,
        clock: Callable[[], float] = time.time,
    ) -> None:
        rate = RateOptions(limit=limit, per=per)
        self.key, self.limit, self.per = key, rate.limit, rate.per
        self.alias = alias
        self.slack = slack
        self._clock = clock

    def __call__(self) -> float:
        """The seconds to wait; 0.0 if a message may go now, which is counted."""
        cache = caches[self.alias]
        _refuse_transaction(cache)
        with _locked(cache, PREFIX + self.key):
            return self._ask(cache)

    def __repr__(self) -> str:
        return f"CacheRateLimiter({self.key!r}, limit={self.limit}, per={self.per:g}, alias={self.alias!r})"

    def __eq__(self, other: object) -> bool:
        return self._facts == other._facts if isinstance(other, CacheRateLimiter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._facts)

    @property
    def _facts(self) -> tuple[object, ...]:
        return self.key, self.limit, self.per, self.alias, self.slack, self._clock

    def _ask(self, cache: BaseCache) -> float:
        now, period = self._clock(), self.per + self.slack
        known = cache.get(PREFIX + self.key) or []
        # After a clock was set back, times that lie ahead become the present, so that nobody waits for
        # longer than one period.
        times = [min(at, now) for at in known][-self.limit :]
        wait = times[0] + period - now if len(times) == self.limit else 0.0
        if wait <= 0:
            times = [*times, now][-self.limit :]
        if times != known:
            self._keep(cache, times, math.ceil(period) + 2)
        return max(0.0, wait)

    def _keep(self, cache: BaseCache, times: list[float], seconds: int) -> None:
        def is_kept() -> bool:
            cache.set(PREFIX + self.key, times, timeout=seconds)
            return bool(cache.get(PREFIX + self.key) == times)

        # Memcached and the database drop what they can't store, and say nothing: SQLite, say, whatever comes
        # while another worker writes, be it only to wait for our lock.
        if not _until(is_kept, KEEP_SECONDS):
            raise OSError(f"The cache {self.alias!r} did not keep the times of messages")


def _refuse_transaction(cache: BaseCache) -> None:
    if not isinstance(cache, BaseDatabaseCache):
        return
    database = router.db_for_write(cache.cache_model_class)
    if connections[database].in_atomic_block:
        raise RuntimeError(
            "A rate limiter over the cache in the database does not work inside a transaction:"
            " send after it (transaction.on_commit), or use another cache"
        )


@contextmanager
def _locked(cache: BaseCache, name: str) -> Iterator[None]:
    in_files = isinstance(cache, FileBasedCache)
    with _file_lock(cache, name) if in_files else _cache_lock(cache, name):
        yield


@contextmanager
def _cache_lock(cache: BaseCache, key: str) -> Iterator[None]:
    name, owner = f"{key}-lock", uuid.uuid4().hex
    _await_lock(lambda: cache.add(name, owner, timeout=LOCK_SECONDS))
    try:
        yield
    finally:
        # Not one that has run out meanwhile and is another worker's now.
        if cache.get(name) == owner:
            cache.delete(name)


@contextmanager
def _file_lock(cache: BaseCache, key: str) -> Iterator[None]:
    """By flock(2), which the system takes back from a process that dies."""
    folder: str = cache._dir  # type: ignore[attr-defined]  # there is no public name for it
    os.makedirs(folder, 0o700, exist_ok=True)
    name = cache.make_and_validate_key(key).encode().hex()
    descriptor = os.open(os.path.join(folder, f"{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _await_lock(lambda: _is_flocked(descriptor))
        try:
            yield
        finally:
            # Said, not left to close(): a child that was forked meanwhile has the descriptor too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _is_flocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await_lock(takes: Callable[[], bool]) -> None:
    if not _until(takes, WAIT_SECONDS):
        raise TimeoutError(f"Other workers held the rate limiter's lock for {WAIT_SECONDS:g} s")


def _until(succeeds: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not succeeds():
        if time.monotonic() >= ends:
            return False
        time.sleep(POLL_SECONDS)
    return True
