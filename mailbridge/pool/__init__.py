"""A bounded pool that lends things to threads. It knows no SMTP, and nothing of who uses it.

`ledger` decides, `sizing` says how many, `pool` acts, `lease` is what a borrower holds.
"""

from mailbridge.pool.ledger import Ending, Lease, Poolable
from mailbridge.pool.pool import Pool
from mailbridge.pool.stats import PoolStats

__all__ = ["Ending", "Lease", "Pool", "PoolStats", "Poolable"]
