"""The numbers of a pool at one moment, under stable names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool at one moment. Names ending in `_total` only grow, within one process.

    `size` is all that counts against `effective_size`: `lent`, `idle`, `opening` and `closing`. That is
    `max_size`, or less for a while after the server asked for less (None for both: no bound), which it
    did effectively `reductions_total` times. `waiting` callers stand in the queue. `opened_total` and
    `reused_total` are leases of a new and of a kept thing, `closed_total` counts by reason (see
    `Ending`). `waits_total` callers had to queue, for `wait_seconds_total` in all; `timeouts_total` of
    them in vain.
    """

    name: str
    max_size: int | None
    effective_size: int | None
    size: int
    lent: int
    idle: int
    opening: int
    closing: int
    waiting: int
    opened_total: int
    reused_total: int
    closed_total: Mapping[str, int] = field(default_factory=dict)
    waits_total: int
    wait_seconds_total: float
    timeouts_total: int
    reductions_total: int


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
