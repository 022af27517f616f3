"""mailbridge_django.checks: what `manage.py check` says, without a byte on the network."""

import sys
from typing import Any

import pytest
from django.core.checks import run_checks
from django.utils.module_loading import import_string
from django.views import debug

from mailbridge_django.checks import check_mailers
from tests.django.conftest import BACKEND, KNOWS_MAILERS, Use, overridden

DJANGO_FILTER = "django.views.debug.SafeExceptionReporterFilter"


def ids() -> list[str]:
    return [str(found.id) for found in check_mailers()]


def test_good_settings_have_no_findings(use: Use) -> None:
    use(host="smtp.example.com", use_tls=True, username="u", password="p")
    assert check_mailers() == []


def test_they_run_with_django_s_checks_of_mail(use: Use) -> None:
    use(host="smtp.example.com", pool={"max_size": 0})
    assert [found.id for found in run_checks(tags=["mail"])] == ["mailbridge.E001"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"pool": {"max_size": 0}}, ["mailbridge.E001"]),
        ({"pool": {"max_sise": 3}}, ["mailbridge.E001"]),
        ({"oauth2": {"provider": "google"}}, ["mailbridge.E001"]),
        ({"use_tls": True, "use_ssl": True}, ["mailbridge.E001"]),
        ({"config_resolver": "no.such.path"}, ["mailbridge.E001"]),
        ({"username": "u", "password": "p"}, ["mailbridge.W001"]),
        ({"username": "u", "password": "p", "allow_insecure_auth": True}, ["mailbridge.W001"]),
        ({"username": "u", "password": "p", "security": "opportunistic"}, ["mailbridge.W001"]),
        ({"username": "u", "password": "p", "host": "localhost"}, []),
        ({"username": "u", "password": "p", "host": "127.0.0.1"}, []),
        ({"username": "u", "password": "p", "host": "unix:/run/smtp"}, []),
        ({"use_tls": True, "tls": {"verify": False}}, ["mailbridge.W002"]),
        ({"tls": {"verify": False}}, []),
        ({"username": "u", "password": ""}, ["mailbridge.W007"]),
        ({"username": "u", "password": "", "auth": "EXTERNAL", "use_tls": True}, []),
    ],
)
def test_findings(use: Use, options: dict[str, Any], found: list[str]) -> None:
    use(**{"host": "smtp.example.com", **options})
    assert ids() == found


def test_they_name_the_mailer_and_the_remedy(use: Use, mode: str) -> None:
    use(host="smtp.example.com", pool={"max_sise": 3})
    [error] = check_mailers()
    assert "pool.max_sise" in error.msg
    assert ("MAILERS['default']" in error.msg) is (mode == "MAILERS")
    assert error.hint == "Did you mean 'pool.max_size'?"


def test_no_secret_is_shown(use: Use) -> None:
    use(url="smtp://u:hunter2@smtp.example.com/?security=none")
    assert ids() == ["mailbridge.W001"]
    assert "hunter2" not in str(check_mailers())


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("SMTP_PW", "hunter22", ["mailbridge.W008"]),
        ("SMTP_PW", "see hunter22 here", ["mailbridge.W008"]),
        ("SMTP_PASSWORD", "hunter22", []),
        ("MAILBRIDGE_URL", "smtp://u:hunter22@smtp.example.com", []),
        ("SMTP_URL", "smtp://u:hunter22@smtp.example.com", []),
    ],
    ids=range(5),  # pytest puts them into the environment
)
@pytest.mark.parametrize("filtered", [True, False])
def test_a_password_that_reports_can_show(
    use: Use, monkeypatch: pytest.MonkeyPatch, name: str, value: str, found: list[str], filtered: bool
) -> None:
    """With the filter of the app; and with one of the project, which shows URLs."""
    name_of_filter = "mailbridge_django.error_reports.ReportFilter" if filtered else DJANGO_FILTER
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(debug, "get_default_exception_reporter_filter", import_string(name_of_filter))
    use(host="smtp.example.com", use_tls=True, username="u", password="hunter22")
    assert ids() == (["mailbridge.W008"] if name.endswith("_URL") and not filtered else found)
    assert "hunter22" not in str(check_mailers())
    use(url="smtp://u:hunter23@smtp.example.com")
    assert ids() == []


def test_unknown_names_in_the_package_s_setting() -> None:
    with overridden(EMAIL_BACKEND=BACKEND, MAILBRIDGE={"pool_sise": 3}):
        assert ids() == ["mailbridge.E001"]


def test_aliases_of_the_stand_in_are_checked() -> None:
    with overridden(MAILBRIDGE={"MAILERS": {"bulk": {"OPTIONS": {"host": "h", "pool": {"max_size": 0}}}}}):
        [error] = check_mailers()
    assert "MAILERS['bulk']" in error.msg
    with overridden(MAILBRIDGE={"MAILERS": {"default": {}}}):
        assert ids() == ["mailbridge.E001"]
    with overridden(EMAIL_BACKEND=BACKEND, MAILBRIDGE=["host"]):
        assert ids() == ["mailbridge.E001"]


def test_other_backends_are_not_judged() -> None:
    console = "django.core.mail.backends.console.EmailBackend"
    with overridden(EMAIL_BACKEND=console, MAILBRIDGE={"nonsense": 1}):
        assert ids() == []
    with overridden(EMAIL_BACKEND="no.such.Backend"):
        assert ids() == []


if KNOWS_MAILERS:

    def test_the_package_s_setting_is_idle_beside_mailers() -> None:
        configured = {"default": {"BACKEND": BACKEND, "OPTIONS": {"host": "localhost"}}}
        with overridden(MAILERS=configured, MAILBRIDGE={"host": "h"}):
            assert ids() == ["mailbridge.W004"]


def test_the_network_is_left_alone(use: Use) -> None:
    events: list[str] = []
    is_watching = True

    def watch(event: str, arguments: object) -> None:
        if is_watching and event.startswith("socket."):
            events.append(event)

    sys.addaudithook(watch)  # can't be taken away, so it stops watching instead
    try:
        use(host="smtp.example.com", use_tls=True, username="u", password="p")
        check_mailers()
    finally:
        is_watching = False
    assert events == []
