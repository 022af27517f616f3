"""`ssh -D` through an sshd of its own: SOCKS4, 4a and 5 on one port, without a login.

Where the target refuses, it ends the connection without a SOCKS reply. A greeting of the target may come in
the same segment as the reply.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.servers.names import NAME, own_hosts
from tests.servers.process import (
    Program,
    find_program,
    free_ports,
    make_folder,
    tail,
)

# An sshd that is not root lets in its own user only, and needs no folder below /run. "nobody" will not do:
# to who may not read the passwords, systemd's user database shows it as locked.
USER = "daemon"
SERVER_CONFIGURATION = """\
ListenAddress {server.host}
Port {server.port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/user_key.pub
# The folders above belong to root, and may be writable for all (/tmp).
StrictModes no
UsePAM no
PasswordAuthentication no
"""
CLIENT_OPTIONS = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"),
    *("-o", "ExitOnForwardFailure=yes"),
)
# What the client writes at its second level of talking (-vv).
REQUEST = re.compile(r"dynamic request: socks\w+ host (\S+) port (\d+) command")


class SshTunnel:
    """A running `ssh -D` with the sshd behind it; the name is resolved by the sshd."""

    name = "ssh_tunnel"

    def __init__(self, folder: Path) -> None:
        sshd = find_program(self.name, "/usr/sbin/sshd", package="openssh-server")
        ssh = find_program(self.name, "ssh", package="openssh-client")
        keygen = find_program(self.name, "ssh-keygen", package="openssh-client")
        user = USER if os.geteuid() == 0 else getpass.getuser()
        make_folder(folder, owner=user)
        self.endpoint, server = free_ports(2)
        self._output = folder / "output"
        for name in ("host_key", "user_key"):
            make_key(keygen, folder / name, user)
        configuration = folder / "sshd_config"
        configuration.write_text(SERVER_CONFIGURATION.format(folder=folder, server=server))
        shown = own_hosts(folder)
        self.known_name = NAME if shown else "localhost"
        self._log_file = folder / "sshd"
        self._server = Program(
            [sshd, "-D", "-e", "-f", configuration], output=self._log_file, user=user, shown=shown
        )
        self._server.wait_until_listening([server], self._log_file)
        to_server = [*CLIENT_OPTIONS, "-i", str(folder / "user_key"), "-p", str(server.port), "-l", user]
        self._client = Program(
            [ssh, "-F", "none", "-vv", "-N", "-D", str(self.endpoint), *to_server, server.host],
            output=self._output,
            user=user,
        )
        self._client.wait_until_listening([self.endpoint], self._log_file)

    def connects(self) -> list[str]:
        """Each target asked for so far, "host:port" as the client wrote it, also those that were refused."""
        requests = REQUEST.findall(self._output.read_text(errors="replace"))
        return [f"{host}:{port}" for host, port in requests]

    def log(self) -> str:
        return f"{tail(self._log_file)}\n{tail(self._output)}"

    def stop(self) -> None:
        self._client.stop()
        self._server.stop()


def make_key(keygen: Path, path: Path, user: str) -> None:
    command: list[str | Path] = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", path]
    subprocess.run(command, check=True, timeout=10, stdin=subprocess.DEVNULL)
    if os.geteuid() == 0:
        shutil.chown(path, user)
