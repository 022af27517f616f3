"""mailbridge_django.handler: Django's, or what stands in for it."""

from typing import Any

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as Locmem

from mailbridge_django import EmailBackend, InvalidMailer, MailerDoesNotExist, mailers
from tests.django.conftest import BACKEND, KNOWS_MAILERS, overridden

OTHERS: dict[str, Any] = {
    "bulk": {"BACKEND": BACKEND, "OPTIONS": {"host": "bulk.example", "use_tls": True}},
    "plain": {"OPTIONS": {"host": "plain.example"}},
    "memory": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"},
}


class TestWithoutMailers:
    def test_the_default_is_what_the_settings_name(self) -> None:
        with overridden(EMAIL_BACKEND=BACKEND, EMAIL_HOST="smtp.example.com"):
            assert mailers.default.host == mailers["default"].host == "smtp.example.com"

    def test_the_others_stand_in_the_package_s_setting(self) -> None:
        with overridden(MAILBRIDGE={"MAILERS": OTHERS}, EMAIL_HOST="default.example"):
            assert list(mailers) == ["default", "bulk", "plain", "memory"]
            bulk, plain = mailers["bulk"], mailers["plain"]
            assert isinstance(mailers["memory"], Locmem)
            assert "bulk" in mailers
            assert "other" not in mailers
        assert isinstance(bulk, EmailBackend)
        assert isinstance(plain, EmailBackend)
        assert (bulk.alias, bulk.host, bulk.config.security) == ("bulk", "bulk.example", "starttls")
        assert (plain.host, plain.config.security) == ("plain.example", "none")

    def test_each_is_new(self) -> None:
        with overridden(MAILBRIDGE={"MAILERS": OTHERS}):
            assert mailers["bulk"] is not mailers["bulk"]

    @pytest.mark.parametrize("alias", ["other", "MAILERS"])
    def test_one_that_is_not_configured(self, alias: str) -> None:
        with pytest.raises(MailerDoesNotExist, match=f"'{alias}' is not configured"):
            _ = mailers[alias]
        with pytest.raises(KeyError):
            _ = mailers[alias]
        assert mailers.get(alias) is None
        assert mailers.get(alias, 3) == 3

    @pytest.mark.parametrize(
        ("entry", "problem"),
        [
            ({"BACKEND": "no.such.Backend"}, "Could not find BACKEND 'no.such.Backend'"),
            ({"host": "h"}, "Unknown keys 'host'; options belong into 'OPTIONS'"),
            ({"OPTIONS": {"alias": "x"}}, "OPTIONS must not define 'alias'"),
            ({"OPTIONS": {"host": "h", "hosst": "h"}}, "Unknown options 'hosst'"),
            ({"OPTIONS": {}}, "OPTIONS must define 'host' or 'url'"),
        ],
    )
    def test_one_that_cannot_be_made_is_named(self, entry: dict[str, Any], problem: str) -> None:
        with (
            overridden(MAILBRIDGE={"MAILERS": {"bulk": entry}}),
            pytest.raises(InvalidMailer, match=problem) as caught,
        ):
            _ = mailers["bulk"]
        assert str(caught.value).startswith("MAILERS['bulk']: ")

    def test_the_default_is_not_configured_there(self) -> None:
        with (
            overridden(MAILBRIDGE={"MAILERS": {"default": {"OPTIONS": {"host": "h"}}}}),
            pytest.raises(InvalidMailer, match="configured by EMAIL_"),
        ):
            list(mailers)


if KNOWS_MAILERS:

    def test_with_mailers_it_is_django_s() -> None:
        configured = {"default": {"BACKEND": BACKEND, "OPTIONS": {"host": "a.example"}}, **OTHERS}
        del configured["plain"]
        with overridden(MAILERS=configured, MAILBRIDGE={"MAILERS": {"gone": {}}}):
            assert list(mailers) == list(mail.mailers) == ["default", "bulk", "memory"]
            assert mailers.default.host == "a.example"
            assert mailers["bulk"].host == "bulk.example"
            assert mailers.get("gone") is None
            with pytest.raises(mail.MailerDoesNotExist):
                _ = mailers["gone"]
