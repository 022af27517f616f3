"""SASL CRAM-MD5 (RFC 2195): the password answers a challenge and does not cross the line.

It neither authenticates the server nor withstands guessing by whoever saw the exchange, so it is no
stand-in for TLS.
"""

import hmac

from mailbridge.smtp.sasl.base import Credentials, Exchange, needed, one_too_many


def md5_is_allowed() -> bool:
    """Whether this Python computes MD5: where FIPS rules are enforced it refuses."""
    try:
        hmac.digest(b"key", b"", "md5")
    except ValueError:
        return False
    return True


class CramMD5(Exchange):
    """Answers one challenge with the name and the keyed digest of the challenge."""

    __slots__ = ("_credentials", "_is_answered")
    name = "CRAM-MD5"

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._is_answered = False

    def initial(self) -> None:
        """Nothing: the server speaks first."""

    def step(self, challenge: bytes) -> bytes:
        if self._is_answered:
            raise one_too_many(self.name)
        self._is_answered = True
        password = needed(self._credentials.password, self.name)
        digest = hmac.digest(password.reveal().encode(), challenge, "md5").hex()
        return f"{self._credentials.username} {digest}".encode()
