"""Errors raised when no connection could be leased."""

from typing import Any

from mailbridge.errors import DeadlineExceeded, MailbridgeError, PoolClosed, PoolTimeout
from mailbridge.pool.ledger import Ledger


def closed(name: str) -> PoolClosed:
    return PoolClosed("The mailer was closed; it sends nothing any more", server=name or None)


def timed_out(name: str, ledger: Ledger[Any], *, is_deadline: bool) -> MailbridgeError:
    """The time of the send is over if `is_deadline`, else the limit for waiting in the pool's queue."""
    options, size = ledger.options, ledger.size.now
    if len(ledger.places) < size:
        why = f"{len(ledger.places)} connections are in use or being opened, and no other could be opened yet"
    else:
        reduced = f" ({options.max_size} before the server asked for less)" if size < options.max_size else ""
        why = f"all {size:g} connections are in use{reduced}"
    if is_deadline:
        return DeadlineExceeded(f"The send's time limit ran out in the queue: {why}", server=name or None)
    return PoolTimeout(
        f"No connection became free within {options.acquire_timeout:g} seconds: {why}",
        server=name or None,
        hint="Raise pool.max_size as far as the server allows, or pool.acquire_timeout.",
    )
