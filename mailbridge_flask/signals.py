"""The signals of mailbridge in Flask; the sender of each is the application object itself.

Connect a receiver with `sender=app` to hear of one application, without it to hear of all in the
process. A receiver takes the application and the keywords named here, or `**kwargs`. Nothing here
decides when a signal is sent; `state.py` does.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

__all__ = ["email_dispatched", "message_failed", "message_sending", "message_sent"]

logger = logging.getLogger("mailbridge.flask")

_signals = Namespace()

#: Before a message is built; `message`, `mailer` (its name). It may still be changed; an exception stops it.
message_sending: NamedSignal = _signals.signal("message-sending")

#: The server accepted a message; `message`, `mailer`, `result` (a SendResult). Not sent where suppressed.
message_sent: NamedSignal = _signals.signal("message-sent")

#: A message was not sent, or its outcome is unknown; `message`, `mailer`, `error`. The error is raised after.
message_failed: NamedSignal = _signals.signal("message-failed")

#: Flask-Mail's signal: `message` was sent, or would have been if sending were not suppressed.
email_dispatched: NamedSignal = _signals.signal("email-dispatched")

# What record_messages() listens to: apart, so that no receiver of an application can come between.
recorded: NamedSignal = _signals.signal("recorded")

_is_telling_bad_news: ContextVar[bool] = ContextVar("mailbridge_flask_is_telling_bad_news", default=False)


def announce(signal: NamedSignal, app: Flask, **facts: Any) -> None:
    """Tell what has happened. What a receiver raises is logged and goes no further.

    Otherwise a mail that was sent would look like one that was not, and be sent again; or the error
    that tells why it was not sent would be replaced by another.
    """
    is_bad_news = signal is message_failed
    if is_bad_news and _is_telling_bad_news.get():
        return
    try:
        with _telling_bad_news() if is_bad_news else nullcontext():
            signal.send(app, **facts)
    except Exception:
        _log_failure_of_receiver(signal)


def _log_failure_of_receiver(signal: NamedSignal) -> None:
    if _is_telling_bad_news.get():
        return
    with _telling_bad_news():
        # Not ERROR, which people have mailed to them.
        logger.warning("A receiver of the signal %r failed", signal.name, exc_info=True)


@contextmanager
def _telling_bad_news() -> Iterator[None]:
    """While it lasts no other bad news is told: receivers and log handlers may send mail themselves, and
    a mail that tells why another one failed fails for the same reason.
    """
    token = _is_telling_bad_news.set(True)
    try:
        yield
    finally:
        _is_telling_bad_news.reset(token)
