"""The window alone: what counts, and until when."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from mailbridge.ratelimit.window import LimiterAnswer, Window
from tests.rates import is_within


def test_a_burst_up_to_the_limit_goes_at_once() -> None:
    window = Window(3, 10)
    for number in range(3):
        assert window.free(5) == 3 - number
        window.take(number)
        window.departed(number, 5)
    assert window.free(5) == 0
    assert window.free(14.999) == 0
    assert window.free(15) == 3, "the window is half-open"


def test_what_is_on_its_way_counts_until_it_has_been_gone_for_long_enough() -> None:
    window = Window(1, 1)
    window.take("a")
    assert (window.free(100), window.free_at(1, 100)) == (0, inf)
    window.departed("a", 100)
    assert (window.free(100.5), window.free_at(1, 100.5)) == (0, 101)
    assert (window.free(101), window.free_at(1, 101)) == (1, 101)


def test_leaving_twice_or_without_having_gone_counts_once_or_not_at_all() -> None:
    window = Window(2, 1)
    window.departed("a", 0)
    assert window.free(0) == 2
    window.take("a")
    window.departed("a", 0)
    window.departed("a", 0)
    assert window.free(0) == 1


def test_when_several_are_free() -> None:
    window = Window(3, 10)
    for at in (0, 4, 5):
        window.take(at)
        window.departed(at, at)
    assert [window.free_at(count, 6) for count in (1, 2, 3, 4)] == [10, 14, 15, inf]
    assert [window.free_at(count, 14) for count in (1, 2, 3)] == [14, 14, 15]


def test_only_times_that_still_count_are_remembered() -> None:
    window = Window(5, 1)
    for now in range(1000):
        window.free(now)
        window.take(now)
        window.departed(now, now)
    assert len(window.departures) <= 2


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 24), st.integers(0, 24)), max_size=60),
)
def test_whenever_it_really_left_there_are_never_too_many(
    limit: int, steps: list[tuple[int, int, int]]
) -> None:
    """One asks after the other; each is under way for a while, and leaves at some moment of that."""
    window, now, under_way, real = Window(limit, 4.0), 0.0, [], []
    for number, (pause, before, after) in enumerate(steps):
        now += pause / 8
        for each in [each for each in under_way if each[1] <= now]:
            window.departed(each[0], each[1])
            under_way.remove(each)
        if window.free(now) > 0:
            window.take(number)
            real.append(now + before / 8)
            under_way.append((number, now + (before + after) / 8))
            under_way.sort(key=lambda each: each[1])
    assert is_within(real, limit, 4.0)


@given(limit=st.integers(1, 5), pauses=st.lists(st.floats(0, 3, allow_nan=False), min_size=20, max_size=80))
def test_what_is_free_is_used(limit: int, pauses: list[float]) -> None:
    """Not only never too many: as many as may be."""
    window, now, gone = Window(limit, 1.0), 0.0, []
    for number, pause in enumerate(pauses):
        now += pause
        may = sum(now - at < 1.0 for at in gone) < limit
        assert (window.free(now) > 0) is may
        if may:
            window.take(number)
            window.departed(number, now)
            gone.append(now)
    assert is_within(gone, limit, 1.0)


def test_what_a_shared_limiter_said() -> None:
    told = LimiterAnswer()
    assert (told.free(0), told.free_at(1, 0), told.free_at(2, 0)) == (1, 0, inf)
    told.not_before = 5
    assert (told.free(4.9), told.free_at(1, 4), told.free(5)) == (0, 5, 1)
