"""Logging about mail where log records may themselves become mail.

AdminEmailHandler sends mail for a log record, from within the call that logs it. So nothing here is
an ERROR, which is what that handler listens for; a report within a report is dropped; mail that is
sent while mail is being sent has a limit; and a handler that raises breaks no send.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mailbridge import MailbridgeError

logger = logging.getLogger("mailbridge.django")

# A receiver of post_send that sends a mail, whose log record becomes a mail: more has no good reason.
MAX_DEPTH = 3

_depth: ContextVar[int] = ContextVar("mailbridge_django_depth", default=0)
_is_reporting: ContextVar[bool] = ContextVar("mailbridge_django_is_reporting", default=False)


def report(level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
    """Log, unless this is the consequence of logging; never raises."""
    if _is_reporting.get():
        return
    token = _is_reporting.set(True)
    try:
        logger.log(min(level, logging.WARNING), text, *args, exc_info=exc_info)
    except Exception:  # noqa: S110  # a handler's failure is the handler's, and there is no one left to tell
        pass
    finally:
        _is_reporting.reset(token)


@contextmanager
def one_send_deeper() -> Iterator[MailbridgeError | None]:
    """For the time of a send; gives the error that it ends in if sends are nested too deep."""
    depth = _depth.get() + 1
    token = _depth.set(depth)
    try:
        yield _too_deep(depth) if depth > MAX_DEPTH else None
    finally:
        _depth.reset(token)


def _too_deep(depth: int) -> MailbridgeError:
    return MailbridgeError(
        f"Mail is being sent from within the sending of mail, {depth} deep",
        hint="A log handler or a signal receiver that sends mail is calling itself.",
    )
