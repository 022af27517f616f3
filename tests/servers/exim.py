"""Exim: PIPELINING, CHUNKING, PRDR, STARTTLS, CRAM-MD5 also in the clear, 20 recipients, PROXY headers.

Its Debian package cannot be installed beside Postfix. MAILBRIDGE_EXIM may name a folder into which the
package has been unpacked (`dpkg -x`). It runs wholly as its own user, from a copy without the setuid bit.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.names import no_dns
from tests.servers.process import (
    MissingServerError,
    Program,
    find_program,
    free_ports,
    make_folder,
    require_root,
    require_user,
    tail,
    wait_until,
)
from tests.servers.storage import Maildir, StoredMessage

USER = "Debian-exim"  # compiled into Debian's Exim
RECIPIENT_LIMIT = 20
CONFIGURATION = """\
primary_hostname = exim.lab.test
exim_path = {program}
keep_environment =
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/spool/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {plain.port} : {tls.port} : {behind_proxy.port} : {behind_proxy_tls.port}
tls_on_connect_ports = {tls.port} : {behind_proxy_tls.port}
hosts_proxy = ${{if inlist{{$received_port}}{{{behind_proxy.port}:{behind_proxy_tls.port}}}{{*}}{{}}}}
tls_advertise_hosts = *
tls_certificate = {cert}
tls_privatekey = {key}
tls_verify_certificates = {ca}
tls_try_verify_hosts = *
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
prdr_enable = true
acl_smtp_connect = client
acl_smtp_rcpt = recipient
acl_smtp_data_prdr = accept
message_size_limit = 30M
recipients_max = {limit}
host_lookup =
rfc1413_query_timeout = 0s
smtp_receive_timeout = 30s
# Many sessions and many messages in one session are what tests do.
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
deliver_drop_privilege = true
begin acl
client:
  accept logwrite = client [$sender_host_address]:$sender_host_port at $received_port
recipient:
  deny local_parts = gone
       message = 5.1.1 no such user
  defer local_parts = later
       message = 4.2.1 greylisted
  accept
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
  envelope_to_add
  return_path_add
begin retry
* * F,1h,1h
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_advertise_condition = ${{if def:tls_in_cipher}}
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}
ntlm:
  driver = spa
  public_name = NTLM
  server_password = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}
  server_advertise_condition = ${{if def:tls_in_cipher}}
external:
  driver = external
  public_name = EXTERNAL
  server_param2 = ${{certextract{{subject,CN}}{{$tls_in_peercert}}}}
  server_condition = ${{if or{{{{eq{{$auth1}}{{}}}}{{eq{{$auth1}}{{$auth2}}}}}}}}
  server_set_id = $auth2
  server_advertise_condition = ${{if eq{{$tls_in_certificate_verified}}{{1}}}}
"""
ACCEPTED = re.compile(r"^\S+ \S+ (\S+) <= .*? id=(\S+)", re.MULTILINE)
# The client is logged before the greeting.
CLIENT = re.compile(r"client \[(\S+)\]:(\d+) at (\d+)$", re.MULTILINE)
COMPLETED = re.compile(r"^\S+ \S+ (\S+) Completed", re.MULTILINE)


class Exim:
    """A running Exim: `plain` (STARTTLS offered, CRAM-MD5 also without) and `tls` (from the first byte).

    Under TLS it also takes PLAIN, NTLM (not its second version), and EXTERNAL with a client certificate.
    `behind_proxy` and `behind_proxy_tls` are the same, but demand a PROXY header (version 1 or 2) first;
    without, Exim greets and answers 503 to every command.
    gone@ any domain is refused, later@ is deferred.
    """

    name = "exim"

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        require_root(self.name)
        unpacked = Path(os.environ.get("MAILBRIDGE_EXIM", "/"), "usr/sbin/exim4")
        original = find_program(self.name, unpacked, package="exim4-daemon-heavy (see MAILBRIDGE_EXIM)")
        require_user(self.name, USER)
        require_proxy_support(original)
        self.plain, self.tls, self.behind_proxy, self.behind_proxy_tls = free_ports(4)
        for name in ("spool", "log", "mail"):
            make_folder(folder / name, owner=USER, mode=0o700)
        self._log_file = folder / "log" / "mainlog"
        self._maildir = Maildir(folder / "mail")
        program = Path(shutil.copyfile(original, folder / "exim4"))
        program.chmod(0o755)
        configuration = folder / "exim.conf"
        configuration.write_text(
            CONFIGURATION.format(
                program=program,
                folder=folder,
                plain=self.plain,
                tls=self.tls,
                behind_proxy=self.behind_proxy,
                behind_proxy_tls=self.behind_proxy_tls,
                cert=certificates.good.cert_file,
                key=certificates.good.key_file,
                ca=certificates.ca_file,
                limit=RECIPIENT_LIMIT,
                user=USERNAME,
                password=PASSWORD,
            )
        )
        self._program = Program(
            [program, "-C", configuration, "-bdf"],
            output=folder / "output",
            user=USER,
            shown=no_dns(folder),  # else it would ask for the name of every client that a proxy tells of
        )
        self._program.wait_until_listening([self.plain, self.tls], self._log_file)

    def accepted_message_ids(self) -> list[str]:
        """The Message-ID of each accepted message, once per transaction; logged before the final reply."""
        return [f"<{message_id}>" for _, message_id in ACCEPTED.findall(self._read_log())]

    def messages(self) -> list[StoredMessage]:
        """Every stored copy (one per recipient) of what has been accepted so far."""

        def is_delivered() -> bool:
            text = self._read_log()
            return {queue_id for queue_id, _ in ACCEPTED.findall(text)} <= set(COMPLETED.findall(text))

        if not wait_until(is_delivered, 10.0, every=0.05):
            raise AssertionError(f"exim has not delivered everything\n{self.log()}")
        return self._maildir.messages()

    def delivered(self, message_id: str) -> list[bytes]:
        """The content of each stored copy of this message, with CRLF, as the client sent it."""
        return [message.content for message in self.messages() if message.message_id == message_id]

    def clients(self) -> list[tuple[str, int]]:
        """(address, port) of each client that the services behind a proxy have seen, by the PROXY header.

        Complete for all that have got a greeting.
        """
        ports = (self.behind_proxy.port, self.behind_proxy_tls.port)
        found = CLIENT.findall(self._read_log())
        return [(address, int(port)) for address, port, own_port in found if int(own_port) in ports]

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop()

    def _read_log(self) -> str:
        try:
            return self._log_file.read_text(errors="replace")
        except FileNotFoundError:  # it listens before it writes its first line
            return ""


def require_proxy_support(program: Path) -> None:
    """Debian's exim4-daemon-light is built without it."""
    command: list[str | Path] = [program, "-C", "/dev/null", "-bV"]
    about = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    if not re.search(r"^Support for:.* PROXY ", about, re.MULTILINE):
        raise MissingServerError(
            Exim.name, "it needs the Debian package exim4-daemon-heavy, for PROXY headers"
        )
