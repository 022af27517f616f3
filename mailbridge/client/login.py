"""One login on an open connection: with a password, or with an access token that may need to be renewed.

Decides who logs in, with what, by which mechanisms, and whether the channel is safe enough for it.
"""

import copy
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from mailbridge.client.driver import Conversation
from mailbridge.config.auth import parse_credentials, parse_mechanisms, require_fit
from mailbridge.config.libraries import load_libraries
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import NEVER, Deadline
from mailbridge.errors import AuthenticationFailed, ConfigurationError, ConnectionLost, NotSupported
from mailbridge.net import aside
from mailbridge.net.tls.channel_binding import channel_bindings
from mailbridge.oauth2.shared import source_for
from mailbridge.oauth2.source import TokenSource
from mailbridge.oauth2.token import AccessToken
from mailbridge.reply import printable
from mailbridge.secret import Secret, clear_locals
from mailbridge.smtp import sasl
from mailbridge.smtp.capabilities import Capabilities
from mailbridge.smtp.flows.authentication import authentication
from mailbridge.smtp.sasl.registry import custom

T = TypeVar("T")


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
            self._with_token(source_for(self._config, deadline), deadline)

    def _authenticate(self, token: Secret | None, deadline: Deadline) -> None:
        talk = self._talk
        bindings = channel_bindings(talk.stream)
        mechanisms = usable_mechanisms(
            self._config,
            self._capabilities,
            deadline,
            bindings=bindings,
            token=token,
            remember=talk.wire.redactor.remember_secret,
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


NO_BINDINGS: Mapping[str, bytes] = MappingProxyType({})


def require_safe_channel(*, is_safe: bool) -> None:
    """Credentials go over TLS, or to this very machine, or where the user took the risk."""
    if not is_safe:
        raise ConfigurationError(
            "The password would travel in clear text",
            stage="auth",
            hint="Use security='starttls' or 'tls'; allow_insecure_auth=True takes the risk.",
        )


def usable_mechanisms(
    config: SMTPConfig,
    capabilities: Capabilities,
    deadline: Deadline = NEVER,
    *,
    bindings: Mapping[str, bytes] = NO_BINDINGS,
    token: Secret | None = None,
    remember: Callable[[Secret], object] = bool,
) -> list[Callable[[], sasl.Mechanism]]:
    """The mechanisms to try, strongest first or as `auth` orders them, with the credentials of now.

    `bindings`: the channel bindings of the connection, by type; `token`: an OAuth2 access token.
    `deadline` bounds callables of the user's own, and Kerberos.
    `remember` is told the password and the token, which replies may quote from here on.
    Raises `NotSupported` if AUTH is not offered: a send without the configured login would be
    another mail than was asked for. `AuthenticationFailed` if no mechanism fits.
    """
    if "AUTH" not in capabilities:
        raise NotSupported(
            "SMTP AUTH extension not supported by server",
            extension="AUTH",
            stage="auth",
            hint="Remove username and password if this server takes mail without.",
        )
    offered = capabilities.auth_mechanisms
    credentials = sasl.Credentials(
        "" if config.username is None else _value("username", config.username, deadline).reveal(),
        None if config.password is None else _value("password", config.password, deadline),
        token=token,
        host=config.host,
        port=config.port,
        bindings=bindings,
    )
    for secret in (credentials.password, credentials.token):
        if secret is not None:
            remember(secret)
    names = sasl.candidates(config.auth or "auto", offered, credentials)
    if not names:
        shown = printable(", ".join(offered)) or "no mechanism"
        usable = sasl.candidates(config.auth or "auto", sorted(sasl.AVAILABLE), credentials)
        allowed = ", ".join(config.auth or usable)
        raise AuthenticationFailed(f"The server offers {shown}; usable are {allowed}", stage="auth")
    makers = [partial(sasl.mechanism, name, credentials, offered) for name in names]
    return [
        partial(_Aside, name, make, deadline) if name == "GSSAPI" or custom(name) is not None else make
        for name, make in zip(names, makers, strict=True)
    ]


class _Aside:
    """A mechanism whose steps may take long, each within the deadline.

    A step that comes too late is no use to anybody: what it answers ended with its connection.
    """

    def __init__(self, name: str, make: Callable[[], sasl.Mechanism], deadline: Deadline) -> None:
        self._what = f"the SASL mechanism {name}"
        self._deadline = deadline
        self._mechanism = self._within(make)

    def _within(self, action: Callable[[], T]) -> T:
        return aside.within(action, self._deadline, what=self._what, stage="auth", heritage="nothing")

    @property
    def name(self) -> str:
        return self._mechanism.name

    @property
    def refusal(self) -> str:
        return self._mechanism.refusal

    @property
    def is_unsuitable(self) -> bool:
        return self._mechanism.is_unsuitable

    def initial(self) -> bytes | None:
        return self._within(self._mechanism.initial)

    def step(self, challenge: bytes) -> bytes:
        return self._within(lambda: self._mechanism.step(challenge))

    def finish(self, text: str) -> None:
        self._within(lambda: self._mechanism.finish(text))


def _value(option: str, source: object, deadline: Deadline) -> Secret:
    """A credential as configured: a string, a secret, or a callable that gives one now."""
    value = source
    if callable(source):
        what = f"the callable of the option {option}"
        value = aside.within(source, deadline, what=what, stage="auth", heritage="result")
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"A credential must be a string, not {type(value).__name__}", stage="auth")
    return Secret(value)
