"""`CacheTokenStore`: OAuth2 tokens in Django's cache, shared by all workers that share it.

    MAILERS = {"default": {..., "OPTIONS": {"oauth2": {
        ..., "token_store": "mailbridge_django.token_store.CacheTokenStore"}}}}

Takes a cache that all processes see, whose `add` is atomic (Redis, Memcached, database; Django's cache in
files has a race there), and that does not throw entries out at will: a rotated refresh token that is lost
there means that a person must consent again. Whoever can read the cache can read the tokens. The check W005
warns about caches that don't do, such as LocMemCache, which is one for each process.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.cache import caches

from mailbridge import AccessToken

PREFIX = "mailbridge-oauth2-"
# A worker that dies with the lock holds the others up so long. Longer than a token request may take (60 s).
LOCK_SECONDS = 90
# How often another worker's lock is asked for; each costs a round trip to the cache.
POLL_SECONDS = 0.1


class CacheTokenStore:
    """A token store over the cache with the alias `alias`. Stores of one alias are equal.

    Opened when first used. Its lock is `cache.add`, which one worker wins.
    """

    def __init__(self, alias: str = "default") -> None:
        self.alias = alias

    def __repr__(self) -> str:
        return f"CacheTokenStore({self.alias!r})"

    def __eq__(self, other: object) -> bool:
        return self.alias == other.alias if isinstance(other, CacheTokenStore) else NotImplemented

    def __hash__(self) -> int:
        return hash((CacheTokenStore, self.alias))

    def load(self, key: str) -> AccessToken | None:
        """Raises ValueError for what is no token; it is not shown."""
        text = caches[self.alias].get(PREFIX + key)
        try:
            return AccessToken.parse(text) if text is not None else None
        finally:
            del text

    def save(self, key: str, token: AccessToken) -> None:
        """Without an end: the refresh token outlives the access token."""
        text = token.dump()
        try:
            caches[self.alias].set(PREFIX + key, text, timeout=None)
            # Memcached and the database drop what they can't store, and say nothing.
            is_kept = caches[self.alias].get(PREFIX + key) == text
        finally:
            del text
        if not is_kept:
            raise OSError(f"The cache {self.alias!r} did not keep the token")

    @contextmanager
    def lock(self, key: str, timeout: float) -> Iterator[None]:
        """Raises TimeoutError after `timeout` seconds."""
        cache, name, owner = caches[self.alias], f"{PREFIX}{key}-lock", uuid.uuid4().hex
        ends = time.monotonic() + timeout
        while not cache.add(name, owner, timeout=LOCK_SECONDS):
            if time.monotonic() >= ends:
                raise TimeoutError(f"Another worker held the token for {timeout:g} s")
            time.sleep(min(POLL_SECONDS, max(0.0, ends - time.monotonic())))
        try:
            yield
        finally:
            # Not one that has run out meanwhile and is another worker's now.
            if cache.get(name) == owner:
                cache.delete(name)
