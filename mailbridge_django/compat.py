"""What differs between Django 5.2, 6.0 and 6.1, in one place, and the error for a bad mailer.

Django 6.1 has MAILERS and two errors of its own; before, errors of the same names and shapes stand
in, so that code which catches them runs everywhere. Nothing here reads a setting but MAILERS.
"""

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured

from mailbridge import ConfigurationError

if TYPE_CHECKING:
    from django.core.mail import InvalidMailer as InvalidMailer
    from django.core.mail import MailerDoesNotExist as MailerDoesNotExist
elif hasattr(mail, "mailers"):
    InvalidMailer, MailerDoesNotExist = mail.InvalidMailer, mail.MailerDoesNotExist
else:

    class InvalidMailer(ImproperlyConfigured):
        """A mailer has a configuration error."""

        def __init__(self, msg, *, alias=None):
            super().__init__(msg if alias is None else f"MAILERS[{alias!r}]: {msg}")

    class MailerDoesNotExist(InvalidMailer, KeyError):
        """No mailer has the alias that was asked for."""

        def __init__(self, *, alias):
            super().__init__(f"The mailer '{alias}' is not configured.")


#: Django knows MAILERS, which is not to say that the project has defined it.
KNOWS_MAILERS = hasattr(mail, "mailers")


def uses_mailers() -> bool:
    """Whether the project has defined MAILERS and Django uses it."""
    return KNOWS_MAILERS and hasattr(settings, "MAILERS")


class MailerMisconfigured(ConfigurationError, InvalidMailer):
    """The options of a mailer can't work: Django's error and mailbridge's in one.

    So `except InvalidMailer` (Django 6.1), `except ImproperlyConfigured` and `except ValueError`
    (Django's own backend, before) catch it. `fail_silently` never silences it.
    """

    def __init__(self, message: str, *, alias: str | None = None, **details: Any) -> None:
        if alias is not None:
            message = f"MAILERS[{alias!r}]: {message}"
        super().__init__(message, **{"stage": "config", **details})
