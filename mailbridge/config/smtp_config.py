"""`SMTPConfig`: everything about one server, as one frozen value that is also the registry's key.

All options are parsed and checked here, once, whether they come as keywords, from a mapping
(Django's OPTIONS, Flask's keys) or from a URL. Nothing connects or resolves, and of
files only the key of DKIM is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Unpack

from mailbridge.config.auth import needs_no_password
from mailbridge.config.defaults import MessageDefaults
from mailbridge.config.dkim import DKIMOptions
from mailbridge.config.groups import (
    Credential,
    PoolOptions,
    RateLimiter,
    RateOptions,
    RetryOptions,
    Timeouts,
    TLSOptions,
)
from mailbridge.config.libraries import load_libraries
from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.options import Family, Options, Security
from mailbridge.config.parsing import KNOWN, parse
from mailbridge.config.proxies import ProxyURL
from mailbridge.config.services import Service
from mailbridge.config.untrusted import untrusted_options
from mailbridge.config.values import (
    as_count,
)
from mailbridge.message.delivery_options import DSN
from mailbridge.secret import Secret, clears_locals


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """One of several servers.

    The lowest `priority` (1) is tried first; servers of equal priority share the messages by `weight` (1).
    """

    config: "SMTPConfig"
    priority: int = 1
    weight: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "priority", as_count("priority", self.priority, least=0))
        object.__setattr__(self, "weight", as_count("weight", self.weight))


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
        for name, value in parse(options, SMTPConfig, ServerOptions).items():
            object.__setattr__(self, name, value)
        load_libraries(self)

    def __hash__(self) -> int:
        """Over what tells most servers apart, since each send of Django looks for its mailer by it."""
        return hash((self.host, self.port, self.username))

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
    def has_credentials(self) -> bool:
        """Whether a login is wanted: with a user, or by a mechanism that needs none."""
        return self.username is not None or needs_no_password(self.auth)


assert {f.name for f in fields(SMTPConfig)} <= set(KNOWN)  # noqa: S101  # one vocabulary, held at import
