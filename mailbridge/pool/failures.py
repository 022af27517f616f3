"""Errors raised when no connection could be leased."""

from mailbridge.errors import DeadlineExceeded, MailbridgeError, PoolClosed, PoolTimeout


def closed(name: str) -> PoolClosed:
    return PoolClosed("The mailer was closed; it sends nothing any more", server=name or None)


def timed_out(name: str, *, max_size: int, size: float, seconds: float, is_deadline: bool) -> MailbridgeError:
    """`size` is what the pool may have now; `seconds` is the limit for waiting in its queue."""
    reduced = f" ({max_size} before the server asked for less)" if size < max_size else ""
    in_use = f"all {size:g} connections are in use{reduced}"
    if is_deadline:
        return DeadlineExceeded(f"The send's time limit ran out in the queue: {in_use}", server=name or None)
    return PoolTimeout(
        f"No connection became free within {seconds:g} seconds: {in_use}",
        server=name or None,
        hint="Raise pool.max_size as far as the server allows, or pool.acquire_timeout.",
    )
