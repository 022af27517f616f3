"""The steps that a flow awaits.

A flow is an `async def` function that awaits only these steps; a driver performs each of them on a real
stream. No event loop is involved: `client.driver` runs flows on blocking calls.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mailbridge.secret import Secret
from mailbridge.smtp.commands import Command
from mailbridge.smtp.sasl.base import Credentials
from mailbridge.smtp.wire import Spent

#: The time limits of the option `timeouts`, and one for the rest of what has been said in part.
Limit = Literal["greeting", "command", "data", "final", "rest"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Write `data` in one piece, then read. Gives the bytes read; b"" is end-of-file.

    `commands` are what `data` says. `stage` is for errors and timings. `limit` names the time
    limit, which starts anew with `is_new` and goes on otherwise, so that a peer can't stretch it
    byte by byte. What it costs is added to `spent`, too.
    """

    data: bytes = field(repr=False)
    commands: tuple[Command, ...] = field(repr=False)
    stage: str
    limit: Limit
    is_new: bool
    spent: Spent | None = field(default=None, repr=False)

    def __await__(self) -> Generator["Transfer", bytes, bytes]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Look:
    """What lies there to be read, without waiting: None is nothing, b"" is end-of-file."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["Look", bytes | None, bytes | None]:
        return (yield self)


LOOK = Look()


@dataclass(frozen=True, slots=True)
class WriteContent:
    """Write `content` within the time limit `data`, which starts anew with `is_new`.

    With `stops_early`, look before and between the pieces and stop as soon as the server has said
    something: it may be refusing (RFC 5321 section 4.1.1.4 has it wait for the dot, but it need
    not). Gives how many bytes were written. `command` is one that `content` begins with. What it costs
    is added to `spent`, too.
    """

    content: bytes | memoryview = field(repr=False)
    stage: str
    stops_early: bool
    is_new: bool = True
    command: Command | None = None
    spent: Spent | None = field(default=None, repr=False)

    def __await__(self) -> Generator["WriteContent", int, int]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class ReadPiece:
    """The next piece of the content, which may come from a file; None at its end.

    Raises InvalidMessage if it can't be had.
    """

    pieces: Iterator[bytes] = field(repr=False)
    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["ReadPiece", bytes | None, bytes | None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin TLS on the stream. `is_first`: before a byte of SMTP, within the time limit for connecting."""

    is_first: bool = False
    stage: ClassVar[str] = "tls"

    def __await__(self) -> Generator["StartTls", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class SayGoodbye:
    """QUIT, if that costs no wait, and the end of the connection. The answer is not awaited."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["SayGoodbye", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. `is_cached`: a newer one may fare better. `facts` may be shown to people."""

    value: Secret
    is_cached: bool
    facts: str = ""


@dataclass(frozen=True, slots=True)
class FetchToken:
    """An access token for this login. `fresh`: in the place of the one before, which was refused.

    Raises `TokenUnavailable`.
    """

    fresh: bool
    stage: ClassVar[str] = "token"

    def __await__(self) -> Generator["FetchToken", Token, Token]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class DropToken:
    """The token that was fetched last was refused: nobody shall have it again."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["DropToken", None, None]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class AskCredentials:
    """Who logs in, with what, at this moment: callables of the user's own may be asked. With `token`."""

    token: Secret | None = field(repr=False)
    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["AskCredentials", Credentials, Credentials]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class AskPermit:
    """Wait until the next transaction may begin."""

    stage: ClassVar[str] = ""

    def __await__(self) -> Generator["AskPermit", None, None]:
        return (yield self)


Step = (
    Transfer
    | Look
    | WriteContent
    | ReadPiece
    | StartTls
    | SayGoodbye
    | FetchToken
    | DropToken
    | AskCredentials
    | AskPermit
)
