"""Dante: SOCKS4 and SOCKS5 on one port, without a login. It lets nobody through to anything but 127/8."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path

from tests.servers.names import NAME, own_hosts
from tests.servers.process import UNPRIVILEGED, Program, find_program, free_port, make_folder, tail

CONFIGURATION = """\
logoutput: {folder}/log
internal: {endpoint.host} port = {endpoint.port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
user.privileged: {user}
user.unprivileged: {user}
client pass {{
  from: 127.0.0.0/8 to: 0.0.0.0/0
}}
socks pass {{
  from: 127.0.0.0/8 to: 127.0.0.0/8
  command: connect
  log: connect error
}}
socks block {{
  from: 0.0.0.0/0 to: 0.0.0.0/0
  log: connect error
}}
"""


# Its own address in front, as in "[: 127.0.0.1.40000 127.0.0.1.20000 -> 127.0.0.1.50000 127.0.0.1.25".
CONNECTED = re.compile(
    r"pass\(1\): tcp/connect \[: \S+ \S+ -> \S+ (\d+\.\d+\.\d+\.\d+)\.(\d+)$", re.MULTILINE
)


class Dante:
    """A running Dante. `known_name`: a name that it resolves, asked in SOCKS5.

    It has no SOCKS4a: a name in it is refused, as if it were the address 0.0.0.1.
    """

    name = "dante"

    def __init__(self, folder: Path) -> None:
        program = find_program(self.name, "danted", package="dante-server")
        make_folder(folder, owner=UNPRIVILEGED)
        self.endpoint = free_port()
        self._log_file = folder / "log"
        user = UNPRIVILEGED if os.geteuid() == 0 else getpass.getuser()
        shown = own_hosts(folder)
        self.known_name = NAME if shown else "localhost"
        configuration = folder / "danted.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, endpoint=self.endpoint, user=user))
        command: list[str | Path] = [program, "-f", configuration, "-p", folder / "pid"]
        self._program = Program(command, output=folder / "output", user=UNPRIVILEGED, shown=shown)
        self._program.wait_until_listening([self.endpoint], self._log_file)

    def connects(self) -> list[str]:
        """Each target reached, "address:port": it does not log names. A line may come a moment later."""
        found = CONNECTED.findall(self._log_file.read_text(errors="replace"))
        return [f"{address}:{port}" for address, port in found]

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop()
