"""A connection URL to options: `smtps://user:password@host:465/?pool.max_size=5`.

Only takes the URL apart; what the options mean is `config`'s business. No message here shows the
URL, since it may hold a password.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mailbridge.errors import ConfigurationError
from mailbridge.options import unknown_option
from mailbridge.secret import Secret

_SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "smtp": {},
    "smtps": {"security": "tls"},
    "lmtp": {"protocol": "lmtp"},
}
_NO_OPTION = "has something after the host that is no option; percent-encode / ? # in user and password"
# A URL is data, and often somebody else's. A text at these options is the dotted path of code, …
_CODE = frozenset({"oauth2", "oauth2.on_refresh", "proxy.handler", "rate"})
# … and at these, if it has a dot.
_PERHAPS_CODE = frozenset({"auth", "oauth2.provider"})
_EXAMPLE = "Write it as smtp://user:password@host:port/?option=value."


def _bad(problem: str) -> ConfigurationError:
    return ConfigurationError(f"The connection URL {problem}", stage="config", hint=_EXAMPLE)


def _names_code(name: str, value: str) -> bool:
    if name == "oauth2.token_store":
        return not value.startswith("file:")
    return name in _CODE or (name in _PERHAPS_CODE and "." in value)


def _no_code(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"The connection URL names code in the option {name!r}",
        stage="config",
        hint="A dotted path may stand in a mapping of settings only, since a URL is data.",
    )


def options_of_url(url: object, known: Sequence[str]) -> dict[str, Any]:
    """The options that `url` names; groups nest as dots (`timeouts.command=5`).

    User and password are percent-decoded once. Nothing in a URL is imported or called: dotted paths raise
    `ConfigurationError`. `smtps` means `security=tls`, `lmtp` `protocol=lmtp`.
    """
    if isinstance(url, Secret):
        url = url.reveal()
    if not isinstance(url, str) or any(c <= " " or c == "\x7f" for c in url):
        raise _bad("must be a string without spaces and control characters")
    parts = _split(url)
    if parts is None:
        raise _bad("has a malformed host or port")
    if parts.scheme not in _SCHEMES:
        raise _bad("must start with smtp://, smtps:// or lmtp://")
    if parts.fragment or parts.path not in ("", "/") or "#" in url:
        raise _bad(_NO_OPTION)
    options = dict(_SCHEMES[parts.scheme])
    for name, value in (("username", parts.username), ("password", parts.password), ("host", parts.hostname)):
        if value:
            options[name] = _decoded(value)
    if parts.port is not None:
        options["port"] = parts.port
    return options | _query(parts.query, known)


def _split(url: str) -> SplitResult | None:
    # The errors of urllib quote the URL, so they must not become the context of ours.
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # read for its ValueError
    except ValueError:
        return None
    return parts


def _decoded(text: str) -> str:
    decoded = unquote(text)
    if "\ufffd" in decoded:
        raise _bad("has percent-encoded bytes that are not UTF-8")
    return decoded


def _query(query: str, known: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if any("=" not in pair for pair in query.split("&") if query):
        raise _bad("has a malformed query")
    pairs = parse_qsl(query, keep_blank_values=True)
    for key, value in pairs:
        if not key.replace(".", "_").isidentifier():  # it may be half of a password
            raise _bad(_NO_OPTION)
        name, _, inner = key.partition(".")
        if name not in known or name == "url":
            raise unknown_option(name, list(known))
        place = options.setdefault(name, {}) if inner else options
        if not isinstance(place, dict) or (inner or name) in place:
            raise _bad(f"names the option {key!r} twice")
        if _names_code(key, value):
            raise _no_code(key)
        place[inner or name] = value
    return options
