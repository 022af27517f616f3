"""Priority lanes: which message goes first where messages have to wait.

A lane is a number, the lowest first. Who waits for a connection or for the rate stands behind everybody
of its own lane and of those before it; the order is strict, so low mail may have to wait as long as there
is other mail.
"""

from typing import Literal

from mailbridge.errors import InvalidMessage

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
NORMAL_LANE = PRIORITIES.index("normal")


def lane_of(priority: object) -> int:
    """The lane of a priority; None is normal. Raises `InvalidMessage` for what is none."""
    if priority is None:
        return NORMAL_LANE
    if priority not in PRIORITIES:
        raise InvalidMessage(f"The priority must be one of {', '.join(PRIORITIES)}, not {priority!r}")
    return PRIORITIES.index(priority)
