"""One value of an option: read, checked, or refused with an error that names the option."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import TypeVar

from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret, shown_name

#: The logger that the option `logger` names by default; all others are beneath it.
ROOT = "mailbridge"


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


def parse_logger(value: object) -> str:
    """The name of a logger, which is part of a configuration where a Logger could not be (it holds locks)."""
    if not isinstance(value, logging.Logger):
        return as_text("logger", value) or ROOT
    if value is not value.root and logging.getLogger(value.name) is not value:
        raise invalid("logger", "must be a logger that logging.getLogger() gives, or its name")
    return value.name


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
