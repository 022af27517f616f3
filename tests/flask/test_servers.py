"""MAILBRIDGE_SERVERS: several servers, what counts beside them, and the commands."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail, Message
from tests.flask.apps import RECIPIENT, SENDER, config_of, run, settings_of

SERVERS: list[Any] = [{"host": "one.example"}, {"host": "two.example", "priority": 2}]


@pytest.fixture
def other() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def app(server: ScriptedServer, other: ScriptedServer) -> Flask:
    app = Flask("testapp")
    app.config.from_mapping(
        MAILBRIDGE_SERVERS=[
            {"host": server.host, "port": server.port},
            {"host": other.host, "port": other.port, "priority": 2},
        ],
        MAILBRIDGE_SECURITY="none",
        MAILBRIDGE_TIMEOUT=5,
        MAILBRIDGE_DEFAULT_SENDER=SENDER,
    )
    return app


def name(server: ScriptedServer) -> str:
    return f"{server.host}:{server.port}"


def test_the_key() -> None:
    assert config_of(MAILBRIDGE_SERVERS=SERVERS, MAILBRIDGE_TIMEOUT=3) == SMTPConfig(
        servers=SERVERS, timeout=3
    )


def test_the_servers_of_a_further_mailer() -> None:
    settings = settings_of(MAILBRIDGE_HOST="x", MAILBRIDGE_MAILERS={"bulk": {"servers": SERVERS}})
    assert settings.mailers["bulk"].config == SMTPConfig(servers=SERVERS)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON there, with names in capitals, and passwords that look like numbers."""
    monkeypatch.setenv(
        "FLASK_MAILBRIDGE_SERVERS",
        '["smtps://one.example", {"HOST": "two.example", "USERNAME": 1, "PASSWORD": 2}]',
    )
    app = Flask("testapp")
    app.config.from_prefixed_env()
    servers: list[Any] = ["smtps://one.example", {"host": "two.example", "username": "1", "password": "2"}]
    assert config_of(**app.config.get_namespace("MAILBRIDGE_", lowercase=False, trim_namespace=False)) == (
        SMTPConfig(servers=servers)
    )


def test_flask_mails_keys_say_nothing_beside_them() -> None:
    """A password for MAIL_SERVER is not for these."""
    assert config_of(
        MAILBRIDGE_SERVERS=SERVERS,
        MAIL_SERVER="elsewhere.example",
        MAIL_PORT=2525,
        MAIL_USERNAME="user",
        MAIL_PASSWORD="not for these",
        MAIL_USE_SSL=True,
    ) == SMTPConfig(servers=SERVERS)


def test_a_host_beside_them_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="'host' can't stand beside 'servers'"):
        settings_of(MAILBRIDGE_SERVERS=SERVERS, MAILBRIDGE_HOST="x")


def test_no_password_in_them_is_shown() -> None:
    servers = [{"host": "x", "username": "u", "password": "hunter2hunter2", "wrong": 1}]
    with pytest.raises(ConfigurationError, match=r"servers\[0\]") as caught:
        settings_of(MAILBRIDGE_SERVERS=servers)
    for frame in caught.traceback[1:]:
        shown = {
            key: value
            for key, value in frame.frame.f_locals.items()
            if key not in ("app", "config", "servers")
        }
        assert "hunter2hunter2" not in repr(shown), frame


def test_the_second_gets_the_mail_while_the_first_is_down(
    app: Flask, server: ScriptedServer, other: ScriptedServer
) -> None:
    mail = Mail(app)
    server.refuse()
    with app.app_context():
        result = mail.send(Message("Hi", recipients=[RECIPIENT], body="x"))
        assert result is not None
        assert (result.server, list(result.failed_servers)) == (name(other), [name(server)])
        with mail.connect() as connection:
            for _ in range(2):
                connection.send(Message("Hi", recipients=[RECIPIENT], body="x"))
    assert (len(server.messages), len(other.messages)) == (0, 3)


def test_verify_shows_each(app: Flask, server: ScriptedServer, other: ScriptedServer) -> None:
    Mail(app)
    result = run(app, "mail", "verify")
    assert result.exit_code == 0, result.output
    assert result.output.count("greeting   ok") == 2
    other.refuse()
    result = run(app, "mail", "verify")
    assert result.exit_code == 1
    assert result.output.index(name(server)) < result.output.index("tcp        failed")
    answer = json.loads(run(app, "mail", "verify", "--json").output)
    assert [each["ok"] for each in answer["servers"]] == [True, False]


def test_pool_shows_each(app: Flask, server: ScriptedServer, other: ScriptedServer) -> None:
    Mail(app)
    output = run(app, "mail", "pool").output
    assert output.count("  opened_total ") == 3  # together, and of each
    assert [f"\n{name(each)}\n" in output for each in (server, other)] == [True, True]
    numbers = json.loads(run(app, "mail", "pool", "--json").output)
    assert [each["server"] for each in numbers["servers"]] == [name(server), name(other)]
    assert numbers["numbers"]["max_size"] == 10
