"""The documents of the project, and the groups of options that they describe."""

from __future__ import annotations

from pathlib import Path

from mailbridge.config.defaults import MessageDefaults
from mailbridge.config.dkim import DKIMOptions
from mailbridge.config.groups import PoolOptions, RateOptions, RetryOptions, Timeouts, TLSOptions
from mailbridge.config.oauth2 import OAuth2Options

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
GROUPS = {
    "tls": TLSOptions,
    "timeouts": Timeouts,
    "pool": PoolOptions,
    "rate": RateOptions,
    "retry": RetryOptions,
    "oauth2": OAuth2Options,
    "defaults": MessageDefaults,
    "dkim": DKIMOptions,
}
