"""Signals around each message: `pre_send`, `post_send`, `send_failed`.

    pre_send(message, alias)            may change the message, or raise CancelSend
    post_send(message, alias, result)   the server took it, for some or all recipients
    send_failed(message, alias, error)  it did not, or whether it did is unknown

The sender is the backend's class; `alias` is "default" where Django has no aliases. A receiver
that fails is logged as a WARNING and never breaks a send.
"""

import logging
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from mailbridge_django.logs import report

__all__ = ["CancelSend", "announce", "post_send", "pre_send", "send_failed"]


class CancelSend(Exception):
    """Raised by a receiver of `pre_send`: this message is not sent, and not counted. No error."""


class QuietSignal(Signal):
    """A signal whose failing receivers are reported below ERROR.

    Django reports them as errors of its logger "django.dispatch", and AdminEmailHandler answers an
    error by sending mail: a failing receiver would call itself.
    """

    def _log_robust_failure(self, receiver: Callable[..., Any], err: BaseException) -> None:
        if not isinstance(err, CancelSend):
            report(logging.WARNING, "A receiver of a mail signal failed: %r", receiver, exc_info=err)


pre_send = QuietSignal()
post_send = QuietSignal()
send_failed = QuietSignal()


def announce(signal: Signal, sender: type, **named: Any) -> list[Exception]:
    """Tell all receivers; what they raised comes back, and nothing is raised."""
    try:
        responses = signal.send_robust(sender, **named)
    except Exception as error:  # asynchronous receivers where no event loop can be had for them
        report(logging.WARNING, "The receivers of a mail signal could not be called", exc_info=error)
        return [error]
    return [response for _, response in responses if isinstance(response, Exception)]
