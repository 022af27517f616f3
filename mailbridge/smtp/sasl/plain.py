"""SASL PLAIN (RFC 4616): name and password in one message, readable by whoever reads the line."""

from mailbridge.smtp.sasl.base import Credentials, Exchange, needed, one_too_many


class Plain(Exchange):
    """Logs in as the user itself: the authorization identity stays empty."""

    __slots__ = ("_credentials",)
    name = "PLAIN"

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def initial(self) -> bytes:
        # Separated by NULs, which Credentials has refused. One expression: no local keeps the password.
        user, password = self._credentials.username, needed(self._credentials.password, self.name)
        return f"\0{user}\0{password.reveal()}".encode()

    def step(self, challenge: bytes) -> bytes:
        raise one_too_many(self.name)
