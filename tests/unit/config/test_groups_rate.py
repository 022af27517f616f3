"""The option `rate`, in all the forms it can have."""

from collections.abc import Callable

import pytest

from mailbridge import ConfigurationError, RateOptions, SMTPConfig


def never() -> float:
    return 0.0


class Limiter:
    """Made without arguments, as a class that settings name is."""

    def __call__(self) -> float:
        return 0.0


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> float:
        return 0.0


HERE = __name__


def test_a_mapping() -> None:
    assert SMTPConfig(rate={"limit": 14}).rate == RateOptions(limit=14, per=1.0)
    assert SMTPConfig(rate={"limit": 500, "per": 86400}).rate == RateOptions(limit=500, per=86400.0)
    assert SMTPConfig(rate=RateOptions(limit=2)).rate == RateOptions(limit=2)
    assert SMTPConfig().rate is None
    assert str(RateOptions(limit=2, per=0.5)) == "2 per 0.5 s"


def test_in_a_url() -> None:
    assert SMTPConfig.from_url("smtp://localhost/?rate.limit=3&rate.per=2.5").rate == RateOptions(
        limit=3, per=2.5
    )
    beside = SMTPConfig.from_url("smtp://localhost/?rate.limit=3", rate={"per": 4})
    assert beside.rate == RateOptions(limit=3, per=4.0)


@pytest.mark.parametrize("form", [lambda: never, lambda: f"{HERE}.never"], ids=["itself", "path"])
def test_a_callable(form: Callable[[], object]) -> None:
    config = SMTPConfig.from_mapping({"rate": form()})
    assert config.rate is never
    assert config == SMTPConfig(rate=never)


def test_a_class_by_its_path_is_made_once() -> None:
    first, second = (SMTPConfig(rate=f"{HERE}.Limiter") for _ in range(2))
    assert isinstance(first.rate, Limiter)
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize(
    ("rate", "problem"),
    [
        ({}, "needs limit"),
        ({"per": 2}, "needs limit"),
        ({"limit": 0}, "'rate.limit' must be a whole number of at least 1"),
        ({"limit": 1.5}, "'rate.limit' must be a whole number"),
        ({"limit": 1, "per": 0}, "'rate.per' must be a number of seconds above 0"),
        ({"limit": 1, "per": float("inf")}, "'rate.per' must be"),
        ({"limit": 1, "burst": 2}, "Unknown option 'rate.burst'"),
        (5, "must be a mapping with limit and per"),
        (Limiter, "must be a mapping with limit and per"),
        (Unhashable(), "can be hashed"),
        ("no.such.module", "can't be imported"),
        ("nodots", "can't be imported"),
        (f"{HERE}.HERE", "must be a mapping"),
    ],
)
def test_what_cannot_work(rate: object, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        SMTPConfig.from_mapping({"rate": rate})


def test_each_of_several_servers_has_its_own_or_the_one_beside_them() -> None:
    config = SMTPConfig.from_mapping(
        {
            "servers": [{"host": "a.example", "rate": {"limit": 1}}, {"host": "b.example"}],
            "rate": {"limit": 9},
        }
    )
    rates = [server.config.rate for server in config.servers]
    assert rates == [RateOptions(limit=1), RateOptions(limit=9)]
