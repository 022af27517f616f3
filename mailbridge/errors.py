"""The tree of errors. Names say what becomes of the message and of the connection.

    MailbridgeError (smtplib.SMTPException)
    ├─ ConfigurationError (ValueError)               cannot work; raised when built, never retried
    ├─ InvalidMessage (ValueError)
    │  ├─ InvalidAddress
    │  └─ MessageTooLarge (smtplib.SMTPSenderRefused)    .size .limit
    ├─ ConnectFailed (ConnectionError)               no session came to be: safe to retry
    │  ├─ NameNotResolved (socket.gaierror)
    │  ├─ NobodyListens (ConnectionRefusedError)
    │  ├─ ConnectTimeout (TimeoutError)
    │  ├─ ProxyFailed                                .status
    │  ├─ TLSFailed (ssl.SSLError)
    │  │  ├─ CertificateRejected (ssl.SSLCertVerificationError)
    │  │  └─ TLSModeMismatch                         TLS spoken to a clear port, or the reverse
    │  └─ GreetingRefused (smtplib.SMTPConnectError, SMTPHeloError)
    ├─ AuthenticationFailed (smtplib.SMTPAuthenticationError)    .mechanism .challenge
    │  └─ TokenUnavailable
    ├─ ConnectionLost (smtplib.SMTPServerDisconnected, ConnectionError)
    │  └─ ReplyTimeout (TimeoutError)
    ├─ ProtocolViolation                             the server's bytes make no sense; session closed
    ├─ NotSupported (smtplib.SMTPNotSupportedError)  .extension
    ├─ Refused                                       .reply; the server said no, the session lives on
    │  ├─ SenderRefused (smtplib.SMTPSenderRefused)
    │  ├─ RecipientsRefused (smtplib.SMTPRecipientsRefused)
    │  └─ MessageRefused (smtplib.SMTPDataError)
    ├─ PoolTimeout (TimeoutError)
    ├─ PoolClosed
    ├─ RateUnavailable                               a shared rate limiter failed; nothing was sent
    └─ DeadlineExceeded (TimeoutError)

All of them are `OSError`, as smtplib's are. Every error can be pickled; none holds a secret.
"""

import smtplib
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from mailbridge.reply import MAX_SHOWN_CHARACTERS, Reply, printable

__all__ = [
    "AuthenticationFailed",
    "CertificateRejected",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "DeadlineExceeded",
    "GreetingRefused",
    "InvalidAddress",
    "InvalidMessage",
    "MailbridgeError",
    "MessageRefused",
    "MessageTooLarge",
    "NameNotResolved",
    "NobodyListens",
    "NotSupported",
    "PoolClosed",
    "PoolTimeout",
    "ProtocolViolation",
    "ProxyFailed",
    "RateUnavailable",
    "RecipientsRefused",
    "Refused",
    "ReplyTimeout",
    "SenderRefused",
    "TLSFailed",
    "TLSModeMismatch",
    "TokenUnavailable",
]


# Room for a sentence, a reply that is capped itself, and a hint.
MAX_SHOWN = 4 * MAX_SHOWN_CHARACTERS


