"""Django for the tests: the settings of the site in testproject, without its mail settings.

Each test says how mail is configured, with `use`: by EMAIL_* and MAILBRIDGE, and again by MAILERS where
Django knows it.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import django
import pytest
from django.conf import settings
from django.test.utils import override_settings

import mailbridge
from mailbridge.testing import ScriptedServer

os.environ["WEBSITE_DATABASE"] = ":memory:"
from testproject.website import settings as website  # reads the environment

if not settings.configured:
    settings.configure(
        **{
            name: value
            for name, value in vars(website).items()
            if name.isupper() and name not in ("MAILERS", "MAILBRIDGE", "EMAIL_BACKEND", "HERE")
        }
    )
    django.setup()

BACKEND = "mailbridge_django.EmailBackend"
KNOWS_MAILERS = django.VERSION >= (6, 1)
MODES = ("EMAIL_*", "MAILERS") if KNOWS_MAILERS else ("EMAIL_*",)

collect_ignore = ["test_before_mailers.py" if KNOWS_MAILERS else "test_mailers.py"]


@contextmanager
def overridden(**values: Any) -> Iterator[None]:
    """override_settings, with the one deprecation that Django 6.1 has for those who set EMAIL_*."""
    override = override_settings(**values)
    with _without_deprecation():
        override.enable()
    try:
        yield
    finally:
        with _without_deprecation():
            override.disable()


@contextmanager
def _without_deprecation() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The EMAIL_\w+ setting is deprecated")
        yield


def settings_for(mode: str, server: ScriptedServer | None = None, **options: Any) -> dict[str, Any]:
    """The settings that send mail to `server` with `options` in the way that `mode` names."""
    options = {"timeout": 5, **options}
    if server is not None:
        options = {"host": server.host, "port": server.port, **options}
    if mode == "MAILERS":
        return {"MAILERS": {"default": {"BACKEND": BACKEND, "OPTIONS": options}}}
    return {"EMAIL_BACKEND": BACKEND, "MAILBRIDGE": options}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Use = Callable[..., None]


@pytest.fixture
def use(mode: str) -> Iterator[Use]:
    """`use(server, **options)`: from here on, Django's mail goes there."""
    with ExitStack() as stack:
        yield lambda server=None, **options: stack.enter_context(
            overridden(**settings_for(mode, server, **options))
        )


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A healthy server; at the end it complains of whatever the client did that it must not do."""
    with ScriptedServer() as running:
        yield running


@pytest.fixture(autouse=True)
def close_pools() -> Iterator[None]:
    yield
    mailbridge.close_all()
