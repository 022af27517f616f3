"""Settings of the site. For this machine only: the key is no secret and DEBUG is on.

Mail is configured at the end, as MAILERS where Django knows it (6.1), as EMAIL_BACKEND before.
"""

import os
import tempfile
from pathlib import Path

import django

from testproject import mail_settings

HERE = Path(__file__).parent

SECRET_KEY = "for this machine only"
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "mailbridge_django",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "testproject.website.urls"
WSGI_APPLICATION = "testproject.website.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [HERE / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get(
            "WEBSITE_DATABASE", Path(tempfile.gettempdir()) / "mailbridge-website.sqlite3"
        ),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGIN_REDIRECT_URL = "contact"

DEFAULT_FROM_EMAIL = mail_settings.SENDER
CONTACT_INBOX = mail_settings.INBOX

if django.VERSION >= (6, 1):
    MAILERS = {
        "default": {"BACKEND": "mailbridge_django.EmailBackend", "OPTIONS": mail_settings.OPTIONS},
    }
else:
    EMAIL_BACKEND = "mailbridge_django.EmailBackend"
    MAILBRIDGE = mail_settings.OPTIONS
