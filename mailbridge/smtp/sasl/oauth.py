"""SASL OAUTHBEARER (RFC 7628) and XOAUTH2: an OAuth2 access token in one message.

Where the token comes from is not asked here. A refusal comes in two parts: a challenge that says why,
which has to be answered, and then the reply that ends the exchange.
"""

from mailbridge.smtp.sasl.base import Credentials, Exchange, needed, one_too_many

# What may stand for itself in a saslname (RFC 5801 section 4) is all but these two.
_ESCAPED = str.maketrans({"=": "=3D", ",": "=2C"})


class _TokenExchange(Exchange):
    """Sends the token, and answers the one challenge that may come: the error."""

    __slots__ = ("_credentials", "_is_refused", "refusal")
    name = ""
    answer_to_error = b""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._is_refused = False
        self.refusal = ""

    def step(self, challenge: bytes) -> bytes:
        if self._is_refused:
            raise one_too_many(self.name)
        self._is_refused = True
        self.refusal = challenge.decode("utf-8", "replace")
        return self.answer_to_error


class OAuthBearer(_TokenExchange):
    """RFC 7628: names the server too, so that a token can't be passed on unseen."""

    __slots__ = ()
    name = "OAUTHBEARER"
    answer_to_error = b"\x01"  # section 3.2.3: the client sends a dummy, AQ== on the line

    def initial(self) -> bytes:
        given = self._credentials
        where = f"host={given.host}\x01" if given.host else ""
        where += f"port={given.port}\x01" if given.port else ""
        user, token = given.username.translate(_ESCAPED), needed(given.token, self.name)
        return f"n,a={user},\x01{where}auth=Bearer {token.reveal()}\x01\x01".encode()


class XOAuth2(_TokenExchange):
    """What Google and Microsoft document: older than the RFC, and never one."""

    __slots__ = ()
    name = "XOAUTH2"
    answer_to_error = b""  # an empty line; AQ== makes some servers end the session

    def initial(self) -> bytes:
        token = needed(self._credentials.token, self.name)
        return f"user={self._credentials.username}\x01auth=Bearer {token.reveal()}\x01\x01".encode()
