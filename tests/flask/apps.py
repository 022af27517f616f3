"""Applications for tests: each knows its server and gives up soon; their settings, and their commands."""

from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from click.testing import Result
from flask import Flask

from mailbridge import SMTPConfig
from mailbridge.testing import ReceivedMessage, ScriptedServer
from mailbridge_flask.settings import Settings, read_settings

SENDER = "sender@example.com"
RECIPIENT = "to@example.com"


def app_for(server: ScriptedServer | None = None, **config: Any) -> Flask:
    """An application that sends to `server`; without one, nothing listens where it sends."""
    app = Flask("testapp")
    app.config.from_mapping(
        MAILBRIDGE_HOST="127.0.0.1",
        MAILBRIDGE_PORT=server.port if server is not None else 1,
        MAILBRIDGE_SECURITY="none",
        MAILBRIDGE_TIMEOUT=5,
        MAILBRIDGE_DEFAULT_SENDER=SENDER,
    )
    app.config.from_mapping(config)
    return app


def parsed(message: ReceivedMessage | bytes) -> EmailMessage:
    """What a reader makes of it, on a machine where lines end in LF."""
    content = message if isinstance(message, bytes) else message.content
    result = message_from_bytes(content.replace(b"\r\n", b"\n"), policy=policy.default)
    assert isinstance(result, EmailMessage)
    return result


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=arguments)


def settings_of(**config: Any) -> Settings:
    app = Flask("testapp")
    app.config.from_mapping(config)
    return read_settings(app)


def config_of(**config: Any) -> SMTPConfig:
    return settings_of(**config).mailers["default"].config
