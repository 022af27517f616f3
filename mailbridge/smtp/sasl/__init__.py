"""The SASL mechanisms: which there are, which is stronger, which to try (RFC 4422, RFC 4954).

Whether the connection is safe enough for credentials is not asked here.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from mailbridge.errors import ConfigurationError
from mailbridge.smtp.sasl import registry, scram
from mailbridge.smtp.sasl.base import Credentials, Mechanism, decode_challenge, encode_response
from mailbridge.smtp.sasl.cram_md5 import CramMD5, md5_is_allowed
from mailbridge.smtp.sasl.custom import Custom
from mailbridge.smtp.sasl.identity import Anonymous, External
from mailbridge.smtp.sasl.login import Login
from mailbridge.smtp.sasl.negotiated import GSSAPI, NTLM
from mailbridge.smtp.sasl.oauth import OAuthBearer, XOAuth2
from mailbridge.smtp.sasl.plain import Plain

__all__ = [
    "AVAILABLE",
    "Credentials",
    "Mechanism",
    "RANKING",
    "candidates",
    "decode_challenge",
    "encode_response",
    "mechanism",
]

#: What "auto" tries, the strongest first.
RANKING: tuple[str, ...] = (
    # Both sides prove themselves, and that nobody sits between the two ends of TLS. What SHA-1 lacks
    # (RFC 6194) is not what SCRAM asks of it, so a binding counts for more than a longer hash.
    "SCRAM-SHA-512-PLUS",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    # Both sides prove themselves; the server needs to know no more than a salted hash.
    "SCRAM-SHA-512",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
    "CRAM-MD5",  # the password stays here, even if TLS ends at somebody else's machine
    # The token is sent, but it ends soon and opens little else.
    "OAUTHBEARER",  # a standard; says which server it is meant for
    "XOAUTH2",
    "PLAIN",  # the password is sent; one round trip, and a standard
    "LOGIN",  # the password is sent; three round trips, and never more than a draft
    # Not here, only used where `auth` names them: EXTERNAL, GSSAPI and NTLM prove something else than
    # what is configured as user and password, ANONYMOUS proves nothing, and of registered ones nothing
    # is known. NTLM is weaker than all but the last two besides.
)

#: Built-in mechanisms by name, except SCRAM, which also needs to know what the server offers.
_BUILT_IN: Mapping[str, Callable[[Credentials], Mechanism]] = MappingProxyType(
    {
        "CRAM-MD5": CramMD5,
        "PLAIN": Plain,
        "LOGIN": Login,
        "OAUTHBEARER": OAuthBearer,
        "XOAUTH2": XOAuth2,
        "EXTERNAL": External,
        "ANONYMOUS": Anonymous,
        "GSSAPI": GSSAPI,
        "NTLM": NTLM,
    }
)

#: The names of all built-in mechanisms.
AVAILABLE: frozenset[str] = frozenset({*_BUILT_IN, *(name for name in RANKING if name.startswith("SCRAM"))})


def candidates(wanted: str | Sequence[str], offered: Sequence[str], credentials: Credentials) -> list[str]:
    """The mechanisms to try, in order: those wanted, offered by the server, and fit for `credentials`.

    `wanted` is "auto" (the order of RANKING), one name, or names and dotted paths in the order of
    preference, which then counts instead of strength. Names are compared without case.
    """
    is_auto = isinstance(wanted, str) and wanted.lower() == "auto"
    named = RANKING if is_auto else (wanted,) if isinstance(wanted, str) else wanted
    names = dict.fromkeys(name if "." in name else name.upper() for name in named)
    there = {name.upper() for name in offered}
    chosen = [name for name in names if registry.wire_name(name) in there and _fits(name, credentials)]
    if is_auto and credentials.password is not None and not scram.is_preparable(credentials):
        chosen = [name for name in chosen if not name.startswith("SCRAM")]
    return chosen


def mechanism(name: str, credentials: Credentials, offered: Sequence[str] = ()) -> Mechanism:
    """A new exchange of the named mechanism; `ConfigurationError` if there is none of that name.

    `offered` is what the server offers, which SCRAM tells it back.
    """
    entry = name if "." in name else name.upper()
    if (found := registry.custom(entry)) is not None:
        return Custom(*found, credentials)
    if entry in _BUILT_IN:
        return _BUILT_IN[entry](credentials)
    if entry in AVAILABLE:
        offers_plus = any(other.upper().endswith("-PLUS") for other in offered)
        return scram.Scram(entry, credentials, offers_plus=offers_plus)
    raise ConfigurationError(
        f"The SASL mechanism {name!r} is unknown",
        stage="auth",
        hint=f"Available are: {', '.join(sorted(AVAILABLE))}.",
    )


def _fits(name: str, credentials: Credentials) -> bool:
    """Whether a mechanism can do something with what there is."""
    if registry.custom(name) is not None or name in registry.WITHOUT_PASSWORD:
        return True
    if name not in AVAILABLE or not registry.is_installed(name):
        return False
    if name in registry.WITH_TOKEN:
        return credentials.token is not None
    if name.endswith("-PLUS") and scram.binding_for(credentials) is None:
        return False
    return credentials.password is not None and (name != CramMD5.name or md5_is_allowed())
