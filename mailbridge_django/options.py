"""From keywords, the MAILBRIDGE setting and Django's EMAIL_* settings to one `SMTPConfig`.

A keyword beats MAILBRIDGE, which beats EMAIL_*, which beats the default; None is "not given".
With a URL, EMAIL_* say nothing. With MAILERS (Django 6.1) the OPTIONS of the alias are the keywords,
and no other setting counts. EMAIL_* are never read here: on Django 6.1 that would warn, so Django's
own backend reads them (see backend.py). Nothing connects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

import mailbridge
from mailbridge import (
    ConfigurationError,
    Secret,
    SMTPConfig,
    TLSOptions,
    clears_locals,
    needs_no_password,
    with_each_timeout,
)
from mailbridge_django.compat import MailerMisconfigured

#: mailbridge's options, beside those whose names Django has too. The core refuses what it can't do yet.
OWN_NAMES = (
    *("url", "service", "security", "auth", "allow_insecure_auth", "oauth2", "tls", "timeouts"),
    *("local_hostname", "source_address", "family", "allow_internal_networks", "guard_names"),
    *("proxy", "proxy_protocol"),
    *("protocol", "pool", "rate", "retry", "pipelining", "disable", "partial", "servers", "dsn", "defaults"),
    *("dkim", "debug", "logger", "config_resolver"),
)
#: The options of Django's backend, in the order of its positional arguments; `fail_silently` left out.
DJANGO_NAMES = (
    *("host", "port", "username", "password", "use_tls", "use_ssl", "timeout"),
    *("ssl_keyfile", "ssl_certfile"),
)
KNOWN_NAMES = tuple(sorted({*OWN_NAMES, *DJANGO_NAMES, "fail_silently"}))

# A service and a URL name all of these, if only by leaving them out: none may come from beneath it, least
# of all, with a URL, the credentials that were meant for another host.
_SAID_BY_SERVICE = frozenset({"url", "servers", "host", "port", "security", "use_tls", "use_ssl"})
_SAID_BY_URL = (_SAID_BY_SERVICE - {"url"}) | {"service", "servers", "username", "password", "oauth2"}
# Each of several servers says these for itself.
_SAID_BY_SERVERS = (_SAID_BY_URL - {"servers"}) | {"url"}
_SECRETS = frozenset({"password", "url", "client_secret", "refresh_token", "access_token", "private_key"})
_SEALED = _SECRETS | {"oauth2", "service_account", "dkim", "servers"}
_NOT_OF_THE_CORE = frozenset({"use_tls", "use_ssl", "ssl_keyfile", "ssl_certfile", "config_resolver"})
# Named in `auth`, these log in without a password.

Options = dict[str, Any]


def given(**options: Any) -> Options:
    """What of `options` was given. Secrets and URLs are sealed, so that no traceback shows them."""
    return {
        name: _sealed(name, value) if name in _SEALED else value
        for name, value in options.items()
        if value is not None
    }


def _sealed(name: str, value: Any) -> Any:
    """`value` without a secret in clear; in the dicts of OAuth2, DKIM and servers, too."""
    if name in _SECRETS and isinstance(value, str):
        return Secret(value)
    if name == "dkim" and isinstance(value, (list, tuple)):
        return [_sealed(name, each) for each in value]
    if name in ("oauth2", "service_account", "dkim") and isinstance(value, Mapping):
        return {inner: _sealed(str(inner), each) for inner, each in value.items()}
    if name == "servers" and isinstance(value, (list, tuple)):
        return [_sealed_server(each) for each in value]
    return value


def _sealed_server(server: Any) -> Any:
    """A URL or options, which may also stand under `config`."""
    if isinstance(server, str):
        return Secret(server)
    if not isinstance(server, Mapping):
        return server
    return {
        name: _sealed_server(value) if name == "config" else _sealed(str(name), value)
        for name, value in server.items()
    }


def package_options() -> Options:
    """The MAILBRIDGE setting without its MAILERS."""
    options = getattr(settings, "MAILBRIDGE", None) or {}
    if not isinstance(options, Mapping):
        raise MailerMisconfigured(f"The MAILBRIDGE setting must be a dict, not {type(options).__name__}")
    return given(**{str(name): value for name, value in options.items() if name != "MAILERS"})


def layered(above: Options, beneath: Options) -> Options:
    """`above` over `beneath`."""
    if "url" in above:
        beneath = {name: value for name, value in beneath.items() if name not in _SAID_BY_URL}
    elif "servers" in above:
        beneath = {name: value for name, value in beneath.items() if name not in _SAID_BY_SERVERS}
    elif "service" in above:
        beneath = {name: value for name, value in beneath.items() if name not in _SAID_BY_SERVICE}
    elif "host" in above:
        beneath = {name: value for name, value in beneath.items() if name not in ("service", "servers")}
    if "oauth2" in above:  # one way to log in takes the place of the other
        beneath = {name: value for name, value in beneath.items() if name != "password"}
    elif above.get("password"):
        beneath = {name: value for name, value in beneath.items() if name != "oauth2"}
    if "timeout" in above:
        beneath = {name: value for name, value in beneath.items() if name != "timeouts"}
    return {**beneath, **above}


def flags_decide(layers: Sequence[Options]) -> bool:
    """Whether `use_tls` and `use_ssl` tell the security; not beside or beneath `security`, `service`, `url`.

    A flag that is off decides nothing: code that hands on all settings says False where nothing is set.
    """
    has_host = False
    for layer in layers:
        if not layer.keys().isdisjoint(("security", "service", "url")):
            return False
        if layer.get("use_tls") or layer.get("use_ssl"):
            return True
        # Without a flag each server has its own way; but a host takes the place of servers beneath it.
        if "servers" in layer and not has_host:
            return False
        has_host = has_host or "host" in layer
    return True


def security_of(options: Options) -> str:
    """What Django's two flags mean; neither is clear text, but on 465 nothing else than TLS can work."""
    if options.get("use_tls"):
        return "starttls"
    return "tls" if options.get("use_ssl") or str(options.get("port")) == "465" else "none"


