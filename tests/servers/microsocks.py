"""microsocks: SOCKS5 only, open and with a password. Its answers are its own, apart from any library's."""

from __future__ import annotations

import re
from pathlib import Path

from tests.servers.names import NAME, own_hosts
from tests.servers.process import (
    UNPRIVILEGED,
    Endpoint,
    Program,
    find_program,
    free_ports,
    make_folder,
    tail,
)

USERNAME = "su"
PASSWORD = "spass"
CONNECTED = re.compile(r"connected to (\S+)")


class Microsocks:
    """Two running microsocks; both write into one log. `known_name`: a name that they resolve."""

    name = "microsocks"
    username = USERNAME
    secret = PASSWORD
    open: Endpoint
    password: Endpoint  # demands username and secret

    def __init__(self, folder: Path) -> None:
        program = find_program(self.name, "microsocks", package="microsocks")
        make_folder(folder, owner=UNPRIVILEGED)
        self.open, self.password = free_ports(2)
        self._output = folder / "output"
        shown = own_hosts(folder)
        self.known_name = NAME if shown else "localhost"
        self._programs = []
        for endpoint, login in ((self.open, []), (self.password, ["-u", USERNAME, "-P", PASSWORD])):
            command: list[str | Path] = [program, "-i", endpoint.host, "-p", str(endpoint.port), *login]
            self._programs.append(
                Program(command, output=self._output, user=UNPRIVILEGED, shown=shown),
            )
        for running, endpoint in zip(self._programs, (self.open, self.password), strict=True):
            running.wait_until_listening([endpoint], self._output)

    def connects(self) -> list[str]:
        """Each target reached so far, "host:port" as the client wrote it; it keeps no record of others."""
        return CONNECTED.findall(self._output.read_text(errors="replace"))

    def log(self) -> str:
        return tail(self._output)

    def stop(self) -> None:
        for program in self._programs:
            program.stop()
