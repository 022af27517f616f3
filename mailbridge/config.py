"""`SMTPConfig`: everything about one server, as one frozen value that is also the registry's key.

All options are parsed and checked here, once, whether they come as keywords, from a mapping
(Django's OPTIONS, Flask's keys) or from a URL. Nothing connects, resolves or reads a file.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Any, Literal, TypedDict, Unpack

from mailbridge.errors import ConfigurationError
from mailbridge.libraries import load_libraries
from mailbridge.mechanisms import may_lack_password, parse_mechanisms, require_fit
from mailbridge.oauth2_options import OAuth2Options, parse_oauth2
from mailbridge.options import (
    Credential,
    PoolOptions,
    RetryOptions,
    Timeouts,
    TLSOptions,
    as_count,
    as_seconds,
    as_secret,
    as_switch,
    as_text,
    build_group,
    invalid,
    unknown_option,
)
from mailbridge.proxies import ProxyURL, parse_proxies
from mailbridge.secret import Secret, clear_locals
from mailbridge.urls import options_of_url

Security = Literal["tls", "starttls", "opportunistic", "none"]
Family = Literal["any", "ipv4", "ipv6"]

# RFC 8314 section 3.3 names 465 for implicit TLS, RFC 6409 587 for submission.
DEFAULT_PORTS: Mapping[str, int] = {"tls": 465, "starttls": 587, "opportunistic": 587, "none": 25}

# Names of the vocabulary whose machinery is not in this release: refused, never ignored.
NOT_YET = {
    "service": "name host, port and security instead",
    "protocol": "only SMTP is spoken",
    "rate": "limit the rate where messages are made",
    "servers": "configure one server for each mailer",
    "dsn": "leave it out",
    "defaults": "set the headers on each message",
}

# RFC 5321 section 4.1.2: Domain or address-literal, the only things EHLO may name.
_EHLO_NAME = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.?)+|\[[A-Za-z0-9:.\-]+\]")


class Options(TypedDict, total=False):
    """The option vocabulary, as keywords take it. None means "not given"."""

    url: str | Secret | None
    host: str | None
    port: int | None
    security: Security | None
    username: str | Callable[[], str] | None
    password: str | Secret | Callable[[], str] | None
    oauth2: OAuth2Options | Mapping[str, Any] | Callable[[], Any] | str | None
    auth: str | list[str] | tuple[str, ...] | None
    allow_insecure_auth: bool | None
    tls: TLSOptions | Mapping[str, Any] | None
    timeout: float | None
    timeouts: Timeouts | Mapping[str, Any] | None
    local_hostname: str | None
    source_address: str | None
    family: Family | None
    allow_internal_networks: bool | None
    pool: PoolOptions | Mapping[str, Any] | bool | None
    retry: RetryOptions | Mapping[str, Any] | int | None
    proxy: str | Secret | Mapping[str, Any] | list[Any] | tuple[Any, ...] | None
    proxy_protocol: Literal[1, 2] | None
    pipelining: Literal["auto", "off"] | None
    disable: list[str] | tuple[str, ...] | str | None
    partial: Literal["deliver", "all-or-none"] | None
    debug: bool | None


@dataclass(frozen=True, slots=True, init=False)
class SMTPConfig:
    """One server, and how to speak to it. Frozen, hashable, comparable; secrets are masked.

    Every option is described in docs/options.md. Raises `ConfigurationError` for an unknown
    name (naming the nearest known one), a bad value, or a pair that can't stand together.
    """

    host: str
    port: int
    security: Security
    username: str | Callable[[], str] | None
    password: Credential | None
    oauth2: OAuth2Options | None
    auth: tuple[str, ...]
    allow_insecure_auth: bool
    tls: TLSOptions
    timeouts: Timeouts
    local_hostname: str | None
    source_address: str | None
    family: Family
    allow_internal_networks: bool
    proxy: tuple[ProxyURL, ...]
    proxy_protocol: Literal[1, 2] | None
    pool: PoolOptions
    retry: RetryOptions
    pipelining: Literal["auto", "off"]
    disable: tuple[str, ...]
    partial: Literal["deliver", "all-or-none"]
    debug: bool

    def __init__(self, **options: Unpack[Options]) -> None:
        outer = sys.exception()
        try:
            values = _parse(options)
        except BaseException as error:
            # Error pages show local variables: no password, and no half of a configuration.
            clear_locals(error, outer=outer)
            del self, options
            raise
        for name, value in values.items():
            object.__setattr__(self, name, value)
        load_libraries(self)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "SMTPConfig":
        """The configuration that a mapping of options describes; the names are those of keywords."""
        try:
            return cls(**{str(name): value for name, value in options.items()})
        finally:
            del options

    @classmethod
    def from_url(cls, url: str | Secret, /, **options: Unpack[Options]) -> "SMTPConfig":
        """`smtp://user:password@host:port/?option=value`; options beside the URL win."""
        try:
            return cls.from_mapping({**options, "url": url})
        finally:
            del url, options

    @property
    def server(self) -> str:
        """The server's name in messages and logs: host:port, or unix:/path."""
        if self.unix_path is not None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def unix_path(self) -> str | None:
        """The path, where `host` names a UNIX socket."""
        return self.host.removeprefix("unix:") if self.host.startswith("unix:") else None

    @property
    def has_credentials(self) -> bool:
        """Whether a login is wanted: with a user, or by a mechanism that needs none."""
        return self.username is not None or may_lack_password(self.auth)


