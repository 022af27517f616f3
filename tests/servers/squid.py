"""Squid as a CONNECT proxy: open, with Basic credentials, and behind TLS. It answers in HTTP/1.1.

It lets nobody through to anything but 127/8.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.names import NAME, write_hosts
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
SHARED_MEMORY = Path("/dev/shm")
# PASSWORD as `openssl passwd -6 -salt lab` writes it.
PASSWORD_HASH = (
    "$6$lab$FrH7heWDVSAKHT0xiWtBJcu1cjtdzUZUo.T9HFChLaP97WcmHr13e.4IBMxYr97KaFlFDKSsjCqPdoB/tgxnG."
)
CONFIGURATION = """\
http_port {open}
http_port {basic}
https_port {https} tls-cert={cert} tls-key={key}
pid_filename none
access_log none
cache_log {folder}/log
# Section 11 at this level: every request as it comes in; the access log waits until a tunnel has ended.
debug_options ALL,1 11,2
coredump_dir {folder}
cache deny all
visible_hostname squid.lab.test
pinger_enable off
shutdown_lifetime 0 seconds
hosts_file {hosts}
# Else as many as the system allows, each with some memory.
max_filedescriptors 1024
auth_param basic program {helper} {folder}/users
auth_param basic children 1 startup=0
acl needs_login localport {basic.port}
acl known proxy_auth REQUIRED
acl here dst 127.0.0.0/8
http_access deny !CONNECT
http_access deny needs_login !known
http_access deny !here
http_access allow all
"""
REQUEST = re.compile(r"HTTP Client REQUEST:\n-+\nCONNECT (\S+) HTTP/1")


class Squid:
    """A running Squid. `known_name` is a host name that it resolves and this machine does not."""

    name = "squid"
    username = USERNAME
    password = PASSWORD
    known_name = NAME
    open: Endpoint
    basic: Endpoint  # 407 without username and password
    https: Endpoint  # TLS from the first byte, with the good certificate; no login

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        program = find_program(self.name, "squid", package="squid")
        helper = find_program(self.name, "/usr/lib/squid/basic_ncsa_auth", package="squid")
        make_folder(folder, owner=UNPRIVILEGED)
        self.open, self.basic, self.https = free_ports(3)
        self._log_file = folder / "log"
        (folder / "users").write_text(f"{USERNAME}:{PASSWORD_HASH}\n")
        configuration = folder / "squid.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                open=self.open,
                basic=self.basic,
                https=self.https,
                cert=certificates.good.cert_file,
                key=certificates.good.key_file,
                hosts=write_hosts(folder),
                helper=helper,
            )
        )
        # Its shared memory is called after the service: two of them must not meet there.
        self._service = f"mailbridge{self.open.port}"
        command: list[str | Path] = [program, "-N", "-n", self._service, "-f", configuration]
        self._program = Program(command, output=folder / "output", user=UNPRIVILEGED)
        self._program.wait_until_listening([self.open, self.basic, self.https], self._log_file)

    def connects(self) -> list[str]:
        """Each target asked for so far, "host:port" as the client wrote it, also those that were refused."""
        return REQUEST.findall(self._log_file.read_text(errors="replace"))

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop(politely=False)  # asked politely it takes two seconds
        for path in SHARED_MEMORY.glob(f"{self._service}-*"):
            path.unlink()
