"""A bounded pool that lends things to threads. It knows no SMTP, and nothing of who uses it.

`ledger` decides, `pool` acts, `lease` is what a borrower holds.
"""

from mailbridge.pool.lease import Lease
from mailbridge.pool.ledger import Ending, Poolable, PoolStats
from mailbridge.pool.pool import Pool

__all__ = ["Ending", "Lease", "Pool", "PoolStats", "Poolable"]
