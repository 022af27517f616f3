"""`service="gmail"`: host, port and security of well-known mail services, from the file services.toml.

The file is read when a configuration names a service, never before and never in a thread that sends.
A service is always named: nobody's host is guessed from a user name.
"""

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from mailbridge.config.values import as_text
from mailbridge.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Service:
    """One service, or one region of it.

    `username` is set where it is the same for everybody; `hint` says what to know when a login is refused.
    """

    name: str
    host: str
    port: int
    security: str
    username: str | None = None
    hint: str = ""
    aliases: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Service {self.name}>"

    def as_dict(self) -> dict[str, Any]:
        """A stable, JSON-able form."""
        return {
            "name": self.name,
            "host": self.host,
            "port": self.port,
            "security": self.security,
            "username": self.username,
            "aliases": list(self.aliases),
            "domains": list(self.domains),
            "hint": self.hint,
        }


def all_services() -> tuple[Service, ...]:
    """Every service and every region, by name."""
    return tuple(sorted(_table().values(), key=lambda service: service.name))


def find_service(name: object) -> Service:
    """The service of this name, alias, mail domain, or mailbox; case, spaces, "-" and "_" do not count.

    Raises ConfigurationError for one that is not known, with the nearest name.
    """
    if isinstance(name, Service):
        return name
    wanted = as_text("service", name)
    found = _index().get(_key(wanted.rpartition("@")[2]))
    if found is None:
        raise _unknown(wanted)
    return found


def with_service(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` over what their `service` stands for.

    Port and security belong together: where either is given, the other is not taken from the service.
    """
    if "service" not in options:
        return dict(options)
    service = find_service(options["service"])
    beneath: dict[str, Any] = {"host": service.host}
    if not {"port", "security"} & options.keys():
        beneath |= {"port": service.port, "security": service.security}
    if service.username is not None and "password" in options:
        beneath["username"] = service.username
    return {**beneath, **options, "service": service}


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c not in " -_")


def _unknown(name: str) -> ConfigurationError:
    known = {service.name: service.name for service in _table().values()}
    known |= {alias: service.name for service in _table().values() for alias in service.aliases}
    nearest = get_close_matches(name.lower(), known, n=1)
    suggestion = f"Did you mean {known[nearest[0]]!r}? " if nearest else ""
    return ConfigurationError(
        "No mail service of that name is known",
        stage="config",
        hint=f"{suggestion}`mailbridge services` lists them; any other is named by host and port.",
    )


@cache
def _table() -> dict[str, Service]:
    # Not at the top: an application that names no service need not pay for the parser.
    import tomllib

    data = pkgutil.get_data("mailbridge.config", "services.toml")
    if data is None:  # only a loader without data files, which no installer gives us
        raise ConfigurationError("The list of mail services is missing in this installation", stage="config")
    return {
        service.name: service
        for name, facts in tomllib.loads(data.decode()).items()
        for service in _services(name, facts)
    }


def _services(name: str, facts: dict[str, Any]) -> Iterator[Service]:
    regions = facts.pop("regions", {})
    facts.setdefault("security", "tls" if facts["port"] == 465 else "starttls")
    aliases, domains = tuple(facts.pop("aliases", ())), tuple(facts.pop("domains", ()))
    yield Service(name=name, aliases=aliases, domains=domains, **facts)
    for region, host in regions.items():
        yield Service(name=f"{name}-{region}", **{**facts, "host": host})


@cache
def _index() -> dict[str, Service]:
    return {
        _key(name): service
        for service in _table().values()
        for name in (service.name, *service.aliases, *service.domains)
    }
