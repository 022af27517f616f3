"""A thing on loan from a pool, and its way back. What happens to it there, `pool` decides."""

from types import TracebackType
from typing import TYPE_CHECKING, Generic

from mailbridge.pool.ledger import Claim, Ledger, Place, T

if TYPE_CHECKING:
    from mailbridge.pool.pool import Pool


class Lease(Generic[T]):
    """A thing on loan. `release` it, or use it in a `with`: that releases it as reusable if the block
    ended without an exception and nobody released it inside.

    `reused` tells whether the thing was lent before, `uses` how often by now, this time included;
    `waited` is the time in the queue, in seconds.
    """

    __slots__ = ("claim", "ledger", "place", "pool", "reused", "thing", "uses", "waited")

    def __init__(
        self, pool: "Pool[T]", ledger: Ledger[T], claim: Claim[T], place: Place[T], thing: T, waited: float
    ) -> None:
        self.pool = pool
        self.ledger = ledger
        self.claim = claim
        self.place = place
        self.thing = thing
        self.reused = place.uses > 1
        self.uses = place.uses
        self.waited = waited

    def use_again(self) -> bool:
        """Counts one message more on this lease; False if the thing is worn, or was lent before a fork and
        belongs to the parent: it should go back instead.
        """
        if self.ledger is not self.pool._here():
            return False
        if self.claim.granted is not self.place or self.uses >= self.pool.options.max_messages:
            return False
        self.uses += 1
        self.place.uses = self.uses
        return True

    def __enter__(self) -> "Lease[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.release(self, reusable=error is None, reason=kind.__name__ if kind else "")
