"""The names that the option `auth` takes: SASL mechanisms, built in or registered (RFC 4422).

Says which there are, what each needs, and which library stands behind it. How one is spoken is
`protocol.sasl`'s business.
"""

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from mailbridge.config.groups import as_text, imported, invalid
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
_LIBRARIES = {"scram": "scramp", "gssapi": "spnego"}

#: Mechanisms that send an OAuth2 access token.
WITH_TOKEN = frozenset({"XOAUTH2", "OAUTHBEARER"})
#: Mechanisms that can log in without a password: by certificate, by ticket, or as nobody.
WITHOUT_PASSWORD = frozenset({"EXTERNAL", "GSSAPI", "ANONYMOUS"})

# RFC 4422 section 3.1, sasl-mech, without its limit of 20 characters, which some names exceed.
_NAME = re.compile("[A-Z0-9_-]+")

#: A class that is called with the credentials, or a function of (credentials, challenge).
CustomMechanism = Callable[..., Any]

_registered: dict[str, CustomMechanism] = {}


def register_sasl(name: str, mechanism: CustomMechanism) -> None:
    """Let `mechanism` be named in the option `auth` as `name`, which may be a built-in one's.

    A class is called with the `Credentials` (`username`, `password` and `token`, which are `Secret`
    or None, `host`, `port`, `bindings`) once for each exchange; its objects have `initial() -> bytes
    | None`, what goes out with the AUTH command (None: the server speaks first), and `step(challenge:
    bytes) -> bytes`. Any other callable is called as `mechanism(credentials, challenge)`, with None
    for the initial response. All in raw bytes, without base64. Raises `ConfigurationError` for what
    is no name or can't be called. Used only where `auth` names it, never by "auto".
    """
    if not _NAME.fullmatch(name.upper()):
        raise invalid("auth", f"can't name a mechanism {name!r}: letters, digits, - and _ (RFC 4422)")
    if not callable(mechanism):
        raise invalid("auth", f"the mechanism {name!r} must be a class or callable")
    _registered[name.upper()] = mechanism


def custom(name: str) -> tuple[str, CustomMechanism] | None:
    """The name on the wire and the code of a registered mechanism or a dotted path; None for others."""
    if "." in name:
        return _imported(name)
    found = _registered.get(name)
    return None if found is None else (name, found)


def wire_name(name: str) -> str:
    """The name in AUTH of one that stands in `auth`: its own, or that of what a path leads to."""
    found = custom(name)
    return name if found is None else found[0]


def parse_mechanisms(value: object) -> tuple[str, ...]:
    """The value of `auth`: names in upper case and dotted paths, in the given order; () for "auto"."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise invalid("auth", f"must be a name or a list of names, not {type(value).__name__}")
    texts = [as_text("auth", item).strip() for item in items]
    names = tuple(dict.fromkeys(text if "." in text else text.upper() for text in texts))
    if names == ("AUTO",):
        return ()
    for name in names:
        if custom(name) is None:
            _require_built_in(name)
    return names


def require_fit(names: tuple[str, ...], *, has_token: bool) -> None:
    """Refuse names that can't work with what is configured to prove the user by."""
    unfit = [name for name in names if name in WITH_TOKEN and custom(name) is None and not has_token]
    if unfit:
        raise invalid("auth", f"names {', '.join(unfit)}, which needs the option oauth2")
    if has_token and names and not any(name in WITH_TOKEN or custom(name) for name in names):
        raise invalid("auth", f"names {', '.join(names)}, which can't send the token of the option oauth2")


def may_lack_password(names: tuple[str, ...]) -> bool:
    """Whether a mechanism is named that can log in without a password."""
    return any(name in WITHOUT_PASSWORD or custom(name) is not None for name in names)


def is_installed(name: str) -> bool:
    """Whether the library behind a built-in mechanism is there."""
    extra = EXTRAS[name]
    return not extra or find_spec(_LIBRARIES[extra]) is not None


def _require_built_in(name: str) -> None:
    if name not in EXTRAS:
        known = ", ".join([*EXTRAS, *_registered])
        raise invalid("auth", f"must be auto or name some of {known}")
    if not is_installed(name):
        raise ConfigurationError(
            f"The SASL mechanism {name} needs {_LIBRARIES[EXTRAS[name]]}",
            stage="config",
            hint=f"Install the extra: mailbridge-smtp[{EXTRAS[name]}].",
        )


def _imported(path: str) -> tuple[str, CustomMechanism]:
    found = imported("auth", path)
    name = getattr(found, "name", None)
    if not callable(found) or not isinstance(name, str) or not _NAME.fullmatch(name.upper()):
        raise invalid("auth", f"names {path!r}, which is no mechanism: a class or callable with a `name`")
    return name.upper(), found
