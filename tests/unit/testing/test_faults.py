"""Faults as values, and which one is due when."""

from __future__ import annotations

from typing import Any

import pytest

from mailbridge.testing import Fault
from mailbridge.testing.faults import FaultPlan, as_wire


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("rctp", "close"), {}, "unknown stage 'rctp'"),
        (("rcpt", "explode"), {}, "unknown kind 'explode'"),
        (("rcpt", "reply"), {}, "needs reply="),
        (("rcpt", "extra"), {}, "needs reply="),
        (("rcpt", "late"), {}, "needs delay="),
        (("connect", "double"), {}, "there is none"),
        (("rcpt", "close"), {"occurrence": 0}, "counts from 1"),
        (("rcpt", "half"), {"then": "explode"}, "unknown then="),
    ],
)
def test_refused(arguments: tuple[Any, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Fault(*arguments, **options)


def test_fires_once_on_its_connection() -> None:
    fault = Fault("rcpt", "close", occurrence=2)
    plan = FaultPlan([fault])
    assert [plan.take("rcpt", 1) for _ in range(4)] == [None, fault, None, None]
    assert plan.take("mail", 1) is None
    assert [plan.take("rcpt", 2) for _ in range(3)] == [None, None, None]


def test_counts_over_all_connections() -> None:
    fault = Fault("rcpt", "close", occurrence=2, connection=None)
    plan = FaultPlan([fault])
    assert [plan.take("rcpt", number) for number in (1, 2, 3, 3)] == [None, fault, None, None]


def test_fires_every_time() -> None:
    fault = Fault("rcpt", "close", occurrence=None, connection=None)
    plan = FaultPlan([fault])
    assert [plan.take("rcpt", number) for number in (1, 1, 2)] == [fault] * 3


def test_two_faults_at_one_stage_count_each_for_itself() -> None:
    first, second = Fault("mail", "close"), Fault("mail", "reset", occurrence=2)
    plan = FaultPlan([second, first])
    assert [plan.take("mail", 1) for _ in range(3)] == [first, second, None]


def test_tells_what_happened() -> None:
    one, other = Fault("mail", "close"), Fault("rcpt", "close")
    plan = FaultPlan([one, other])
    plan.note_fired(one)
    assert (plan.fired, plan.unfired) == ((one,), (other,))


def test_replies_on_the_wire() -> None:
    assert as_wire("250 ok") == b"250 ok\r\n"
    assert as_wire("250-a\r\n250 b\r\n") == b"250-a\r\n250 b\r\n"
    assert as_wire(b"250 half") == b"250 half"