def with_client_certificate(options: Options) -> Options:
    """`options` with Django's `ssl_certfile` and `ssl_keyfile` in their `tls` group, which wins."""
    certfile, keyfile = options.get("ssl_certfile") or None, options.get("ssl_keyfile") or None
    if not certfile and not keyfile:
        return options
    tls = options.get("tls", {})
    if isinstance(tls, TLSOptions):
        tls = replace(tls, cert_file=tls.cert_file or certfile, key_file=tls.key_file or keyfile)
    elif isinstance(tls, Mapping):
        tls = {"cert_file": certfile, "key_file": keyfile, **tls}
    return {**options, "tls": tls}


def with_credentials(options: Options) -> Options:
    """`options` without credentials if either is empty: Django's way to say that there are none."""
    # Where there is no password, Django's default for it is "".
    if options.get("oauth2") is not None or needs_no_password(options.get("auth")):
        return {name: value for name, value in options.items() if name != "password" or value}
    if options.get("username") == "" or options.get("password") == Secret(""):
        return {name: value for name, value in options.items() if name not in ("username", "password")}
    return options


def of_the_core(options: Options) -> Options:
    """What of `options` the core knows, with the limits that `timeout` stands for spelt out.

    Spelt out, they also win over those of a URL.
    """
    own = {name: value for name, value in options.items() if name not in _NOT_OF_THE_CORE}
    return with_each_timeout(own)


# By alias: the options last seen, and what they stand for.
_known: dict[str | None, tuple[Options, SMTPConfig]] = {}


def config_for(options: Options, alias: str | None) -> SMTPConfig:
    """`build_config`, but the same configuration for as long as the options of an alias stay equal.

    Django makes a backend for each send.
    """
    known = _known.get(alias)
    if known is not None and known[0] == options:
        return known[1]
    config = build_config(options, alias)
    _known[alias] = _copied(options), config
    return config


def _copied(value: Any) -> Any:
    """`value` with its own dicts and lists, so that a change of the project's in them is noticed."""
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    if isinstance(value, set):
        return set(value)
    return value


@clears_locals
def build_config(options: Options, alias: str | None) -> SMTPConfig:
    """The configuration. Raises MailerMisconfigured, which names the alias."""
    try:
        own = of_the_core(with_credentials(with_client_certificate(options)))
        if isinstance(own.get("url"), Secret):
            return SMTPConfig.from_url(own.pop("url").reveal(), **own)
        return SMTPConfig.from_mapping(own)
    except ConfigurationError as error:
        problem = error
    # Outside of the block, so that the frames below, which have seen the URL, are not kept as context.
    raise MailerMisconfigured(problem.message, alias=alias, hint=problem.hint)


def did_you_mean(names: Sequence[str]) -> str:
    """A hint for names that are no options."""
    for name in names:
        if nearest := get_close_matches(name.lower(), KNOWN_NAMES, n=1):
            return f"Did you mean {nearest[0]!r}?"
    return f"Known are: {', '.join(KNOWN_NAMES)}."


@receiver(setting_changed)
def forget_mailers(*, setting: str, **_: Any) -> None:
    """Close the pools of what was configured before; the next send reads the settings anew."""
    if setting in ("MAILBRIDGE", "MAILERS") or setting.startswith("EMAIL_"):
        _known.clear()
        mailbridge.close_all()
