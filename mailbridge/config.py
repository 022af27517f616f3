"""`SMTPConfig`: everything about one server, as one frozen value that is also the registry's key.

All options are parsed and checked here, once, whether they come as keywords, from a mapping
(Django's OPTIONS, Flask's keys) or from a URL. Nothing connects or resolves, and of
files only the key of DKIM is read.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, Unpack

from mailbridge.defaults import MessageDefaults
from mailbridge.dkim_options import DKIMOptions, parse_dkim
from mailbridge.endpoint import (
    parse_endpoint,
    parse_host,
    parse_local_hostname,
    parse_source_address,
    parse_way,
)
from mailbridge.extensions import DSN
from mailbridge.libraries import load_libraries
from mailbridge.login_options import parse_credentials
from mailbridge.logs import ROOT, Log, parse_logger
from mailbridge.mechanisms import may_lack_password, parse_mechanisms, require_fit
from mailbridge.oauth2_options import OAuth2Options
from mailbridge.options import (
    Credential,
    PoolOptions,
    RetryOptions,
    Timeouts,
    TLSOptions,
    as_choice,
    as_switch,
    as_words,
    build_group,
    invalid,
    parse_dsn,
    parse_pool,
    parse_retry,
    parse_timeouts,
    unknown_option,
)
from mailbridge.proxies import ProxyURL
from mailbridge.rate_options import RateLimiter, RateOptions, parse_rate
from mailbridge.secret import Secret, clears_locals
from mailbridge.server_options import (
    OF_THE_MAILER,
    ServerOptions,
    parse_servers,
    refuse_beside_servers,
    with_spelt_timeouts,
)
from mailbridge.services import Service, with_service
from mailbridge.untrusted import untrusted_options
from mailbridge.urls import options_of_url

Security = Literal["tls", "starttls", "opportunistic", "none"]
Family = Literal["any", "ipv4", "ipv6"]


class Options(TypedDict, total=False):
    """The option vocabulary, as keywords take it. None means "not given"."""

    url: str | Secret | None
    service: str | Service | None
    host: str | None
    port: int | None
    protocol: Literal["smtp", "lmtp"] | None
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
    guard_names: Literal["local", "proxy"] | None
    pool: PoolOptions | Mapping[str, Any] | bool | None
    rate: RateOptions | Mapping[str, Any] | RateLimiter | str | None
    retry: RetryOptions | Mapping[str, Any] | int | None
    proxy: str | Secret | Mapping[str, Any] | list[Any] | tuple[Any, ...] | None
    proxy_protocol: Literal[1, 2] | None
    pipelining: Literal["auto", "off"] | None
    disable: list[str] | tuple[str, ...] | str | None
    partial: Literal["deliver", "all-or-none"] | None
    defaults: MessageDefaults | Mapping[str, Any] | None
    dkim: DKIMOptions | Mapping[str, Any] | list[Any] | tuple[Any, ...] | None
    dsn: DSN | Mapping[str, Any] | None
    debug: bool | None
    logger: str | logging.Logger | None
    servers: list[Any] | tuple[Any, ...] | None


@dataclass(frozen=True, slots=True, init=False)
class SMTPConfig:
    """One server, and how to speak to it. Frozen, hashable, comparable; secrets are masked.

    With `servers` it stands for several; then its host, port and login are those of the first.

    Every option is described in docs/options.md. Raises `ConfigurationError` for an unknown
    name (naming the nearest known one), a bad value, or a pair that can't stand together.
    """

    host: str
    port: int
    protocol: Literal["smtp", "lmtp"]
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
    guard_names: Literal["local", "proxy"]
    proxy: tuple[ProxyURL, ...]
    proxy_protocol: Literal[1, 2] | None
    pool: PoolOptions
    rate: RateOptions | RateLimiter | None
    retry: RetryOptions
    pipelining: Literal["auto", "off"]
    disable: tuple[str, ...]
    partial: Literal["deliver", "all-or-none"]
    defaults: MessageDefaults
    dkim: tuple[DKIMOptions, ...]
    dsn: DSN | None
    debug: bool
    logger: str
    service: Service | None
    servers: tuple[ServerOptions, ...]

    @clears_locals  # error pages show them: no password, and no half of a configuration
    def __init__(self, **options: Unpack[Options]) -> None:
        for name, value in _parse(options).items():
            object.__setattr__(self, name, value)
        load_libraries(self)

    @classmethod
    @clears_locals
    def from_mapping(cls, options: Mapping[str, Any]) -> "SMTPConfig":
        """The configuration that a mapping of options describes; the names are those of keywords."""
        return cls(**{str(name): value for name, value in options.items()})

    @classmethod
    @clears_locals
    def from_url(cls, url: str | Secret, /, **options: Unpack[Options]) -> "SMTPConfig":
        """`smtp://user:password@host:port/?option=value`; options beside the URL win."""
        return cls.from_mapping({**options, "url": url})

    @classmethod
    @clears_locals
    def from_untrusted(cls, source: str | Secret | Mapping[str, Any], /) -> "SMTPConfig":
        """The configuration of a server that somebody who is not trusted names: a tenant, a form, a row.

        `source` is a URL or a mapping. It may give host, port, security, username, password, service, timeout
        and timeouts (at most 120 seconds each), and nothing else. Only public addresses are reached
        (`allow_internal_networks=False`). Raises `ConfigurationError`, which shows no value.
        """
        return cls.from_mapping(untrusted_options(source))

    @property
    def server(self) -> str:
        """The server's name in messages and logs: host:port, or unix:/path; of several, all names."""
        if self.servers:
            return ", ".join(each.config.server for each in self.servers)
        if self.unix_path is not None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def unix_path(self) -> str | None:
        """The path, where `host` names a UNIX socket."""
        return self.host.removeprefix("unix:") if self.host.startswith("unix:") else None

    @property
    def endpoints(self) -> tuple[ServerOptions, ...]:
        """The servers to send by, in the order of their priorities: those of `servers`, or this one alone."""
        return self.servers or (ServerOptions(config=self),)

    @property
    def log(self) -> Log:
        """Where the lines about this server go."""
        return Log(self.logger, self.server)

    @property
    def has_credentials(self) -> bool:
        """Whether a login is wanted: with a user, or by a mechanism that needs none."""
        return self.username is not None or may_lack_password(self.auth)


