"""mailbridge_django.compat: the same errors on every Django."""

import pickle

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured

from mailbridge import ConfigurationError
from mailbridge_django import InvalidMailer, MailerDoesNotExist, MailerMisconfigured
from tests.django.conftest import KNOWS_MAILERS


def test_they_are_django_s_where_it_has_them() -> None:
    assert (getattr(mail, "InvalidMailer", None) is InvalidMailer) is KNOWS_MAILERS
    assert (getattr(mail, "MailerDoesNotExist", None) is MailerDoesNotExist) is KNOWS_MAILERS


def test_their_shapes() -> None:
    assert str(InvalidMailer("No host.", alias="bulk")) == "MAILERS['bulk']: No host."
    assert str(InvalidMailer("No host.")) == "No host."
    error = MailerDoesNotExist(alias="bulk")
    assert isinstance(error, (InvalidMailer, KeyError, ImproperlyConfigured))
    assert "The mailer 'bulk' is not configured." in str(error)


@pytest.mark.parametrize(
    "kind", [ConfigurationError, InvalidMailer, ImproperlyConfigured, ValueError, OSError]
)
def test_a_misconfigured_mailer_is_caught_as(kind: type[Exception]) -> None:
    error = MailerMisconfigured("No host", alias="bulk", hint="Give one.")
    assert isinstance(error, kind)


def test_a_misconfigured_mailer_can_be_pickled() -> None:
    error = MailerMisconfigured("No host", alias="bulk", hint="Give one.")
    assert str(error) == "MAILERS['bulk']: No host. Give one."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
