"""The table of outcomes: what a caller is told of each send, and what the servers have seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mailbridge import MailbridgeError, RecipientsRefused, SendResult, SMTPConfig
from tests.unit.delivery.events import PASSWORD, USER


@dataclass(frozen=True, kw_only=True)
class Case:
    """`servers`: for each, its events in order; after them all goes well. `told` is what comes of each send.

    A name of OPENINGS is what becomes of the next connection, one of TRANSACTIONS of the next transaction.
    `opened` and `taken` count, for each server, connections and messages; `pauses` are in seconds, those for
    the rate too. `warm`: so many connections with each server are there before. `session`: all messages go
    over one `Session`. `kept`, where it is given: the idle connections that are left.
    """

    servers: Sequence[Sequence[str]]
    told: Sequence[str]
    opened: Sequence[int]
    taken: Sequence[int]
    attempts: int = 1
    pauses: Sequence[float] = ()
    deadline: float | None = None
    total: float | None = None
    warm: int = 0
    session: bool = False
    equals: bool = False
    max_messages: int = 100
    rate: float | None = None
    kept: Sequence[int] | None = None

    def config(self, *ports: int) -> SMTPConfig:
        servers = [
            {
                "host": "127.0.0.1",
                "port": port,
                "priority": 1 if self.equals else number,
                "username": USER,
                "password": PASSWORD,
            }
            for number, port in enumerate(ports, start=1)
        ]
        return SMTPConfig.from_mapping(
            {
                "security": "none",
                "timeout": 10,
                "timeouts": {"total": self.total},
                "pool": {"max_messages": self.max_messages},
                "rate": None if self.rate is None else {"limit": 1, "per": self.rate},
                "retry": {"attempts": self.attempts, "first_delay": 1.0, "factor": 2.0},
                "servers": servers,
            }
        )

    @property
    def wanted(self) -> Story:
        return Story(*(list(each) for each in (self.told, self.opened, self.taken, self.pauses)))


@dataclass
class Story:
    """What came of a case."""

    told: list[str] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)


def told(names: Sequence[str], send: Callable[[], SendResult]) -> str:
    """What the caller is told of one message."""
    try:
        result = send()
    except MailbridgeError as error:
        doubt = "unknown" if error.outcome_unknown else ""
        refusals = error.rejected.values() if isinstance(error, RecipientsRefused) else [error.reply]
        codes = " ".join(str(each.code) for each in refusals if each is not None)
        earlier = f"after {len(error.attempts)}" if error.attempts else ""
        return " ".join(f"{type(error).__name__} {error.stage} {codes} {doubt} {earlier}".split())
    failed = ",".join(str(names.index(name) + 1) for name in result.failed_servers)
    return (
        f"server {names.index(result.server) + 1} attempt {result.attempts}"
        + (" again" if result.connection_reused else "")
        + (f" instead of {failed}" if failed else "")
    )


CASES = {
    # One server
    "a warm connection": Case(
        servers=[[]], told=["server 1 attempt 1", "server 1 attempt 1 again"], opened=[1], taken=[2]
    ),
    "a stale connection is replaced, which is no attempt": Case(
        servers=[["taken", "mail lost"]],
        told=["server 1 attempt 1", "server 1 attempt 1"],
        opened=[2],
        taken=[2],
    ),
    "one that says goodbye to MAIL, too": Case(
        servers=[["taken", "mail 421"]],
        told=["server 1 attempt 1", "server 1 attempt 1"],
        opened=[2],
        taken=[2],
    ),
    "but once only": Case(
        servers=[["taken", "mail lost", "mail lost"]],
        told=["server 1 attempt 1", "ConnectionLost mail_from"],
        opened=[2],
        taken=[1],
    ),
    "one that was idle for too long, of which none is left": Case(
        servers=[["taken", "mail 451 idle"]],
        told=["server 1 attempt 1", "server 1 attempt 1", "server 1 attempt 1 again"],
        opened=[2],
        taken=[3],
        kept=[1],
    ),
    "by a new one, though another waits in the pool": Case(
        servers=[["mail lost"]], told=["server 1 attempt 1"], opened=[3], taken=[1], warm=2, kept=[2]
    ),
    "no second time because the first was stale": Case(
        servers=[["taken", "mail lost", "greeting lost", "greeting lost"]],
        told=["server 1 attempt 1", "ConnectionLost greeting after 1"],
        opened=[3],
        taken=[1],
        attempts=2,
        pauses=[1.0],
    ),
    "a new connection that is lost is not replaced": Case(
        servers=[["mail lost"]], told=["ConnectionLost mail_from"], opened=[1], taken=[0]
    ),
    "nor is one that was idle for too long, in its own words": Case(
        servers=[["mail 451 idle"]], told=["SenderRefused mail_from 451"], opened=[1], taken=[0]
    ),
    "what may have been accepted is never sent again": Case(
        servers=[["taken", "final lost"]],
        told=["server 1 attempt 1", "ConnectionLost final unknown"],
        opened=[1],
        taken=[1],
        attempts=5,
    ),
    "a refusal is final": Case(
        servers=[["rcpt 550"]],
        told=["RecipientsRefused rcpt_to 550", "server 1 attempt 1 again"],
        opened=[1],
        taken=[1],
        attempts=3,
    ),
    "a transient refusal is told where there is no retry": Case(
        servers=[["mail 451"]], told=["SenderRefused mail_from 451"], opened=[1], taken=[0]
    ),
    "and tried again with it": Case(
        servers=[["mail 451", "data 451"]],
        told=["server 1 attempt 3 again"],
        opened=[1],
        taken=[1],
        attempts=3,
        pauses=[1.0, 2.0],
    ),
    "as often as it says": Case(
        servers=[["final 451", "final 451", "final 451"]],
        told=["MessageRefused final 451 after 2"],
        opened=[1],
        taken=[0],
        attempts=3,
        pauses=[1.0, 2.0],
    ),
    "but not beyond the deadline": Case(
        servers=[["final 451", "final 451", "final 451"]],
        told=["MessageRefused final 451 after 1"],
        opened=[1],
        taken=[0],
        attempts=3,
        pauses=[1.0],
        deadline=2.5,
    ),
    "a login that was refused is not tried for the next message": Case(
        servers=[["auth 535"]],
        told=["AuthenticationFailed auth 535", "AuthenticationFailed auth 535"],
        opened=[1],
        taken=[0],
        attempts=3,
    ),
    "three failures open the breaker, and the fourth message is told without a connection": Case(
        servers=[["greeting lost", "greeting lost", "greeting lost"]],
        told=["ConnectionLost greeting"] * 4,
        opened=[3],
        taken=[0],
    ),
    "with retry the message waits for the probe": Case(
        servers=[["greeting lost", "greeting lost", "greeting lost"]],
        told=["server 1 attempt 4"],
        opened=[4],
        taken=[1],
        attempts=4,
        pauses=[1.0, 2.0, 4.0],
    ),
    # Two servers
    "the next server gets what the first could not take": Case(
        servers=[["greeting 421"], []],
        told=["server 2 attempt 1 instead of 1", "server 1 attempt 1"],
        opened=[2, 1],
        taken=[1, 1],
    ),
    "also what it lost before the content": Case(
        servers=[["mail lost"], []], told=["server 2 attempt 1 instead of 1"], opened=[1, 1], taken=[0, 1]
    ),
    "also what it can't take now, on a connection of the second's own": Case(
        servers=[["mail 451"], []],
        told=["server 2 attempt 1 instead of 1", "server 1 attempt 1 again"],
        opened=[1, 1],
        taken=[1, 1],
        kept=[1, 1],
    ),
    "also for a refused login": Case(
        servers=[["auth 535"], []],
        told=["server 2 attempt 1 instead of 1", "server 2 attempt 1 again instead of 1"],
        opened=[1, 1],
        taken=[0, 2],
    ),
    "never what the first may have": Case(
        servers=[["final lost"], []], told=["ConnectionLost final unknown"], opened=[1, 0], taken=[0, 0]
    ),
    "never what the first refused": Case(
        servers=[["mail 550"], []], told=["SenderRefused mail_from 550"], opened=[1, 0], taken=[0, 0]
    ),
    "nor what it refused for its content": Case(
        servers=[["final 554"], []], told=["MessageRefused final 554"], opened=[1, 0], taken=[0, 0]
    ),
    "nor a recipient that is greylisted": Case(
        servers=[["rcpt 450"], []], told=["RecipientsRefused rcpt_to 450"], opened=[1, 0], taken=[0, 0]
    ),
    "after three failures the first is asked last": Case(
        servers=[["greeting 554"] * 3, []],
        told=["server 2 attempt 1 instead of 1", *["server 2 attempt 1 again instead of 1"] * 3],
        opened=[3, 1],
        taken=[0, 4],
    ),
    "also where it is the messages that fail": Case(
        servers=[["mail 451"] * 3, []],
        told=["server 2 attempt 1 instead of 1", *["server 2 attempt 1 again instead of 1"] * 3],
        opened=[1, 1],
        taken=[0, 4],
    ),
    "but not if one went well in between": Case(
        servers=[["mail 451", "mail 451", "taken", "mail 451", "mail 451"], []],
        told=[
            "server 2 attempt 1 instead of 1",
            "server 2 attempt 1 again instead of 1",
            "server 1 attempt 1 again",
            "server 2 attempt 1 again instead of 1",
            "server 2 attempt 1 again instead of 1",
            "server 1 attempt 1 again",
        ],
        opened=[1, 1],
        taken=[2, 4],
    ),
    "if all fail, the last transient error is told": Case(
        servers=[["greeting 421"], ["greeting 554"]],
        told=["GreetingRefused greeting 421 after 1"],
        opened=[1, 1],
        taken=[0, 0],
    ),
    "the last, not the first": Case(
        servers=[["greeting 421"], ["greeting lost"], ["greeting 554"]],
        told=["ConnectionLost greeting after 2"],
        opened=[1, 1, 1],
        taken=[0, 0, 0],
    ),
    "and retry asks all again": Case(
        servers=[["greeting 421"], ["greeting lost"]],
        told=["server 1 attempt 2 instead of 2"],
        opened=[2, 1],
        taken=[1, 0],
        attempts=2,
        pauses=[1.0],
    ),
    # One session
    "a session keeps its connection": Case(
        servers=[[]],
        told=["server 1 attempt 1", "server 1 attempt 1 again"],
        opened=[1],
        taken=[2],
        session=True,
    ),
    "and replaces it once it is stale": Case(
        servers=[["taken", "mail lost"]],
        told=["server 1 attempt 1", "server 1 attempt 1"],
        opened=[2],
        taken=[2],
        session=True,
    ),
    "or worn": Case(
        servers=[[]],
        told=["server 1 attempt 1", "server 1 attempt 1 again", "server 1 attempt 1"],
        opened=[2],
        taken=[3],
        max_messages=2,
        session=True,
    ),
    "it gives up where no connection can be had, until one can": Case(
        servers=[["greeting 554"]],
        told=["GreetingRefused greeting 554 gave up", "server 1 attempt 1"],
        opened=[2],
        taken=[1],
        session=True,
    ),
    "not for a message that failed": Case(
        servers=[["mail 451"], ["greeting 421"]],
        told=["GreetingRefused greeting 421 after 1"],
        opened=[1, 1],
        taken=[0, 0],
        session=True,
    ),
    "it prefers the server that it has a connection with": Case(
        servers=[["greeting 421"], []],
        told=["server 2 attempt 1 instead of 1", "server 2 attempt 1 again"],
        opened=[1, 1],
        taken=[0, 2],
        equals=True,
        session=True,
    ),
    # At a rate
    "who waits for the rate keeps no connection": Case(
        servers=[[]],
        told=["server 1 attempt 1", "server 1 attempt 1 again"],
        opened=[1],
        taken=[2],
        rate=3.0,
        pauses=[3.0],
        session=True,
    ),
    "a replay counts": Case(
        servers=[["taken", "mail lost"]],
        told=["server 1 attempt 1", "server 1 attempt 1"],
        opened=[2],
        taken=[2],
        rate=3.0,
        pauses=[3.0, 3.0],
    ),
    "a wait for the rate beyond the deadline ends with it": Case(
        servers=[[]],
        told=["server 1 attempt 1", "DeadlineExceeded None"],
        opened=[1],
        taken=[1],
        rate=3.0,
        pauses=[2.0],
        deadline=2.0,
    ),
}
