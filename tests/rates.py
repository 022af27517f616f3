"""What a rate is, for whoever counts departures."""

from collections.abc import Sequence


def is_within(departures: Sequence[float], limit: int, per: float) -> bool:
    """Whether no half-open window of `per` seconds has more than `limit` of them."""
    ordered = sorted(departures)
    return all(later - ordered[i] >= per for i, later in enumerate(ordered[limit:]))
