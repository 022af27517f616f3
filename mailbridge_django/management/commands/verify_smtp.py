"""`manage.py verify_smtp`: can the configured servers be reached, trusted and logged in to?

Says stage by stage what was found and what to do. No mail is sent without --send. Exit status: 0 all
is well, 1 a stage failed or an alias is not mailbridge's, 2 wrong usage.
"""

import json
from argparse import ArgumentTypeError
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.management.base import BaseCommand, CommandError, CommandParser

from mailbridge import Envelope, InvalidAddress, Mailer, SendResult, Stage, VerifyReport
from mailbridge_django.backend import DEFAULT_ALIAS, EmailBackend
from mailbridge_django.compat import InvalidMailer, MailerMisconfigured
from mailbridge_django.handler import mailers

FAILED, USAGE = 1, 2
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found out about one alias; without a report it is not mailbridge's."""

    alias: str
    backend: str
    ok: bool
    note: str = ""
    report: VerifyReport | None = None

    def as_dict(self) -> dict[str, Any]:
        found = self.report.as_dict() if self.report else {"server": None, "stages": []}
        known = {"alias": self.alias, "backend": self.backend, "note": self.note}
        return {**known, **found, "ok": self.ok}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What to ask of each server beside the connection."""

    sender: str | None
    recipients: tuple[str, ...]
    is_sent: bool
    timeout: float | None
    may_be_other: bool


class Command(BaseCommand):
    help = "Checks step by step that the mail servers can be reached and logged in to. Sends no mail."
    # It must run where settings are wrong: that is when it is needed.
    requires_system_checks: list[str] = []  # noqa: RUF012  # Django's own declaration

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--using",
            nargs="+",
            metavar="ALIAS",
            help=f"The mailers to check. Default: {DEFAULT_ALIAS}.",
        )
        which.add_argument("--all", action="store_true", dest="is_all", help="Check every mailer.")
        parser.add_argument(
            "--from",
            type=_address,
            dest="sender",
            metavar="ADDR",
            help="Ask whether the server takes mail from this address. With --to: DEFAULT_FROM_EMAIL.",
        )
        parser.add_argument(
            "--to",
            nargs="+",
            type=_address,
            default=[],
            dest="recipients",
            metavar="ADDR",
            help="Ask whether the server takes mail to these addresses.",
        )
        parser.add_argument("--send", action="store_true", dest="is_sent", help="Send a test mail to --to.")
        parser.add_argument(
            "--timeout",
            type=_seconds,
            metavar="S",
            help="Seconds for each step, in place of those configured.",
        )
        parser.add_argument("--format", choices=("text", "json"), default="text", dest="output_format")
        parser.add_argument(
            "--allow-other",
            action="store_true",
            dest="may_be_other",
            help="A mailer that is not mailbridge's is no failure.",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        if options["is_sent"] and not options["recipients"]:
            raise CommandError("--send needs --to ADDR.", returncode=USAGE)
        recipients = tuple(options["recipients"])
        probe = Probe(
            sender=options["sender"] or (_default_sender() if recipients else None),
            recipients=recipients,
            is_sent=options["is_sent"],
            timeout=options["timeout"],
            may_be_other=options["may_be_other"],
        )
        findings = []
        for alias in self._aliases(options["using"], options["is_all"]):
            findings.append(_find_out(alias, probe))
            if options["output_format"] == "text":
                self._print(findings[-1])
        if options["output_format"] == "json":
            answer = {"ok": all(found.ok for found in findings), "mailers": [f.as_dict() for f in findings]}
            self.stdout.write(json.dumps(answer, indent=2))
        if failed := [found.alias for found in findings if not found.ok]:
            raise CommandError(f"Not in order: {', '.join(failed)}.", returncode=FAILED)

    def _aliases(self, using: list[str] | None, is_all: bool) -> list[str]:
        try:
            known = list(mailers)
        except InvalidMailer as error:
            raise CommandError(str(error), returncode=FAILED) from error
        wanted = known if is_all else list(dict.fromkeys(using or [DEFAULT_ALIAS]))
        if unknown := [alias for alias in wanted if alias not in known]:
            raise CommandError(
                f"No such mailer: {', '.join(unknown)}. Configured: {', '.join(known) or 'none'}.",
                returncode=USAGE,
            )
        return wanted

    def _print(self, finding: Finding) -> None:
        server = f": {finding.report.server}" if finding.report and finding.report.server else ""
        self.stdout.write(self.style.MIGRATE_HEADING(f"{finding.alias}{server}"))
        for line, is_failed in _lines(finding):
            self.stdout.write(f"  {line}", self.style.ERROR if is_failed else None)


def _lines(finding: Finding) -> Iterator[tuple[str, bool]]:
    """The lines for one alias, and whether each tells of a failure."""
    if finding.note:
        yield finding.note, not finding.ok and finding.report is None
    for stage, text in finding.report.rows() if finding.report else ():
        yield text.replace("\n", "\n  "), stage.status == "failed"


def _find_out(alias: str, probe: Probe) -> Finding:
    try:
        backend = mailers[alias]
    except (InvalidMailer, ValueError, ImportError) as error:
        return Finding(alias=alias, backend="", ok=False, report=_failed_config(error))
    path = f"{type(backend).__module__}.{type(backend).__qualname__}"
    if not isinstance(backend, EmailBackend):
        return Finding(alias=alias, backend=path, ok=probe.may_be_other, note=_about_other(alias, path))
    note = "What config_resolver chooses for single messages is not checked." if backend.has_resolver else ""
    try:
        report = _verified(backend, probe)
    except MailerMisconfigured as error:  # the time limit
        report = _failed_config(error)
    return Finding(alias=alias, backend=path, ok=report.ok, note=note, report=report)


def _failed_config(error: Exception) -> VerifyReport:
    detail, hint = getattr(error, "message", str(error)), getattr(error, "hint", "")
    stage = Stage(name="config", status="failed", detail=detail, hint=hint)
    return VerifyReport(server="", stages=(stage,))


def _about_other(alias: str, path: str) -> str:
    text = f"The alias '{alias}' uses {path}, not mailbridge"
    if path == LOCMEM:
        text += "; Django's test runner puts it in the place of every mailer"
    return f"{text}."


def _verified(backend: EmailBackend, probe: Probe) -> VerifyReport:
    """The report of a mailer of its own, so that no pooled session hides what a new one would meet."""
    if probe.timeout is not None:
        backend.timeout = probe.timeout
    with Mailer(backend.config) as mailer:
        report = mailer.verify(mail_from=probe.sender, rcpt_to=probe.recipients)
    if not probe.is_sent or not report.ok:
        return report
    return replace(report, stages=(*report.stages, _send(backend, probe)))


def _send(backend: EmailBackend, probe: Probe) -> Stage:
    """A real mail through the backend itself."""
    message = EmailMessage(
        "Test mail from mailbridge",
        f"This mail was sent by manage.py verify_smtp through {backend.config.server}.\n",
        probe.sender,
        list(probe.recipients),
    )
    try:
        backend.send_messages([message])
    except Exception as error:  # whatever it is, it belongs into the table
        return Stage(name="send", status="failed", detail=str(error))
    result = vars(message)["mailbridge_result"]
    if not isinstance(result, SendResult):
        reason = vars(message)["mailbridge_error"] or "A receiver of pre_send has cancelled it"
        return Stage(name="send", status="failed", detail=str(reason))
    refused = "; ".join(f"{address}: {reply}" for address, reply in result.rejected.items())
    return Stage(
        name="send",
        status="failed" if refused else "ok",
        seconds=result.timings.get("total", 0.0),
        detail=f"{result.response}" + (f"; refused {refused}" if refused else ""),
    )


def _address(text: str) -> str:
    try:
        return Envelope(None, [text]).recipients[0]
    except InvalidAddress as error:
        raise ArgumentTypeError(error.message) from None


def _default_sender() -> str:
    try:
        return _address(settings.DEFAULT_FROM_EMAIL)
    except ArgumentTypeError as error:
        raise CommandError(f"DEFAULT_FROM_EMAIL: {error} Give --from ADDR.", returncode=USAGE) from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError("it must be a number of seconds above 0")
    return seconds
