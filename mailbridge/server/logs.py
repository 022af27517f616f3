"""The log records of a receiving server: one line each, with the same facts as fields.

Every record has the fields `action` and `connection_id`. What clients say is escaped. Secrets and
contents never come here.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mailbridge import logs
from mailbridge.reply import printable
from mailbridge.server.session import ReceivedEnvelope, Session

default_logger = logging.getLogger("mailbridge.server")

_RECIPIENTS_SHOWN = 10


class Journal:
    """The records of one connection. An ignored one writes none."""

    def __init__(self, logger: logging.Logger, session: Session) -> None:
        self._logger = logger
        self._session = session
        self.is_silent = False

    def connect(self) -> None:
        session = self._session
        text = "%s port %d to %s port %d"
        ends = (session.remote_address, session.remote_port, session.local_address, session.local_port)
        self._write(
            "connect", text, *ends, local_address=session.local_address, local_port=session.local_port
        )

    def proxy(self, command: str, version: int) -> None:
        session = self._session
        text = "PROXY version %d, %s: %s port %d by %s"
        facts = (version, command, session.remote_address, session.remote_port, session.proxy_address)
        self._write("proxy", text, *facts, proxy_version=version, proxy_command=command)

    def refuse(self, reply: str, reason: str) -> None:
        """`reply` is what the client is told, "" if it is told nothing."""
        shown = printable(reason)
        told = printable(reply) or "closed without a word"
        code = int(reply[:3]) if reply[:3].isdigit() else None
        self._write("refuse", "%s (%s)", told, shown, code=code, reply=printable(reply), reason=shown)

    def failure(self, hook: str, error: BaseException) -> None:
        """A hook raised something else than Reject: the client is asked to come again."""
        text = "the hook %s failed with %s"
        name = type(error).__name__
        self._write("failure", text, hook, name, level=logging.WARNING, hook=hook, exc_info=error)

    def message(self, envelope: ReceivedEnvelope, size: int) -> None:
        shown = [printable(address) for address in envelope.recipients[:_RECIPIENTS_SHOWN]]
        sender, count = printable(envelope.sender), len(envelope.recipients)
        text = "message from <%s> to %d recipients, %d bytes"
        self._write("message", text, sender, count, size, sender=sender, recipients=shown, size=size)

    def close(self, seconds: float, why: str) -> None:
        """`why`: what ended the connection, in a word or two."""
        taken = self._session.transactions
        text = "closed after %.1f s, %d messages (%s)"
        self._write("close", text, seconds, taken, why, seconds=seconds, messages=taken, reason=why)

    def _write(
        self,
        action: str,
        text: str,
        *arguments: object,
        level: int = logging.INFO,
        **fields: Any,
    ) -> None:
        if self.is_silent:
            return
        session = self._session
        fields |= {
            "action": action,
            "connection_id": session.id,
            "remote_address": session.remote_address,
            "remote_port": session.remote_port,
            "proxy_address": session.proxy_address,
        }
        line = f"[%s] {action}: {text}"
        logs.write(self._logger, level, line, session.id, *arguments, **fields)


class _AiosmtpdFilter(logging.Filter):
    """Drops what aiosmtpd logs in the threads of our servers: every command, by the proxy's address, and
    without the connection's name. In other threads it is the application's own aiosmtpd.
    """

    def __init__(self) -> None:
        super().__init__()
        self.quiet_threads: set[int] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in self.quiet_threads


_aiosmtpd_filter = _AiosmtpdFilter()
logging.getLogger("mail.log").addFilter(_aiosmtpd_filter)


@contextmanager
def aiosmtpd_kept_quiet() -> Iterator[None]:
    """In this thread, within the block."""
    thread = threading.get_ident()
    _aiosmtpd_filter.quiet_threads.add(thread)
    try:
        yield
    finally:
        _aiosmtpd_filter.quiet_threads.discard(thread)
