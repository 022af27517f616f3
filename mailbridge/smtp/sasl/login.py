"""SASL LOGIN (draft-murchison-sasl-login): name, then password, each on request.

It never became an RFC. Servers word their prompts as they like, so the order of the prompts counts
and not what they say.
"""

from mailbridge.smtp.sasl.base import Credentials, Exchange, needed, one_too_many


class Login(Exchange):
    """Answers the first challenge with the name and the second with the password."""

    __slots__ = ("_answered", "_credentials")
    name = "LOGIN"

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._answered = 0

    def initial(self) -> None:
        """Nothing: not all servers take the name with the command."""

    def step(self, challenge: bytes) -> bytes:
        self._answered += 1
        if self._answered == 1:
            return self._credentials.username.encode()
        if self._answered == 2:
            return needed(self._credentials.password, self.name).reveal().encode()
        raise one_too_many(self.name)
