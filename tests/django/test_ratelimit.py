"""CacheRateLimiter: times in Django's cache, one worker at a time, and which caches the check warns about."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.mail import EmailMessage, get_connection
from django.db import connection, transaction
from django.test.utils import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mailbridge
from mailbridge import ConfigurationError, Envelope, SMTPConfig
from mailbridge.testing import ScriptedServer
from mailbridge_django import ratelimit
from mailbridge_django.ratelimit import PREFIX, CacheRateLimiter
from tests.django.conftest import Use
from tests.rates import is_within

BACKENDS = "django.core.cache.backends"
CACHES = ("files", "local", "table")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    entries = {"OPTIONS": {"MAX_ENTRIES": 10_000}}
    configured = {
        "default": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache", "LOCATION": "default"},
        "files": {"BACKEND": f"{BACKENDS}.filebased.FileBasedCache", "LOCATION": str(tmp_path / "cache")},
        "local": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache", "LOCATION": "rates"},
        "table": {"BACKEND": f"{BACKENDS}.db.DatabaseCache", "LOCATION": "rates", **entries},
        "dummy": {"BACKEND": f"{BACKENDS}.dummy.DummyCache"},
        "shared": {"BACKEND": f"{BACKENDS}.redis.RedisCache", "LOCATION": "redis://localhost"},
    }
    with override_settings(CACHES=configured):
        with closing(connection.cursor()) as cursor:
            cursor.execute(
                "CREATE TABLE rates (cache_key varchar(255) PRIMARY KEY, value text, expires datetime)"
            )
        yield
        with closing(connection.cursor()) as cursor:
            cursor.execute("DROP TABLE rates")
        caches["local"].clear()


@pytest.mark.parametrize("alias", CACHES)
def test_a_burst_goes_and_the_next_is_told_how_long_to_wait(alias: str) -> None:
    clock = Clock()
    limiter = CacheRateLimiter("k", limit=2, per=10, alias=alias, slack=0.5, clock=clock)
    assert (limiter(), limiter()) == (0, 0)
    clock.now += 4
    assert limiter() == 6.5
    clock.now += 6.4999
    assert limiter() == pytest.approx(0.0001, rel=0.01)
    clock.now += 0.0001
    assert (limiter(), limiter()) == (0, 0)
    assert limiter() == 10.5


def test_keys_and_equal_limiters() -> None:
    one, same = (CacheRateLimiter("k", limit=1, alias="local") for _ in range(2))
    other = CacheRateLimiter("other", limit=1, alias="local")
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert SMTPConfig(rate=one) == SMTPConfig(rate=same)
    assert one() == 0
    assert same() > 0
    assert other() == 0
    assert repr(one) == "CacheRateLimiter('k', limit=1, per=1, alias='local')"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 4), pauses=st.lists(st.sampled_from([0, 1 / 8, 1 / 4, 1 / 2, 1, 3]), max_size=40))
def test_never_too_many_and_what_is_said_holds(limit: int, pauses: list[float]) -> None:
    caches["local"].clear()
    clock, gone = Clock(), []
    limiter = CacheRateLimiter("k", limit=limit, alias="local", slack=0, clock=clock)
    for pause in pauses:
        clock.now += pause
        wait = limiter()
        if wait > 0:
            assert limiter() == wait
            clock.now += wait
            assert limiter() == 0
        gone.append(clock.now)
    assert is_within(gone, limit, 1.0)


def test_a_clock_that_is_set_back_holds_nobody_up_for_long() -> None:
    clock = Clock()
    limiter = CacheRateLimiter("k", limit=2, per=10, alias="local", slack=0, clock=clock)
    assert (limiter(), limiter()) == (0, 0)
    clock.now -= 3600
    assert limiter() == 10
    clock.now += 4
    assert limiter() == 6
    clock.now += 6
    assert limiter() == 0


def test_a_cache_that_keeps_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "KEEP_SECONDS", 0.05)
    with pytest.raises(OSError, match="did not keep the times"):
        CacheRateLimiter("k", limit=1, alias="dummy")()


def test_what_the_cache_dropped_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite does while another process writes: `set` says nothing, and nothing is there."""
    cache, drops = caches["local"], [True, True]
    set_ = cache.set

    def sometimes(*arguments: Any, **options: Any) -> None:
        if drops:
            drops.pop()
        else:
            set_(*arguments, **options)

    monkeypatch.setattr(cache, "set", sometimes)
    limiter = CacheRateLimiter("k", limit=1, per=60, alias="local")
    assert limiter() == 0
    assert limiter() > 0


def test_a_transaction_is_an_error() -> None:
    limiter = CacheRateLimiter("k", limit=1, alias="table")
    with transaction.atomic(), pytest.raises(RuntimeError, match="inside a transaction"):
        limiter()
    assert limiter() == 0