class MailbridgeError(smtplib.SMTPException):
    """What all errors of mailbridge are.

    `message` is one sentence. `stage` names the step (see `results.STAGE_NAMES`, and data,
    content, final for the message itself), `server` is host:port, `reply` the server's answer,
    `hint` what to do about it, `attempts` the errors of earlier attempts of the same send.
    `accepted` names the recipients who have the message all the same (LMTP answers for each).
    `outcome_unknown` is true exactly if the message was committed and the answer never came:
    whether the server took it can't be told, and sending again may deliver it twice.
    """

    #: What `is_transient` says when there is no reply to judge by.
    transient: bool = False

    def __init__(
        self,
        message: str,
        *,
        stage: str | None = None,
        server: str | None = None,
        reply: Reply | None = None,
        hint: str = "",
    ) -> None:
        # The smtplib classes beside us in the tree have constructors of other shapes.
        OSError.__init__(self, message)
        self.message = message
        self.stage = stage
        self.server = server
        self.reply = reply
        self.hint = hint
        self.attempts: tuple[MailbridgeError, ...] = ()
        self.accepted: tuple[str, ...] = ()
        self.outcome_unknown = False
        # The attributes that smtplib's errors carry and that people read.
        self.smtp_code: int = reply.code if reply is not None else -1
        self.smtp_error: bytes | str = _as_bytes(reply.text if reply is not None else message)

    def reword(self, message: str) -> None:
        """Put `message` in the place of the one that the error was made with."""
        self.message = message
        self.args = (message,)
        if self.reply is None:
            self.smtp_error = message.encode()

    @property
    def is_transient(self) -> bool:
        """Whether sending the same again later may work and can't deliver twice."""
        if self.outcome_unknown:
            return False
        return self.reply.is_transient if self.reply is not None else self.transient

    def __str__(self) -> str:
        where = ", ".join(
            part
            for part in (
                f"stage {self.stage}" if self.stage and self.stage != "config" else "",
                f"server {self.server}" if self.server else "",
            )
            if part
        )
        text = self.message.rstrip(".") + (f" ({where})" if where else "")
        if self.reply is not None:
            text += f": {self.reply}"
        if self.outcome_unknown:
            text += ". Whether the server took the message is unknown"
        # Whatever went into it: an error is printed on terminals and written to logs.
        return printable(f"{text}. {self.hint}" if self.hint else text, MAX_SHOWN)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.__dict__, self.errno)


def _as_bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _restore(
    kind: type[MailbridgeError], message: str, state: dict[str, Any], errno: int | None
) -> MailbridgeError:
    error = kind.__new__(kind)
    MailbridgeError.__init__(error, message)
    error.__dict__.update(state)
    error.errno = errno
    return error


class ConfigurationError(MailbridgeError, ValueError):
    """The configuration can't work. Raised when it is built; never silenced, never retried."""


class InvalidMessage(MailbridgeError, ValueError):
    """The message can't be sent as it is; nothing of it was written to the server."""


class InvalidAddress(InvalidMessage):
    """An address that can't stand in an envelope, or would mean something else there."""


