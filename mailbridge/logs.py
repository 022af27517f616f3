"""Every line that mailbridge logs: on which logger, at which level, with which fields.

Lines change nothing: a handler that fails, or that mails, never decides over a message. Handlers belong
to the application. One that raises would turn a message that was sent into an error; one that sends its
lines by mail, through this very pool, would never come to an end.

Nothing is logged at ERROR: what goes wrong is raised. At INFO stands what became of each message, without
addresses and without the server's words, which quote them; at WARNING what a person may have to act on;
at DEBUG the rest. Names of fields and actions are stable and described in docs/logging.md.
"""

import logging
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self

from mailbridge.reply import printable

if TYPE_CHECKING:
    from mailbridge.config.smtp_config import SMTPConfig
    from mailbridge.errors import MailbridgeError
    from mailbridge.results import SendResult


_in_this_thread = threading.local()


def write(logger: logging.Logger, level: int, text: str, *arguments: object, **fields: Any) -> None:
    """Log `text % arguments`, with `fields` as `extra`; silent while a line of ours is being handled.

    A field `exc_info` is the exception that the line tells of.
    """
    if not logger.isEnabledFor(level) or getattr(_in_this_thread, "is_logging", False):
        return
    _in_this_thread.is_logging = True
    try:
        exc_info = fields.pop("exc_info", None)
        extra = {name: value for name, value in fields.items() if value is not None}
        logger.log(level, text, *arguments, exc_info=exc_info, extra=extra, stacklevel=2)
    except Exception:  # noqa: S110  # whatever an application's handler does
        pass
    finally:
        _in_this_thread.is_logging = False


@cache
def _logger(root: str, area: str) -> logging.Logger:
    logger = logging.getLogger(root)
    return logger.getChild(area) if area else logger


