"""Mechanisms of the user's own, from `register_sasl` or a dotted path, in the shape of the others."""

from typing import Any

from mailbridge.errors import ConfigurationError
from mailbridge.smtp.sasl.base import Credentials
from mailbridge.smtp.sasl.registry import CustomMechanism


class Custom:
    """One exchange by a class's object, or by a callable, with what they leave out filled in.

    Their bytes are checked, since a str in their place would only fail at the socket.
    """

    __slots__ = ("_exchange", "name")

    def __init__(self, name: str, mechanism: CustomMechanism, credentials: Credentials) -> None:
        self.name = name
        is_class = isinstance(mechanism, type)
        self._exchange: Any = mechanism(credentials) if is_class else _Called(mechanism, credentials)

    @property
    def refusal(self) -> str:
        return str(getattr(self._exchange, "refusal", ""))

    @property
    def is_unsuitable(self) -> bool:
        return bool(getattr(self._exchange, "is_unsuitable", False))

    def initial(self) -> bytes | None:
        message = self._exchange.initial()
        return None if message is None else self._checked(message)

    def step(self, challenge: bytes) -> bytes:
        return self._checked(self._exchange.step(challenge))

    def finish(self, text: str) -> None:
        finish = getattr(self._exchange, "finish", None)
        if finish is not None:
            finish(text)

    def _checked(self, message: object) -> bytes:
        if not isinstance(message, bytes):
            raise ConfigurationError(
                f"The mechanism {self.name} must give bytes, not {type(message).__name__}", stage="auth"
            )
        return message


class _Called:
    """A callable as an exchange."""

    __slots__ = ("_credentials", "_function")

    def __init__(self, function: CustomMechanism, credentials: Credentials) -> None:
        self._function = function
        self._credentials = credentials

    def initial(self) -> Any:
        return self._function(self._credentials, None)

    def step(self, challenge: bytes) -> Any:
        return self._function(self._credentials, challenge)
