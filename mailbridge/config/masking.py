"""Settings that frameworks hold and error pages show: their secrets stay what they are, but show `'***'`.

A setting cannot become a `Secret`: applications compare and split it. It becomes a subclass of its own
type whose `repr` is masked, and `repr` is what debug pages, error mail and error reporters show.
"""

from dataclasses import fields
from types import MappingProxyType
from typing import Any, Self

from mailbridge.config.defaults import MessageDefaults
from mailbridge.config.dkim import DKIMOptions
from mailbridge.config.groups import PoolOptions, RateOptions, RetryOptions, Timeouts, TLSOptions
from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.smtp_config import ServerOptions, SMTPConfig
from mailbridge.secret import MASK

_GROUPS = (
    *(SMTPConfig, TLSOptions, PoolOptions, RetryOptions, Timeouts, RateOptions, OAuth2Options, DKIMOptions),
    *(ServerOptions, MessageDefaults),
)
# Some services take an API token as the user name. Texts at `oauth2`, `dkim`, `tls` … are in the wrong place.
_SECRET = frozenset(
    (
        *("username", "password", "url", "servers", "config", "proxy", "headers", "tls", "scope"),
        *("key_password", "oauth2", "dkim", "client_secret", "refresh_token", "access_token"),
        *("private_key", "service_account", "extra_params", "extra_headers"),
    )
)
# Texts under any other name are masked, too: `pasword` is a name that somebody will use.
_SHOWN = frozenset({field.name for group in _GROUPS for field in fields(group)}) - _SECRET | {
    *("backend", "timeout", "use_tls", "use_ssl", "ssl_keyfile", "ssl_certfile", "fail_silently", "server"),
    *("config_resolver", "default_sender", "ascii_attachments", "suppress_send", "max_emails"),
}
_SCHEMES = ("smtp", "smtps", "lmtp", "http", "https", "socks4", "socks4a", "socks5", "socks5h")


class _Masked:
    """Its `repr` is masked. A copy is the thing itself; a pickle holds the value, as of any setting."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class MaskedStr(_Masked, str):
    """A string, equal to its value and usable as such, whose `repr` shows the scheme of a URL at most."""

    __slots__ = ()

    def __repr__(self) -> str:
        scheme, separator, _ = self.partition("://")
        return f"'{scheme}://{MASK}'" if separator and scheme.lower() in _SCHEMES else f"'{MASK}'"

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


class MaskedBytes(_Masked, bytes):
    """Bytes with a masked `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"b'{MASK}'"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (bytes(memoryview(self)),)


class MaskedInt(_Masked, int):
    """A password of digits, which some readers of the environment take for a number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK

    def __str__(self) -> str:
        return int.__repr__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


def mask_settings(value: Any, name: str = "") -> Any:
    """`value`, options of mailbridge in any shape, with a masked `repr` for each secret in it.

    Dicts and lists are changed in place, tuples, sets and read-only mappings are made anew; each keeps
    its type and equals what it was. `name` is the option that `value` stands for, in any case, if it is
    one. A secret is what stands at an option that holds one (URLs, passwords, keys, tokens, user names),
    at a name that is no option, or what looks like a URL with a user.
    """
    return _Masking().mask(value, name.lower())


class _Masking:
    """One walk through settings. Containers may stand in several places, and within themselves."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, Any]] = {}  # by id; the originals are kept alive meanwhile

    def mask(self, value: Any, name: str) -> Any:
        if isinstance(value, _Masked):
            return value
        if isinstance(value, str):
            return value if name in _SHOWN and not _has_user(value) else MaskedStr(value)
        if isinstance(value, bytes):
            return value if name in _SHOWN and b"@" not in value else MaskedBytes(value)
        if type(value) is int:
            return MaskedInt(value) if name in ("username", "password", "key_password") else value
        if not isinstance(value, dict | list | tuple | set | frozenset | MappingProxyType):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = value, value
            self._done[id(value)] = value, self._mask_within(value, name)
        return self._done[id(value)][1]

    def _mask_within(self, value: Any, name: str) -> Any:
        if isinstance(value, MappingProxyType):
            return MappingProxyType(self.mask(dict(value), name))
        if isinstance(value, dict):
            for key, each in list(value.items()):
                masked = self.mask(each, key.lower() if isinstance(key, str) else "")
                if masked is not each:
                    value[key] = masked
            return value
        inner = [self.mask(each, name) for each in value]
        if isinstance(value, list):
            value[:] = inner
            return value
        if all(new is old for new, old in zip(inner, value, strict=True)):
            return value
        # A named tuple takes its fields one by one.
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)


def _has_user(text: str) -> bool:
    return "@" in text and ":" in text.partition("@")[0]


def without_userinfo(text: str) -> str:
    """`text` with `***` for user and password in each URL in it; linear in its length."""
    first, *others = text.split("://")
    return "://".join([first, *map(_without_user, others)])


def _without_user(rest: str) -> str:
    """What comes after `://`, up to the next URL. A `/` or white space ends the authority."""
    end = next((at for at, char in enumerate(rest) if char == "/" or char.isspace()), len(rest))
    user, separator, host = rest[:end].rpartition("@")
    return f"{MASK}@{host}{rest[end:]}" if user and separator else rest