class MessageTooLarge(InvalidMessage, smtplib.SMTPSenderRefused):  # type: ignore[misc]  # as SenderRefused
    """The message is larger than the server's announced limit (RFC 1870); nothing of it was written.

    `size` and `limit` are in bytes. With the option `disable=["size"]` the server is left to say so.
    Caught, as what smtplib makes of the server's refusal, by its name there; `smtp_code` is 552, which
    that would have.
    """

    def __init__(self, message: str, *, size: int, limit: int, sender: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.smtp_code = 552
        self.sender = sender
        self.size = size
        self.limit = limit


class ConnectFailed(MailbridgeError, ConnectionError):
    """No session came to be, so nothing was sent: trying again is safe."""

    transient = True


class NameNotResolved(ConnectFailed, socket.gaierror):
    """The host name has no usable address."""


class NobodyListens(ConnectFailed, ConnectionRefusedError):
    """Every address refused the connection: no server listens there, or a firewall says so."""


class ConnectTimeout(ConnectFailed, TimeoutError):
    """No session within the time limit."""


class ProxyFailed(ConnectFailed):
    """The proxy refused or failed; `status` is its own HTTP status where it gave one.

    Not transient where it does not accept the credentials, or may not lead there at all.
    """

    def __init__(
        self, message: str, *, status: int | None = None, transient: bool = True, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.status = status
        self.transient = transient and status not in (401, 403, 407)


class TLSFailed(ConnectFailed, ssl.SSLError):
    """TLS could not be agreed."""

    transient = False
    # The ssl module gives its errors these; people read them.
    library = ""
    reason = ""


class CertificateRejected(TLSFailed, ssl.SSLCertVerificationError):
    """The server's certificate does not prove that it is the configured server."""

    def __init__(
        self, message: str, *, verify_message: str = "", verify_code: int = 0, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.verify_message = verify_message
        self.verify_code = verify_code


class TLSModeMismatch(TLSFailed):
    """TLS spoken to a port that speaks clear text, or clear text to a port that speaks TLS."""


class GreetingRefused(ConnectFailed, smtplib.SMTPConnectError, smtplib.SMTPHeloError):
    """The server answered the connection, or EHLO, with a refusal."""


class AuthenticationFailed(MailbridgeError, smtplib.SMTPAuthenticationError):
    """The server did not accept the credentials.

    `mechanism` is the SASL mechanism that was tried, `challenge` what the server sent with its
    refusal, decoded, where it sent anything.
    """

    def __init__(self, message: str, *, mechanism: str = "", challenge: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.mechanism = mechanism
        self.challenge = printable(challenge)


class TokenUnavailable(AuthenticationFailed):
    """No OAuth2 access token could be had; transient if asking again later may help.

    `retry_after` is the wait in seconds that the token server asked for, None if it did not.
    """

    retry_after: float | None = None


class ConnectionLost(MailbridgeError, smtplib.SMTPServerDisconnected, ConnectionError):
    """The session ended before the server had answered, or the server ended it (421)."""

    transient = True


class ReplyTimeout(ConnectionLost, TimeoutError):
    """The server did not answer within the time limit; the session is closed."""


class ProtocolViolation(MailbridgeError):
    """What the server sent is not SMTP, or answers nothing that was asked; the session is closed."""

    transient = True


class NotSupported(MailbridgeError, smtplib.SMTPNotSupportedError):
    """The server lacks an extension that this needs; `extension` is its EHLO keyword."""

    def __init__(self, message: str, *, extension: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.extension = extension


class Refused(MailbridgeError):
    """The server said no. The session lives on; transient if the reply is 4yz."""

    def __init__(self, message: str, *, reply: Reply, **details: Any) -> None:
        super().__init__(message, reply=reply, **details)


class SenderRefused(Refused, smtplib.SMTPSenderRefused):  # type: ignore[misc]  # bytes, as smtplib has it elsewhere
    """MAIL FROM was refused; `sender` is the address."""

    def __init__(self, message: str, *, sender: str, reply: Reply, **details: Any) -> None:
        super().__init__(message, reply=reply, **details)
        self.sender = sender


class RecipientsRefused(Refused, smtplib.SMTPRecipientsRefused):
    """Nothing was sent because recipients were refused; `rejected` maps each to its reply.

    `recipients` has the shape of smtplib's error: address to (code, text as bytes). Transient if
    any of the refusals is: sending again to those may work.
    """

    def __init__(self, message: str, *, rejected: Mapping[str, Reply], **details: Any) -> None:
        first = next(iter(rejected.values()))
        super().__init__(message, reply=first, **details)
        self.rejected = dict(rejected)
        self.recipients = {a: (r.code, _as_bytes(r.text)) for a, r in rejected.items()}

    @property
    def is_transient(self) -> bool:
        return any(reply.is_transient for reply in self.rejected.values())


class MessageRefused(Refused, smtplib.SMTPDataError):
    """The server refused DATA or the content."""


class PoolTimeout(MailbridgeError, TimeoutError):
    """All connections stayed in use for `pool.acquire_timeout` seconds."""

    transient = True


class PoolClosed(MailbridgeError):
    """The mailer was closed; nothing is sent any more."""


class RateUnavailable(MailbridgeError):
    """The rate limiter failed, or gave no number of seconds. Nothing was sent, since it might be too much.

    Transient where it failed: a shared one may be back in a moment.
    """

    def __init__(self, message: str, *, is_transient: bool = True, **details: Any) -> None:
        super().__init__(message, **details)
        self.transient = is_transient


class DeadlineExceeded(MailbridgeError, TimeoutError):
    """The send's own time limit (`deadline=` or `timeouts.total`) ran out.

    `outcome_unknown` tells whether that was in the wait for the answer to the final dot.
    """

    transient = True
