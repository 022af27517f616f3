"""Rate limits: how many messages leave in a time, in this process or over many.

`window` says how many may leave now, `queue` who goes next, `limiter` waits, `shared` keeps the lines of a
process, `redis_limiter` asks Redis for all processes. Public are the limiters alone.
"""

from mailbridge.ratelimit.redis import RedisRateLimiter

__all__ = ["RedisRateLimiter"]
