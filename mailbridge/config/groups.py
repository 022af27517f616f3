"""The groups of options that nest in `SMTPConfig`: tls, timeouts, pool, retry, and rate.

Each is a frozen value with its own validation. Nothing here opens a file or a socket.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Literal

from mailbridge.config.values import (
    as_count,
    as_seconds,
    as_secret,
    as_switch,
    as_text,
    build_group,
    imported,
    invalid,
)
from mailbridge.errors import ConfigurationError, InvalidMessage
from mailbridge.message.delivery_options import DSN
from mailbridge.secret import Secret

TLSVersion = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
TLS_VERSIONS: tuple[TLSVersion, ...] = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


def _set(owner: object, name: str, value: object) -> None:
    object.__setattr__(owner, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """How TLS is spoken and what is believed.

    `verify`: check the certificate and its name (default). `ca_file`, `ca_path`: what to trust
    instead of the system's store. `cert_file`, `key_file`, `key_password`: a client certificate.
    `server_hostname`: the name to ask for and to check, instead of `host`. `min_version`:
    TLSv1.2 unless said otherwise. `ciphers`: an OpenSSL cipher list. `strict=False` drops the
    X509_STRICT checks of Python 3.13 (for old private CAs). `allow_common_name`: take the name in the
    subject where a certificate has no subjectAltName, which RFC 9525 section 2 forbids. `context`: an
    `ssl.SSLContext` of your own, in place of all of these but `server_hostname`.
    """

    verify: bool = True
    ca_file: str | None = None
    ca_path: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: Secret | None = None
    server_hostname: str | None = None
    min_version: TLSVersion = "TLSv1.2"
    ciphers: str | None = None
    strict: bool = True
    allow_common_name: bool = False
    context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        for name in ("verify", "strict", "allow_common_name"):
            _set(self, name, as_switch(f"tls.{name}", getattr(self, name)))
        for name in ("ca_file", "ca_path", "cert_file", "key_file", "server_hostname", "ciphers"):
            value = getattr(self, name)
            _set(self, name, None if value is None or value == "" else as_text(f"tls.{name}", value))
        if self.key_password is not None:
            _set(self, "key_password", as_secret("tls.key_password", self.key_password))
        if self.min_version not in TLS_VERSIONS:
            raise invalid("tls.min_version", f"must be one of {', '.join(TLS_VERSIONS)}")
        if self.key_file and not self.cert_file:
            raise invalid("tls.key_file", "needs tls.cert_file beside it")
        if self.context is not None:
            self._check_context(self.context)

    def _check_context(self, context: object) -> None:
        if not isinstance(context, ssl.SSLContext):
            raise invalid("tls.context", f"must be an ssl.SSLContext, not {type(context).__name__}")
        beside = TLSOptions(server_hostname=self.server_hostname)
        for f in fields(self):
            if f.name != "context" and getattr(self, f.name) != getattr(beside, f.name):
                raise invalid(f"tls.{f.name}", "can't stand beside tls.context, which says all of it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Time limits in seconds, each absolute for its stage; None means no limit.

    `dns` 30: name resolution. `connect` 30: one deadline over all addresses and the TLS handshake.
    `greeting` 30: the server's first line. `command` 60: the answer to one command. `data` 300:
    writing the content, anew for every 32 MiB. `final` 600: the answer to the final dot (RFC 5321
    section 4.5.3.2.6 asks for ten minutes, since a shorter wait makes duplicates). `total`: one send,
    with waiting for a connection, dialing, TLS, AUTH and content.
    """

    dns: float | None = 30.0
    connect: float | None = 30.0
    greeting: float | None = 30.0
    command: float | None = 60.0
    data: float | None = 300.0
    final: float | None = 600.0
    total: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                _set(self, f.name, as_seconds(f"timeouts.{f.name}", value))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How many sessions one process keeps, and how long.

    `enabled=False` (or `pool=False`): a fresh connection for each send. `max_size` 5 sessions,
    lent, idle and being opened together. `max_messages` 100 on one session. `max_idle` 120 and
    `max_lifetime` 600 (±10 %) seconds. `acquire_timeout` 30 seconds to wait for a session.
    """

    enabled: bool = True
    max_size: int = 5
    max_messages: int = 100
    max_idle: float = 120.0
    max_lifetime: float = 600.0
    acquire_timeout: float = 30.0

    def __post_init__(self) -> None:
        _set(self, "enabled", as_switch("pool.enabled", self.enabled))
        for name in ("max_size", "max_messages"):
            _set(self, name, as_count(f"pool.{name}", getattr(self, name)))
        for name in ("max_idle", "max_lifetime", "acquire_timeout"):
            _set(self, name, as_seconds(f"pool.{name}", getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """Timed retries of a send, only where the outcome is known to be "not sent" and transient.

    `attempts` 1: no retry. The wait before attempt n+1 is `first_delay` (1 s) times `factor` (2)
    to the n-1, at most `max_delay` (30 s), each shortened at random by up to `jitter` (half).
    """

    attempts: int = 1
    first_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        _set(self, "attempts", as_count("retry.attempts", self.attempts))
        for name in ("first_delay", "max_delay"):
            _set(self, name, as_seconds(f"retry.{name}", getattr(self, name), zero=True))
        _set(self, "factor", as_seconds("retry.factor", self.factor))
        _set(self, "jitter", as_seconds("retry.jitter", self.jitter, zero=True))
        if self.factor < 1:
            raise invalid("retry.factor", f"must be at least 1, not {self.factor!r}")
        if self.jitter > 1:
            raise invalid("retry.jitter", f"must lie between 0 and 1, not {self.jitter!r}")


Credential = Secret | Callable[[], str]


#: What the shorthand `timeout` stands for.
LIMITS_OF_TIMEOUT = ("connect", "greeting", "command", "data", "final")


def parse_timeouts(shorthand: object, value: object) -> Timeouts:
    if isinstance(value, Timeouts) or shorthand is None:
        return build_group(Timeouts, "timeouts", value)
    seconds = as_seconds("timeout", shorthand)
    same = dict.fromkeys(LIMITS_OF_TIMEOUT, seconds)
    if not isinstance(value, Mapping):
        raise invalid("timeouts", f"must be a mapping of options, not {type(value).__name__}")
    return build_group(Timeouts, "timeouts", {**same, **value})


def parse_pool(value: object) -> PoolOptions:
    if isinstance(value, (bool, str)):
        return PoolOptions(enabled=as_switch("pool", value))
    return build_group(PoolOptions, "pool", value)


def parse_dsn(value: object) -> DSN | None:
    """The reports for messages that do not say it themselves; None if there are to be none."""
    if value is None:
        return None
    try:
        dsn = DSN.of(value)
    except InvalidMessage as error:
        raise ConfigurationError(f"Option 'dsn': {error.message}", stage="config", hint=error.hint) from None
    if dsn.orcpt is not None:
        raise invalid("dsn", "can't name an orcpt, which is of one recipient")
    return dsn or None


def parse_retry(value: object) -> RetryOptions:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return RetryOptions(attempts=as_count("retry", value))
    return build_group(RetryOptions, "retry", value)


#: Asked at each dispatch: the seconds to wait before asking again, or 0.0 for "go", which it has counted.
RateLimiter = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOptions:
    """At most `limit` messages in any `per` seconds (1.0), in this process."""

    limit: int
    per: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", as_count("rate.limit", self.limit))
        object.__setattr__(self, "per", as_seconds("rate.per", self.per))

    def __str__(self) -> str:
        return f"{self.limit} per {self.per:g} s"


def parse_rate(value: object) -> RateOptions | RateLimiter | None:
    """The option's value: a group, a callable, the dotted path of one (or of its class), or None."""
    if value is None or isinstance(value, RateOptions):
        return value
    if isinstance(value, Mapping):
        if "limit" not in value:
            raise invalid("rate", "needs limit: how many messages may leave in per seconds")
        return build_group(RateOptions, "rate", value)
    found = _made(value) if isinstance(value, str) else value
    if not callable(found) or isinstance(found, type):
        raise invalid("rate", "must be a mapping with limit and per, or a callable, or its dotted path")
    try:
        hash(found)
    except TypeError:
        raise invalid("rate", "must be a callable that can be hashed, as part of the configuration") from None
    return found


@cache
def _made(path: str) -> object:
    """One limiter for each dotted path: equal options must give equal values."""
    found = imported("rate", path)
    return found() if isinstance(found, type) else found
