"""CacheTokenStore: tokens and locks in Django's cache, and the check about caches that nobody shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.checks import run_checks
from django.test.utils import override_settings

from mailbridge import AccessToken, Secret, SMTPConfig
from mailbridge_django.token_store import LOCK_SECONDS, PREFIX, CacheTokenStore

TOKEN = AccessToken(Secret("the-token"), 2000.0, "mail", Secret("the-refresh-token"), 1000.0)
DUMMY = "django.core.cache.backends.dummy.DummyCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
FILES = "django.core.cache.backends.filebased.FileBasedCache"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    settings = {
        "default": {"BACKEND": FILES, "LOCATION": str(tmp_path)},
        "local": {"BACKEND": LOCMEM, "LOCATION": "tokens"},
        "dummy": {"BACKEND": DUMMY},
        "shared": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://localhost"},
    }
    with override_settings(CACHES=settings):
        yield
        caches["local"].clear()


@pytest.mark.parametrize("alias", ["default", "local"])
def test_what_is_saved_is_loaded(alias: str) -> None:
    store = CacheTokenStore(alias)
    assert store.load("key") is None
    store.save("key", TOKEN)
    assert CacheTokenStore(alias).load("key") == TOKEN


def test_what_is_no_token_is_not_shown() -> None:
    caches["default"].set(PREFIX + "key", "the-token")
    with pytest.raises(ValueError, match="This is no token") as caught:
        CacheTokenStore().load("key")
    assert "the-token" not in str(caught.value)


def test_a_cache_that_keeps_nothing_is_an_error() -> None:
    with pytest.raises(OSError, match="did not keep the token"):
        CacheTokenStore("dummy").save("key", TOKEN)


def test_one_holds_the_lock() -> None:
    one, other = CacheTokenStore(), CacheTokenStore()
    with one.lock("key", 1):
        with pytest.raises(TimeoutError), other.lock("key", 0.05):
            pytest.fail("two hold it")
        with other.lock("another", 0.05):
            pass
    with other.lock("key", 0.05):
        pass


def test_a_lock_that_ran_out_is_left_to_its_next_owner() -> None:
    store = CacheTokenStore()
    with store.lock("key", 1):
        caches["default"].set(f"{PREFIX}key-lock", "another worker", timeout=LOCK_SECONDS)
    assert caches["default"].get(f"{PREFIX}key-lock") == "another worker"


# Each counts up what stands in the token, under the lock; the cache is a table, whose `add` is atomic.
COUNTER = """
import sys
import django
from django.conf import settings
from django.core.management import call_command
options = {"timeout": 30, "transaction_mode": "IMMEDIATE"}  # else SQLite refuses writers that could wait
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "OPTIONS": options}
cache = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "tokens"}
settings.configure(DATABASES={"default": database}, CACHES={"default": cache})
django.setup()
from mailbridge import AccessToken, Secret
from mailbridge_django.token_store import CacheTokenStore
if sys.argv[2] == "0":
    call_command("createcachetable")
store = CacheTokenStore()
for _ in range(int(sys.argv[2])):
    with store.lock("key", 40):
        found = store.load("key")
        count = int(found.value.reveal()) if found is not None else 0
        store.save("key", AccessToken(Secret(str(count + 1))))
print(store.load("key").value.reveal() if sys.argv[2] != "0" else "")
"""


def count(path: Path, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COUNTER, str(path), str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def test_processes_take_turns(tmp_path: Path) -> None:
    assert count(tmp_path / "db", 0).communicate(timeout=40)[1] == ""
    workers = [count(tmp_path / "db", 5) for _ in range(3)]
    said = [worker.communicate(timeout=50) for worker in workers]
    assert [errors for _, errors in said] == ["", "", ""]
    assert max(int(number) for number, _ in said) == 15


def options(store: object) -> dict[str, Any]:
    return {"provider": "google", "client_id": "c", "refresh_token": "r", "token_store": store}


def test_its_dotted_path_gives_equal_configurations() -> None:
    path = "mailbridge_django.token_store.CacheTokenStore"
    one, other = (SMTPConfig(username="u", oauth2=options(path)) for _ in range(2))
    assert one == other
    assert one == SMTPConfig(username="u", oauth2=options(CacheTokenStore()))
    assert one != SMTPConfig(username="u", oauth2=options(CacheTokenStore("local")))


@pytest.mark.parametrize(
    ("alias", "found"),
    [
        ("shared", []),
        ("default", ["mailbridge.W005"]),
        ("local", ["mailbridge.W005"]),
        ("dummy", ["mailbridge.W005"]),
        ("no such", ["mailbridge.W005"]),
    ],
)
def test_the_check_warns_where_nobody_else_sees_the_tokens(use: Any, alias: str, found: list[str]) -> None:
    use(host="smtp.gmail.com", security="starttls", username="u@x", oauth2=options(CacheTokenStore(alias)))
    assert [message.id for message in run_checks(tags=["mail"])] == found
