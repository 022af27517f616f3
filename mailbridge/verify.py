"""`verify()`: the way to the server stage by stage, with what was found and what to do.

Uses a connection of its own, outside the pool, and sends no mail.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mailbridge.client.connection import SMTPConnection
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import AuthenticationFailed, InvalidMessage, MailbridgeError
from mailbridge.net.resolver import literal
from mailbridge.reply import Reply, printable

StageStatus = Literal["ok", "skipped", "failed"]

STAGE_NAMES = (
    "config",
    "dns",
    "proxy",
    "tcp",
    "greeting",
    "tls",
    "ehlo",
    "token",
    "auth",
    "mail_from",
    "rcpt_to",
    "quit",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of `verify()`: what was found, how long it took (seconds), what to do about it."""

    name: str
    status: StageStatus
    seconds: float = 0.0
    detail: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "detail": self.detail,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify()` found, stage by stage in the order of `STAGE_NAMES`. `str()` is a table.

    Of several servers `servers` has a report each; then iteration goes through the stages of all of them.
    """

    server: str
    stages: tuple[Stage, ...] = ()
    servers: tuple["VerifyReport", ...] = ()

    @classmethod
    def of_several(cls, reports: Iterable["VerifyReport"]) -> "VerifyReport":
        servers = tuple(reports)
        return cls(server=", ".join(report.server for report in servers), servers=servers)

    @property
    def ok(self) -> bool:
        return all(stage.status != "failed" for stage in self)

    def __iter__(self) -> Iterator[Stage]:
        for report in self.servers:
            yield from report
        yield from self.stages

    def __getitem__(self, name: str) -> Stage:
        """The stage of this name. KeyError if there is none; of several servers, ask each of `servers`."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"{name}, which each of .servers has" if self.servers else name)

    def as_dict(self) -> dict[str, Any]:
        """A stable, JSON-able form: `server`, `ok`, `stages`, and `servers` where there are several."""
        found = {"server": self.server, "ok": self.ok, "stages": [stage.as_dict() for stage in self.stages]}
        return found | ({"servers": [report.as_dict() for report in self.servers]} if self.servers else {})

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        return "\n".join(f"{text}" for _, text in self.rows())

    def rows(self) -> Iterator[tuple[Stage, str]]:
        """Each stage with its line of the table, for callers that add colours."""
        for report in self.servers:
            for number, (stage, line) in enumerate(report.rows()):
                yield stage, line if number else f"{report.server}\n{line}"
        for stage in self.stages:
            yield stage, _row(stage)


def _row(stage: Stage) -> str:
    seconds = f"{stage.seconds * 1000:8.1f} ms" if stage.status != "skipped" else " " * 11
    line = f"{stage.name:<10} {stage.status:<8}{seconds}  {stage.detail}".rstrip()
    return f"{line}\n{'':<10} {'hint:':<8}{'':>11}  {stage.hint}" if stage.hint else line


_NOT_REACHED = "not reached"


def verify(
    config: SMTPConfig,
    *,
    mail_from: str | None = None,
    rcpt_to: Sequence[str] = (),
    deadline: float | None = None,
) -> VerifyReport:
    """Connect, log in, ask MAIL and RCPT if addresses are given, take that back, and leave.

    `deadline` is in seconds, beside the configured time limits. Never raises for what the
    network or the server does: the failure is a stage of the report.
    """
    began = time.monotonic()
    connection = SMTPConnection(config)
    limit = Deadline.after(deadline).within(config.timeouts.total)
    asked: Mapping[str, Reply] = {}
    failure: MailbridgeError | None = None
    has_quit = False
    try:
        connection.connect(limit)
        connection.login(limit)
        if mail_from is not None:
            asked = connection.probe(mail_from, tuple(rcpt_to), limit)
        has_quit = connection.quit(limit).is_positive
    except MailbridgeError as error:
        failure = error
    finally:
        ended = time.monotonic()
        connection.close()
    found = {stage.name: stage for stage in _stages(connection, asked, has_quit)}
    if failure is not None:
        spent_before = sum(connection.seconds.values())
        seconds = connection.seconds.get(failure.stage or "", ended - began - spent_before)
        name = _stage_of(failure)
        found[name] = Stage(
            name=name, status="failed", seconds=seconds, detail=_sentence(failure), hint=failure.hint
        )
        if name == "tcp" and found["dns"].detail == _NOT_REACHED:
            found["dns"] = _ok("dns", connection, "resolved")  # or nobody would have been dialed
    return VerifyReport(server=config.server, stages=tuple(found[name] for name in STAGE_NAMES))


def _stage_of(failure: MailbridgeError) -> str:
    if isinstance(failure, InvalidMessage):  # an address to ask about
        return "mail_from"
    return failure.stage if failure.stage in STAGE_NAMES else "quit"


def _sentence(failure: MailbridgeError) -> str:
    """What happened, without stage, server and hint, which stand beside it in the table."""
    if failure.reply is None:
        return failure.message
    challenge = failure.challenge if isinstance(failure, AuthenticationFailed) else ""
    said = f"{failure.reply}, after {challenge}" if challenge else str(failure.reply)
    return f"{failure.message}: {said}"


def _stages(connection: SMTPConnection, asked: Mapping[str, Reply], has_quit: bool) -> Iterator[Stage]:
    """Every stage as far as the connection has facts about it; the others are skipped."""
    config = connection.config
    service = f", service {config.service.name}" if config.service is not None else ""
    yield _ok("config", connection, f"{config.server}, security {config.security}{service}")
    yield from _way_stages(connection)
    yield _fact("greeting", connection, str(connection.greeting or ""))
    yield _tls_stage(connection)
    yield _fact("ehlo", connection, printable(str(connection.capabilities)))
    yield _token_stage(connection)
    yield _auth_stage(connection)
    yield from _asked_stages(connection, asked)
    yield _ok("quit", connection, "") if has_quit else _skipped("quit")


def _way_stages(connection: SMTPConnection) -> Iterator[Stage]:
    """How the server, or the first proxy, was reached, and what the proxies said."""
    config, reached = connection.config, connection.reached
    host = config.proxy[0].host if config.proxy else config.host
    is_name = config.unix_path is None and literal(host) is None
    if reached is None or reached.dialed is None:
        why = _NOT_REACHED if reached is None else "left to the proxy's handler"
        yield _skipped("dns", why if is_name else "no name")
        yield _skipped("tcp", why)
    else:
        dialed = reached.dialed
        tried = f", after {', '.join(dialed.tried)}" if dialed.tried else ""
        ip = dialed.address.rpartition(":")[0]
        yield _ok("dns", connection, f"{host} is {ip}") if is_name else _skipped("dns", "no name")
        yield _ok("tcp", connection, f"connected to {dialed.address}{tried}")
    if not config.proxy:
        yield _skipped("proxy", "none configured")
    elif reached is None:
        yield _skipped("proxy")
    else:
        yield _ok("proxy", connection, "; ".join(reached.said))


def _ok(name: str, connection: SMTPConnection, detail: str) -> Stage:
    return Stage(name=name, status="ok", seconds=connection.seconds.get(name, 0.0), detail=detail)


def _skipped(name: str, why: str = _NOT_REACHED) -> Stage:
    return Stage(name=name, status="skipped", detail=why)


def _fact(name: str, connection: SMTPConnection, detail: str) -> Stage:
    return _ok(name, connection, detail) if detail else _skipped(name)


def _tls_stage(connection: SMTPConnection) -> Stage:
    facts = connection.tls
    if facts is not None:
        days = facts.days_left(datetime.now(UTC))
        expiry = f", certificate valid for {days} days" if days is not None else ""
        return _ok("tls", connection, f"{facts}{expiry}")
    if connection.config.security == "none":
        return _skipped("tls", "security is none")
    if connection.config.security == "opportunistic" and connection.greeting is not None:
        return _skipped("tls", "STARTTLS is not offered")
    return _skipped("tls")


def _token_stage(connection: SMTPConnection) -> Stage:
    if connection.config.oauth2 is None:
        return _skipped("token", "no OAuth2 configured")
    return _fact("token", connection, printable(connection.token_facts))


def _auth_stage(connection: SMTPConnection) -> Stage:
    if not connection.config.has_credentials:
        return _skipped("auth", "no credentials configured")
    if connection.mechanism is None:
        return _skipped("auth")
    offered = ", ".join(connection.capabilities.auth_mechanisms)
    return _ok("auth", connection, printable(f"{connection.mechanism} accepted; offered: {offered}"))


def _asked_stages(connection: SMTPConnection, asked: Mapping[str, Reply]) -> Iterator[Stage]:
    recipients = {name: reply for name, reply in asked.items() if name != "mail_from"}
    for name, replies in (
        ("mail_from", {n: r for n, r in asked.items() if n == "mail_from"}),
        ("rcpt_to", recipients),
    ):
        if not replies:
            yield _skipped(name, "not asked for")
            continue
        is_ok = all(reply.is_positive for reply in replies.values())
        detail = "; ".join(str(r) if name == "mail_from" else f"{a}: {r}" for a, r in replies.items())
        yield Stage(
            name=name,
            status="ok" if is_ok else "failed",
            seconds=connection.seconds.get(name, 0.0),
            detail=detail,
        )
