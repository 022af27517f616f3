"""The app, for INSTALLED_APPS: system checks and `manage.py verify_smtp`. Sending needs it not.

Nothing connects, and nothing is started, when it is loaded.
"""

from django.apps import AppConfig


class MailbridgeConfig(AppConfig):
    name = "mailbridge_django"
    label = "mailbridge"
    verbose_name = "mailbridge"

    def ready(self) -> None:
        from mailbridge_django import checks  # noqa: F401  # registers itself
