"""What the visitors of the demo do: fill in forms on the Django site and in the Flask app.

Import it once MAILBRIDGE_URL is set: that is when the site reads its settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["WEBSITE_DATABASE"] = ":memory:"
os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.website.settings"

import django
from django.core.mail.utils import DNS_NAME
from django.core.management import call_command
from django.test import Client
from django.test.utils import override_settings

from testproject import flask_app, mail_settings
from testproject.demo_server import PASSWORD, USERNAME, DemoServer

Mail = tuple[str, str]  # recipient and subject

FOR_DJANGO = (
    ("Ann", "ann@example.org", "Are you open on Sunday?", "I would like to come by at nine."),
    ("Bob", "bob@example.org", "An order of 40 rolls", "For Friday, please.\n\n.signed\n"),
    ("Zoë", "zoe@example.org", "Brötchen & Café", "Gibt es bei euch auch Frühstück?"),
    ("Dan", "dan@example.org", "Lost umbrella", "It is green. Did I leave it at your place?"),
    ("Eve", "eve@example.org", "Thank you", "The cake was wonderful."),
)
FOR_FLASK = (
    ("Fay", "fay@example.org", "Gluten-free bread", "Do you have any?"),
    ("Gus", "gus@example.org", "Delivery", "Do you deliver to the next village?"),
    ("Hal", "hal@example.org", "Recipe", "Is the recipe of the apple cake a secret?"),
    ("Ida", "ida@example.org", "Opening hours", "Your website says two different things."),
)
VISITOR = "ann@example.org"


def prepare() -> None:
    """The site with a database in memory, and one account."""
    # Django would ask DNS for this machine's name; the demo needs no network.
    DNS_NAME._fqdn = "localhost"
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth import get_user_model

    get_user_model().objects.create_user("ann", VISITOR, "forgotten")


def visit_django() -> Iterator[Mail]:
    """Five contact forms and a forgotten password; what each should make arrive."""
    browser = Client(headers={"host": "localhost"})
    for name, address, subject, text in FOR_DJANGO:
        written = {"name": name, "email": address, "subject": subject, "text": text}
        assert browser.post("/", written).status_code == 302
        yield mail_settings.INBOX, f"[Contact] {subject}"
    assert browser.post("/account/password_reset/", {"email": VISITOR}).status_code == 302
    yield VISITOR, "Reset your password for the Corner Shop"


def visit_flask() -> Iterator[Mail]:
    """Four contact forms; what each should make arrive."""
    browser = flask_app.create_app().test_client()
    for name, address, subject, text in FOR_FLASK:
        written = {"name": name, "email": address, "subject": subject, "text": text}
        assert browser.post("/", data=written).status_code == 200
        yield mail_settings.INBOX, f"[Contact] {subject}"


@contextmanager
def djangos_own_backend(server: DemoServer) -> Iterator[None]:
    """For the time of a block the site sends by Django's own SMTP backend, with TLS verified, too."""
    options = {"host": server.host, "port": server.port, "username": USERNAME, "password": PASSWORD}
    path = "django.core.mail.backends.smtp.EmailBackend"
    if django.VERSION >= (6, 1):
        ours = {"MAILERS": {"default": {"BACKEND": path, "OPTIONS": {**options, "use_tls": True}}}}
    else:
        names = {"host": "HOST", "port": "PORT", "username": "HOST_USER", "password": "HOST_PASSWORD"}
        ours = {f"EMAIL_{names[name]}": value for name, value in options.items()}
        ours |= {"EMAIL_BACKEND": path, "EMAIL_USE_TLS": True}
    # It has no option for a private authority; OpenSSL looks here for those that it trusts.
    os.environ["SSL_CERT_FILE"] = str(server.ca_file)
    try:
        with override_settings(**ours):  # mailbridge notices, and closes its pool
            server.wait_until_all_have_left()
            yield
    finally:
        del os.environ["SSL_CERT_FILE"]
