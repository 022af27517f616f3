"""Which messages Postfix has accepted, which of them it is done with, and who came: by its log and queue."""

from __future__ import annotations

import itertools
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import wait_until

# cleanup logs the Message-ID as soon as it has read the header, that is before the message is accepted;
# qmgr logs the sender of those that were. A queue file that is complete, but that qmgr has not yet seen,
# has the execute bit.
IDENTIFIED = re.compile(r"/cleanup\[\d+\]: (\w+): message-id=(\S*)")
QUEUED = re.compile(r"/qmgr\[\d+\]: (\w+): from=<")
MARK = "mark of the testbed"
CLIENT = r"/{service}\w*/smtpd\[\d+\]: connect from \S+\[([^\]]+)\]:(\d+)$"
REMOVED = re.compile(r"/qmgr\[\d+\]: (\w+): removed")


@dataclass(frozen=True, slots=True)
class Accepted:
    queue_id: str
    message_id: str


class PostfixLog:
    def __init__(self, log_file: Path, spool: Path, write_mark: Callable[[str], None]) -> None:
        self._log_file = log_file
        self._spool = spool
        self._write_mark = write_mark
        self._numbers = itertools.count(1)

    def accepted(self) -> list[Accepted]:
        """Complete for all that was accepted before this call, in order."""
        # The files first: one that qmgr takes away meanwhile is then already named in the log.
        complete = self._complete_files()
        self._mark()
        text = self._read()
        queued = set(QUEUED.findall(text)) | complete
        return [
            Accepted(queue_id, message_id)
            for queue_id, message_id in IDENTIFIED.findall(text)
            if queue_id in queued
        ]

    def removed(self) -> set[str]:
        """The queue ids of messages that are delivered to all recipients, or thrown away for them."""
        return set(REMOVED.findall(self._read()))

    def clients(self, service: str) -> list[tuple[str, int]]:
        """(address, port) of each connection to the services whose name begins like this, in order."""
        self._mark()
        found = re.findall(CLIENT.format(service=service), self._read(), re.MULTILINE)
        return [(address, int(port)) for address, port in found]

    def _read(self) -> str:
        try:
            return self._log_file.read_text(errors="replace")
        except FileNotFoundError:  # it begins with the first line, a moment after the start
            return ""

    def _mark(self) -> None:
        """Return when the log has all that was logged before this call: it passes one queue, in order."""
        text = f"{MARK} {next(self._numbers)};"
        self._write_mark(text)
        if not wait_until(lambda: text in self._read(), 5.0):
            raise AssertionError("postfix does not write its log")

    def _complete_files(self) -> set[str]:
        found = set()
        for folder in ("incoming", "active", "deferred"):
            for path in (self._spool / folder).rglob("*"):
                try:
                    mode = path.stat().st_mode
                except FileNotFoundError:
                    continue  # on its way to the next folder
                if stat.S_ISREG(mode) and mode & stat.S_IXUSR:
                    found.add(path.name)
        return found
