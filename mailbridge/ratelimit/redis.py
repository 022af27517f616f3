"""`RedisRateLimiter`: one limit for all processes that ask the same Redis (or Valkey), with redis-py.

    # myproject/mail.py
    limiter = RedisRateLimiter("redis://localhost/0", "mail", limit=14, per=1)
    # settings
    {"host": …, "rate": "myproject.mail.limiter"}

The times of the last messages are a list under one key. A script looks at it and adds to it in one step, by
the clock of the Redis server, so that neither races nor clocks that differ let one too many go.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mailbridge.config.groups import RateOptions
from mailbridge.config.values import as_seconds, invalid
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret, clear_locals

# Added to `per`. A message leaves a moment after it got permission; if one is late by this and another is
# not, both would be within `per` although permission was given `per` apart.
SLACK = 0.1
# Of a client that is made from a URL: the send waits for this long.
SOCKET_SECONDS = 5.0

# KEYS[1]: times in microseconds, the oldest first. ARGV: limit, period in microseconds. Gives the
# microseconds to wait; 0 is permission. Where the server's clock was set back, times that lie ahead become
# the present, so that nobody waits for longer than one period.
# Numbers are written out whole: Lua's own form has 14 digits, and the time has 16.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local key, limit, period = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local lifetime = math.ceil(period / 1000) + 1
local present = string.format('%.0f', now)
local latest = redis.call('LINDEX', key, -1)
if latest and tonumber(latest) > now then
    local times = redis.call('LRANGE', key, 0, -1)
    redis.call('DEL', key)
    for _, at in ipairs(times) do
        redis.call('RPUSH', key, tonumber(at) > now and present or at)
    end
    redis.call('PEXPIRE', key, lifetime)
end
local oldest = redis.call('LINDEX', key, -limit)
if oldest then
    local wait = tonumber(oldest) + period - now
    if wait > 0 then return wait end
end
redis.call('RPUSH', key, present)
redis.call('LTRIM', key, -limit, -1)
redis.call('PEXPIRE', key, lifetime)
return 0
"""


class RedisRateLimiter:
    """At most `limit` messages in any `per` seconds (1.0), over all who use the `key` in this Redis.

    `client` is a `redis.Redis`, or a URL for one, which gets time limits of 5 s; give them to a client of
    your own too (`socket_timeout`, `socket_connect_timeout`), since a send waits for it. To `per` is added
    `slack` (0.1 s), for what lies between the permission and the moment at which a message leaves.
    Limiters of equal arguments are equal. Raises `ConfigurationError`; each call what redis-py raises,
    which makes the send fail with `RateUnavailable`.
    """

    def __init__(self, client: Any, key: str, *, limit: int, per: float = 1.0, slack: float = SLACK) -> None:
        outer = sys.exception()
        try:
            rate = RateOptions(limit=limit, per=per)
            self.key, self.limit, self.per = key, rate.limit, rate.per
            self.slack = as_seconds("rate.slack", slack, zero=True)
            self._source = Secret(client) if isinstance(client, str) else client
            self._ask = _connected(client).register_script(SCRIPT)
        except BaseException as error:
            clear_locals(error, outer=outer)  # the URL may have a password
            del client
            raise

    def __call__(self) -> float:
        """The seconds to wait; 0.0 if a message may go now, which is counted."""
        period = round((self.per + self.slack) * 1_000_000)
        return int(self._ask(keys=[self.key], args=[self.limit, period])) / 1_000_000

    def __repr__(self) -> str:
        return f"RedisRateLimiter({self.key!r}, limit={self.limit}, per={self.per:g})"

    def __eq__(self, other: object) -> bool:
        return self._facts == other._facts if isinstance(other, RedisRateLimiter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._facts)

    @property
    def _facts(self) -> tuple[object, ...]:
        return self._source, self.key, self.limit, self.per, self.slack


def _connected(client: Any) -> Any:
    if not isinstance(client, str):
        if not hasattr(client, "register_script"):
            raise invalid("rate", f"needs a redis.Redis or a URL, not {type(client).__name__}")
        return client
    if find_spec("redis") is None:
        raise ConfigurationError(
            "A rate limiter over Redis needs redis-py",
            stage="config",
            hint="Install the extra: mailbridge-smtp[redis].",
        )
    redis = import_module("redis")
    try:
        return redis.Redis.from_url(
            client, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS
        )
    except ValueError:
        pass  # its text may quote the URL
    raise invalid("rate", "has a URL of Redis that redis-py does not know")
