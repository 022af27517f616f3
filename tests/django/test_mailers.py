"""The backend under MAILERS. Collected where Django knows MAILERS (6.1); see conftest.py."""

from typing import Any

import pytest
from django.core import mail

from mailbridge import SMTPConfig
from mailbridge_django import EmailBackend
from tests.django.conftest import BACKEND, overridden


def test_options_become_the_configuration() -> None:
    options = {
        "host": "smtp.example.com",
        "use_tls": True,
        "username": "u",
        "password": "p",
        "pool": {"max_size": 2},
        "fail_silently": True,
    }
    with overridden(
        MAILERS={"bulk": {"BACKEND": BACKEND, "OPTIONS": options}},
        MAILBRIDGE={"host": "elsewhere.example"},
    ):
        backend = mail.mailers["bulk"]
    assert isinstance(backend, EmailBackend)
    assert backend.config == SMTPConfig(
        host="smtp.example.com", security="starttls", username="u", password="p", pool={"max_size": 2}
    )
    assert (backend.alias, backend.port, backend.fail_silently) == ("bulk", 587, True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"host": "h", "pool_sise": 3}, "Unknown options 'pool_sise'. Did you mean 'pool'?"),
        ({"host": "h", "correct horse": 3}, "Unknown options '***'."),
        ({"host": "h", "pool": {"sise": 3}}, "Unknown option 'pool.sise'"),
        (
            {"host": "h", "use_tls": True, "use_ssl": True},
            "'use_ssl' and 'use_tls' OPTIONS are incompatible",
        ),
        ({}, "OPTIONS must define 'host' or 'url'"),
    ],
)
def test_bad_options_name_the_alias(options: dict[str, Any], problem: str) -> None:
    mailers = {"bulk": {"BACKEND": BACKEND, "OPTIONS": options}}
    with overridden(MAILERS=mailers), pytest.raises(mail.InvalidMailer) as caught:
        _ = mail.mailers["bulk"]
    assert "MAILERS['bulk']: " in str(caught.value)
    assert str(caught.value).count("MAILERS[") == 1
    assert problem in str(caught.value)


def test_a_url_is_enough() -> None:
    options = {"url": "smtps://u:p@smtp.example.com/?pool.max_size=2"}
    with overridden(MAILERS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}):
        backend = mail.mailers.default
    assert backend.config == SMTPConfig(
        host="smtp.example.com", security="tls", username="u", password="p", pool={"max_size": 2}
    )
    assert (backend.host, backend.port, backend.use_ssl) == ("smtp.example.com", 465, True)


def test_one_made_by_hand_needs_no_alias() -> None:
    with overridden(MAILERS={"default": {"BACKEND": BACKEND, "OPTIONS": {"host": "a.example"}}}):
        assert EmailBackend(host="b.example").config.host == "b.example"


def test_the_overrides_of_get_connection_that_it_does_not_know_are_let_pass() -> None:
    mailers = {"default": {"BACKEND": BACKEND, "OPTIONS": {"host": "a.example"}}}
    with overridden(MAILERS=mailers), pytest.warns(PendingDeprecationWarning, match="get_connection"):
        backend = mail.get_connection(port=26, nonsense=True)
    assert (backend.host, backend.port) == ("a.example", 26)


def test_unknown_options_without_mailers_are_django_s_to_warn_about() -> None:
    with pytest.warns(PendingDeprecationWarning, match="does not support 'pool_sise'"):
        EmailBackend(pool_sise=3)
