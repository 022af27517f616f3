"""The command line: `mailbridge verify`, `send`, `serve`, `services` and `oauth2 authorize`.

Only arguments, printing and exit codes: 0 done, 1 a stage or the send failed, 2 wrong usage or a
configuration that can't work. What `authorize` does stands in `cli_oauth2`, `serve` in `cli_serve`.
"""

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from mailbridge import (
    ConfigurationError,
    Envelope,
    InvalidMessage,
    MailbridgeError,
    Mailer,
    Message,
    SendResult,
    SMTPConfig,
    VerifyReport,
)
from mailbridge.cli.oauth2 import add_authorize
from mailbridge.cli.serve import add_serve
from mailbridge.config.services import all_services
from mailbridge.config.values import ROOT

URL_VARIABLE = "MAILBRIDGE_URL"
_COLOURS = {"ok": "32", "failed": "31", "skipped": "2"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal can't show must not end the command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _dialogue_shown() if options.debug else nullcontext():
            return int(options.run(options.config(options), options))
    except (ConfigurationError, InvalidMessage) as error:
        print(f"mailbridge: {error}", file=sys.stderr)
        return 2
    except MailbridgeError as error:
        _print_failure(error, as_json=options.json)
        return 1
    except BrokenPipeError:  # who reads what is printed has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 1
    except OSError as error:  # a file named on the command line
        print(f"mailbridge: {error}", file=sys.stderr)
        return 2


@contextmanager
def _dialogue_shown() -> Iterator[None]:
    logger, handler = logging.getLogger(ROOT), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mailbridge", description="Check an SMTP configuration, or send a message."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser("verify", help="try a server stage by stage, without sending mail")
    verify.set_defaults(run=_verify)
    send = commands.add_parser("send", help="send one message")
    send.set_defaults(run=_send)
    for command in (verify, send):
        command.set_defaults(config=_config)
        command.add_argument(
            "url",
            nargs="*",
            metavar="URL",
            help=f"smtp://user:password@host:port/?option=value; default: ${URL_VARIABLE}, which keeps "
            "the password out of the process list. Several: the next gets what the one before it fails at",
        )
        command.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an option beside the URL, such as one that can't stand in it: tls.ca_file=/etc/ssl/ca.pem",
        )
        command.add_argument("--from", dest="mail_from", metavar="ADDRESS", required=command is send)
        command.add_argument("--to", action="append", default=[], metavar="ADDRESS", required=command is send)
        command.add_argument("--timeout", type=float, metavar="SECONDS", help="time limit for everything")
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument("--debug", action="store_true", help="show the dialogue, secrets masked")
    _add_content_arguments(send)
    add_serve(commands.add_parser("serve", help="receive mail on this machine, to look at it"))
    services = commands.add_parser("services", help="list the services that the option service knows")
    services.set_defaults(run=_services, config=lambda _: None, debug=False)
    services.add_argument("--json", action="store_true", help="print JSON")
    add_authorize(commands.add_parser("oauth2", help="get the first refresh token"))
    return parser


def _add_content_arguments(send: argparse.ArgumentParser) -> None:
    send.add_argument("--subject", default="")
    content = send.add_mutually_exclusive_group()
    content.add_argument("--text", help="the text of the message")
    content.add_argument("--file", metavar="PATH", help="read the text from a file, or - for standard input")
    content.add_argument(
        "--raw", metavar="PATH", help="send a whole message (.eml) as it is, or - for standard input"
    )
    send.add_argument("--html", metavar="PATH", help="an HTML alternative")
    send.add_argument("--attach", metavar="PATH", action="append", default=[], type=Path)


def _config(options: argparse.Namespace) -> SMTPConfig:
    urls = options.url or os.environ.get(URL_VARIABLE, "").split()
    if not urls:
        raise ConfigurationError(f"No server given: name a URL, or set {URL_VARIABLE}", stage="config")
    given: list[tuple[str, Any]] = [_option(pair) for pair in options.option]
    if options.debug:
        given += [("debug", True), ("logger", ROOT)]  # which is the one that is shown
    if options.timeout is not None:
        given += [("timeout", options.timeout), ("timeouts.total", options.timeout)]
    beside: dict[str, Any] = {"url": urls[0]}
    if len(urls) > 1:
        beside = {"servers": [{"url": url, "priority": place} for place, url in enumerate(urls, start=1)]}
    return SMTPConfig.from_mapping(_nested(given) | beside)