class Log:
    """The lines about one server, on the logger `root` and those beneath it."""

    __slots__ = ("_root", "_server")

    def __init__(self, root: str, server: str) -> None:
        self._root = root
        self._server = server

    @classmethod
    def of(cls, config: "SMTPConfig") -> Self:
        """The lines about the server of `config`, on the logger that it names."""
        return cls(config.logger, config.server)

    def write(self, area: str, level: int, action: str, text: str, *arguments: object, **fields: Any) -> None:
        """One line on the logger `area` beneath the root (the root itself, if empty)."""
        named = {"action": action, **fields, "server": fields.get("server") or self._server or None}
        write(_logger(self._root, area), level, text, *arguments, **named)

    def weak_tls(self, version: str) -> None:
        """`tls.min_version` allows `version`, and with it what OpenSSL takes for too weak otherwise."""
        text = "tls.min_version=%s: servers without TLS 1.2 may have keys of any size, and weak signatures"
        self.write("", logging.WARNING, "weak_tls", text, version)

    # ---- messages

    def sent(self, result: "SendResult", *, seconds: float) -> None:
        """A message was accepted, for some of its recipients at least."""
        accepted, reply = len(result.accepted), result.response
        if _logger(self._root, "").isEnabledFor(logging.INFO):
            self.write(
                "",
                logging.INFO,
                "message_sent",
                "[%s] %s took %s, %d bytes for %d recipient(s), in %.3f s: %d%s",
                *(result.connection_id, result.server, _named(result.message_id), result.message_size),
                *(accepted, seconds, reply.code, f", queued as {result.queue_id}" if result.queue_id else ""),
                server=result.server,
                connection_id=result.connection_id,
                message_id=result.message_id,
                queue_id=result.queue_id,
                size=result.message_size,
                recipients=accepted,
                rejected=len(result.rejected),
                seconds=round(seconds, 6),
                attempts=result.attempts,
                reused=result.connection_reused,
                round_trips=result.round_trips,
                code=reply.code,
                enhanced=_dotted(reply.enhanced),
            )
        if result.rejected:
            refused = ", ".join(f"{address}: {reply}" for address, reply in result.rejected.items())
            self.write(
                "",
                logging.WARNING,
                "recipients_refused",
                "[%s] %s accepted a message but refused some recipients: %s",
                *(result.connection_id, result.server, refused),
                server=result.server,
                connection_id=result.connection_id,
                message_id=result.message_id,
                recipients=accepted,
                rejected=len(result.rejected),
            )

    def not_sent(
        self,
        error: "MailbridgeError",
        *,
        connection_id: str | None,
        message_id: str | None,
        size: int,
        recipients: int,
        seconds: float,
    ) -> None:
        """A message was not accepted, or nobody knows; the error is raised beside this."""
        reply, is_in_doubt = error.reply, error.outcome_unknown
        self.write(
            "",
            logging.WARNING if is_in_doubt else logging.INFO,
            "message_in_doubt" if is_in_doubt else "message_not_sent",
            "%s %s %s: %s at %s%s",
            *(error.server or self._server, "may have taken" if is_in_doubt else "did not take"),
            *(_named(message_id), type(error).__name__, error.stage or "no stage"),
            f", {reply.code}" if reply is not None else "",
            connection_id=connection_id,
            message_id=message_id,
            size=size,
            recipients=recipients,
            seconds=round(seconds, 6),
            attempts=len(error.attempts) + 1,
            transient=error.is_transient,
            **_facts(error),
        )

    def attempt_failed(self, error: "MailbridgeError", attempt: int, pause: float) -> None:
        """There will be another attempt."""
        self.write(
            "",
            logging.WARNING,
            "attempt_failed",
            "Attempt %d failed, the next one is in %.1f s: %s",
            *(attempt, pause, error),
            attempts=attempt,
            pause=round(pause, 3),
            **_facts(error),
        )

    def session_replaced(self, error: "MailbridgeError", connection_id: str) -> None:
        """A session that had been used before was dead; the message goes out on another."""
        self.write(
            "",
            logging.DEBUG,
            "session_replaced",
            "[%s] A reused session was dead, the message goes on a fresh one: %s",
            *(connection_id, error),
            connection_id=connection_id,
            **_facts(error),
        )

    # ---- connections

    def opened(self, connection_id: str, *, address: str, tls: str | None, seconds: float) -> None:
        self.write(
            "",
            logging.DEBUG,
            "connection_opened",
            "[%s] connected to %s (%s%s) in %.3f s",
            *(connection_id, self._server, address, f", {tls}" if tls else "", seconds),
            connection_id=connection_id,
            address=address,
            tls=tls,
            seconds=round(seconds, 6),
        )

    def logged_in(self, connection_id: str, *, mechanism: str, seconds: float) -> None:
        self.write(
            "",
            logging.DEBUG,
            "logged_in",
            "[%s] logged in to %s by %s in %.3f s",
            *(connection_id, self._server, mechanism, seconds),
            connection_id=connection_id,
            mechanism=mechanism,
            seconds=round(seconds, 6),
        )

    def not_opened(self, connection_id: str, error: "MailbridgeError", *, seconds: float) -> None:
        """No session came to be: it could not be opened, or the login failed."""
        self.write(
            "",
            logging.INFO,
            "connection_failed",
            "[%s] %s",
            *(connection_id, error),
            connection_id=connection_id,
            seconds=round(seconds, 6),
            **_facts(error),
        )

    def closed(self, connection_id: str, *, seconds: float) -> None:
        self.write(
            "",
            logging.DEBUG,
            "connection_closed",
            "[%s] closed the connection to %s, open for %.3f s",
            *(connection_id, self._server, seconds),
            connection_id=connection_id,
            seconds=round(seconds, 6),
        )

    def pooled(self, action: str, text: str, connection: object, reason: str) -> None:
        """What a pool does with one of its connections, or whatever it lends."""
        reason = printable(reason)
        self.write(
            "pool",
            logging.DEBUG,
            action,
            "%s: %s: %s",
            *(self._server, text, reason),
            connection_id=getattr(connection, "id", None),
            reason=reason,
        )

    def shrunk(self, size: float) -> None:
        """The server throttles, so the pool holds fewer connections for a while."""
        self.write(
            "pool",
            logging.WARNING,
            "pool_shrunk",
            "%s asks for less: at most %d connections now",
            *(self._server, size),
            pool_size=size,
        )

    # ---- several servers

    def failed_over(self, error: "MailbridgeError", elsewhere: str) -> None:
        """A server does not have the message, so the next one is asked."""
        self.write(
            "",
            logging.WARNING,
            "failed_over",
            "%s does not have a message, so it goes to %s: %s",
            *(error.server or self._server, elsewhere, error),
            next_server=elsewhere,
            **_facts(error),
        )

    def left_alone(self, error: "MailbridgeError", seconds: float) -> None:
        """The server failed too often, and gets no new connection for a while."""
        self.write(
            "",
            logging.WARNING,
            "server_left_alone",
            "%s is left alone for %.1f s: %s",
            *(self._server, seconds, error),
            pause=round(seconds, 3),
            **_facts(error),
        )

    def works_again(self) -> None:
        self.write("", logging.INFO, "server_works_again", "%s works again", self._server)

    def said(self, connection_id: str, side: Literal["C", "S"], line: str) -> None:
        """One line of the dialogue, masked already."""
        self.write(
            "smtp",
            logging.DEBUG,
            "dialogue",
            "[%s] %s: %s",
            *(connection_id, side, line),
            connection_id=connection_id,
            side=side,
        )

    # ---- access tokens

    def token_obtained(self, user: str, left: float | None) -> None:
        """`left`: how many seconds it is good for."""
        self.write(
            "oauth2",
            logging.INFO,
            "token_obtained",
            "access token for %s from %s, good for %s",
            *(user, self._server, "unknown" if left is None else f"{left:.0f} s"),
            user=user,
            expires_in=None if left is None else round(left),
        )

    def token_not_renewed(self, error: "MailbridgeError") -> None:
        """Ahead of its end; the one that is there is still good."""
        text = "an access token could not be renewed ahead of time: %s"
        self.write("oauth2", logging.WARNING, "token_not_renewed", text, error, **_facts(error))

    def token_not_kept(self, user: str) -> None:
        self.write(
            "oauth2",
            logging.WARNING,
            "token_not_kept",
            "%s rotates refresh tokens, and %s's is kept in this process only: set oauth2.token_store",
            *(self._server, user),
            user=user,
        )

    def progress_failed(self, problem: Exception) -> None:
        """After the message was accepted, which nothing changes any more."""
        name = type(problem).__name__
        self.write("", logging.WARNING, "progress_failed", "progress raised %s", name, error=name)

    def on_refresh_failed(self, problem: Exception) -> None:
        name = type(problem).__name__
        self.write("oauth2", logging.WARNING, "on_refresh_failed", "on_refresh raised %s", name, error=name)


def _facts(error: "MailbridgeError") -> dict[str, Any]:
    """Of what went wrong; `server` is the one it went wrong at, where there are several."""
    reply = error.reply
    return {
        "server": error.server,
        "error": type(error).__name__,
        "stage": error.stage,
        "code": reply.code if reply is not None else None,
        "enhanced": _dotted(reply.enhanced) if reply is not None else None,
    }


def _named(message_id: str | None) -> str:
    return printable(message_id) if message_id else "a message"


def _dotted(enhanced: tuple[int, int, int] | None) -> str | None:
    return ".".join(map(str, enhanced)) if enhanced is not None else None