KNOWN = sorted({*Options.__annotations__, *NOT_YET})
_GROUPS = ("tls", "timeouts", "pool", "retry", "oauth2")


def _parse(given: Mapping[str, Any]) -> dict[str, Any]:
    options = _with_url(_named(given))
    values: dict[str, Any] = {
        "host": _host(options.get("host", "localhost")),
        "auth": parse_mechanisms(options.get("auth", "auto")),
        "tls": build_group(TLSOptions, "tls", options.get("tls", {})),
        "timeouts": _timeouts(options.get("timeout"), options.get("timeouts", {})),
        "local_hostname": _local_hostname(options.get("local_hostname")),
        "family": _choice("family", options.get("family", "any"), ("any", "ipv4", "ipv6")),
        "pool": _pool(options.get("pool", {})),
        "retry": _retry(options.get("retry", {})),
        "pipelining": _pipelining(options.get("pipelining", "auto")),
        "disable": _disable(options.get("disable", ())),
        "partial": _choice("partial", options.get("partial", "deliver"), ("deliver", "all-or-none")),
    }
    for name, default in (
        ("allow_insecure_auth", False),
        ("allow_internal_networks", True),
        ("debug", False),
    ):
        values[name] = as_switch(name, options.get(name, default))
    values |= _way(values["host"], options.get("proxy"), options.get("proxy_protocol"))
    values["source_address"] = _source_address(options.get("source_address"), values["family"])
    values |= _credentials(
        options.get("username"), options.get("password"), values["auth"], options.get("oauth2")
    )
    require_fit(values["auth"], has_token=values["oauth2"] is not None)
    values |= _endpoint(values["host"], options.get("port"), options.get("security"))
    if (
        values["host"].startswith("unix:")
        and values["security"] != "none"
        and not values["tls"].server_hostname
    ):
        raise invalid(
            "security", "needs tls.server_hostname, since the path of a UNIX socket is no name to verify"
        )
    return values


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name not in KNOWN:
            raise unknown_option(name, KNOWN)
        if name in NOT_YET and value is not None:
            raise ConfigurationError(
                f"Option {name!r} is not available yet in this release",
                stage="config",
                hint=f"{NOT_YET[name].capitalize()}.",
            )
    return {name: value for name, value in given.items() if value is not None}


def _with_url(options: dict[str, Any]) -> dict[str, Any]:
    url = options.pop("url", None)
    if url is None:
        return options
    from_url = _named(options_of_url(url, KNOWN))
    for name, value in options.items():
        both_are_groups = (
            name in _GROUPS and isinstance(value, Mapping) and isinstance(from_url.get(name), Mapping)
        )
        from_url[name] = {**from_url[name], **value} if both_are_groups else value
    return from_url


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise invalid(name, f"must be one of {', '.join(allowed)}, not {value!r}")
    return str(value)


def _host(value: object) -> str:
    host = as_text("host", value)
    if host.startswith("unix:"):
        if not host.startswith("unix:/"):
            raise invalid("host", "must name a UNIX socket as unix:/absolute/path")
        return host
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or any(c in host for c in " /@?#[]\\<>\"'"):
        raise invalid("host", f"must be a host name or an IP address, not {value!r}")
    if ":" in host:
        _address("host", host.partition("%")[0])
    return host