KNOWN = sorted(Options.__annotations__)
_GROUPS = ("tls", "timeouts", "pool", "rate", "retry", "oauth2", "defaults", "dkim", "dsn")


def _parse(given: Mapping[str, Any]) -> dict[str, Any]:
    options = _named(given)
    if options.get("servers", ()) == ():  # what the field holds where there is one server
        options.pop("servers", None)
        return _parse_one(options)
    return _parse_several(options)


def _parse_several(options: dict[str, Any]) -> dict[str, Any]:
    """What is said beside `servers` holds for each server that does not say it itself."""
    refuse_beside_servers(options)
    defaults = {name: value for name, value in options.items() if name not in OF_THE_MAILER}

    def build(value: object) -> SMTPConfig:
        if isinstance(value, SMTPConfig):
            return value
        if not isinstance(value, Mapping):
            value = {"url": value}
        own = with_service(_with_url(_named(value)))
        return SMTPConfig.from_mapping(_layered(with_spelt_timeouts(own), with_spelt_timeouts(defaults)))

    servers = parse_servers(options["servers"], KNOWN, build)
    of_the_whole = {*OF_THE_MAILER, "timeout", "timeouts"} - {"servers"}
    own = _parse_one({name: value for name, value in options.items() if name in of_the_whole})
    values = {field.name: getattr(servers[0].config, field.name) for field in fields(SMTPConfig)}
    return values | {name: own[name] for name in of_the_whole & own.keys()} | {"servers": servers}


def _parse_one(given: dict[str, Any]) -> dict[str, Any]:
    options = with_service(_with_url(given))
    values: dict[str, Any] = {
        "service": options.get("service"),
        "logger": parse_logger(options.get("logger", ROOT)),
        "host": parse_host(options.get("host", "localhost")),
        "auth": parse_mechanisms(options.get("auth", "auto")),
        "tls": build_group(TLSOptions, "tls", options.get("tls", {})),
        "timeouts": parse_timeouts(options.get("timeout"), options.get("timeouts", {})),
        "local_hostname": parse_local_hostname(options.get("local_hostname")),
        "family": as_choice("family", options.get("family", "any"), ("any", "ipv4", "ipv6")),
        "guard_names": as_choice("guard_names", options.get("guard_names", "local"), ("local", "proxy")),
        "pool": parse_pool(options.get("pool", {})),
        "rate": parse_rate(options.get("rate")),
        "retry": parse_retry(options.get("retry", {})),
        "pipelining": _pipelining(options.get("pipelining", "auto")),
        "disable": _disable(options.get("disable", ())),
        "defaults": build_group(MessageDefaults, "defaults", options.get("defaults", {})),
        "dkim": parse_dkim(options.get("dkim", ())),
        "dsn": parse_dsn(options.get("dsn")),
        "partial": as_choice("partial", options.get("partial", "deliver"), ("deliver", "all-or-none")),
        "servers": (),
    }
    for name, default in (
        ("allow_insecure_auth", False),
        ("allow_internal_networks", True),
        ("debug", False),
    ):
        values[name] = as_switch(name, options.get(name, default))
    values["source_address"] = parse_source_address(options.get("source_address"), values["family"])
    values |= parse_credentials(
        options.get("username"), options.get("password"), values["auth"], options.get("oauth2")
    )
    require_fit(values["auth"], has_token=values["oauth2"] is not None)
    values |= parse_endpoint(
        values["host"], options.get("port"), options.get("security"), options.get("protocol", "smtp")
    )
    values |= parse_way(values["host"], values["port"], options.get("proxy"), options.get("proxy_protocol"))
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
    for name in given:
        if name not in KNOWN:
            raise unknown_option(name, KNOWN)
    return {name: value for name, value in given.items() if value is not None}


def _with_url(options: dict[str, Any]) -> dict[str, Any]:
    url = options.pop("url", None)
    if url is None:
        return options
    return _layered(options, options_of_url(url))


def _layered(above: Mapping[str, Any], beneath: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `beneath`, group by group."""
    merged = {**beneath, **above}
    for name in _GROUPS:
        groups = (beneath.get(name), above.get(name))
        if all(isinstance(group, Mapping) for group in groups):
            merged[name] = {**groups[0], **groups[1]}  # type: ignore[dict-item]  # mappings, as just seen
    return merged


def _disable(value: object) -> tuple[str, ...]:
    return tuple(sorted(as_words("disable", value)))


def _pipelining(value: object) -> str:
    if value == "eager":
        raise invalid("pipelining", "'eager' is not available yet in this release; use 'auto'")
    return as_choice(
        "pipelining",
        {True: "auto", False: "off"}.get(value, value) if isinstance(value, bool) else value,
        ("auto", "off"),
    )


assert {f.name for f in fields(SMTPConfig)} <= set(KNOWN)  # noqa: S101  # one vocabulary, held at import
