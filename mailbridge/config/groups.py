"""The groups of options that nest in `SMTPConfig`: tls, timeouts, pool, retry.

Each is a frozen value with its own validation. Nothing here opens a file or a socket.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import Literal, TypeVar

from mailbridge.errors import ConfigurationError, InvalidMessage
from mailbridge.message.delivery_options import DSN
from mailbridge.secret import Secret, shown_name

TLSVersion = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
TLS_VERSIONS: tuple[TLSVersion, ...] = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


def invalid(name: str, problem: str) -> ConfigurationError:
    """The error for a bad value: which option, what is wrong, in one sentence."""
    return ConfigurationError(f"Option {name!r} {problem}", stage="config")


def unknown_option(name: str, known: list[str], group: str = "") -> ConfigurationError:
    """The error for a name that is no option; it names the nearest one that is.

    What does not look like a name is not shown.
    """
    nearest = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"Did you mean {group + nearest[0]!r}?" if nearest else f"Known are: {', '.join(known)}."
    return ConfigurationError(f"Unknown option {group + shown_name(name)!r}", stage="config", hint=hint)


def shown(value: object) -> str:
    """What an error says of a value that is refused: of a text nothing, which may be a password in the
    wrong place."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return f"this {type(value).__name__}"


def imported(name: str, path: str) -> object:
    """What a dotted path names. It is shown only if it begins with a module that there is: a token that
    stands in the wrong place has dots, too."""
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        problem = error
    if not _is_module(module.partition(".")[0]):
        raise invalid(name, "names what can't be imported: there is no such module")
    raise invalid(name, f"names {path!r}, which can't be imported: {problem}") from problem


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def as_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """A number of seconds, more than 0 (or from 0 with `zero`); strings of URLs are read."""
    try:
        seconds = float(value)  # type: ignore[arg-type]  # anything else is the TypeError below
    except (TypeError, ValueError):
        seconds = float("nan")
    if isinstance(value, bool) or not isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        wanted = "0 or more seconds" if zero else "a number of seconds above 0"
        raise invalid(name, f"must be {wanted}, not {shown(value)}")
    return seconds


def as_count(name: str, value: object, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise invalid(name, f"must be a whole number of at least {least}, not {shown(value)}")
    return value


def as_switch(name: str, value: object) -> bool:
    """A truth value; URLs say true/false, yes/no, on/off, 1/0."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise invalid(name, f"must be true or false, not {shown(value)}")


def as_text(name: str, value: object) -> str:
    """A string without control characters."""
    text = str(value) if hasattr(value, "__fspath__") else value
    if not isinstance(text, str) or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise invalid(name, "must be a string without control characters")
    return text


def as_secret(name: str, value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise invalid(name, f"must be a string, not {type(value).__name__}")
    return Secret(value)


def as_choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of `allowed`."""
    if value not in allowed:
        raise invalid(name, f"must be one of {', '.join(allowed)}, not {shown(value)}")
    return str(value)


def as_words(name: str, value: object) -> tuple[str, ...]:
    """Names in upper case, from a list or from one string with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise invalid(name, f"must be a name or a list of names, not {type(value).__name__}")
    return tuple(dict.fromkeys(as_text(name, item).strip().upper() for item in items))


G = TypeVar("G")


def build_group(group: type[G], name: str, value: object) -> G:
    """A group from a mapping, or the group itself; unknown names are refused."""
    if isinstance(value, group):
        return value
    if not isinstance(value, Mapping):
        raise invalid(name, f"must be a mapping of options, not {type(value).__name__}")
    known = [f.name for f in fields(group)]  # type: ignore[arg-type]  # groups are dataclasses
    for key in value:
        if key not in known:
            raise unknown_option(str(key), known, f"{name}.")
    return group(**value)


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


def parse_timeouts(shorthand: object, value: object) -> Timeouts:
    if isinstance(value, Timeouts) or shorthand is None:
        return build_group(Timeouts, "timeouts", value)
    seconds = as_seconds("timeout", shorthand)
    same = dict.fromkeys(("connect", "greeting", "command", "data", "final"), seconds)
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
