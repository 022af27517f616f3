"""Content that is not in memory as a whole, as a flow wants it.

Where the pieces come from, and how they are made canonical, is not known here.
"""

from collections.abc import Iterator
from typing import Protocol


class Pieces(Protocol):
    """Content in pieces: canonical (every line ends in CRLF, the last one too) and not dot-stuffed.

    `size` is in bytes, over all pieces. `pieces` begins anew each time it is called, since a message
    may have to go out again. A piece may end anywhere, also between CR and LF.
    """

    @property
    def size(self) -> int: ...

    def pieces(self) -> Iterator[bytes]: ...
