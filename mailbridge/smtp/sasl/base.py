"""What every SASL mechanism has (RFC 4422), and how its messages stand in SMTP (RFC 4954).

Mechanisms deal in raw bytes. Who sends them, under which protection, and what the server's verdict
means is the authentication flow's business.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mailbridge.errors import ConfigurationError, ProtocolViolation
from mailbridge.reply import printable
from mailbridge.secret import Secret

# Control characters (C0, DEL, C1) have no place in a name; halves of surrogate pairs have no UTF-8.
_UNFIT_FOR_NAME = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# RFC 4616 section 2: PLAIN ends the password at a NUL. No other mechanism can use one either.
_UNFIT_FOR_PASSWORD = re.compile("[\x00\ud800-\udfff]")
# RFC 6750 section 2.1 allows less, but no server's tokens are ours to judge: nothing that could end
# the field (control A, RFC 7628 section 3.1) or stand between fields.
_UNFIT_FOR_TOKEN = re.compile("[^\x21-\x7e]")
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in, with what, and where.

    `host` and `port` are the server's, as configured. `bindings`: what ties the exchange to its TLS
    channel, by type of channel binding (RFC 5056). The name is sent as it is, except by SCRAM,
    which wants SASLprep (RFC 4013). It may be empty only where there is nothing to prove.

    Raises `ConfigurationError` for what cannot be sent, so that no exchange begins.
    """

    username: str
    password: Secret | None = None
    token: Secret | None = field(default=None, kw_only=True)
    host: str = field(default="", kw_only=True)
    port: int = field(default=0, kw_only=True)
    bindings: Mapping[str, bytes] = field(default_factory=dict, kw_only=True, repr=False, hash=False)

    def __post_init__(self) -> None:
        # Looked for, not tried: a UnicodeEncodeError would carry the password along.
        proves = self.password is not None or self.token is not None
        if (proves and not self.username) or _UNFIT_FOR_NAME.search(self.username):
            raise ConfigurationError(
                "The user name is empty or holds control characters or lone surrogates", stage="auth"
            )
        if self.password is not None and _UNFIT_FOR_PASSWORD.search(self.password.reveal()):
            raise ConfigurationError("The password holds a NUL or lone surrogates", stage="auth")
        if self.token is not None and (not self.token or _UNFIT_FOR_TOKEN.search(self.token.reveal())):
            raise ConfigurationError(
                "The access token is empty or holds spaces, control characters or non-ASCII ones",
                stage="auth",
            )


class Mechanism(Protocol):
    """One exchange; each AUTH command has its own. All that it sends is secret.

    A server may ask with an empty challenge for what `initial` gave, where that did not go out with
    the command, say because the line would be too long (RFC 4954 section 4): the flow's business.
    """

    @property
    def name(self) -> str:
        """As it stands in the AUTH command."""

    @property
    def refusal(self) -> str:
        """Why the server refuses, where it says so in a challenge; "" if it has not."""

    @property
    def is_unsuitable(self) -> bool:
        """Whether the refusal was about the mechanism, so that another may be tried."""

    def initial(self) -> bytes | None:
        """What goes out with the AUTH command; None: the server speaks first."""

    def step(self, challenge: bytes) -> bytes:
        """The answer to a challenge; `ProtocolViolation` if the mechanism has no more to say."""

    def finish(self, text: str) -> None:
        """Take in the text of the accepting reply.

        `AuthenticationFailed` if the server still owes a proof that it is the right one.
        """


class Exchange:
    """What most mechanisms have: refusals come in replies only, and the server proves nothing."""

    __slots__ = ()
    refusal = ""
    is_unsuitable = False

    def finish(self, text: str) -> None:
        """Nothing is owed."""


def needed(secret: Secret | None, mechanism: str) -> Secret:
    """The password or token that `mechanism` can't do without."""
    if secret is None:
        raise ConfigurationError(f"{mechanism} has nothing to prove the user by", stage="auth")
    return secret


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
