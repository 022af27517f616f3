"""The numbers of a mailer's servers at one moment, and of all their pools together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from mailbridge.pool import PoolStats


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """One server of a mailer at one moment, in this process.

    `is_open`: it is passed over, for `seconds_left` more, after `failures` in a row, the last of which was
    `error`. `pool` has the numbers of its connections.
    """

    server: str
    priority: int
    weight: int
    is_open: bool
    failures: int
    seconds_left: float
    error: str
    pool: PoolStats


def sum_of_pools(pools: Sequence[PoolStats]) -> PoolStats:
    """One pool's numbers as they are; of several the sums, under all their names."""
    if len(pools) == 1:
        return pools[0]
    return PoolStats(
        **{field.name: _sum([getattr(pool, field.name) for pool in pools]) for field in fields(PoolStats)}
    )


def _sum(values: list[Any]) -> Any:
    if isinstance(values[0], str):
        return ", ".join(values)
    if isinstance(values[0], dict):
        return dict(sum((Counter(value) for value in values), Counter()))
    return None if None in values else sum(values)
