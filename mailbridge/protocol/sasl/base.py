"""What every SASL mechanism has (RFC 4422), and how its messages stand in SMTP (RFC 4954).

Mechanisms deal in raw bytes. Who sends them, under which protection, and what the server's verdict
means is the authentication flow's business.
"""

import base64
import re
from dataclasses import dataclass
from typing import Protocol

from mailbridge.errors import ConfigurationError, ProtocolViolation
from mailbridge.results import printable
from mailbridge.secret import Secret

# Control characters (C0, DEL, C1) have no place in a name; halves of surrogate pairs have no UTF-8.
_UNFIT_FOR_NAME = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# RFC 4616 section 2: PLAIN ends the password at a NUL. No other mechanism can use one either.
_UNFIT_FOR_PASSWORD = re.compile("[\x00\ud800-\udfff]")
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in, with what. The name is sent as it is: no SASLprep (RFC 4013).

    Raises `ConfigurationError` for what cannot be sent, so that no exchange begins.
    """

    username: str
    password: Secret

    def __post_init__(self) -> None:
        # Looked for, not tried: a UnicodeEncodeError would carry the password along.
        if not self.username or _UNFIT_FOR_NAME.search(self.username):
            raise ConfigurationError(
                "The user name is empty or holds control characters or lone surrogates", stage="auth"
            )
        if _UNFIT_FOR_PASSWORD.search(self.password.reveal()):
            raise ConfigurationError("The password holds a NUL or lone surrogates", stage="auth")


class Mechanism(Protocol):
    """One exchange; each AUTH command has its own. All that it returns is secret.

    A server may ask with an empty challenge for what `initial` gave, where that did not go out with
    the command, say because the line would be too long (RFC 4954 section 4): the flow's business.
    """

    @property
    def name(self) -> str:
        """As it stands in the AUTH command."""

    def initial(self) -> bytes | None:
        """What goes out with the AUTH command; None: the server speaks first."""

    def step(self, challenge: bytes) -> bytes:
        """The answer to a challenge; `ProtocolViolation` if the mechanism has no more to say."""


def one_too_many(mechanism: str) -> ProtocolViolation:
    """The error for a challenge after the last answer."""
    return ProtocolViolation(f"The server sent a challenge that {mechanism} has no answer to", stage="auth")


def encode_response(data: bytes, *, initial: bool = False) -> bytes:
    """`data` as it stands in a line; an empty initial response is "=", else it would be none (RFC 4954)."""
    return b"=" if initial and not data else base64.b64encode(data)


def decode_challenge(text: str) -> bytes:
    """The bytes of the text of a 334 reply; `ProtocolViolation` if that is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass  # it may hold the text, and is not to hang on what is raised
    shown = printable(text, _SHOWN_CHARACTERS)
    raise ProtocolViolation(f"The server sent a challenge that is no base64: {shown!r}", stage="auth")
