"""SASL GSSAPI (Kerberos, RFC 4752) and NTLM, by pyspnego (extra `gssapi`): no cryptography of ours.

No security layer is ever agreed on: protecting the session is the business of TLS.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from mailbridge.errors import AuthenticationFailed, ConfigurationError
from mailbridge.reply import printable
from mailbridge.smtp.sasl.base import Credentials, Exchange, needed, one_too_many

T = TypeVar("T")

# RFC 4752 section 3.3: the bit for "no security layer", and no buffer for what is never wrapped.
_NO_LAYER = 1
_OUR_CHOICE = b"\x01\x00\x00\x00"


class _SecurityContext(Exchange):
    """The tokens of a pyspnego context, in turn with the server's."""

    __slots__ = ("_context",)
    name = ""
    _context: Any

    def initial(self) -> bytes:
        return self._next_token(None)

    def _next_token(self, token: bytes | None) -> bytes:
        return self._asking(lambda: self._context.step(token)) or b""

    def _asking(self, action: Callable[[], T]) -> T:
        """`action`, with whatever the library raises as our error; its own may hold tokens."""
        try:
            return action()
        except Exception as error:
            problem = printable(str(error), 300)
        raise AuthenticationFailed(
            f"{self.name} came to no agreement: {problem}", mechanism=self.name, stage="auth"
        )


class GSSAPI(_SecurityContext):
    """Logs in with the ticket of this process, or one that the password gets; as the user named, if any."""

    __slots__ = ("_is_over", "_username")
    name = "GSSAPI"

    def __init__(self, credentials: Credentials) -> None:
        self._is_over = False
        self._username = credentials.username
        # RFC 4752 section 3.1: no channel bindings.
        self._context = _context("kerberos", self.name, credentials)

    def step(self, challenge: bytes) -> bytes:
        if not self._context.complete:
            return self._next_token(challenge)
        if self._is_over:
            raise one_too_many(self.name)
        self._is_over = True
        offered = self._asking(lambda: self._context.unwrap(challenge).data)
        if len(offered) != 4 or not offered[0] & _NO_LAYER:
            raise AuthenticationFailed(
                "The server insists on a security layer of GSSAPI", mechanism=self.name, stage="auth"
            )
        choice = _OUR_CHOICE + self._username.encode()
        return bytes(self._asking(lambda: self._context.wrap(choice, encrypt=False).data))

    def finish(self, text: str) -> None:
        """Kerberos proves the server to the client, too: not without the last token (RFC 4752)."""
        if not self._is_over:
            raise AuthenticationFailed(
                "The server accepted before it had proved itself", mechanism=self.name, stage="auth"
            )


class NTLM(_SecurityContext):
    """Answers one challenge; the user name may be DOMAIN\\user."""

    __slots__ = ("_is_answered",)
    name = "NTLM"

    def __init__(self, credentials: Credentials) -> None:
        self._is_answered = False
        needed(credentials.password, self.name)
        options: dict[str, Any] = {}
        certificate = credentials.bindings.get("tls-server-end-point")
        if certificate:  # Exchange's "Extended Protection" may insist on it
            bindings = _library(self.name, "spnego.channel_bindings").GssChannelBindings
            options["channel_bindings"] = bindings(application_data=b"tls-server-end-point:" + certificate)
        self._context = _context("ntlm", self.name, credentials, **options)

    def step(self, challenge: bytes) -> bytes:
        if self._is_answered:
            raise one_too_many(self.name)
        self._is_answered = True
        return self._next_token(challenge)


def _context(protocol: str, name: str, credentials: Credentials, **options: Any) -> Any:
    client = _library(name, "spnego").client
    password = credentials.password
    try:
        return client(
            credentials.username or None,
            None if password is None else password.reveal(),
            hostname=credentials.host,
            service="smtp",  # RFC 4954 section 4
            protocol=protocol,
            **options,
        )
    except Exception as error:
        problem = printable(str(error), 300)
    raise ConfigurationError(
        f"{name} can't be used here: {problem}",
        stage="auth",
        hint="Kerberos needs pyspnego's own extra `kerberos`, and a ticket or a password."
        if protocol == "kerberos"
        else "",
    )


def _library(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        pass
    raise ConfigurationError(
        f"{name} needs pyspnego", stage="auth", hint="Install the extra: mailbridge-smtp[gssapi]."
    )
