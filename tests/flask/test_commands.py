"""`flask mail …`: what is shown, and the exit codes 0, 1 and 2."""

import json

import click
import pytest
from flask import Flask

import mailbridge
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail
from tests.flask.apps import RECIPIENT, SENDER, app_for, parsed, run


@pytest.fixture
def away() -> Flask:
    """An application whose server is not there."""
    app = app_for()
    Mail(app)
    return app


# ---- verify


def test_verify_succeeds(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    result = run(app, "mail", "verify")
    assert result.exit_code == 0, result.output
    assert f"127.0.0.1:{server.port}" in result.output
    assert "greeting   ok" in result.output
    assert server.messages == ()


def test_verify_fails(away: Flask) -> None:
    result = run(away, "mail", "verify")
    assert result.exit_code == 1
    assert "tcp        failed" in result.output
    assert "\x1b" not in result.output


def test_verify_for_programs(app: Flask, mail: Mail, away: Flask) -> None:
    result = run(app, "mail", "verify", "--json")
    assert json.loads(result.output)["ok"] is True
    failed = run(away, "mail", "verify", "--json")
    assert (json.loads(failed.output)["ok"], failed.exit_code) == (False, 1)


def test_verify_asks_for_addresses(app: Flask, mail: Mail) -> None:
    with ScriptedServer(rcpt_replies={"no@example.com": "550 5.1.1 No such user"}) as server:
        app.config["MAILBRIDGE_PORT"] = server.port
        mail.init_app(app)
        assert run(app, "mail", "verify", "--from", SENDER, "--to", RECIPIENT).exit_code == 0
        refused = run(app, "mail", "verify", "--from", SENDER, "--to", RECIPIENT, "--to", "no@example.com")
        assert refused.exit_code == 1
        assert "No such user" in refused.output
        assert server.messages == ()


def test_verify_of_another_mailer(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    app.config["MAILBRIDGE_MAILERS"] = {"bulk": {"host": "127.0.0.1", "port": 1, "security": "none"}}
    mail.init_app(app)
    assert run(app, "mail", "verify").exit_code == 0
    assert run(app, "mail", "verify", "--using", "bulk").exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--using", "nobody"],
        ["verify", "--to", RECIPIENT],
        ["verify", "--frm", SENDER],
        ["send-test"],
        ["send-test", RECIPIENT, "--using", "nobody"],
        ["pool", "--using", "nobody"],
        ["polish"],
    ],
)
def test_wrong_usage(arguments: list[str], app: Flask, mail: Mail, server: ScriptedServer) -> None:
    assert run(app, "mail", *arguments).exit_code == 2
    assert server.connections == ()


# ---- send-test


def test_send_test_sends(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    result = run(app, "mail", "send-test", RECIPIENT)
    assert result.exit_code == 0, result.output
    assert f"127.0.0.1:{server.port} took it for {RECIPIENT}: 250" in result.output
    (received,) = server.messages
    assert (received.sender, received.recipients) == (SENDER, (RECIPIENT,))
    assert parsed(received)["Subject"] == "Test mail from testapp"
    assert run(app, "mail", "send-test", RECIPIENT, "--from", "me@example.com").exit_code == 0
    assert server.messages[1].sender == "me@example.com"


def test_send_test_fails_with_the_reason(away: Flask) -> None:
    result = run(away, "mail", "send-test", RECIPIENT)
    assert result.exit_code == 1
    assert "Not sent: " in result.output
    assert "refused" in result.output


def test_send_test_fails_for_what_is_no_address(app: Flask, mail: Mail) -> None:
    result = run(app, "mail", "send-test", "nobody")
    assert result.exit_code == 1
    assert "Invalid address" in result.output


def test_send_test_says_so_where_sending_is_suppressed(
    app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    app.config["TESTING"] = True
    result = run(app, "mail", "send-test", RECIPIENT)
    assert result.exit_code == 1
    assert "suppressed" in result.output
    assert server.connections == ()


# ---- pool


def test_pool_shows_limits_and_numbers(app: Flask, mail: Mail) -> None:
    with app.app_context():
        mail.send_message("testing", [RECIPIENT])
    result = run(app, "mail", "pool")
    assert result.exit_code == 0, result.output
    assert "max_messages           100" in result.output
    numbers = json.loads(run(app, "mail", "pool", "--json").output)
    assert numbers["limits"]["max_size"] == 5
    assert (numbers["numbers"]["idle"], numbers["numbers"]["opened_total"]) == (1, 1)


# ---- being there


def test_the_commands_come_with_init_app_only() -> None:
    app = app_for()
    assert "mail" not in app.cli.commands
    Mail(app)
    Mail(app)
    assert "mail" in app.cli.commands
    assert "mailbridge" not in app.cli.commands
    assert run(app_for(), "mail", "verify").exit_code == 2


def test_a_group_that_the_application_has_already_is_left_alone(server: ScriptedServer) -> None:
    app = app_for(server)

    @app.cli.command("mail")
    def own() -> None:
        click.echo("my own")

    Mail(app)
    Mail(app)
    assert run(app, "mail").output == "my own\n"
    assert run(app, "mailbridge", "verify").exit_code == 0


def test_help_says_what_they_do(app: Flask, mail: Mail) -> None:
    text = run(app, "mail", "--help").output
    assert all(name in text for name in ("verify", "send-test", "pool"))


def test_passwords_are_not_shown(app: Flask, mail: Mail) -> None:
    with ScriptedServer(users={"u": "sesame"}, auth_in_clear=True) as server:
        app.config.update(MAILBRIDGE_PORT=server.port, MAILBRIDGE_USERNAME="u", MAILBRIDGE_PASSWORD="sesame")
        mail.init_app(app)
        for arguments in (["verify"], ["verify", "--json"], ["send-test", RECIPIENT], ["pool"]):
            result = run(app, "mail", *arguments)
            assert result.exit_code == 0, result.output
            assert "sesame" not in result.output
        mailbridge.close_all()
