"""The numbers of a mailer's servers at one moment, and of all their pools together."""

from dataclasses import dataclass

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
