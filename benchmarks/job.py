"""What a client is asked to do, and what came of it: the words that parent and child exchange."""

from __future__ import annotations

from dataclasses import dataclass

SENDER = "sender@example.test"
SUBJECT = "Your order of Friday"
# About two kilobytes: what a web application sends most, a notice or a receipt.
TEXT = "\n".join(f"{number:>3}  One line of a letter that nobody reads to its end." for number in range(36))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Send `messages` messages, each to `recipients` recipients, after one that is not measured."""

    peer: str
    host: str
    port: int
    username: str
    password: str
    ca_file: str
    messages: int
    recipients: int

    @property
    def addresses(self) -> list[str]:
        return [f"r{number}@elsewhere.test" for number in range(self.recipients)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds by the clock, and seconds of this process's CPU, both for all messages together."""

    wall: float
    cpu: float
