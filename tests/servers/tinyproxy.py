"""tinyproxy: CONNECT answered in HTTP/1.0, open and with Basic credentials."""

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

USERNAME = "pu"
PASSWORD = "ppass"
CONFIGURATION = """\
Port {port}
Listen {host}
Timeout 60
LogLevel Connect
MaxClients 100
{login}
"""
REQUEST = re.compile(r"Request \(file descriptor \d+\): CONNECT (\S+) HTTP")


class Tinyproxy:
    """Two running tinyproxies; both write into one log. `known_name`: a name that they resolve."""

    name = "tinyproxy"
    username = USERNAME
    password = PASSWORD
    open: Endpoint
    basic: Endpoint  # 407 without username and password

    def __init__(self, folder: Path) -> None:
        program = find_program(self.name, "tinyproxy", package="tinyproxy")
        make_folder(folder, owner=UNPRIVILEGED)
        self.open, self.basic = free_ports(2)
        # Not into a log file of its own: two of them do not append to one, but write over each other.
        self._log_file = folder / "output"
        shown = own_hosts(folder)
        self.known_name = NAME if shown else "localhost"
        self._programs = []
        for service, login in (("open", ""), ("basic", f"BasicAuth {USERNAME} {PASSWORD}")):
            endpoint: Endpoint = getattr(self, service)
            configuration = folder / f"{service}.conf"
            configuration.write_text(
                CONFIGURATION.format(port=endpoint.port, host=endpoint.host, login=login)
            )
            self._programs.append(
                Program(
                    [program, "-d", "-c", configuration],
                    output=self._log_file,
                    user=UNPRIVILEGED,
                    shown=shown,
                )
            )
        for running, endpoint in zip(self._programs, (self.open, self.basic), strict=True):
            running.wait_until_listening([endpoint], self._log_file)

    def connects(self) -> list[str]:
        """Each target asked for so far, "host:port" as the client wrote it, also those that were refused."""
        return REQUEST.findall(self._log_file.read_text(errors="replace"))

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        for program in self._programs:
            program.stop()
