"""Whose messages count together: those of one account at one server, whichever mailer sends them."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

import pytest

from mailbridge import SMTPConfig
from mailbridge.deadline import NEVER
from mailbridge.message.priority import NORMAL_LANE
from mailbridge.ratelimit import shared
from mailbridge.ratelimit.permits import QueueingLimiter
from mailbridge.ratelimit.shared import limiter_for

RATE = {"limit": 1, "per": 60}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter(clock: Clock, **options: Any) -> Any:
    return limiter_for(SMTPConfig.from_mapping({"host": "a.example", "rate": RATE, **options}), clock)


def send(limited: QueueingLimiter) -> bool:
    with limited.permit(NORMAL_LANE) as permit:
        if not permit.is_near:
            return False
        permit.wait(NEVER)
        assert permit.take(NEVER)
        return True


def no_wait() -> float:
    return 0.0


def test_without_a_rate_there_is_nothing_to_share(clock: Clock) -> None:
    assert limiter(clock, rate=None) is None


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 5},
        {"pool": {"max_size": 9}},
        {"host": "a.example", "port": 587},
        {"tls": {"verify": False}},
    ],
)
def test_other_options_do_not_make_another_client(clock: Clock, options: dict[str, Any]) -> None:
    assert limiter(clock) is limiter(clock, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"host": "b.example"},
        {"port": 2525},
        {"username": "u", "password": "p"},
        {"rate": {"limit": 2, "per": 60}},
        {"rate": {"limit": 1, "per": 61}},
        {"rate": no_wait},
    ],
)
def test_another_account_server_or_rate_does(clock: Clock, options: dict[str, Any]) -> None:
    assert limiter(clock) is not limiter(clock, **options)


def test_a_limiter_of_ones_own_is_one_limit_wherever_it_is_used(clock: Clock) -> None:
    assert limiter(clock, rate=no_wait) is limiter(clock, rate=no_wait, host="b.example")


def test_what_was_sent_is_remembered_when_nobody_holds_it(clock: Clock) -> None:
    assert send(limiter(clock))
    gc.collect()
    assert not send(limiter(clock))
    clock.now = 60
    assert send(limiter(clock))


def test_many_are_kept_only_while_they_matter(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shared.SharedLimiters()
    monkeypatch.setattr(shared, "_shared", lines)
    monkeypatch.setattr(shared, "MOST_KEPT", 10)
    for number in range(10):
        assert send(limiter(clock, host=f"h{number}.example"))
    limiter(clock, host="idle.example")
    assert {key[2] for key in lines.kept} == {f"h{n}.example:587" for n in range(10)}  # type: ignore[index]
    assert not send(limiter(clock, host="h0.example"))
    clock.now = 60
    held = limiter(clock, host="h3.example")
    limiter(clock, host="other.example")
    assert len(lines.kept) == 0
    assert limiter(clock, host="h3.example") is held, "who holds it and who asks for it have the same"


def test_a_forked_child_has_its_own_which_is_that_of_mailers_from_before_the_fork(clock: Clock) -> None:
    parents = limiter(clock)
    assert send(parents)
    held = shared._shared._lock.get()
    held.acquire()  # as if by a thread that the child does not have
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        same = limiter(clock) is parents
        os._exit(0 if same and send(parents) and not send(limiter(clock)) else 1)
    held.release()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not send(parents)