@pytest.mark.parametrize("alias", ["files", "local"])
def test_one_at_a_time(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = CacheRateLimiter("k", limit=1, alias=alias)
    monkeypatch.setattr(ratelimit, "WAIT_SECONDS", 0.05)
    with ratelimit._locked(caches[alias], PREFIX + "k"):
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                limiter()
            except TimeoutError as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
        assert len(failed) == 1
    assert limiter() == 0


def test_a_lock_that_ran_out_is_not_taken_from_who_has_it_now() -> None:
    with ratelimit._locked(caches["local"], "k"):
        caches["local"].set("k-lock", "another's")
    assert caches["local"].get("k-lock") == "another's"


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"limit": 1, "per": 0}])
def test_what_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CacheRateLimiter("k", **arguments)


WORKER = """
import sys, time
from django.conf import settings
backend, place = sys.argv[1:3]
location = "rates" if backend.endswith("DatabaseCache") else place
settings.configure(
    CACHES={"default": {"BACKEND": backend, "LOCATION": location, "OPTIONS": {"MAX_ENTRIES": 10000}}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": place + "/db",
                           "OPTIONS": {"timeout": 20}}},
)
import django
django.setup()
from django.core.management import call_command
if backend.endswith("DatabaseCache"):
    call_command("createcachetable", verbosity=0)
from mailbridge_django.ratelimit import CacheRateLimiter
limiter = CacheRateLimiter("k", limit=5, per=0.5, slack=0)
print("ready", flush=True)
ends = time.time() + float(sys.stdin.readline())
while time.time() < ends:
    # The permission is given between these two moments, by this machine's clock.
    before = time.time()
    wait = limiter()
    if wait == 0:
        print(before, time.time(), flush=True)
    time.sleep(min(wait, 0.02))
"""


@pytest.mark.parametrize("backend", [f"{BACKENDS}.db.DatabaseCache", f"{BACKENDS}.filebased.FileBasedCache"])
def test_three_processes_share_one_limit(backend: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, backend, str(tmp_path)]
    workers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(3):
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            workers.append(worker)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n", worker.communicate(timeout=20)[1]
        said = [None] * 3
        threads = [
            threading.Thread(
                target=lambda i=i: said.__setitem__(i, workers[i].communicate("2.5\n", timeout=40))
            )
            for i in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(45)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    outputs: list[tuple[str, str]] = said  # type: ignore[assignment]
    assert [errors for _, errors in outputs] == ["", "", ""]
    spans = sorted(tuple(map(float, line.split())) for output, _ in outputs for line in output.splitlines())
    assert len(spans) >= 15, "five in each half second, or nearly"
    # Permissions i and i + 5 lie half a second apart, so the later one can't be over before that.
    permissions = sorted(spans, key=lambda span: span[1])
    assert all(
        later[1] - earlier[0] >= 0.5 for earlier, later in zip(permissions, permissions[5:], strict=False)
    )


def test_its_dotted_path_in_the_settings(use: Use, server: ScriptedServer) -> None:
    use(server, rate=f"{__name__}.LIMITER")
    caches["default"].clear()
    began = time.monotonic()
    for _ in range(3):
        assert EmailMessage("s", "t", "a@x.example", ["b@y.example"]).send() == 1
    assert time.monotonic() - began >= 0.2


LIMITER = CacheRateLimiter("mail", limit=1, per=0.1, slack=0)


def test_the_priority_of_a_message(use: Use, server: ScriptedServer) -> None:
    """High mail first, where many wait for one connection."""
    use(server, pool={"max_size": 1})

    def send(name: str, priority: str | None) -> None:
        message = EmailMessage(name, "t", f"{name}@x.example", ["b@y.example"])
        if priority is not None:
            message.mailbridge_priority = priority  # type: ignore[attr-defined]
        message.send()

    with warnings.catch_warnings(action="ignore"):  # Django 6.1 deprecates it in favour of what 6.0 lacks
        backend: Any = get_connection()
    mailer = mailbridge.mailer_for(backend.config)
    with mailer.session() as session:
        session.send(b"Subject: x\r\n\r\nx", envelope=Envelope("holder@x.example", "b@y.example"))
        threads = []
        for name, priority in (("low", "low"), ("bulk", None), ("high", "high")):
            threads.append(threading.Thread(target=send, args=(name, priority)))
            threads[-1].start()
            until = time.monotonic() + 20
            while mailer.stats().waiting < len(threads):
                assert time.monotonic() < until
                time.sleep(0.001)
    for thread in threads:
        thread.join(20)
    assert [one.sender.partition("@")[0] for one in server.messages[1:]] == ["high", "bulk", "low"]


@pytest.mark.parametrize(
    ("alias", "found"),
    [
        ("shared", []),
        ("files", []),
        ("table", []),
        ("local", ["mailbridge.W006"]),
        ("dummy", ["mailbridge.W006"]),
        ("no such", ["mailbridge.W006"]),
    ],
)
def test_the_check_warns_where_nobody_else_sees_the_times(use: Any, alias: str, found: list[str]) -> None:
    use(host="smtp.example.com", security="starttls", rate=CacheRateLimiter("k", limit=1, alias=alias))
    assert [message.id for message in run_checks(tags=["mail"])] == found
