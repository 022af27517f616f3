"""smtp-sink, which comes with Postfix: a fast server in C that keeps what it gets and fails on demand.

Useful options: `-q .` cuts the connection instead of answering the final dot, `-Q cmd` answers 421 and
hangs up, `-f cmd` / `-r cmd` refuse for good / for now, `-A 0` answers 550 in the middle of the content,
`-W cmd:seconds` delays, `-p`, `-e`, `-8`, `-E` offer fewer extensions, `-L` speaks LMTP. See smtp-sink(1).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.servers.process import (
    UNPRIVILEGED,
    Program,
    find_program,
    free_port,
    make_folder,
    tail,
    wait_until,
)
from tests.servers.storage import StoredMessage, parse_stored

BACKLOG = 100


class SmtpSink:
    """A running smtp-sink with the given options."""

    name = "smtp-sink"

    def __init__(self, folder: Path, *options: str) -> None:
        program = find_program(self.name, "smtp-sink", package="postfix")
        make_folder(folder)
        self._dump = make_folder(folder / "dump", owner=UNPRIVILEGED, mode=0o777)
        self._output = folder / "output"
        self.endpoint = free_port()
        self.host, self.port = self.endpoint.address[0], self.endpoint.port
        dump = str(self._dump / "m.")
        self._program = Program(
            [program, "-v", "-h", "sink.lab.test", *options, "-d", dump, str(self.endpoint), str(BACKLOG)],
            output=self._output,
            user=UNPRIVILEGED,
        )
        self._program.wait_until_listening([self.endpoint], self._output)

    def messages(self, *, at_least: int = 0, seconds: float = 5.0) -> list[StoredMessage]:
        """What has been kept so far, in order; waits up to `seconds` until there are `at_least` so many."""
        wait_until(lambda: len(self._files()) >= at_least, seconds)
        # smtp-sink ends each file with an empty line of its own.
        return [parse_stored(path.read_bytes().removesuffix(b"\n")) for path in self._files()]

    def log(self) -> str:
        return tail(self._output)

    def stop(self) -> None:
        self._program.stop()

    def _files(self) -> list[Path]:
        """The complete ones: smtp-sink holds a file open from MAIL to the end of the content."""
        finished = {}
        for path in set(self._dump.iterdir()) - self._program.open_files():
            with contextlib.suppress(FileNotFoundError):  # a transaction that was broken off meanwhile
                finished[path] = path.stat().st_mtime_ns
        return sorted(finished, key=finished.__getitem__)
