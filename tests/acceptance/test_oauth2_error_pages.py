"""Error pages and reports of Django and Flask show no secret of OAuth2, whatever the token endpoint does."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.core.mail import EmailMessage, send_mail
from django.test import RequestFactory
from django.views.debug import technical_500_response
from flask import Flask, got_request_exception
from werkzeug.debug.tbtools import DebugTraceback

import mailbridge
from mailbridge import TokenUnavailable
from mailbridge.oauth2.shared import forget_sources
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail
from mailbridge_flask import Message as FlaskMessage
from tests.acceptance.oauth2_sentinels import (
    ACCESS_TOKEN,
    Log,
    Telling,
    assert_hidden,
    oauth2_at,
    views_of_error,
    views_of_log,
)
from tests.acceptance.sending import RECIPIENT, SENDER, USER
from tests.django.conftest import MODES, overridden, settings_for
from tests.flask.apps import app_for

pytestmark = [pytest.mark.matrix, pytest.mark.needs("oauthlib")]

ANSWERS = ["echo", "invalid_grant", "html", "closed", "2 MiB", None]


@pytest.fixture(autouse=True)
def nothing_of_others() -> Iterator[None]:
    forget_sources()
    yield
    mailbridge.close_all()
    forget_sources()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def smtp_server() -> ScriptedServer:
    return ScriptedServer(users={USER: ACCESS_TOKEN}, auth=["XOAUTH2"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_django(mode: str, answer: str | None, log: Log) -> None:
    """The page of DEBUG, which administrators are mailed, too; as HTML and as text."""
    with smtp_server() as server, Telling(answer=answer) as tokens:
        options = {"username": USER, "security": "none", "oauth2": oauth2_at(tokens), "debug": True}
        with overridden(**settings_for(mode, server, **options)):
            if answer is None:
                assert send_mail("x", "hello", SENDER, [RECIPIENT]) == 1
                assert len(server.messages) == 1
            else:
                with pytest.raises(TokenUnavailable) as caught:
                    EmailMessage("x", "hello", SENDER, [RECIPIENT]).send()
                pages = []
                for accepted in ("text/html", "text/plain"):
                    request = RequestFactory().get("/", headers={"accept": accepted})
                    about = (caught.type, caught.value, caught.tb.tb_next)  # without the frame of this test
                    pages.append(technical_500_response(request, *about).content.decode())
                assert all("TokenUnavailable" in page for page in pages)
                assert_hidden(iter(pages), views_of_error(caught.value))
        assert_hidden(views_of_log(log))


@pytest.mark.parametrize("answer", ANSWERS)
def test_flask(answer: str | None, log: Log) -> None:
    """The answer, what is logged, and the page of the debugger."""
    with smtp_server() as server, Telling(answer=answer) as tokens:
        app = app_for(
            server, MAILBRIDGE_USERNAME=USER, MAILBRIDGE_OAUTH2=oauth2_at(tokens), MAILBRIDGE_DEBUG=True
        )
        mail, raised = Mail(app), list[Exception]()

        def remember(_: Flask, exception: Exception, **__: object) -> None:
            raised.append(exception)

        @app.post("/")
        def index() -> str:
            mail.send(FlaskMessage("x", recipients=[RECIPIENT], body="hello"))
            return "sent"

        with got_request_exception.connected_to(remember, app):
            response = app.test_client().post("/")
        assert (response.status_code, len(raised)) == ((200, 0) if answer is None else (500, 1))
        for error in raised:
            assert isinstance(error, TokenUnavailable)
            debugger = DebugTraceback(error)
            pages = [debugger.render_traceback_html(), debugger.render_traceback_text()]
            assert_hidden(iter(pages), views_of_error(error))
        texts = [record.getMessage() + str(record.exc_text) for record in log.records]
        assert_hidden(iter([response.text, *texts]))
