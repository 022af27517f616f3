"""A connection URL to options: `smtps://user:password@host:465/?pool.max_size=5`.

Only takes the URL apart; what the options mean is `config`'s business. No message here shows the
URL, since it may hold a password.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mailbridge.config.values import unknown_option
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret

_SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "smtp": {},
    "smtps": {"security": "tls"},
    "lmtp": {"protocol": "lmtp"},
}
_NO_OPTION = "has something after the host that is no option; percent-encode / ? # in user and password"
# A URL is data, and often somebody else's. For each group of options ("" for those in none): what may stand
# in a URL, and what may stand in a mapping of settings only, since it names code or files, loosens a check,
# leads log lines elsewhere, or does not fit into a text. What is on neither side is refused.
_OPTIONS: Mapping[str, tuple[str, str]] = {
    "": (
        "service host port protocol security username password auth timeout local_hostname source_address"
        " family pool retry proxy proxy_protocol pipelining disable partial debug",
        "url servers tls timeouts oauth2 rate defaults dkim dsn allow_insecure_auth allow_internal_networks"
        " guard_names logger",
    ),
    "tls": (
        "server_hostname",
        "verify ca_file ca_path cert_file key_file key_password min_version ciphers strict allow_common_name"
        " context",
    ),
    "timeouts": ("dns connect greeting command data final total", ""),
    "pool": ("enabled max_size max_messages max_idle max_lifetime acquire_timeout", ""),
    "rate": ("limit per", ""),
    "retry": ("attempts first_delay factor max_delay jitter", ""),
    "oauth2": (
        "provider tenant grant token_url client_id client_secret refresh_token access_token expires scope"
        " thumbprint key_id",
        "private_key service_account extra_params extra_headers token_store tls on_refresh"
        " allow_insecure_token_url",
    ),
    "defaults": ("sender reply_to list_unsubscribe one_click_unsubscribe priority", "headers"),
    "dkim": ("domain selector private_key algorithm headers canonicalization identity expires", "key_file"),
    "dsn": ("ret envid notify", ""),
    "proxy": ("", "url tls handler"),
}


def _names(side: int) -> frozenset[str]:
    return frozenset(
        f"{group}.{name}" if group else name
        for group, sides in _OPTIONS.items()
        for name in sides[side].split()
    )


IN_URLS = _names(0)
SETTINGS_ONLY = _names(1)
# A text with a dot at these is the dotted path of code, and one without it a name.
_PERHAPS_CODE = frozenset({"auth", "oauth2.provider"})
_EXAMPLE = "Write it as smtp://user:password@host:port/?option=value."


def _bad(problem: str) -> ConfigurationError:
    return ConfigurationError(f"The connection URL {problem}", stage="config", hint=_EXAMPLE)


def _settings_only(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} can't stand in a URL",
        stage="config",
        hint="It may stand in a mapping of settings only, beside the URL; on the command line, use --option."
        " A URL is data: it names no code and no file, and turns no check off.",
    )


def options_of_url(url: object) -> dict[str, Any]:
    """The options that `url` names; groups nest as dots (`timeouts.command=5`).

    User and password are percent-decoded once. `smtps` means `security=tls`, `lmtp` `protocol=lmtp`. Raises
    `ConfigurationError` for what is no URL, and for options that are not in `IN_URLS`.
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
    options |= _query(parts.query)
    if options.get("host", "").startswith("unix:"):
        raise _settings_only("A UNIX socket")
    return options


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


def _query(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if any("=" not in pair for pair in query.split("&") if query):
        raise _bad("has a malformed query")
    pairs = parse_qsl(query, keep_blank_values=True)
    for key, value in pairs:
        if not key.replace(".", "_").isidentifier():  # it may be half of a password
            raise _bad(_NO_OPTION)
        _require_data(key, value)
        name, _, inner = key.partition(".")
        place = options.setdefault(name, {}) if inner else options
        if not isinstance(place, dict) or (inner or name) in place:
            raise _bad(f"names the option {key!r} twice")
        place[inner or name] = value
    return options


def _require_data(key: str, value: str) -> None:
    if key in IN_URLS:
        if key in _PERHAPS_CODE and "." in value:
            raise _settings_only(f"A dotted path in {key!r}")
        return
    if ".".join(key.split(".")[:2]) in SETTINGS_ONLY:  # within oauth2.tls, too
        raise _settings_only(f"Option {key!r}")
    raise unknown_option(key, sorted(IN_URLS | SETTINGS_ONLY))
