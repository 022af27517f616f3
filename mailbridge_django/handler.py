"""`mailers`: one name for `django.core.mail.mailers` (Django 6.1) and its stand-in before.

Where the project has no MAILERS, `mailers["default"]` is what EMAIL_BACKEND names, and the others
stand in MAILBRIDGE["MAILERS"], in the shape of Django's MAILERS, so that they can move there as they
are. Like Django's it makes a new backend each time and keeps none.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from mailbridge_django.compat import KNOWS_MAILERS, MailerDoesNotExist, MailerMisconfigured, uses_mailers

__all__ = ["Mailers", "mailers"]

DEFAULT = "default"
BACKEND = "mailbridge_django.EmailBackend"


class Mailers:
    """The project's mailers by alias: `mailers["bulk"].send_messages(messages)`.

    Raises MailerDoesNotExist (a KeyError) for an alias that is not configured, InvalidMailer for one
    that can't be made.
    """

    def __getitem__(self, alias: str, /) -> BaseEmailBackend:
        if uses_mailers() or (KNOWS_MAILERS and alias == DEFAULT):
            return mail.mailers[alias]
        if alias == DEFAULT:
            return mail.get_connection()
        if alias not in self.settings:
            raise MailerDoesNotExist(alias=alias)
        return _made(alias, self.settings[alias])

    def __contains__(self, alias: object, /) -> bool:
        return alias in self.settings

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def get(self, alias: str, /, default: Any = None) -> Any:
        """The mailer, or `default` if there is none of that alias."""
        try:
            return self[alias]
        except MailerDoesNotExist:
            return default

    @property
    def default(self) -> BaseEmailBackend:
        return self[DEFAULT]

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """What is configured, by alias; nothing is known of a default that EMAIL_* configure."""
        if uses_mailers():
            configured: Mapping[str, Mapping[str, Any]] = settings.MAILERS
            return configured
        package = getattr(settings, "MAILBRIDGE", None) or {}
        others = package.get("MAILERS", {}) if isinstance(package, Mapping) else {}
        if DEFAULT in others:
            raise MailerMisconfigured(
                "The default mailer is configured by EMAIL_* and the other keys of MAILBRIDGE.",
                alias=DEFAULT,
            )
        return {DEFAULT: {}, **others}


def _made(alias: str, entry: Mapping[str, Any]) -> BaseEmailBackend:
    options = entry.get("OPTIONS", {})
    if unknown := set(entry) - {"BACKEND", "OPTIONS"}:
        raise MailerMisconfigured(
            f"Unknown keys {', '.join(sorted(map(repr, unknown)))}; options belong into 'OPTIONS'.",
            alias=alias,
        )
    if "alias" in options:
        raise MailerMisconfigured("OPTIONS must not define 'alias'.", alias=alias)
    path = entry.get("BACKEND", BACKEND)
    try:
        backend_class = import_string(path)
    except ImportError as error:
        raise MailerMisconfigured(f"Could not find BACKEND {path!r}: {error}", alias=alias) from error
    backend: BaseEmailBackend = backend_class(alias=alias, **options)
    return backend


mailers = Mailers()
