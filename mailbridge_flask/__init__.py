"""mailbridge for Flask: `Mail`, `Message`, signals and `flask mail …` commands.

A project that used Flask-Mail changes the import and nothing else. Names the public things; each stands
in a module of its own.
"""

try:
    import blinker as _blinker  # noqa: F401  # asked for first, to name the extra that brings both
    import flask as _flask  # noqa: F401
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"mailbridge_flask needs {_error.name}; install the extra: mailbridge-smtp[flask]", name=_error.name
    ) from _error

from mailbridge_flask.addresses import sanitize_address
from mailbridge_flask.connection import Connection
from mailbridge_flask.errors import BadHeaderError, IncompleteMessage
from mailbridge_flask.extension import Mail
from mailbridge_flask.message import Attachment, Message
from mailbridge_flask.signals import email_dispatched, message_failed, message_sending, message_sent
from mailbridge_flask.state import MailState

__all__ = [
    "Mail",
    "Message",
    "Attachment",
    "Connection",
    "MailState",
    "BadHeaderError",
    "IncompleteMessage",
    "sanitize_address",
    "message_sending",
    "message_sent",
    "message_failed",
    "email_dispatched",
]
