"""OpenSMTPD: a server without PIPELINING and CHUNKING, in the clear.

Its Debian package cannot be installed beside Postfix. MAILBRIDGE_OPENSMTPD may name a folder into which the
package has been unpacked (`dpkg -x`). Its queue and its control socket have fixed places: where the kernel
allows it, the server sees folders of its own there (a private mount namespace), so that nothing else is
touched.

It adds a Date field where there is none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.servers.names import no_dns
from tests.servers.process import (
    Program,
    find_program,
    free_ports,
    make_folder,
    require_root,
    require_user,
    tail,
)
from tests.servers.sink import SmtpSink
from tests.servers.storage import StoredMessage

USERS = ("opensmtpd", "opensmtpq")  # compiled in
SPOOL = Path("/var/spool/smtpd")
CHROOT = Path("/var/lib/opensmtpd/empty")
CONTROL = Path("/run")
CONFIGURATION = """\
smtp max-message-size "30M"
listen on 127.0.0.1 port {plain.port} hostname opensmtpd.lab.test
listen on 127.0.0.1 port {behind_proxy.port} hostname opensmtpd.lab.test proxy-v2
action "sink" relay host smtp://{sink}
match from any for any action "sink"
"""
CLIENT = re.compile(r" smtp connected address=(\S+)")


class OpenSmtpd:
    """A running OpenSMTPD: `plain`. What it accepts goes on, a moment later, to an smtp-sink.

    `behind_proxy` demands a PROXY header of version 2 first. No TLS and so no login: where Debian 12 runs it
    with OpenSSL 3, it fails in the handshake ("EVP lib").
    """

    name = "opensmtpd"

    def __init__(self, folder: Path) -> None:
        require_root(self.name)
        unpacked = Path(os.environ.get("MAILBRIDGE_OPENSMTPD", "/"), "usr/sbin/smtpd")
        program = find_program(self.name, unpacked, package="opensmtpd (see MAILBRIDGE_OPENSMTPD)")
        require_user(self.name, *USERS)
        self.plain, self.behind_proxy = endpoints = free_ports(2)
        self._sink = SmtpSink(folder / "sink")
        self._log_file = folder / "log"
        configuration = folder / "smtpd.conf"
        configuration.write_text(
            CONFIGURATION.format(plain=self.plain, behind_proxy=self.behind_proxy, sink=self._sink.endpoint)
        )
        make_folder(SPOOL, mode=0o711)
        make_folder(CHROOT)
        own_spool = make_folder(folder / "spool", mode=0o711)
        own_run = make_folder(folder / "run")
        self._program = Program(
            [program, "-d", "-f", configuration],
            output=self._log_file,
            shown={SPOOL: own_spool, CONTROL: own_run, **no_dns(folder)},
        )
        self._program.wait_until_listening(endpoints, self._log_file)

    def messages(self, *, at_least: int = 0) -> list[StoredMessage]:
        """What has been passed on so far, one per transaction; waits until there are `at_least` so many."""
        return self._sink.messages(at_least=at_least, seconds=10.0)

    def clients(self) -> list[str]:
        """The address of each client that has got a greeting, behind a proxy by the PROXY header."""
        return CLIENT.findall(self._log_file.read_text(errors="replace"))

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop()
        self._sink.stop()
