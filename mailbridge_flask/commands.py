"""`flask mail verify`, `flask mail send-test` and `flask mail pool`.

Exit codes: 0 all is well, 1 it is not, 2 the command was used wrongly. Added by `init_app()`, so that
only applications that have mail have them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from mailbridge import MailbridgeError
from mailbridge_flask.message import Message
from mailbridge_flask.settings import DEFAULT
from mailbridge_flask.state import MailState

__all__ = ["add_commands"]

COLOURS = {"ok": "green", "failed": "red", "skipped": "bright_black"}

mail_commands = AppGroup("mail", help="Check and try the mail of this application.")

using_option = click.option(
    "--using", default=DEFAULT, show_default=True, metavar="NAME", help="Which of MAILBRIDGE_MAILERS."
)
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


def add_commands(app: Flask) -> None:
    """Add them, as `flask mail`; as `flask mailbridge` where the application has a `mail` of its own."""
    name = "mail" if app.cli.commands.get("mail") in (None, mail_commands) else "mailbridge"
    app.cli.add_command(mail_commands, name)


def _state(using: str) -> MailState:
    state: MailState = current_app.extensions["mailbridge"]
    if using not in state.mailer_names:
        raise click.UsageError(f"There is no mailer {using!r}; there are: {', '.join(state.mailer_names)}.")
    return state


@mail_commands.command("verify")
@using_option
@click.option("--from", "mail_from", metavar="ADDRESS", help="Ask whether it may send.")
@click.option("--to", "rcpt_to", metavar="ADDRESS", multiple=True, help="Ask whether it would be taken.")
@json_option
def verify_command(using: str, mail_from: str | None, rcpt_to: tuple[str, ...], as_json: bool) -> None:
    """Try the server stage by stage. Sends no mail.

    Exits with 0 if all is well, with 1 if a stage failed.
    """
    if rcpt_to and mail_from is None:
        raise click.UsageError("--to needs --from.")
    report = _state(using).mailer(using).verify(mail_from=mail_from, rcpt_to=rcpt_to)
    if as_json:
        click.echo(report.as_json())
    else:
        click.echo(f"{using}: {report.server}")
        for stage, line in report.rows():
            click.secho(line, fg=COLOURS[stage.status])
    _exit(report.ok)


@mail_commands.command("send-test")
@click.argument("to")
@using_option
@click.option("--from", "sender", metavar="ADDRESS", help="Instead of the default sender.")
def send_test_command(to: str, using: str, sender: str | None) -> None:
    """Send a short mail to the address TO.

    Exits with 0 if the server took it, with 1 if not.
    """
    state = _state(using)
    message = Message(
        subject=f"Test mail from {current_app.name}",
        recipients=[to],
        sender=sender,
        body=f"This is a test: {current_app.name} can send mail.\n",
    )
    try:
        result = state.send(message, using=using)
    except MailbridgeError as error:
        click.secho(f"Not sent: {error}", fg="red", err=True)
        _exit(False)
        return
    if result is None:
        click.echo("Not sent: sending is suppressed (TESTING or MAILBRIDGE_SUPPRESS_SEND).", err=True)
    else:
        accepted = ", ".join(result.accepted)
        click.secho(f"{result.server} took it for {accepted}: {result.response}", fg="green")
    _exit(result is not None)


@mail_commands.command("pool")
@using_option
@json_option
def pool_command(using: str, as_json: bool) -> None:
    """Show the limits and numbers of the pool, or of each server's, in this process.

    Each process has its own: those of a web server's workers are not seen from here.
    """
    mailer = _state(using).mailer(using)
    numbers: dict[str, Any] = {"limits": asdict(mailer.config.pool), "numbers": asdict(mailer.stats())}
    if mailer.config.servers:
        numbers["servers"] = [asdict(server) for server in mailer.server_stats()]
    if as_json:
        click.echo(json.dumps(numbers, indent=2, default=str))
        return
    _echo_numbers(f"limits of {using}, {mailer.config.server}", numbers["limits"])
    _echo_numbers(f"numbers of {using}, {mailer.config.server}", numbers["numbers"])
    for server in numbers.get("servers", ()):
        pool = server.pop("pool")
        _echo_numbers(server["server"], {**server, **pool})


def _echo_numbers(title: str, numbers: Mapping[str, Any]) -> None:
    click.echo(title)
    for name, value in numbers.items():
        click.echo(f"  {name:<22} {value}")


def _exit(is_well: bool) -> None:
    if not is_well:
        raise click.exceptions.Exit(1)
