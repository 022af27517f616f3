"""The app, for INSTALLED_APPS: system checks, `manage.py verify_smtp`, error reports without passwords.

Sending needs it not.
Nothing connects, and nothing is started, when it is loaded.
"""

from django.apps import AppConfig


class MailbridgeConfig(AppConfig):
    name = "mailbridge_django"
    label = "mailbridge"
    verbose_name = "mailbridge"

    def ready(self) -> None:
        from mailbridge_django import checks, error_reports  # noqa: F401  # checks register themselves

        error_reports.mask_configured()
        error_reports.install_filter()
