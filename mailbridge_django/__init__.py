"""mailbridge for Django: an e-mail backend, system checks, `manage.py verify_smtp`, signals.

Names the public things and nothing else. They are loaded when first used, so that importing this
package needs neither configured settings nor a server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailbridge_django.backend import EmailBackend
    from mailbridge_django.compat import InvalidMailer, MailerDoesNotExist, MailerMisconfigured
    from mailbridge_django.handler import mailers
    from mailbridge_django.signals import CancelSend

__all__ = [
    "EmailBackend",
    "mailers",
    "CancelSend",
    "InvalidMailer",
    "MailerDoesNotExist",
    "MailerMisconfigured",
]

_HOMES = {
    "EmailBackend": "backend",
    "mailers": "handler",
    "CancelSend": "signals",
    "InvalidMailer": "compat",
    "MailerDoesNotExist": "compat",
    "MailerMisconfigured": "compat",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "django":
            raise
        raise ModuleNotFoundError(
            "mailbridge_django needs Django; install the extra: mailbridge-smtp[django]", name=error.name
        ) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
