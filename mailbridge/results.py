"""What came of a send or a check: plain frozen values, picklable and deep-copyable.

Nothing here parses or decides; `protocol.replies` makes replies from bytes, `connection` and
`mailer` make results.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mailbridge.errors import MailbridgeError, RecipientsRefused
    from mailbridge.message.envelope import Envelope

# Reply text comes from the other side: it is capped where it enters messages and logs.
MAX_SHOWN_CHARACTERS = 1024


def printable(text: str, limit: int = MAX_SHOWN_CHARACTERS) -> str:
    """`text` fit for logs and terminals: control characters escaped, at most `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "…"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the server (RFC 5321 section 4.2).

    `lines` holds the text of each line without the code; `enhanced` is the status of RFC 3463
    when the first line starts with one of the same class as `code`.
    """

    code: int
    lines: tuple[str, ...] = ()
    enhanced: tuple[int, int, int] | None = None

    @property
    def text(self) -> str:
        """All lines, joined by newlines, as the server sent them (untrusted)."""
        return "\n".join(self.lines)

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def is_transient(self) -> bool:
        """4yz: the same command may succeed later."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: the same command will fail again."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code} {printable(' '.join(self.lines))}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SendResult:
    """A message that the server accepted, and how.

    `rejected` names the recipients that were refused while others were accepted; where the server
    takes them in several transactions (LIMITS, RFC 9422) and a later one was lost unsent, the reply
    is 451 4.4.2 and made here. `timings` are
    seconds under the keys queue, dns, connect, tls, auth, envelope, data, total. `message_size`
    is in bytes, as sent but before dot-stuffing. `round_trips` counts the waits for the server
    that this message cost, a new session's opening included. With several servers `server` is the one
    that has it, and `failed_servers` says by name why those asked before it, or passed over, do not.
    """

    accepted: tuple[str, ...]
    rejected: Mapping[str, Reply]
    response: Reply
    envelope: "Envelope"
    message_size: int
    queue_id: str | None = None
    message_id: str | None = None
    attempts: int = 1
    failed_servers: Mapping[str, "MailbridgeError"] = field(default_factory=dict)
    connection_id: str = ""
    connection_reused: bool = False
    server: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    round_trips: int = 0

    def __repr__(self) -> str:
        refused = f", {len(self.rejected)} refused" if self.rejected else ""
        queued = f", queued as {self.queue_id}" if self.queue_id else ""
        return (
            f"<SendResult: {self.server} took {self.message_id or 'a message'} of {self.message_size} bytes"
            f" for {len(self.accepted)} recipient(s){refused}{queued}>"
        )

    @property
    def rejected_errors(self) -> "tuple[RecipientsRefused, ...]":
        """`rejected` as errors, one for each recipient: to raise, or to treat like those of a send."""
        from mailbridge.errors import RecipientsRefused  # which needs this module

        return tuple(
            RecipientsRefused(
                f"The recipient <{address}> was refused", rejected={address: reply}, server=self.server
            )
            for address, reply in self.rejected.items()
        )


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
