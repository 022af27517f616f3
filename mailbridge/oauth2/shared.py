"""One `TokenSource` for each identity and process: what sessions, threads and `verify()` share."""

import threading
from collections import OrderedDict

from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import NEVER, Deadline
from mailbridge.errors import ConfigurationError
from mailbridge.net import aside
from mailbridge.oauth2.request import asker
from mailbridge.oauth2.source import TokenSource
from mailbridge.oauth2.store import FileTokenStore, MemoryTokenStore, TokenStore
from mailbridge.process import PerProcess

# As many users as a process serves at once; one that was thrown out finds its token in the store again.
MOST_SOURCES = 512

_memory = MemoryTokenStore()
_sources: OrderedDict[tuple[object, ...], TokenSource] = OrderedDict()
_lock = PerProcess(threading.Lock)


def source_for(config: SMTPConfig, deadline: Deadline = NEVER) -> TokenSource:
    """The source of `config`'s access tokens; the same one for the same user, options and way there.

    `deadline` bounds a callable `username`. Raises `ConfigurationError` if there is no OAuth2, or no user.
    """
    options = config.oauth2
    username = config.username
    if callable(username):
        username = aside.within(
            username, deadline, what="the callable of the option username", stage="token", heritage="result"
        )
    if options is None or not username:
        raise ConfigurationError("There is no OAuth2 with a username in this configuration", stage="token")
    key = (options, username, config.proxy, config.tls, config.timeouts, config.family,
           config.source_address, config.allow_internal_networks, config.guard_names)  # fmt: skip
    with _lock.get():
        found = _sources.get(key)
        if found is None:
            found = _sources[key] = TokenSource(
                options, username, ask=asker(config, options, username), store=store_of(options)
            )
        _sources.move_to_end(key)
        while len(_sources) > MOST_SOURCES:
            _sources.popitem(last=False)
    return found


def store_of(options: OAuth2Options) -> TokenStore:
    """The configured store, or this process's memory."""
    given = options.token_store
    if given is None:
        return _memory
    if isinstance(given, str):
        return FileTokenStore(given.removeprefix("file:"))
    return given  # type: ignore[no-any-return]  # checked for its methods when the options were built


def forget_sources() -> None:
    """Forget all sources and all tokens that are kept in memory only."""
    global _memory
    _sources.clear()
    _memory = MemoryTokenStore()
