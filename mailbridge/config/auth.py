"""How to log in: the SASL mechanisms that `auth` names, user name, password, and OAuth2 (RFC 4954).

Parses these options. The mechanisms are in `smtp.sasl`, and the login itself is `client.login`'s business.
"""

from collections.abc import Iterable
from typing import Any

from mailbridge.config.oauth2 import OAuth2Options, parse_oauth2
from mailbridge.config.values import as_secret, as_text, imported, invalid
from mailbridge.errors import ConfigurationError
from mailbridge.smtp.sasl.registry import (
    EXTRAS,
    LIBRARIES,
    WITH_TOKEN,
    WITHOUT_PASSWORD,
    custom,
    is_installed,
    is_mechanism,
    registered,
)


def parse_mechanisms(value: object) -> tuple[str, ...]:
    """The value of `auth`: names in upper case and dotted paths, in the given order; () for "auto"."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise invalid("auth", f"must be a name or a list of names, not {type(value).__name__}")
    names = tuple(dict.fromkeys(_names(as_text("auth", item) for item in items)))
    if names == ("AUTO",):
        return ()
    for name in names:
        if "." in name:
            _require_mechanism(name)
        elif custom(name) is None:
            _require_built_in(name)
    return names


def _names(auth: str | Iterable[str]) -> list[str]:
    """The names in upper case, and the dotted paths, of a list or a comma-separated text."""
    texts = [text.strip() for text in (auth.split(",") if isinstance(auth, str) else map(str, auth))]
    return [text if "." in text else text.upper() for text in texts]


def require_fit(names: tuple[str, ...], *, has_token: bool) -> None:
    """Refuse names that can't work with what is configured to prove the user by."""
    unfit = [name for name in names if name in WITH_TOKEN and custom(name) is None and not has_token]
    if unfit:
        raise invalid("auth", f"names {', '.join(unfit)}, which needs the option oauth2")
    if has_token and names and not any(name in WITH_TOKEN or custom(name) for name in names):
        raise invalid("auth", f"names {', '.join(names)}, which can't send the token of the option oauth2")


def needs_no_password(auth: str | Iterable[str] | None) -> bool:
    """Whether the option `auth` names a mechanism that can log in without a password."""
    return any(name in WITHOUT_PASSWORD or name in registered or "." in name for name in _names(auth or ()))


def _require_mechanism(path: str) -> None:
    if not is_mechanism(imported("auth", path)):
        raise invalid("auth", f"names {path!r}, which is no mechanism: a class or callable with a `name`")


def _require_built_in(name: str) -> None:
    if name not in EXTRAS:
        known = ", ".join([*EXTRAS, *registered])
        raise invalid("auth", f"must be auto or name some of {known}")
    if not is_installed(name):
        raise ConfigurationError(
            f"The SASL mechanism {name} needs {LIBRARIES[EXTRAS[name]]}",
            stage="config",
            hint=f"Install the extra: mailbridge-smtp[{EXTRAS[name]}].",
        )


def parse_credentials(username: Any, password: Any, auth: tuple[str, ...], oauth2: Any) -> dict[str, Any]:
    if username is not None and not callable(username):
        username = as_text("username", username)
    if password is not None and not callable(password):
        password = as_secret("password", password)
    # Frameworks hand on empty strings for "none"; a user name without a password is a mistake.
    if username == "" and not password:
        username = password = None
    if oauth2 is not None:
        return {"username": username, "password": None, "oauth2": _oauth2(oauth2, username, password)}
    if (username is None) != (password is None) and not (password is None and needs_no_password(auth)):
        missing, given = ("password", "username") if password is None else ("username", "password")
        raise invalid(given, f"is given without {missing}")
    return {"username": username, "password": password, "oauth2": None}


def _oauth2(value: object, username: object, password: object) -> OAuth2Options:
    options = parse_oauth2(value)
    if not username:
        raise invalid("oauth2", "needs username: the mailbox that tokens are for")
    if password:
        raise invalid("password", "can't stand beside oauth2, which logs in without one")
    return options
