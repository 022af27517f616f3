"""What a scripted server saw: connections, committed messages, failures.

One `Journal` per server. The connection threads write into it, the test reads from it and waits on its
condition. It does no I/O of its own and knows no SMTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Connection", "Journal", "ReceivedMessage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message the server committed itself to; what a test of exactly-once delivery counts.

    `content` is the message without dot-stuffing and without the final dot, `raw` the bytes as they stood on
    the wire after 354, up to and including the final dot. `connection` is the number of the connection, from
    1. `chunks` are the sizes of its BDAT chunks, in bytes; such content has no dots to take out. In LMTP each
    recipient's copy is a message of its own.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    raw: bytes
    connection: int
    mail_parameters: tuple[str, ...] = ()
    chunks: tuple[int, ...] = ()


# Connections shown where an expectation fails; the cause is nearly always among the last.
DESCRIBED = 20


class Control(Protocol):
    """What a test may do to a live connection; the channel implements it."""

    def push(self, data: bytes) -> None: ...

    def order_end(self, how: str) -> None: ...


@dataclass(eq=False, kw_only=True)
class Connection:
    """One accepted connection, as the server saw it. Changes while the connection lives.

    `commands` are the command lines without their CRLF, `auth_responses` the lines that answered a 334.
    `clear_text` is what was received before TLS (without TLS: everything), ClientHello excluded; `ignored`
    what arrived while a fault was not listening; of both the first 64 KiB. `closed_by` is None while open,
    then one of "client", "client reset", "server", "fault", "test" (`hang_up`, `reset`) and "stop" (the
    server was closed). `round_trips` counts how often the client was answered, TLS and the good-bye
    included; not the TCP handshake, which nobody here sees, nor the greeting, which answers nothing.
    """

    number: int
    peer: Any
    round_trips: int = 0
    commands: list[bytes] = field(default_factory=list)
    auth_responses: list[bytes] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    clear_text: bytearray = field(default_factory=bytearray, repr=False)
    ignored: bytearray = field(default_factory=bytearray, repr=False)
    user: str | None = None
    tls_version: str | None = None
    tls_error: str | None = None
    tls_session_reused: bool = False
    server_name: str | None = None
    client_certificate: dict[str, Any] | None = None
    closed_by: str | None = None
    _has_left: bool = field(default=False, repr=False)  # FIN or RST is sent
    _control: Control | None = field(default=None, repr=False)
    _journal: Journal | None = field(default=None, repr=False)

    @property
    def is_closed(self) -> bool:
        """Whether the server's side of the connection is closed."""
        return self.closed_by is not None

    @property
    def used_tls(self) -> bool:
        """Whether a TLS handshake was completed on this connection."""
        return self.tls_version is not None

    @property
    def verbs(self) -> tuple[str, ...]:
        """The first word of every command, in upper case: `("EHLO", "MAIL", "RCPT", ...)`."""
        return tuple(line.split(b" ")[0].upper().decode("latin-1") for line in tuple(self.commands))

    def push(self, data: bytes) -> None:
        """Send bytes nobody asked for, now, encrypted where TLS is on. ConnectionError if nobody is there."""
        assert self._control is not None
        self._control.push(data)

    def hang_up(self, *, politely: bool = False) -> None:
        """Close an idle connection with a FIN and return when it is sent. `politely` sends close_notify first
        (TLS).
        """
        self._end("goodbye" if politely else "close")

    def reset(self) -> None:
        """Close an idle connection with a RST and return when it is sent."""
        self._end("reset")

    def _end(self, how: str) -> None:
        assert self._control is not None
        assert self._journal is not None
        self._control.order_end(how)
        self._journal.wait_for(lambda: self._has_left, timeout=5.0)


class Journal:
    """Everything recorded, behind one condition. Its lock is re-entrant: predicates may read the server."""

    def __init__(self, unsettled: int = 0) -> None:
        self.changed = threading.Condition()
        self.stop = threading.Event()
        self.connections: list[Connection] = []
        self.messages: list[ReceivedMessage] = []
        self.failures: list[str] = []
        self.unsettled = unsettled  # dialogues that have neither come to their end nor failed

    @contextmanager
    def change(self) -> Iterator[None]:
        """Change something recorded, and wake whoever waits for it."""
        with self.changed:
            yield
            self.changed.notify_all()

    def new_connection(self, peer: Any) -> Connection:
        with self.change():
            record = Connection(number=len(self.connections) + 1, peer=peer, _journal=self)
            self.connections.append(record)
        return record

    def fail(self, text: str) -> None:
        with self.change():
            self.failures.append(text)

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Wait until `predicate()` is true; AssertionError with what was seen after `timeout` seconds."""
        with self.changed:
            if self.changed.wait_for(predicate, timeout):
                return True
            raise AssertionError(f"not within {timeout:g} s; the server saw:\n{self.describe()}")

    def describe(self) -> str:
        """How much there was, and the last connections with their commands, one line each."""
        with self.changed:
            lines = [f"{len(self.connections)} connections, {len(self.messages)} committed messages"]
            for one in self.connections[-DESCRIBED:]:
                state = f"closed by {one.closed_by}" if one.is_closed else "open"
                lines.append(f"  connection {one.number} ({state}): {b' | '.join(one.commands)!r}")
            return "\n".join(lines)