def _way(host: str, proxy: object, proxy_protocol: object) -> dict[str, Any]:
    """How the server is reached: through which proxies, and with which PROXY header first."""
    proxies = () if proxy is None else parse_proxies(proxy, host=host)
    if proxies and host.startswith("unix:"):
        raise invalid("proxy", "can't lead to a UNIX socket")
    if proxy_protocol is not None and str(proxy_protocol) not in ("1", "2"):
        raise invalid("proxy_protocol", f"must be 1 or 2, not {proxy_protocol!r}")
    return {"proxy": proxies, "proxy_protocol": None if proxy_protocol is None else int(str(proxy_protocol))}


def _address(name: str, value: str) -> int:
    """The IP version of an address literal."""
    try:
        return ip_address(value).version
    except ValueError:
        raise invalid(name, f"must be an IP address, not {value!r}") from None


def _source_address(value: object, family: str) -> str | None:
    if value is None:
        return None
    address = as_text("source_address", value).strip("[]")
    if family not in ("any", f"ipv{_address('source_address', address)}"):
        raise invalid("source_address", f"{address} is no {family} address")
    return address


def _local_hostname(value: object) -> str | None:
    if value is None:
        return None
    name = as_text("local_hostname", value)
    if len(name) > 255 or not _EHLO_NAME.fullmatch(name):
        raise invalid(
            "local_hostname", f"must be a host name or an address literal such as [192.0.2.1], not {name!r}"
        )
    return name


def _endpoint(host: str, port: object, security: object) -> dict[str, Any]:
    if port is not None:
        port = as_count("port", port)
        if port > 65535:
            raise invalid("port", f"must lie between 1 and 65535, not {port}")
    if security is None:
        # Nobody listens on a UNIX socket but this host, and no certificate names a path.
        security = "tls" if port == 465 else "none" if host.startswith("unix:") else "starttls"
    security = _choice("security", security, tuple(DEFAULT_PORTS))
    return {"security": security, "port": port if port is not None else DEFAULT_PORTS[security]}


def _credentials(username: Any, password: Any, auth: tuple[str, ...], oauth2: Any) -> dict[str, Any]:
    if username is not None and not callable(username):
        username = as_text("username", username)
    if password is not None and not callable(password):
        password = as_secret("password", password)
    # Frameworks hand on empty strings for "none"; a user name without a password is a mistake.
    if username == "" and not password:
        username = password = None
    if oauth2 is not None:
        return {"username": username, "password": None, "oauth2": _oauth2(oauth2, username, password)}
    if (username is None) != (password is None) and not (password is None and may_lack_password(auth)):
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


def _words(name: str, value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise invalid(name, f"must be a name or a list of names, not {type(value).__name__}")
    return tuple(dict.fromkeys(as_text(name, item).strip().upper() for item in items))


def _disable(value: object) -> tuple[str, ...]:
    return tuple(sorted(_words("disable", value)))


def _pipelining(value: object) -> str:
    if value == "eager":
        raise invalid("pipelining", "'eager' is not available yet in this release; use 'auto'")
    return _choice(
        "pipelining",
        {True: "auto", False: "off"}.get(value, value) if isinstance(value, bool) else value,
        ("auto", "off"),
    )


def _timeouts(shorthand: object, value: object) -> Timeouts:
    if isinstance(value, Timeouts) or shorthand is None:
        return build_group(Timeouts, "timeouts", value)
    seconds = as_seconds("timeout", shorthand)
    same = dict.fromkeys(("connect", "greeting", "command", "data", "final"), seconds)
    if not isinstance(value, Mapping):
        raise invalid("timeouts", f"must be a mapping of options, not {type(value).__name__}")
    return build_group(Timeouts, "timeouts", {**same, **value})


def _pool(value: object) -> PoolOptions:
    if isinstance(value, (bool, str)):
        return PoolOptions(enabled=as_switch("pool", value))
    return build_group(PoolOptions, "pool", value)


def _retry(value: object) -> RetryOptions:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return RetryOptions(attempts=as_count("retry", value))
    return build_group(RetryOptions, "retry", value)


assert {f.name for f in fields(SMTPConfig)} <= set(KNOWN)  # noqa: S101  # one vocabulary, held at import
