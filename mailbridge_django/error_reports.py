"""Django's error reports, the debug page and the mail of AdminEmailHandler, without passwords.

Django masks by the names of settings and keys; a URL holds its password under any name. The settings of
mail are masked as they are (`mask_configured`); the filter masks URLs with a user in everything else.
"""

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest
from django.views import debug

from mailbridge import mask_settings, without_userinfo

__all__ = ["ReportFilter", "install_filter", "mask_configured", "shown_by_reports"]

SETTINGS = ("MAILBRIDGE", "MAILERS")
_DEFAULT = "django.views.debug.SafeExceptionReporterFilter"
_PREFIX = "MAILBRIDGE_"
_DEPTH = 50  # how far into dicts and lists among the local variables URLs are looked for


def mask_configured() -> None:
    """Let the settings of mail show `'***'` for what is secret in them; they equal what they were.

    Does nothing if the settings are not there yet.
    """
    if settings.configured:
        for name in SETTINGS:
            _mask(name)


@receiver(setting_changed)
def _mask_changed(*, setting: str, **_: Any) -> None:
    if setting in SETTINGS:
        _mask(setting)


def _mask(name: str) -> None:
    if settings.is_overridden(name):
        value = getattr(settings, name)
        masked = mask_settings(value)
        if masked is not value:
            setattr(settings, name, masked)


def install_filter() -> None:
    """Make `ReportFilter` the filter of error reports, unless the project has chosen one."""
    if settings.DEFAULT_EXCEPTION_REPORTER_FILTER == _DEFAULT:
        settings.DEFAULT_EXCEPTION_REPORTER_FILTER = f"{__name__}.ReportFilter"
        debug.get_default_exception_reporter_filter.cache_clear()  # type: ignore[attr-defined]  # the stubs do not know


def shown_by_reports(secrets: Iterable[str]) -> list[str]:
    """The settings of mail and variables of the environment in which error reports would show a secret.

    What is shorter than six characters is not looked for: it would be found in anything.
    """
    spellings = {spelt for each in secrets if len(each) >= 6 for spelt in (each, quote(each, safe=""))}
    report_filter = debug.get_default_exception_reporter_filter()
    cleanse = getattr(report_filter, "cleanse_setting", lambda _, value: value)
    values = {
        f"settings.{name}": (name, getattr(settings, name))
        for name in SETTINGS
        if settings.is_overridden(name)
    }
    values |= {f"os.environ[{name!r}]": (name, value) for name, value in os.environ.items()}
    texts = {where: repr(cleanse(name, value)) for where, (name, value) in values.items()}
    return [where for where, text in texts.items() if any(each in text for each in spellings)]


class ReportFilter(debug.SafeExceptionReporterFilter):
    """Django's filter; it masks user and password of URLs too, in settings, environment and variables.

    The base of a project's own DEFAULT_EXCEPTION_REPORTER_FILTER.
    """

    def cleanse_setting(self, key: str | int, value: Any) -> Any:
        """As Django's; with `***` for user and password of each URL, whatever its name."""
        return _without_users(super().cleanse_setting(key, value), key)

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: Any) -> Any:
        """As Django's; the same for strings, and those in dicts and lists. The environment is a setting."""
        variables = super().get_traceback_frame_variables(request, tb_frame)
        done: dict[int, Any] = {}
        return [(name, self._cleansed(name, value, done, _DEPTH)) for name, value in variables]

    def _cleansed(self, name: object, value: Any, done: dict[int, Any], depth: int) -> Any:
        """A copy without users in URLs; what is in itself, or in several places, is so in the copy."""
        kind = type(value)
        if kind is os._Environ:
            return {key: self.cleanse_setting(key, each) for key, each in value.items()}
        if kind not in (dict, list, tuple) or not depth:
            return _without_users(value, name)
        if id(value) in done:
            return done[id(value)]
        if kind is dict:
            copy = done[id(value)] = {}
            copy |= {key: self._cleansed(key, each, done, depth - 1) for key, each in list(value.items())}
            return copy
        items = done[id(value)] = []
        items += [self._cleansed("", each, done, depth - 1) for each in value]
        done[id(value)] = items if kind is list else tuple(items)
        return done[id(value)]


def _without_users(value: Any, name: object) -> Any:
    # A variable of the environment, also in `request.META`. str() of other keys may ask a database.
    if isinstance(name, str) and name.startswith(_PREFIX):
        value = mask_settings(value, name.removeprefix(_PREFIX))
    if type(value) is bytes and b"://" in value:
        return without_userinfo(value.decode("latin-1")).encode("latin-1")
    return without_userinfo(value) if type(value) is str else value
