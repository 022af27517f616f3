"""The SASL mechanisms: which there are, which is stronger, which to try (RFC 4422, RFC 4954).

Whether the connection is safe enough for credentials is not asked here.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from mailbridge.errors import ConfigurationError
from mailbridge.protocol.sasl.base import Credentials, Mechanism, decode_challenge, encode_response
from mailbridge.protocol.sasl.cram_md5 import CramMD5, md5_is_allowed
from mailbridge.protocol.sasl.login import Login
from mailbridge.protocol.sasl.plain import Plain

__all__ = [
    "AVAILABLE",
    "Credentials",
    "KNOWN_LATER",
    "Mechanism",
    "RANKING",
    "candidates",
    "decode_challenge",
    "encode_response",
    "mechanism",
]

#: Mechanisms that can be used, by name.
AVAILABLE: Mapping[str, Callable[[Credentials], Mechanism]] = MappingProxyType(
    {"CRAM-MD5": CramMD5, "PLAIN": Plain, "LOGIN": Login}
)

#: What "auto" tries, the strongest first.
RANKING: tuple[str, ...] = (
    "CRAM-MD5",  # the password stays here, even if TLS ends at somebody else's machine
    "PLAIN",  # the password is sent; one round trip, and a standard
    "LOGIN",  # the password is sent; three round trips, and never more than a draft
)

#: Mechanisms that are named in configurations and are not available yet.
KNOWN_LATER: frozenset[str] = frozenset(
    {
        *(f"SCRAM-SHA-{size}{plus}" for size in ("1", "256", "512") for plus in ("", "-PLUS")),
        "XOAUTH2",
        "OAUTHBEARER",
        "GSSAPI",
        "GSS-SPNEGO",
        "NTLM",
        "EXTERNAL",
    }
)


def candidates(wanted: str | Sequence[str], offered: Sequence[str]) -> list[str]:
    """The mechanisms to try, in order: those wanted, if the server offers them and we have them.

    `wanted` is "auto" (the order of RANKING), one name, or names in the order of preference, which
    then counts instead of strength. Names are compared without case and given in upper case.
    """
    if isinstance(wanted, str):
        wanted = RANKING if wanted.lower() == "auto" else (wanted,)
    names = dict.fromkeys(name.upper() for name in wanted)
    usable = {name.upper() for name in offered} & AVAILABLE.keys()
    if not md5_is_allowed():
        usable.discard(CramMD5.name)
    return [name for name in names if name in usable]


def mechanism(name: str, credentials: Credentials) -> Mechanism:
    """A new exchange of the named mechanism; `ConfigurationError` if there is none of that name."""
    factory = AVAILABLE.get(name.upper())
    if factory is None:
        why = "is not available yet" if name.upper() in KNOWN_LATER else "is unknown"
        raise ConfigurationError(
            f"The SASL mechanism {name!r} {why}", stage="auth", hint=f"Available are: {', '.join(AVAILABLE)}."
        )
    return factory(credentials)
