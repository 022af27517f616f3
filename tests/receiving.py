"""A receiving server that keeps what it gets, and a client that says exactly the bytes it is told.

For the tests of `mailbridge.server`; a test closes both. Every wait is bounded.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mailbridge.server import MailServer, ReceivedEnvelope, Session
from tests.servers.process import wait_until

SECONDS = 10.0  # no answer on loopback takes longer, however busy the machine
MAIL = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"


class Records(logging.Handler):
    """The records of one server."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)

    def of(self, event: str) -> list[Any]:
        return [record for record in self.all if record.action == event]

    @property
    def events(self) -> list[str]:
        return [record.action for record in self.all]


class Mailroom:
    """A running server, what it has received and what it has logged."""

    def __init__(self, **options: Any) -> None:
        self.mails: list[tuple[Session, ReceivedEnvelope, bytes]] = []
        self.sessions: list[Session] = []  # of all connections that on_connect was told of
        self.records = Records()
        self._lock = threading.Lock()
        logger = logging.Logger("mailroom", logging.DEBUG)  # of nobody else
        logger.addHandler(self.records)
        given = {"on_message": self._keep, "on_connect": self._note, "logger": logger} | options
        self.server = MailServer("127.0.0.1", **given) if "host" not in given else MailServer(**given)

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def contents(self) -> list[bytes]:
        return [content for _, _, content in self.mails]

    @property
    def reception(self) -> Any:
        """What is inside: for what can't be seen from outside."""
        return self.server._running._reception  # type: ignore[union-attr]

    @property
    def dialogues(self) -> list[Any]:
        return [dialogue for dialogue in self.reception._visits.values() if dialogue is not None]

    def wait_for(self, event: str, count: int = 1) -> list[Any]:
        """The records of `event`, when there are so many."""
        assert wait_until(lambda: len(self.records.of(event)) >= count, SECONDS), self.records.events
        return self.records.of(event)

    def _note(self, session: Session) -> None:
        with self._lock:
            self.sessions.append(session)

    def _keep(self, session: Session, envelope: ReceivedEnvelope, content: bytes) -> None:
        with self._lock:
            self.mails.append((session, envelope, content))


@contextmanager
def mailroom(**options: Any) -> Iterator[Mailroom]:
    """A running one; at its end asyncio has complained of nothing."""
    room, complaints = Mailroom(**options), Records()
    logging.getLogger("asyncio").addHandler(complaints)
    try:
        with room.server:
            yield room
    finally:
        logging.getLogger("asyncio").removeHandler(complaints)
    assert [record.getMessage() for record in complaints.all if record.levelno >= logging.WARNING] == []


class Caller:
    """A client of `server` that speaks bytes. Use it in a `with` block."""

    def __init__(
        self, port: int, first: bytes = b"", *, source: str = "127.0.0.1", host: str = "127.0.0.1"
    ) -> None:
        self.sock: socket.socket = socket.create_connection(
            (host, port), timeout=SECONDS, source_address=(source, 0)
        )
        self._file = self.sock.makefile("rb")
        if first:
            self.send(first)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self) -> str:
        """The next reply, lines joined by newlines; "" at the end."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line = self._file.readline()
            if not line:
                break
            lines.append(line.decode().rstrip("\r\n"))
        return "\n".join(lines)

    def ask(self, command: bytes) -> str:
        """The reply to one command, CRLF added."""
        self.send(command + b"\r\n")
        return self.reply()

    def hello(self) -> Caller:
        """Past greeting and EHLO."""
        assert self.reply().startswith("220 ")
        assert self.ask(b"EHLO client.test").startswith("250-")
        return self

    def replies(self) -> list[str]:
        """All replies up to the end of the connection; a reset is one."""
        found = []
        try:
            while reply := self.reply():
                found.append(reply)
        except ConnectionResetError:
            found.append("reset")
        return found

    def codes(self) -> list[str]:
        return [reply[:3] if reply[:3].isdigit() else reply for reply in self.replies()]

    def hang_up_hard(self) -> None:
        """With a reset instead of an end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def finish_sending(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def start_tls(self, ca_file: str) -> None:
        """The handshake, now."""
        context = ssl.create_default_context(cafile=ca_file)
        self._file.close()
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self._file = self.sock.makefile("rb")
