"""mailbridge_django: what its name gives, and what importing it needs."""

import subprocess
import sys

import pytest
from django.utils.module_loading import import_string

import mailbridge_django
from mailbridge_django.backend import EmailBackend


def test_every_public_name_is_there() -> None:
    assert {name: getattr(mailbridge_django, name) for name in mailbridge_django.__all__}
    assert set(mailbridge_django.__all__) <= set(dir(mailbridge_django))


def test_the_backend_is_found_by_the_path_that_settings_name() -> None:
    assert import_string("mailbridge_django.EmailBackend") is EmailBackend


def test_a_name_that_it_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Email'"):
        _ = mailbridge_django.Email


@pytest.mark.parametrize(
    "statement",
    [
        "import mailbridge_django; assert 'django.core.mail' not in sys.modules",
        "from mailbridge_django import EmailBackend, mailers, CancelSend, InvalidMailer, MailerDoesNotExist",
        "import mailbridge_django.signals, mailbridge_django.checks, mailbridge_django.apps",
    ],
)
def test_importing_needs_no_settings_and_opens_no_socket(statement: str) -> None:
    code = f"""
import sys
def no_sockets(event, arguments):
    assert event != "socket.connect", arguments
sys.addaudithook(no_sockets)
{statement}
from django.conf import settings
assert not settings.configured
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)
