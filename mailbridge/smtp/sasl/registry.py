"""The names of SASL mechanisms (RFC 4422), built-in, registered or a dotted path, and what each one needs."""

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from mailbridge.errors import ConfigurationError

_SCRAM = [f"SCRAM-SHA-{size}{plus}" for plus in ("-PLUS", "") for size in ("512", "256", "1")]

#: The extra that each built-in mechanism needs; "" for none.
EXTRAS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(_SCRAM, "scram")
    | dict.fromkeys(("GSSAPI", "NTLM"), "gssapi")
    | dict.fromkeys(
        ("CRAM-MD5", "PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "EXTERNAL", "ANONYMOUS"),
        "",
    )
)
LIBRARIES = {"scram": "scramp", "gssapi": "spnego"}

#: Mechanisms that send an OAuth2 access token.
WITH_TOKEN = frozenset({"XOAUTH2", "OAUTHBEARER"})
#: Mechanisms that can log in without a password: by certificate, by ticket, or as nobody.
WITHOUT_PASSWORD = frozenset({"EXTERNAL", "GSSAPI", "ANONYMOUS"})

# RFC 4422 section 3.1, sasl-mech, without its limit of 20 characters, which some names exceed.
_MECHANISM = re.compile("[A-Z0-9_-]+")

#: A class that is called with the credentials, or a function of (credentials, challenge).
CustomMechanism = Callable[..., Any]

registered: dict[str, CustomMechanism] = {}


def register_sasl(name: str, mechanism: CustomMechanism) -> None:
    """Let `mechanism` be named in the option `auth` as `name`, which may be a built-in one's.

    A class is called with the `Credentials` (`username`, `password` and `token`, which are `Secret`
    or None, `host`, `port`, `bindings`) once for each exchange; its objects have `initial() -> bytes
    | None`, what goes out with the AUTH command (None: the server speaks first), and `step(challenge:
    bytes) -> bytes`. Any other callable is called as `mechanism(credentials, challenge)`, with None
    for the initial response. All in raw bytes, without base64. Raises `ConfigurationError` for what
    is no name or can't be called. Used only where `auth` names it, never by "auto".
    """
    if not _MECHANISM.fullmatch(name.upper()):
        raise _invalid(f"can't name a mechanism {name!r}: letters, digits, - and _ (RFC 4422)")
    if not callable(mechanism):
        raise _invalid(f"the mechanism {name!r} must be a class or callable")
    registered[name.upper()] = mechanism


def custom(name: str) -> tuple[str, CustomMechanism] | None:
    """The name on the wire and the code of a registered mechanism or a dotted path; None for others.

    Whether a path leads to a mechanism is checked where the option `auth` is parsed.
    """
    if "." in name:
        mechanism = resolve_name(name)
        return mechanism.name.upper(), mechanism
    found = registered.get(name)
    return None if found is None else (name, found)


def is_mechanism(found: object) -> bool:
    """Whether what a dotted path leads to can be a mechanism: it is callable and has a `name`."""
    name = getattr(found, "name", None)
    return callable(found) and isinstance(name, str) and _MECHANISM.fullmatch(name.upper()) is not None


def wire_name(name: str) -> str:
    """The name in AUTH of one that stands in `auth`: its own, or that of what a path leads to."""
    found = custom(name)
    return name if found is None else found[0]


def is_installed(name: str) -> bool:
    """Whether the library behind a built-in mechanism is there."""
    extra = EXTRAS[name]
    return not extra or find_spec(LIBRARIES[extra]) is not None


def _invalid(problem: str) -> ConfigurationError:
    return ConfigurationError(f"Option 'auth' {problem}", stage="config")
