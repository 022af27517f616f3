"""Shared rate limiters, by name, as settings name them; what they need stands in the environment.

RATE is limit and period, RATE_PLACE the URL of Redis or a folder. Made when first asked for, so that only
what a program uses needs to be installed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

# What may lie here between a permission and the server's reading of MAIL; the machine may be busy.
SLACK = 0.5


def __getattr__(name: str) -> Callable[[], float]:
    limit, per = os.environ["RATE"].split()
    options = {"limit": int(limit), "per": float(per), "slack": SLACK}
    if name == "over_redis":
        from mailbridge.ratelimit import RedisRateLimiter

        limiter: Callable[[], float] = RedisRateLimiter(os.environ["RATE_PLACE"], "acceptance", **options)
    elif name in ("over_files", "over_database"):
        limiter = _over_cache(name, options)
    else:
        raise AttributeError(name)
    globals()[name] = limiter
    return limiter


def _over_cache(name: str, options: dict[str, float]) -> Callable[[], float]:
    import django
    from django.conf import settings

    place = os.environ["RATE_PLACE"]
    kind, location = ("filebased.FileBasedCache", place)
    if name == "over_database":
        kind, location = ("db.DatabaseCache", "rates")
    cache = {"BACKEND": f"django.core.cache.backends.{kind}", "LOCATION": location}
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{place}/db", "OPTIONS": {"timeout": 20}}
    settings.configure(CACHES={"default": cache}, DATABASES={"default": database})
    django.setup()
    if name == "over_database":
        from django.core.management import call_command

        with open(f"{place}/making-the-table", "w") as file:
            # The command fails if another process makes the table after it has looked for one.
            fcntl.flock(file, fcntl.LOCK_EX)
            call_command("createcachetable", verbosity=0)
    from mailbridge_django.ratelimit import CacheRateLimiter

    return CacheRateLimiter("acceptance", **options)  # type: ignore[arg-type]
