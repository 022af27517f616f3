"""The Flask app in testproject: its contact form really sends, and says so where it could not."""

import pytest
from flask import Flask

from mailbridge.testing import ScriptedServer
from testproject import mail_settings
from testproject.flask_app import create_app
from tests.flask.apps import parsed

WRITTEN = {
    "name": "Ada <script>",
    "email": "ada@example.com",
    "subject": "Opening\r\nhours",
    "text": "When do you open?\nOn Sundays <too>?",
}


@pytest.fixture
def app(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.delenv("FLASK_MAILBRIDGE_URL", raising=False)
    return create_app(MAILBRIDGE_URL=f"smtp://127.0.0.1:{server.port}/?security=none")


def test_the_form_sends_what_was_written(app: Flask, server: ScriptedServer) -> None:
    client = app.test_client()
    assert '<form method="post">' in client.get("/").text
    response = client.post("/", data=WRITTEN)
    assert response.status_code == 200
    assert "Thank you" in response.text
    (received,) = server.messages
    assert received.recipients == (mail_settings.INBOX,)
    message = parsed(received)
    assert message["From"] == mail_settings.SENDER
    assert message["Reply-To"] == '"Ada <script>" <ada@example.com>'
    assert message["Subject"] == "[Contact] Opening hours"
    text, html = (part.get_content() for part in message.iter_parts())
    assert "On Sundays <too>?" in text
    assert "Ada &lt;script&gt;" in html


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"text": " "}, "fill in every field"),
        ({"email": "nobody"}, "no e-mail address"),
        ({"email": "ada@example.com\r\nBcc: evil@example.com"}, "no e-mail address"),
    ],
)
def test_what_can_not_be_sent_is_said(
    changes: dict[str, str], problem: str, app: Flask, server: ScriptedServer
) -> None:
    response = app.test_client().post("/", data={**WRITTEN, **changes})
    assert response.status_code == 400
    assert problem in response.text
    assert "Ada &lt;script&gt;" in response.text  # what was written stays in the form
    assert server.messages == ()


def test_a_server_that_is_away_is_said_without_details(app: Flask, server: ScriptedServer) -> None:
    server.refuse()
    response = app.test_client().post("/", data=WRITTEN)
    assert response.status_code == 503
    assert "Please try again" in response.text
    assert "127.0.0.1" not in response.text


def test_it_has_the_commands(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["mail", "verify"])
    assert result.exit_code == 0, result.output