def _option(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals or "" in name.split("."):
        raise ConfigurationError("--option takes NAME=VALUE", stage="config")
    return name, value


def _nested(given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Options whose groups are dots in their names; of two of one name the last wins."""
    options: dict[str, Any] = {}
    for name, value in given:
        *groups, last = name.split(".")
        place = options
        for group in groups:
            if not isinstance(place.get(group), dict):
                place[group] = {}
            place = place[group]
        place[last] = value
    return options


def _verify(config: SMTPConfig, options: argparse.Namespace) -> int:
    if options.to and not options.mail_from:
        raise ConfigurationError("--to needs --from beside it", stage="config")
    with closing(Mailer(config)) as mailer:
        report = mailer.verify(mail_from=options.mail_from, rcpt_to=options.to)
    if options.json:
        print(report.as_json())
    else:
        _print_report(report, sys.stdout)
    return 0 if report.ok else 1


def _print_report(report: VerifyReport, out: TextIO) -> None:
    has_colours = out.isatty() and "NO_COLOR" not in os.environ  # no-color.org
    for stage, row in report.rows():
        print(f"\033[{_COLOURS[stage.status]}m{row}\033[0m" if has_colours else row, file=out)
    failed = sum(stage.status == "failed" for stage in report)
    print(f"\n{report.server}: {'all is well' if report.ok else f'{failed} stage(s) failed'}", file=out)


def _send(config: SMTPConfig, options: argparse.Namespace) -> int:
    content, envelope = _message(options)
    with closing(Mailer(config)) as mailer:
        result = mailer.send(content, envelope=envelope)
    _print_result(result, as_json=options.json)
    return 1 if result.rejected else 0


def _message(options: argparse.Namespace) -> tuple[Message | Path | BinaryIO, Envelope]:
    envelope = Envelope(options.mail_from, options.to)
    if options.raw is not None:
        _refuse_beside_raw(options)
        return sys.stdin.buffer if options.raw == "-" else Path(options.raw), envelope
    message = Message(subject=options.subject, sender=options.mail_from, to=options.to, text=options.text)
    if options.file is not None:
        message.text = _read(options.file)
    if options.html is not None:
        message.html = _read(options.html)
    for path in options.attach:
        message.attach(path)
    return message, envelope


def _refuse_beside_raw(options: argparse.Namespace) -> None:
    if unused := [name for name in ("subject", "html", "attach") if getattr(options, name)]:
        names = ", ".join(f"--{name}" for name in unused)
        raise ConfigurationError(
            f"--raw is a whole message, so nothing is added to it: {names}", stage="config"
        )


def _services(_: None, options: argparse.Namespace) -> int:
    services = all_services()
    if options.json:
        print(json.dumps([service.as_dict() for service in services], indent=2))
        return 0
    for service in services:
        others = ", ".join((*service.aliases, *service.domains))
        print(f"{service.name:<24} {service.host}:{service.port} {service.security:<9} {others}".rstrip())
    return 0


def _read(name: str) -> str:
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidMessage(f"{name} is not text in UTF-8: {error.reason}, byte {error.start}") from None


def _print_result(result: SendResult, *, as_json: bool) -> None:
    rejected = {address: str(reply) for address, reply in result.rejected.items()}
    if as_json:
        facts = {
            "sent": True,
            "server": result.server,
            "accepted": list(result.accepted),
            "rejected": rejected,
            "response": str(result.response),
            "queue_id": result.queue_id,
            "message_id": result.message_id,
            "message_size": result.message_size,
            "round_trips": result.round_trips,
            "failed_servers": {server: str(error) for server, error in result.failed_servers.items()},
        }
        print(json.dumps(facts, indent=2))
        return
    for error in result.failed_servers.values():
        print(f"not taken: {error}")
    recipients = ", ".join(result.accepted)
    print(f"{result.server} took {result.message_size} bytes for {recipients}: {result.response}")
    for address, reply in rejected.items():
        print(f"refused: {address}: {reply}")


def _print_failure(error: MailbridgeError, *, as_json: bool) -> None:
    if as_json:
        facts = {"sent": False, "error": type(error).__name__, "message": str(error), "stage": error.stage}
        facts |= {"transient": error.is_transient, "outcome_unknown": error.outcome_unknown}
        print(json.dumps(facts, indent=2))
    else:
        print(f"mailbridge: {error}", file=sys.stderr)
