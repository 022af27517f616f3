"""A string that does not show itself.

Passwords live in this type from the moment they are read until the last call that needs them.
`repr`, `str`, formatting and pickling give `'***'`; only `reveal()` gives the value.
"""

import hmac
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

MASK = "***"
_LONGEST_NAME = 40  # characters

P = ParamSpec("P")
R = TypeVar("R")


def shown_name(name: object) -> str:
    """What an error says of a name that nobody knows, which may be a secret in the wrong place.

    Names of options are shown: identifiers, also with dots and hyphens, of at most 40 characters. Of
    anything else `***`.
    """
    text = str(name)
    is_one = len(text) <= _LONGEST_NAME and text.replace(".", "_").replace("-", "_").isidentifier()
    return text if is_one else MASK


def clear_locals(error: BaseException, *, outer: BaseException | None) -> None:
    """Empty the frames that `error` has come through, and those of its causes, up to the caller's.

    Error pages and reporters show local variables, and where a secret is used some hold it. `outer`
    is what was being handled before: its frames are somebody else's.
    """
    chain, seen = [error], {id(outer)}
    while chain:
        link = chain.pop()
        if id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            chain += [other for other in (link.__cause__, link.__context__) if other is not None]


def clears_locals(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator for what reads or writes a mail: no frame that an error of `function` came through holds
    a local variable.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        outer = sys.exception()
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            clear_locals(error, outer=outer)
            raise
        finally:
            del args, kwargs

    return called


class Secret:
    """A masked string; equal and hashable by its value, so that it can be part of a key."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; for the call that must have it, never to be kept."""
        return self._value

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # What came from the environment may hold lone surrogates.
        mine = self._value.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(mine, other._value.encode("utf-8", "surrogatepass"))

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        return Secret, (MASK,)

    # Copies in this process keep the value: a deep-copied configuration must still work.
    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self
