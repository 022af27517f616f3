"""SASL EXTERNAL (RFC 4422 appendix A) and ANONYMOUS (RFC 4505): one message, and no secret in it."""

from mailbridge.smtp.sasl.base import Credentials, Exchange, one_too_many


class _NameOnly(Exchange):
    __slots__ = ("_username",)
    name = ""

    def __init__(self, credentials: Credentials) -> None:
        self._username = credentials.username

    def initial(self) -> bytes:
        return self._username.encode()

    def step(self, challenge: bytes) -> bytes:
        raise one_too_many(self.name)


class External(_NameOnly):
    """The client certificate has proved who this is; the user name is whom to act as, empty for itself."""

    __slots__ = ()
    name = "EXTERNAL"


class Anonymous(_NameOnly):
    """Nobody in particular; the user name, if there is one, is a trace for the server's operator."""

    __slots__ = ()
    name = "ANONYMOUS"
