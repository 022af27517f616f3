"""Django's error reports and werkzeug's debugger show no secret of the settings, whatever their shape."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import random
from collections.abc import Callable, Iterator
from types import MappingProxyType, TracebackType
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory
from django.utils.log import AdminEmailHandler
from django.views.debug import get_default_exception_reporter_filter, technical_500_response
from flask import Flask
from werkzeug.debug import DebuggedApplication
from werkzeug.debug.console import Console
from werkzeug.debug.repr import debug_repr
from werkzeug.debug.tbtools import DebugTraceback
from werkzeug.test import Client

from mailbridge import ConfigurationError, mask_settings
from mailbridge_django import error_reports, mailers
from mailbridge_flask import Mail
from tests.acceptance.settings_shapes import MARK, options, plain, shapes, urls
from tests.django.conftest import BACKEND, MODES, overridden

PAGES = 40  # a page takes long to make, and shows what `repr` of the settings shows

pytestmark = pytest.mark.matrix


def about(action: Callable[[], object]) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """What is raised, without the frame of this test; something always is."""
    try:
        action()
        raise RuntimeError("An error of the application")
    except Exception as error:
        traceback = error.__traceback__
        return type(error), error, traceback.tb_next if traceback else None


class Mailed(AdminEmailHandler):
    """AdminEmailHandler which keeps what it would mail."""

    def __init__(self) -> None:
        super().__init__(include_html=True)
        self.pages: list[str] = []

    def send_mail(self, subject: str, message: str, *_: Any, **keywords: Any) -> None:
        self.pages += [subject, message, str(keywords["html_message"])]


def pages_of(action: Callable[[], object], *, debug: bool) -> Iterator[str]:
    """What visitors get with DEBUG, and administrators without: HTML and text."""
    environment = {name: value for name, value in os.environ.items() if MARK in value}
    request = RequestFactory().get("/", **environment)  # as runserver makes it
    what = about(action)
    if debug:
        yield technical_500_response(request, *what).content.decode()
        request.META["HTTP_ACCEPT"] = "text/plain"
        yield technical_500_response(request, *what).content.decode()
    else:
        handler = Mailed()
        record = logging.LogRecord("django.request", logging.ERROR, "f", 1, "Failed", (), what)
        record.request = request
        handler.emit(record)
        yield from handler.pages


def configured(mode: str, given: Any, number: int) -> dict[str, Any]:
    if mode == "MAILERS":
        return {"MAILERS": {"default": {"BACKEND": BACKEND, "OPTIONS": given}, "b": {"OPTIONS": dict(given)}}}
    shape = [given, {**given, "MAILERS": {"bulk": {"OPTIONS": dict(given)}}}, [given], (given,)][number % 4]
    return {"EMAIL_BACKEND": BACKEND, "MAILBRIDGE": shape}


def use_settings() -> None:
    url = os.environ["MAIL_SERVER_URL"]
    everything = os.environ
    found = [getattr(settings, name, None) for name in error_reports.SETTINGS]
    for alias in mailers:
        mailers[alias].open()
    raise AssertionError((len(url), len(everything), len(found)))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, scheme in (("MAILBRIDGE_URL", "smtp"), ("MAIL_SERVER_URL", "smtps"), ("HTTPS_PROXY", "http")):
        monkeypatch.setenv(name, f"{scheme}://user:{MARK}@mail.example")
    monkeypatch.setenv("MAILBRIDGE_SERVERS", f"smtp://user:a/b{MARK}@mail.example")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.usefixtures("environment")
def test_django(mode: str, debug: bool) -> None:
    """The page of DEBUG, and the mail to administrators, as HTML and as text."""
    for number, given in enumerate(shapes(options, PAGES)):
        with overridden(**configured(mode, given, number), DEBUG=debug):
            for page in pages_of(use_settings, debug=debug):
                assert MARK not in page, (number, page[max(0, page.index(MARK) - 300) :][:400])


def test_the_app_installs_the_filter_unless_the_project_has_its_own() -> None:
    own = "tests.acceptance.test_error_pages.Mailed"
    with overridden(DEFAULT_EXCEPTION_REPORTER_FILTER="django.views.debug.SafeExceptionReporterFilter"):
        error_reports.install_filter()
        assert settings.DEFAULT_EXCEPTION_REPORTER_FILTER == "mailbridge_django.error_reports.ReportFilter"
    with overridden(DEFAULT_EXCEPTION_REPORTER_FILTER=own):
        error_reports.install_filter()
        assert own == settings.DEFAULT_EXCEPTION_REPORTER_FILTER
    get_default_exception_reporter_filter.cache_clear()


def flask_config(rng: random.Random) -> dict[str, Any]:
    config = {f"MAILBRIDGE_{name.upper()}": value for name, value in options(rng).items()}
    config["MAILBRIDGE_MAILERS"] = {"bulk": urls(rng), "other": options(rng)}
    return config | rng.choice([{}, {"MAIL_PASSWORD": MARK, "MAIL_USERNAME": MARK, "MAIL_SERVER": "h"}])


def test_flask() -> None:
    """The page of the debugger, what its console shows of the configuration, and `repr`."""
    for number, config in enumerate(shapes(flask_config, PAGES)):
        app = Flask("testapp")
        app.config.from_mapping(config)

        def use(app: Flask = app) -> None:
            with app.app_context():
                Mail(app).mailer.connect()

        debugger = DebugTraceback(about(use)[1])
        pages = [
            debugger.render_debugger_html(evalex=True, secret="s", evalex_trusted=True),
            debugger.render_traceback_text(),
            debug_repr(app.config),
            Console({"app": app}).eval("app.config"),
            repr(app.config),
        ]
        assert MARK not in "".join(map(str, pages)), number


@pytest.mark.parametrize("debug", [True, False])
def test_flask_with_settings_that_come_after_init_app(debug: bool) -> None:
    """They are masked at the latest when a request fails, before anybody looks at the page."""
    for number, config in enumerate(shapes(flask_config, PAGES)):
        app = Flask("testapp")
        app.debug = debug
        Mail(app)

        @app.get("/")
        def fail(app: Flask = app, config: dict[str, Any] = config) -> str:
            app.config.from_mapping(config)
            raise RuntimeError("An error of the application")

        debugged = DebuggedApplication(app, evalex=True)
        page = Client(debugged).get("/").get_data(as_text=True)
        assert bool(debugged.frames) is debug
        in_frames = [
            frame.eval("app.config") for frame in list(debugged.frames.values())[-1:]
        ]  # that of `fail`
        shown = [page, *in_frames, repr(app.config), debug_repr(app.config)]
        assert "MAILBRIDGE_MAILERS" in shown[-1]
        assert MARK not in "".join(shown), number


def same_types(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, dict | MappingProxyType):
        return all(same_types(mine[key], theirs[key]) for key in theirs)
    if isinstance(mine, list | tuple):
        return all(map(same_types, mine, theirs)) and isinstance(mine, type(theirs))
    return isinstance(mine, type(theirs))


def test_settings_stay_what_they_are() -> None:
    for given in shapes(options):
        before = plain(given)
        masked = mask_settings(given)
        assert masked == before
        assert type(masked) is type(given)
        assert same_types(masked, before)
        assert MARK not in repr(masked)
        again = copy.deepcopy(dict(masked))
        assert again == before
        assert MARK not in repr(again)
        assert mask_settings(masked) is masked or isinstance(masked, MappingProxyType)


def test_a_masked_string_is_a_string() -> None:
    url = f"smtp://user:{MARK}@mail.example"
    setting = {"url": url, "password": 4711, "host": "mail.example", "timeout": 5}
    assert mask_settings(setting) is setting
    assert setting["url"] == f"{setting['url']}" == url
    assert hash(setting["url"]) == hash(url)
    assert json.loads(json.dumps(setting)) == setting == pickle.loads(pickle.dumps(setting))
    assert repr(setting) == ("{'url': 'smtp://***', 'password': ***, 'host': 'mail.example', 'timeout': 5}")
    assert str(setting["password"]) == "4711"


def test_cycles_end() -> None:
    setting: dict[str, Any] = {"servers": [f"smtp://u:{MARK}@h"]}
    setting["servers"].append(setting)
    assert MARK not in repr(mask_settings(setting))


def test_errors_still_say_what_is_wrong() -> None:
    app = Flask("testapp")
    app.config.from_mapping(MAILBRIDGE_HOST="h", MAILBRIDGE_SECURITY="tsl")
    with pytest.raises(ConfigurationError, match="'security' must be one of tls"):
        Mail(app)


class Row:
    """As a model's instance whose name stands in a database that is gone."""

    def __repr__(self) -> str:
        return "<Row>"

    def __str__(self) -> str:
        raise RuntimeError("no database")


@pytest.mark.parametrize("debug", [True, False])
def test_a_report_comes_whatever_the_local_variables_are(debug: bool) -> None:
    def fail() -> None:
        by_row: dict[Any, Any] = {Row(): f"smtp://u:{MARK}@h", 1: [b"smtp://u:" + MARK.encode() + b"@h"]}
        by_row["itself"] = by_row
        raise ValueError(len(by_row))

    with overridden(DEBUG=debug):
        pages = "".join(pages_of(fail, debug=debug))
    assert MARK not in pages
    assert "by_row" in pages


@pytest.mark.parametrize("debug", [True, False])
def test_the_search_finds_what_is_not_masked(debug: bool) -> None:
    with overridden(UNRELATED={"hoster": MARK}, DEBUG=debug):
        assert any(MARK in page for page in pages_of(lambda: 1 / 0, debug=debug))
