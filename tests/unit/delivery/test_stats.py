"""The numbers of several pools together."""

from dataclasses import fields, replace

from mailbridge.pool import PoolStats
from mailbridge.pool.stats import sum_of_pools

ONE = PoolStats(
    **{field.name: number for number, field in enumerate(fields(PoolStats))}
    | {"name": "a:25", "closed_total": {"worn": 1, "too_old": 2}}  # type: ignore[arg-type]
)


def test_one_pool_stays_as_it_is() -> None:
    assert sum_of_pools([ONE]) is ONE


def test_several_are_added_up() -> None:
    other = replace(ONE, name="b:25", closed_total={"worn": 5, "evicted": 1})
    together = sum_of_pools([ONE, other])
    assert (together.name, dict(together.closed_total)) == (
        "a:25, b:25",
        {"worn": 6, "too_old": 2, "evicted": 1},
    )
    for field in fields(PoolStats):
        if field.name not in ("name", "closed_total"):
            assert getattr(together, field.name) == 2 * getattr(ONE, field.name), field.name


def test_a_pool_without_bound_makes_a_sum_without_bound() -> None:
    assert sum_of_pools([ONE, replace(ONE, max_size=None)]).max_size is None
