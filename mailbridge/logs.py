"""Log lines that change nothing: a handler that fails, or that mails, never decides over a message.

Handlers belong to the application. One that raises would turn a message that was sent into an error;
one that sends its lines by mail, through this very pool, would never come to an end.
"""

import logging
import threading
from typing import Any

_in_this_thread = threading.local()


def write(logger: logging.Logger, level: int, text: str, *arguments: object, **fields: Any) -> None:
    """Log `text % arguments`, with `fields` as `extra`; silent while a line of ours is being handled.

    A field `exc_info` is the exception that the line tells of.
    """
    if not logger.isEnabledFor(level) or getattr(_in_this_thread, "is_logging", False):
        return
    _in_this_thread.is_logging = True
    try:
        logger.log(level, text, *arguments, exc_info=fields.pop("exc_info", None), extra=fields, stacklevel=2)
    except Exception:  # noqa: S110  # whatever an application's handler does
        pass
    finally:
        _in_this_thread.is_logging = False
