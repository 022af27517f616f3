"""What a login on an open connection needs of its caller: credentials, access tokens, mechanisms.

What is done with them, and what follows from a refusal, is decided by `smtp.flows.connection`.
"""

import copy
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mailbridge.client.driver import Driver, Performers
from mailbridge.config.auth import parse_credentials, parse_mechanisms, require_fit
from mailbridge.config.libraries import load_libraries
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError
from mailbridge.net import aside
from mailbridge.net.stream import Stream
from mailbridge.net.tls.channel_binding import channel_bindings
from mailbridge.oauth2.shared import source_for
from mailbridge.oauth2.source import TokenSource
from mailbridge.oauth2.token import AccessToken
from mailbridge.secret import Secret, clear_locals
from mailbridge.smtp import sasl
from mailbridge.smtp.flows.connection import ConnectionState, Login, login
from mailbridge.smtp.flows.steps import AskCredentials, DropToken, FetchToken, Token
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


def log_in(
    driver: Driver, state: ConnectionState, config: SMTPConfig, deadline: Deadline, *, is_loopback: bool
) -> None:
    """Log in as `config` says; `state` tells what was found. Raises as `SMTPConnection.login`."""
    answers = _Answers(config, driver.stream, deadline)
    wanted = Login(
        names=config.auth or "auto",
        is_safe=driver.stream.secure or is_loopback or config.allow_insecure_auth,
        has_token=config.oauth2 is not None,
        make=lambda name, credentials, offered: _mechanism(name, credentials, offered, deadline),
    )
    others: Performers = {
        FetchToken: answers.fetch_token,
        DropToken: answers.drop_token,
        AskCredentials: answers.credentials,
    }
    driver.run(login(driver.wire, state, wanted), deadline, others)


class _Answers:
    """Answers what the flow of a login asks of its caller: who logs in, with which password or token."""

    def __init__(self, config: SMTPConfig, stream: Stream, deadline: Deadline) -> None:
        self._config = config
        self._stream = stream
        self._deadline = deadline
        self._source: TokenSource | None = None
        self._last: AccessToken | None = None

    def fetch_token(self, step: FetchToken) -> Token:
        if self._source is None:
            self._source = source_for(self._config, self._deadline)
        token, is_cached = self._source.token(self._deadline, fresh=step.fresh)
        self._last = token
        return Token(token.value, is_cached, self._source.describe())

    def drop_token(self, _: DropToken) -> None:
        if self._source is not None and self._last is not None:
            self._source.drop(self._last)

    def credentials(self, step: AskCredentials) -> sasl.Credentials:
        config, deadline = self._config, self._deadline
        return sasl.Credentials(
            "" if config.username is None else _value("username", config.username, deadline).reveal(),
            None if config.password is None else _value("password", config.password, deadline),
            token=step.token,
            host=config.host,
            port=config.port,
            bindings=channel_bindings(self._stream),
        )


def _mechanism(
    name: str, credentials: sasl.Credentials, offered: Sequence[str], deadline: Deadline
) -> sasl.Mechanism:
    """A new exchange; one that may take long is bounded by the deadline."""

    def make() -> sasl.Mechanism:
        return sasl.mechanism(name, credentials, offered)

    return _Aside(name, make, deadline) if name == "GSSAPI" or custom(name) is not None else make()


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
