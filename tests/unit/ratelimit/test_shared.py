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
from mailbridge.ratelimit.permits import FreeTurns, LimitedTurns
from mailbridge.ratelimit.shared import turns_for

RATE = {"limit": 1, "per": 60}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def turns(clock: Clock, **options: Any) -> Any:
    return turns_for(SMTPConfig.from_mapping({"host": "a.example", "rate": RATE, **options}), clock)


def send(limited: LimitedTurns) -> bool:
    with limited.turn(NORMAL_LANE) as turn:
        if not turn.is_near:
            return False
        turn.wait(NEVER)
        assert turn.take()
        return True


def no_wait() -> float:
    return 0.0


def test_without_a_rate_there_is_nothing_to_share(clock: Clock) -> None:
    assert isinstance(turns(clock, rate=None), FreeTurns)


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
    assert turns(clock) is turns(clock, **options)


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
    assert turns(clock) is not turns(clock, **options)


def test_a_limiter_of_ones_own_is_one_limit_wherever_it_is_used(clock: Clock) -> None:
    assert turns(clock, rate=no_wait) is turns(clock, rate=no_wait, host="b.example")


def test_what_was_sent_is_remembered_when_nobody_holds_it(clock: Clock) -> None:
    assert send(turns(clock))
    gc.collect()
    assert not send(turns(clock))
    clock.now = 60
    assert send(turns(clock))


def test_many_are_kept_only_while_they_matter(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shared.Lines()
    monkeypatch.setattr(shared, "_lines", lines)
    monkeypatch.setattr(shared, "MOST_KEPT", 10)
    for number in range(10):
        assert send(turns(clock, host=f"h{number}.example"))
    turns(clock, host="idle.example")
    assert {key[2] for key in lines.kept} == {f"h{n}.example:587" for n in range(10)}  # type: ignore[index]
    assert not send(turns(clock, host="h0.example"))
    clock.now = 60
    held = turns(clock, host="h3.example")
    turns(clock, host="other.example")
    assert len(lines.kept) == 0
    assert turns(clock, host="h3.example") is held, "who holds it and who asks for it have the same"


def test_a_forked_child_has_its_own_which_is_that_of_mailers_from_before_the_fork(clock: Clock) -> None:
    parents = turns(clock)
    assert send(parents)
    held = shared._lines._locks[os.getpid()]
    held.acquire()  # as if by a thread that the child does not have
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        same = turns(clock) is parents
        os._exit(0 if same and send(parents) and not send(turns(clock)) else 1)
    held.release()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not send(parents)
