"""Redis with a password, keeping nothing on disk."""

from __future__ import annotations

from pathlib import Path

from tests.servers.process import UNPRIVILEGED, Endpoint, Program, find_program, free_port, make_folder, tail

PASSWORD = "r3dis-lab"


class Redis:
    """A running Redis."""

    name = "redis"
    password = PASSWORD
    plain: Endpoint

    def __init__(self, folder: Path) -> None:
        program = find_program(self.name, "redis-server", package="redis-server")
        make_folder(folder, owner=UNPRIVILEGED)
        self.plain = free_port()
        self._log_file = folder / "log"
        options = {
            "bind": self.plain.host,
            "port": str(self.plain.port),
            "requirepass": PASSWORD,
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
        }
        command = [program, *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._program = Program(command, output=self._log_file, user=UNPRIVILEGED)
        self._program.wait_until_listening([self.plain], self._log_file)

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@{self.plain}/0"

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop()
