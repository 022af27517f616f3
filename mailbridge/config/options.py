"""The option vocabulary: the names of all options, and what each one may be given as."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from mailbridge.config.defaults import MessageDefaults
from mailbridge.config.dkim import DKIMOptions
from mailbridge.config.groups import PoolOptions, RateLimiter, RateOptions, RetryOptions, Timeouts, TLSOptions
from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.services import Service
from mailbridge.message.delivery_options import DSN
from mailbridge.secret import Secret

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
