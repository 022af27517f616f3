"""The options of a receiving server, checked once and kept as one value. Nothing here opens a socket."""

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mailbridge.config.values import as_count, as_seconds, as_switch, as_text, invalid
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret
from mailbridge.server.hooks import Hook
from mailbridge.server.networks import Hosts
from mailbridge.server.tls import server_context

HOOKS = ("on_connect", "on_auth", "on_mail_from", "on_rcpt_to", "on_message")
_NEEDED = "on_message"  # a mail that nobody takes must not be acknowledged
# Of all connections together, unless told otherwise: so many bytes, but so many of the greatest mails.
_BUFFERED_BYTES = 256 * 1024 * 1024
_BUFFERED_MESSAGES = 8


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What `MailServer` was told, in normal form."""

    name: str
    proxies: Hosts
    ignored_hosts: Hosts
    proxy_header_timeout: float
    tls: ssl.SSLContext | None
    implicit_tls: bool
    require_starttls: bool
    users: Mapping[str, Secret] | None
    check_login: Hook | None
    require_auth: bool
    allow_insecure_auth: bool
    max_message_size: int
    max_buffered_size: int
    max_recipients: int
    max_connections: int
    max_connections_per_client: int
    idle_timeout: float
    hook_threads: int
    hooks: Mapping[str, Hook]
    logger: logging.Logger

    @cached_property
    def offers_auth(self) -> bool:
        return self.users is not None or self.check_login is not None


def build(*, logger: logging.Logger, **given: Any) -> Policy:
    """The policy of these options. Raises ConfigurationError, which names the wrong one."""
    auth = given["auth"]
    size = as_count("max_message_size", given["max_message_size"])
    buffered = given["max_buffered_size"]
    policy = Policy(
        name=_host_name(given["name"]),
        proxies=_proxies(given["use_proxy"]),
        ignored_hosts=Hosts.parse("ignored_hosts", given["ignored_hosts"]),
        proxy_header_timeout=as_seconds("proxy_header_timeout", given["proxy_header_timeout"]),
        tls=None if given["tls"] is None else server_context(given["tls"]),
        implicit_tls=as_switch("implicit_tls", given["implicit_tls"]),
        require_starttls=as_switch("require_starttls", given["require_starttls"]),
        users=_users(auth) if isinstance(auth, Mapping) else None,
        check_login=None if auth is None or isinstance(auth, Mapping) else _hook("auth", auth),
        require_auth=as_switch("require_auth", given["require_auth"]),
        allow_insecure_auth=as_switch("allow_insecure_auth", given["allow_insecure_auth"]),
        max_message_size=size,
        max_buffered_size=max(_BUFFERED_BYTES, _BUFFERED_MESSAGES * size)
        if buffered is None
        else as_count("max_buffered_size", buffered),
        max_recipients=as_count("max_recipients", given["max_recipients"]),
        max_connections=as_count("max_connections", given["max_connections"]),
        max_connections_per_client=as_count(
            "max_connections_per_client", given["max_connections_per_client"]
        ),
        idle_timeout=as_seconds("idle_timeout", given["idle_timeout"]),
        hook_threads=as_count("hook_threads", given["hook_threads"]),
        hooks={
            name: _hook(name, given[name]) for name in HOOKS if given[name] is not None or name == _NEEDED
        },
        logger=logger,
    )
    _require_sense(policy)
    return policy


def _require_sense(policy: Policy) -> None:
    if policy.tls is None and (policy.implicit_tls or policy.require_starttls):
        name = "implicit_tls" if policy.implicit_tls else "require_starttls"
        raise ConfigurationError(
            f"Option {name!r} needs a certificate",
            stage="config",
            hint="Give tls={'cert_file': …, 'key_file': …}.",
        )
    if policy.implicit_tls and policy.require_starttls:
        raise invalid("require_starttls", "can't be had with implicit_tls: there TLS comes first anyway")
    if policy.offers_auth and policy.tls is None and not policy.allow_insecure_auth:
        raise ConfigurationError(
            "Option 'auth' needs a certificate: passwords are taken over TLS only",
            stage="config",
            hint="Give tls=…, or allow_insecure_auth=True for a test.",
        )
    if "on_auth" in policy.hooks and not policy.offers_auth:
        raise invalid("on_auth", "is never called without the option 'auth'")
    if policy.max_buffered_size < policy.max_message_size:
        raise invalid("max_buffered_size", "is less than max_message_size")


def _proxies(given: object) -> Hosts:
    if isinstance(given, bool):
        return Hosts(everybody=given)
    return Hosts.parse("use_proxy", given)


def _users(given: Mapping[Any, Any]) -> Mapping[str, Secret]:
    for user, password in given.items():
        if not isinstance(user, str) or not isinstance(password, str | Secret) or not user:
            raise invalid("auth", "must be a mapping of user names to passwords, both strings, or a function")
    return {user: word if isinstance(word, Secret) else Secret(word) for user, word in given.items()}


def _hook(name: str, given: object) -> Hook:
    if not callable(given):
        raise invalid(name, f"must be a function, not {given!r}")
    return given


def _host_name(given: object) -> str:
    name = as_text("name", given)
    if not name or not name.isascii() or " " in name:
        raise invalid("name", f"must be a host name, not {name!r}")
    return name
