"""SASL SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password, and neither sends it.

The -PLUS variants also prove that both see the same TLS channel. The computing is scramp's (extra
`scram`), SASLprep of name and password included.
"""

import re
from functools import cache
from importlib import import_module
from typing import Any

from mailbridge.errors import AuthenticationFailed, ConfigurationError, MailbridgeError, ProtocolViolation
from mailbridge.reply import printable
from mailbridge.secret import Secret
from mailbridge.smtp.sasl.base import Credentials, decode_challenge, needed, one_too_many

# The best first. tls-exporter (RFC 9266) is for TLS 1.3, tls-unique up to TLS 1.2 and the one that RFC
# 5802 section 6.1 asks for; tls-server-end-point tells only that both mean the same certificate.
BINDING_TYPES = ("tls-exporter", "tls-unique", "tls-server-end-point")
# A server asks for so many rounds of hashing and we do them: about a second for this many. OWASP asks
# for 600 000 of SHA-256 at most today.
MOST_ITERATIONS = 2_000_000
_ITERATIONS = re.compile("(?:^|,)i=([0-9]+)(?:,|$)")
# RFC 5802 section 7, server-error-value: what is no verdict on the credentials.
_UNSUITABLE = frozenset(
    {"unsupported-channel-binding-type", "channel-binding-not-supported", "extensions-not-supported"}
)


def is_preparable(credentials: Credentials) -> bool:
    """Whether SASLprep takes the name and the password: it knows no character younger than Unicode 3.2."""
    try:
        _client("SCRAM-SHA-1", credentials, None)
    except MailbridgeError:
        return False
    return True


class Scram:
    """One exchange of any variant: first message, proof, and the server's signature, which is verified.

    `nonce` is random unless it is given. `offers_plus` says that the server offers a -PLUS variant;
    without it a client that could bind says so in the first message, and the server that could, too,
    sees that somebody has taken the offer away (RFC 5802 section 6).
    """

    __slots__ = ("_client", "_stage", "is_unsuitable", "name", "refusal")

    def __init__(
        self, name: str, credentials: Credentials, *, offers_plus: bool = False, nonce: str | None = None
    ) -> None:
        self.name = name
        self.refusal = ""
        self.is_unsuitable = False
        self._stage = 0
        binding = binding_for(credentials)
        if name.endswith("-PLUS"):
            if binding is None:
                raise ConfigurationError(
                    f"{name} needs a channel binding, and this connection has none",
                    stage="auth",
                    hint="It needs TLS on the mail connection itself; or name the mechanism without -PLUS.",
                )
        elif offers_plus:
            binding = None  # flag "n": "y" would accuse the server of hiding what it offers
        self._client = _client(name, credentials, binding, nonce)

    def initial(self) -> bytes:
        return self._client.get_client_first().encode()  # type: ignore[no-any-return]  # a str

    def step(self, challenge: bytes) -> bytes:
        self._stage += 1
        if self._stage == 1:
            return self._proof(_text(challenge))
        if self._stage == 2 and not self.refusal:
            self._verify(_text(challenge))
            return b""
        raise one_too_many(self.name)

    def finish(self, text: str) -> None:
        """The signature may come with the accepting reply itself, as the last word in base64."""
        if self._stage >= 2:
            return
        final = text.split()[-1] if text else ""
        try:
            said = decode_challenge(final).decode("utf-8", "replace")
        except ProtocolViolation:
            said = ""
        self._verify(said)

    def _proof(self, server_first: str) -> bytes:
        if self._is_error(server_first):
            return b""
        wanted = _ITERATIONS.search(server_first)
        # The length first: thousands of digits are slow to read.
        if wanted and (len(wanted[1]) > len(str(MOST_ITERATIONS)) or int(wanted[1]) > MOST_ITERATIONS):
            raise ProtocolViolation(
                f"The server asks for more than {MOST_ITERATIONS} rounds of hashing", stage="auth"
            )
        try:
            self._client.set_server_first(server_first)
            return self._client.get_client_final().encode()  # type: ignore[no-any-return]  # a str
        except Exception as error:  # whatever the library makes of a hostile message
            problem = printable(str(error), 200)
        raise ProtocolViolation(f"The server's first SCRAM message is wrong: {problem}", stage="auth")

    def _verify(self, server_final: str) -> None:
        if self._is_error(server_final):
            return
        try:
            self._client.set_server_final(server_final)
            return
        except Exception as error:  # unknown library errors must not pass for a proof either
            problem = printable(str(error), 200)
        raise AuthenticationFailed(
            f"The server did not prove that it knows the password: {problem}",
            mechanism=self.name,
            stage="auth",
            hint="It may be another server than the right one. The password itself was not sent to it.",
        )

    def _is_error(self, message: str) -> bool:
        if not message.startswith("e="):
            return False
        self.refusal = message.removeprefix("e=")
        self.is_unsuitable = self.refusal in _UNSUITABLE
        return True


def binding_for(credentials: Credentials) -> tuple[str, bytes] | None:
    """The best channel binding that there is and that scramp can take: type and data."""
    for kind in BINDING_TYPES:
        if credentials.bindings.get(kind) and _is_taken(kind):
            return kind, credentials.bindings[kind]
    return None


@cache
def _is_taken(kind: str) -> bool:
    """Whether scramp knows this type; version 1.5 refuses tls-exporter."""
    try:
        _client("SCRAM-SHA-1-PLUS", Credentials("user", Secret("password")), (kind, b"data"))
    except ConfigurationError:
        return False
    return True


def _client(
    name: str, credentials: Credentials, binding: tuple[str, bytes] | None, nonce: str | None = None
) -> Any:
    password = needed(credentials.password, name)
    try:
        return import_module("scramp").ScramClient(
            [name], credentials.username, password.reveal(), channel_binding=binding, c_nonce=nonce
        )
    except ImportError:
        problem, hint = "needs scramp", "Install the extra: mailbridge-smtp[scram]."
    except Exception as error:
        problem, hint = f"can't be used here: {printable(str(error), 200)}", "Name another mechanism in auth."
    raise ConfigurationError(f"{name} {problem}", stage="auth", hint=hint)


def _text(challenge: bytes) -> str:
    try:
        return challenge.decode()
    except UnicodeDecodeError:
        pass
    raise ProtocolViolation("The server's SCRAM message is not UTF-8", stage="auth")
