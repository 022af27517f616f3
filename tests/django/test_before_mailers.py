"""What the backend does before Django 6.1 that MAILERS do later. Not collected there; see conftest.py."""

import logging

import pytest

from mailbridge import SMTPConfig
from mailbridge_django import EmailBackend, InvalidMailer
from tests.django.conftest import overridden


def test_unknown_options_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    EmailBackend(pool_sise=3)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "'pool_sise'" in record.getMessage()
    assert "Did you mean 'pool'?" in record.getMessage()


def test_with_an_alias_nothing_comes_from_the_settings() -> None:
    with overridden(EMAIL_HOST="h", EMAIL_HOST_USER="u", EMAIL_HOST_PASSWORD="p", EMAIL_USE_TLS=True):
        backend = EmailBackend(alias="bulk", host="bulk.example", timeout=3)
    assert backend.alias == "bulk"
    assert backend.config == SMTPConfig(host="bulk.example", security="none", timeout=3)
    assert (backend.username, backend.password) == ("", "")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "OPTIONS must define 'host' or 'url'"),
        ({"host": "h", "pool_sise": 3}, "Unknown options 'pool_sise'"),
        ({"host": "h", "correct horse": 3, "dkm": 1}, r"Unknown options '\*\*\*', 'dkm'"),
        ({"host": "h", "use_tls": True, "use_ssl": True}, "mutually exclusive"),
    ],
)
def test_with_an_alias_bad_options_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidMailer, match=problem) as caught:
        EmailBackend(alias="bulk", **options)
    assert "MAILERS['bulk']: " in str(caught.value)
