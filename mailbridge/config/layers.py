"""Layers of options: one mapping over another, such as settings over a URL."""

from collections.abc import Mapping
from typing import Any

from mailbridge.config.groups import LIMITS_OF_TIMEOUT

_GROUPS = ("tls", "timeouts", "pool", "rate", "retry", "oauth2", "defaults", "dkim", "dsn")


def layered_options(above: Mapping[str, Any], beneath: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `beneath`, group by group."""
    merged = {**beneath, **above}
    for name in _GROUPS:
        groups = (beneath.get(name), above.get(name))
        if all(isinstance(group, Mapping) for group in groups):
            merged[name] = {**groups[0], **groups[1]}  # type: ignore[dict-item]  # mappings, as just seen
    return merged


def with_each_timeout(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the limits that the shorthand `timeout` stands for in `timeouts`, so that layers
    can be laid over each other. Limits that are in `timeouts` already stay.
    """
    spelt = dict(options)
    limits = spelt.get("timeouts", {})
    if spelt.get("timeout") is not None and isinstance(limits, Mapping):
        spelt["timeouts"] = {**dict.fromkeys(LIMITS_OF_TIMEOUT, spelt.pop("timeout")), **limits}
    return spelt
