"""`servers=[...]`: several servers for one mailer, each with a priority and a weight.

Takes the list apart; what the options of one server mean is `config`'s business, and which server a
message goes to that of `routing`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailbridge.config.groups import as_count, invalid, unknown_option
from mailbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from mailbridge.config.smtp_config import SMTPConfig

#: From what stands for a server (options, a URL, a configuration) to its configuration.
Build = Callable[[object], "SMTPConfig"]

# Each server names these for itself: a password that was meant for one must not go to another.
OF_ONE_SERVER = ("url", "service", "host", "port", "username", "password", "oauth2")
# These are about a send as a whole, whichever servers it tries.
OF_THE_MAILER = ("servers", "retry", "defaults", "dkim")
# What the shorthand `timeout` stands for.
_STAGES = ("connect", "greeting", "command", "data", "final")
_OWN_NAMES = ("priority", "weight", "config")


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


def parse_servers(value: object, known: Sequence[str], build: Build) -> tuple[ServerOptions, ...]:
    """The servers in the order of their priorities.

    `known` are the names of options, and `build` makes a configuration of what stands for one.

    Each is a mapping of options with `priority` and `weight` beside them, a mapping of these two and
    `config`, a URL, an `SMTPConfig` or a `ServerOptions`.
    """
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
            servers.append(_parse_server(entry, known, build))
        except ConfigurationError as error:
            error.reword(f"servers[{number}]: {error.message}")
            raise
    return tuple(sorted(servers, key=lambda server: server.priority))


def refuse_beside_servers(options: Mapping[str, Any]) -> None:
    """Raise for options that only one server can have."""
    for name in OF_ONE_SERVER:
        if name in options:
            error = invalid(name, "can't stand beside 'servers'")
            error.hint = f"Each server has its own: servers=[{{{name!r}: ...}}, ...]."
            raise error


def with_spelt_timeouts(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the limits that `timeout` stands for, so that layers can be laid over each other."""
    spelt = dict(options)
    limits = spelt.get("timeouts", {})
    if "timeout" in spelt and isinstance(limits, Mapping):
        spelt["timeouts"] = {**dict.fromkeys(_STAGES, spelt.pop("timeout")), **limits}
    return spelt


def _parse_server(entry: object, known: Sequence[str], build: Build) -> ServerOptions:
    if isinstance(entry, ServerOptions):
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
        _refuse_names(entry, known)
    config = build(entry)
    _refuse_values(config)
    return ServerOptions(config=config, **own)


def _refuse_values(config: "SMTPConfig") -> None:
    """Raise for a ready configuration that has what is about a send as a whole: it would say nothing here."""
    bare = type(config)()
    for name in OF_THE_MAILER:
        if getattr(config, name, None) != getattr(bare, name, None):
            raise _belongs_beside(name)


def _belongs_beside(name: str) -> ConfigurationError:
    return invalid(name, "belongs beside 'servers', not to one of them")


def _refuse_names(options: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in options:
        if name in OF_THE_MAILER:
            raise _belongs_beside(name)
        if name not in known:
            raise unknown_option(str(name), sorted({*known, *_OWN_NAMES} - {*OF_THE_MAILER}))
