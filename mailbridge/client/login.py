"""One login on an open session: with a password, or with an access token that may need renewing."""

import copy
import sys
from typing import Any

from mailbridge.client.driver import Conversation
from mailbridge.config.auth import parse_mechanisms, require_fit
from mailbridge.config.libraries import load_libraries
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.credentials import usable_mechanisms
from mailbridge.deadline import Deadline
from mailbridge.errors import AuthenticationFailed, ConnectionLost
from mailbridge.login_options import parse_credentials
from mailbridge.net.tls.channel_binding import channel_bindings
from mailbridge.oauth2.shared import source_for
from mailbridge.oauth2.source import TokenSource
from mailbridge.oauth2.token import AccessToken
from mailbridge.secret import Secret, clear_locals
from mailbridge.smtp.capabilities import Capabilities
from mailbridge.smtp.flows.authentication import authentication


def with_login(
    config: SMTPConfig, *, username: Any = None, password: Any = None, auth: Any = None, oauth2: Any = None
) -> SMTPConfig:
    """`config` with other credentials, parsed as its options are. Of its own ones only `auth` stays.

    Raises `ConfigurationError` as `SMTPConfig` does.
    """
    outer = sys.exception()
    try:
        names = config.auth if auth is None else parse_mechanisms(auth)
        values = parse_credentials(username, password, names, oauth2) | {"auth": names}
        require_fit(names, has_token=values["oauth2"] is not None)
        other = copy.copy(config)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        load_libraries(other)
    except BaseException as error:
        clear_locals(error, outer=outer)
        raise
    return other


class Login:
    """What became of it: `mechanism` is the one that was accepted, None so far.

    `token_facts` says where the access token came from and how long it is good; never the token.
    """

    def __init__(self, talk: Conversation, config: SMTPConfig, capabilities: Capabilities) -> None:
        self.mechanism: str | None = None
        self.token_facts = ""
        self._talk = talk
        self._config = config
        self._capabilities = capabilities

    def perform(self, deadline: Deadline) -> None:
        """Raises `AuthenticationFailed`, `TokenUnavailable`, `NotSupported`, and what ends a session."""
        if self._config.oauth2 is None:
            self._authenticate(None, deadline)
        else:
            self._with_token(source_for(self._config), deadline)

    def _authenticate(self, token: Secret | None, deadline: Deadline) -> None:
        talk = self._talk
        bindings = channel_bindings(talk.stream)
        mechanisms = usable_mechanisms(
            self._config,
            self._capabilities,
            bindings=bindings,
            token=token,
            remember=talk.wire.quotations.remember_secret,
        )
        self.mechanism = talk.run(authentication(talk.wire, mechanisms), deadline)

    def _with_token(self, source: TokenSource, deadline: Deadline) -> None:
        """With the token that is there; if that one is refused, once more with a fresh one."""
        token, is_cached = self._token(source, deadline, fresh=False)
        try:
            return self._authenticate(token.value, deadline)
        except AuthenticationFailed as error:
            if not is_cached or error.is_transient or error.reply is None:
                raise
            refusal = error
        source.drop(token)
        if not self._talk.is_open:
            message = "The server refused a cached access token and hung up; the next login takes a fresh one"
            raise ConnectionLost(message, stage="auth")
        fresh, _ = self._token(source, deadline, fresh=True)
        if fresh.value == token.value:  # a provider of the user's own may have no other
            raise refusal
        return self._authenticate(fresh.value, deadline)

    def _token(self, source: TokenSource, deadline: Deadline, *, fresh: bool) -> tuple[AccessToken, bool]:
        with self._talk.driver.timed("token"):
            found = source.token(deadline, fresh=fresh)
        self.token_facts = source.describe()
        return found
