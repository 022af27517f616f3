"""RedisRateLimiter with a real Redis: strict, by the server's clock, and one for all who ask."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mailbridge import Envelope, Mailer, RateUnavailable, SMTPConfig
from mailbridge.errors import ConfigurationError
from mailbridge.ratelimit import RedisRateLimiter
from mailbridge.ratelimit.redis import SCRIPT
from mailbridge.testing import ScriptedServer
from tests.rates import is_within
from tests.servers.process import free_port
from tests.servers.redis import PASSWORD, Redis

ENVELOPE = Envelope("a@x.example", "b@y.example")

pytestmark = pytest.mark.needs("redis")


@pytest.fixture
def client(redis: Redis) -> Any:
    from redis import Redis as Client

    with Client.from_url(redis.url) as client:
        client.flushdb()
        yield client


def limiter(client: Any, key: str = "k", *, limit: int = 1, per: float = 1.0, slack: float = 0.0) -> Any:
    return RedisRateLimiter(client, key, limit=limit, per=per, slack=slack)


def test_a_burst_goes_and_the_next_is_told_how_long_to_wait(client: Any) -> None:
    ask = limiter(client, limit=3, per=60, slack=0.5)
    assert [ask() for _ in range(3)] == [0, 0, 0]
    assert 55 < ask() <= 60.5
    assert 55 < ask() <= 60.5
    assert client.llen("k") == 3
    assert 60_000 < client.pttl("k") <= 60_502


def test_what_is_said_holds(client: Any) -> None:
    """Whoever waits for as long as was said may go; and six times the limit takes five periods at least."""
    ask, began = limiter(client, limit=4, per=0.2), time.monotonic()
    assert [ask() for _ in range(4)] == [0, 0, 0, 0]
    for _ in range(20):
        if wait := ask():
            assert 0 < wait <= 0.2
            time.sleep(wait)
            assert ask() == 0
    assert time.monotonic() - began >= 1.0


def test_the_servers_own_times_are_strict(client: Any) -> None:
    ask, times = limiter(client, limit=2, per=0.05), []
    while len(times) < 20:
        if not ask():
            last = client.lindex("k", -1)
            if last is not None:  # this test was so slow that the key has expired
                times.append(int(last) / 1e6)
            assert client.llen("k") <= 2
    assert is_within(times, 2, 0.05 - 1e-6)
    assert times[-1] - times[0] < 5


def test_keys_are_limits_of_their_own_and_equal_limiters_share_one(client: Any, redis: Redis) -> None:
    one, same, other = limiter(client, per=60), limiter(client, per=60), limiter(client, "other", per=60)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one() == 0
    assert same() > 0
    assert other() == 0
    by_url = RedisRateLimiter(redis.url, "k", limit=1, per=60, slack=0)
    assert by_url() > 0
    assert by_url == RedisRateLimiter(redis.url, "k", limit=1, per=60, slack=0)
    assert SMTPConfig(rate=one) == SMTPConfig(rate=same)
    assert PASSWORD not in repr(by_url) + repr(SMTPConfig(rate=by_url))


def test_a_clock_that_is_set_back_holds_nobody_up_for_long(client: Any) -> None:
    seconds, micro = client.time()
    ahead = (seconds + 3600) * 1_000_000 + micro
    client.rpush("k", ahead - 5, ahead)
    ask = limiter(client, limit=2, per=60)
    assert 55 < ask() <= 60
    assert 55 < ask() <= 60
    # The times that lay ahead have become the present, and count no longer than any other.
    soon = limiter(client, limit=2, per=0.2)
    if wait := soon():
        assert wait <= 0.2
        time.sleep(wait)
        assert soon() == 0


def test_a_limit_that_was_lowered_counts_what_is_there(client: Any) -> None:
    many, few = limiter(client, limit=10, per=60), limiter(client, limit=2, per=60)
    for _ in range(5):
        assert many() == 0
    assert few() > 0
    assert many() == 0


def test_numbers_stay_whole(client: Any) -> None:
    """Lua would write microseconds since 1970 as 1.7e+15."""
    ask = limiter(client, limit=5, per=60)
    ask()
    assert client.lindex("k", 0).isdigit()
    assert "string.format('%.0f', now)" in SCRIPT


def test_it_is_one_round_trip_after_the_first(client: Any) -> None:
    ask = limiter(client, limit=100)
    ask()
    before = client.info("stats")["total_commands_processed"]
    ask()
    # The call, what the script calls, and this INFO; no second attempt.
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 2
    assert client.info("stats")["total_commands_processed"] - before < 12
    client.script_flush()
    assert ask() == 0, "a Redis that forgot the script gets it again"


def test_messages_obey_it_over_two_mailers(redis: Redis, client: Any) -> None:
    with ScriptedServer() as server:
        options = {"host": "127.0.0.1", "port": server.port, "security": "none"}
        rates = [RedisRateLimiter(redis.url, "k", limit=1, per=0.2, slack=0) for _ in range(2)]
        mailers = [Mailer(SMTPConfig(**options, rate=rate, username=None)) for rate in rates]
        began = time.monotonic()
        for number in range(4):
            mailers[number % 2].send(b"Subject: x\r\n\r\nx", envelope=ENVELOPE, deadline=10)
        assert time.monotonic() - began >= 0.6
        for mailer in mailers:
            mailer.close()


def test_a_redis_that_is_down_fails_the_send_and_says_so() -> None:
    rate = RedisRateLimiter(f"redis://:geheim@127.0.0.1:{free_port().port}/0", "k", limit=1)
    with ScriptedServer() as server:
        config = SMTPConfig(host="127.0.0.1", port=server.port, security="none", rate=rate)
        with Mailer(config) as mailer, pytest.raises(RateUnavailable, match="ConnectionError") as caught:
            mailer.send(b"Subject: x\r\n\r\nx", envelope=ENVELOPE)
        assert caught.value.is_transient
        assert "geheim" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
        assert server.messages == ()


@pytest.mark.parametrize("url", ["http://:geheim@localhost", "redis://:geheim@localhost:port"])
def test_a_url_that_redis_does_not_know(url: str) -> None:
    with pytest.raises(ConfigurationError, match="URL of Redis") as caught:
        RedisRateLimiter(url, "k", limit=1)
    assert "geheim" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"limit": 0}, "rate.limit"),
        ({"limit": 1, "per": -1}, "rate.per"),
        ({"limit": 1, "slack": -1}, "slack"),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        RedisRateLimiter("redis://localhost", "k", **arguments)
    with pytest.raises(ConfigurationError, match=r"needs a redis\.Redis or a URL, not object"):
        RedisRateLimiter(object(), "k", limit=1)
