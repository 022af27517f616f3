"""Two scripted servers, and a mailer that prefers the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mailbridge import Mailer, SendResult, SMTPConfig
from mailbridge.testing import Fault, ScriptedServer
from tests.acceptance.fault_cases import SMALL
from tests.acceptance.sending import ShiftedClock, committed, envelope, message


@dataclass
class Pair:
    """Two servers, and a mailer that prefers the first."""

    first: ScriptedServer
    second: ScriptedServer
    mailer: Mailer
    clock: ShiftedClock

    def send(self, number: int, *, size: int = SMALL, **options: Any) -> SendResult:
        return self.mailer.send(message(number, size=size), envelope=envelope(), **options)

    def wait(self, seconds: float) -> None:
        self.clock.ahead += seconds

    @property
    def taken(self) -> tuple[Counter[int], Counter[int]]:
        return committed(self.first), committed(self.second)

    @property
    def names(self) -> tuple[str, str]:
        return address(self.first), address(self.second)


def address(server: ScriptedServer) -> str:
    return f"{server.host}:{server.port}"


def entry(server: ScriptedServer, **options: Any) -> dict[str, Any]:
    return {"host": server.host, "port": server.port, **options}


@contextmanager
def pair(
    *faults: Fault, first: dict[str, Any] | None = None, options: dict[str, Any] | None = None, **server: Any
) -> Iterator[Pair]:
    """Clear text and no login unless the options say so."""
    clock = ShiftedClock()
    settings = {"security": "none", "timeout": 10, **(options or {})}
    with (
        ScriptedServer(faults=faults, **server) as one,
        ScriptedServer(**{k: v for k, v in server.items() if k in ("users", "keywords")}) as other,
        Mailer(
            SMTPConfig.from_mapping(
                {**settings, "servers": [entry(one, **(first or {})), entry(other, priority=2)]}
            ),
            clock=clock,
        ) as mailer,
    ):
        yield Pair(one, other, mailer, clock)
