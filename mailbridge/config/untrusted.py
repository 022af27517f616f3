"""What somebody who is not trusted may say of a server: a tenant's row, a form field, a URL that was typed.

Everything else is refused: no option of theirs imports or calls anything, names a file, turns verification
off, or leads to an internal network. `SMTPConfig.from_untrusted` makes the configuration.
"""

from collections.abc import Mapping
from typing import Any

from mailbridge.config.urls import options_of_url
from mailbridge.config.values import as_seconds, invalid
from mailbridge.secret import Secret, shown_name

#: The options that may be given.
ALLOWED = ("host", "port", "security", "username", "password", "service", "timeout", "timeouts")
#: Seconds, for each time limit: a server that answers slowly must not hold a worker for longer.
LONGEST_TIMEOUT = 120.0
_PLAIN = (str, int, float, Secret)


def untrusted_options(source: str | Secret | Mapping[str, Any]) -> dict[str, Any]:
    """The options of a URL or a mapping, checked.

    Raises `ConfigurationError` for an option that is not in `ALLOWED`, a value that is no text or number, a
    time limit beyond `LONGEST_TIMEOUT`, a UNIX socket, and where neither host nor service is named.
    """
    if isinstance(source, str | Secret):
        options = options_of_url(source)
    elif isinstance(source, Mapping):
        options = {str(name): value for name, value in source.items() if value is not None}
    else:
        raise invalid("url", f"must be a URL or a mapping of options, not {type(source).__name__}")
    for name, value in options.items():
        if name not in ALLOWED:
            error = invalid(shown_name(name), "can't be set by somebody who is not trusted")
            error.hint = f"May be given: {', '.join(ALLOWED)}."
            raise error
        if name != "timeouts":
            _require_plain(name, value)
    _check_timeouts(options)
    host = options.get("host")
    if host is None and options.get("service") is None:
        raise invalid("host", "is missing: name the server")
    if isinstance(host, str) and host.startswith("unix:"):
        raise invalid("host", "can't name a UNIX socket here")
    return options | {"allow_internal_networks": False}


def _require_plain(name: str, value: object) -> None:
    if not isinstance(value, _PLAIN) or isinstance(value, bool):
        raise invalid(name, f"must be text or a number, not {type(value).__name__}")


def _check_timeouts(options: Mapping[str, Any]) -> None:
    limits = options.get("timeouts", {})
    if not isinstance(limits, Mapping):
        raise invalid("timeouts", f"must be a mapping of options, not {type(limits).__name__}")
    given = {f"timeouts.{name}": value for name, value in limits.items()}
    if "timeout" in options:
        given["timeout"] = options["timeout"]
    for name, value in given.items():
        _require_plain(name, value)
        if as_seconds(name, value) > LONGEST_TIMEOUT:
            raise invalid(name, f"must be at most {LONGEST_TIMEOUT:g} seconds")
