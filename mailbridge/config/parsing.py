"""From given options to the values of a configuration: layers, groups, and several servers.

The classes of configurations are passed in, since they are made of what is parsed here.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from mailbridge.config.auth import parse_credentials, parse_mechanisms, require_fit
from mailbridge.config.defaults import MessageDefaults
from mailbridge.config.dkim import parse_dkim
from mailbridge.config.endpoint import (
    parse_endpoint,
    parse_host,
    parse_local_hostname,
    parse_source_address,
    parse_way,
)
from mailbridge.config.groups import (
    TLSOptions,
    parse_dsn,
    parse_pool,
    parse_rate,
    parse_retry,
    parse_timeouts,
)
from mailbridge.config.layers import layered_options, with_each_timeout
from mailbridge.config.options import Options
from mailbridge.config.services import with_service
from mailbridge.config.urls import options_of_url
from mailbridge.config.values import (
    ROOT,
    as_choice,
    as_switch,
    as_words,
    build_group,
    invalid,
    parse_logger,
    unknown_option,
)
from mailbridge.errors import ConfigurationError

C = TypeVar("C")
S = TypeVar("S")

KNOWN = sorted(Options.__annotations__)
# Each server names these for itself: a password that was meant for one must not go to another.
OF_ONE_SERVER = ("url", "service", "host", "port", "username", "password", "oauth2")
# These are about a send as a whole, whichever servers it tries.
OF_THE_MAILER = ("servers", "retry", "defaults", "dkim")
_OWN_NAMES = ("priority", "weight", "config")


def parse(given: Mapping[str, Any], config_class: type[C], server_class: type[S]) -> dict[str, Any]:
    """The values of the fields of `config_class` that the options `given` stand for.

    With `servers` they hold objects of `server_class`. Raises `ConfigurationError`.
    """
    options = _named(given)
    if options.get("servers", ()) == ():  # what the field holds where there is one server
        options.pop("servers", None)
        return _parse_one(options)
    return _Servers(config_class, server_class, options).parse()


class _Servers:
    """What is given beside `servers` holds for each server that does not say it itself.

    An entry is a mapping of options with `priority` and `weight` beside them, a mapping of these two and
    `config`, a URL, a configuration or a `ServerOptions`.
    """

    def __init__(self, config_class: type[Any], server_class: type[Any], options: dict[str, Any]) -> None:
        self._config_class = config_class
        self._server_class = server_class
        self._options = options
        self._defaults = with_each_timeout({n: v for n, v in options.items() if n not in OF_THE_MAILER})

    def parse(self) -> dict[str, Any]:
        _refuse_beside_servers(self._options)
        servers = self._in_order(self._options["servers"])
        of_the_whole = {*OF_THE_MAILER, "timeout", "timeouts"} - {"servers"}
        own = _parse_one({name: value for name, value in self._options.items() if name in of_the_whole})
        first = servers[0].config
        values = {field.name: getattr(first, field.name) for field in fields(first)}
        return values | {name: own[name] for name in of_the_whole & own.keys()} | {"servers": servers}

    def _in_order(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, (str, Mapping)) or not isinstance(value, (list, tuple)):
            hint = "Each is a dict of options, a URL or an SMTPConfig. A URL can't hold a list of servers."
            error = invalid("servers", f"must be a list, not {type(value).__name__}")
            error.hint = hint
            raise error
        if not value:
            raise invalid("servers", "must name at least one server")
        servers = []
        for number, entry in enumerate(value):
            try:
                servers.append(self._server(entry))
            except ConfigurationError as error:
                error.reword(f"servers[{number}]: {error.message}")
                raise
        return tuple(sorted(servers, key=lambda server: server.priority))

    def _server(self, entry: object) -> Any:
        if isinstance(entry, self._server_class):
            _refuse_values(entry.config)
            return entry
        own: dict[str, Any] = {}
        if isinstance(entry, Mapping):
            options = {str(name): each for name, each in entry.items() if each is not None}
            own = {name: options.pop(name) for name in _OWN_NAMES if name in options}
            if "config" in own and options:
                raise invalid(next(iter(options)), "can't stand beside 'config', which has the options")
            entry = own.pop("config", options)
        if isinstance(entry, Mapping):
            _refuse_names(entry)
        config = self._config(entry)
        _refuse_values(config)
        return self._server_class(config=config, **own)

    def _config(self, value: object) -> Any:
        if isinstance(value, self._config_class):
            return value
        if not isinstance(value, Mapping):
            value = {"url": value}
        own = with_each_timeout(with_service(_with_url(_named(value))))
        return self._config_class(**layered_options(own, self._defaults))


def _refuse_beside_servers(options: Mapping[str, Any]) -> None:
    """Raise for options that only one server can have."""
    for name in OF_ONE_SERVER:
        if name in options:
            error = invalid(name, "can't stand beside 'servers'")
            error.hint = f"Each server has its own: servers=[{{{name!r}: ...}}, ...]."
            raise error


def _refuse_values(config: Any) -> None:
    """Raise for a ready configuration that has what is about a send as a whole: it would say nothing here."""
    bare = type(config)()
    for name in OF_THE_MAILER:
        if getattr(config, name, None) != getattr(bare, name, None):
            raise _belongs_beside(name)


def _belongs_beside(name: str) -> ConfigurationError:
    return invalid(name, "belongs beside 'servers', not to one of them")


def _refuse_names(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in OF_THE_MAILER:
            raise _belongs_beside(name)
        if name not in KNOWN:
            raise unknown_option(str(name), sorted({*KNOWN, *_OWN_NAMES} - {*OF_THE_MAILER}))


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
    return layered_options(options, options_of_url(url))


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
