"""Postfix with several services: all extensions, a login through Dovecot, a poor EHLO, small limits.

Mail to lab.test is stored and can be compared byte by byte; mail to any other
domain is accepted and thrown away. What was accepted is read from its log and its queue, never guessed.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.postfix_log import MARK, PostfixLog
from tests.servers.process import (
    UNPRIVILEGED,
    Endpoint,
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

LARGE_LIMIT = 30_000_000  # bytes; a 20 MB attachment is 27 MB in base64
SMALL_LIMIT = 200_000
SMALL_RECIPIENTS = 50
IDLE_SECONDS = 2
# Answers to RCPT that do not depend on the rest of the session; every other address is accepted.
REFUSED = "gone@lab.test"
OVER_QUOTA = "full@lab.test"
GREYLISTED = "later@lab.test"
RECIPIENT_ANSWERS = {
    REFUSED: "550 5.1.1 no such user",
    OVER_QUOTA: "452 4.2.2 over quota",
    GREYLISTED: "450 4.2.1 greylisted",
}
# Whoever sends no PROXY header (version 1 or 2) within this time gets a 421 instead of a greeting. So does
# "PROXY UNKNOWN", which Postfix 3.7 does not know; its counterpart LOCAL in version 2 is welcome.
PROXY_SECONDS = 5
BEHIND_PROXY = (
    f"-o smtpd_upstream_proxy_protocol=haproxy -o smtpd_upstream_proxy_timeout={PROXY_SECONDS}s"
    " -o smtpd_client_port_logging=yes -o smtpd_sasl_auth_enable=yes"
    " -o smtpd_relay_restrictions=permit_mynetworks,permit_sasl_authenticated,reject"
)
SERVICES = {
    "plain": "",
    "submission": "-o smtpd_tls_security_level=encrypt",
    "smtps": "-o smtpd_tls_wrappermode=yes",
    "minimal": "-o smtpd_discard_ehlo_keywords=chunking,pipelining,smtputf8,dsn,8bitmime",
    "small": f"-o message_size_limit={SMALL_LIMIT} -o smtpd_recipient_limit={SMALL_RECIPIENTS}",
    "idle": f"-o smtpd_timeout={IDLE_SECONDS}s",
    "behind_proxy": BEHIND_PROXY,
    "behind_proxy_smtps": f"{BEHIND_PROXY} -o smtpd_tls_wrappermode=yes",
}
NEEDS_LOGIN = (
    " -o smtpd_sasl_auth_enable=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject"
    " -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"
)
MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/lib
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
myhostname = postfix.lab.test
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
# Nothing is added to what the client sent.
local_header_rewrite_clients =
virtual_mailbox_domains = lab.test
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:box/
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
default_transport = discard:
relay_transport = discard:
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:{sasl}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access texthash:{folder}/etc/recipients, permit
message_size_limit = {size}
smtpd_timeout = 60s
smtpd_peername_lookup = no
# Many sessions from one address and many refusals are what tests do.
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
in_flow_delay = 0
# The short ones can come again.
enable_long_queue_ids = yes
"""
MASTER_CF = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
# What `postfix check` would make; it takes two seconds for it.
QUEUE = [
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
    "trace",
]


class Postfix:
    """A running Postfix. `sasl` is where a Dovecot answers authentication requests."""

    name = "postfix"
    plain: Endpoint  # no login; STARTTLS offered; messages to 30 MB
    submission: Endpoint  # like port 587: STARTTLS, then a login, are required
    smtps: Endpoint  # like port 465: TLS from the first byte, login required
    minimal: Endpoint  # EHLO without PIPELINING, CHUNKING, SMTPUTF8, DSN, 8BITMIME
    small: Endpoint  # 200 kB and 50 recipients at most
    idle: Endpoint  # hangs up with 421 after two seconds of silence
    behind_proxy: Endpoint  # demands a PROXY header; then like plain, with a login offered after STARTTLS
    behind_proxy_smtps: Endpoint  # demands a PROXY header; then TLS at once, with a login offered

    def __init__(self, folder: Path, certificates: Certificates, sasl: Endpoint) -> None:
        require_root(self.name)
        self._postlog = find_program(self.name, "postlog", package="postfix")
        master = find_program(self.name, "/usr/lib/postfix/sbin/master", package="postfix")
        require_user(self.name, "postfix")
        self._etc = make_folder(folder / "etc")
        self._log_file = folder / "maillog"
        self._maildir = Maildir(folder / "mail" / "box")
        endpoints = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        for service, endpoint in endpoints.items():
            setattr(self, service, endpoint)
        self._configure(folder, certificates, sasl, endpoints)
        self._log = PostfixLog(self._log_file, folder / "spool", self._write_mark)
        self._program = Program([master, "-c", self._etc, "-s"], output=folder / "output")
        self._program.wait_until_listening(list(endpoints.values()), self._log_file)

    def accepted_message_ids(self) -> list[str]:
        """The Message-ID of every message that was accepted, once per transaction, in order.

        Exact for sessions that are over or whose client has read the final reply.
        """
        return [entry.message_id for entry in self._log.accepted()]

    def messages(self) -> list[StoredMessage]:
        """Every stored copy (one per recipient at lab.test) of what has been accepted so far."""
        self._wait_for_delivery(None)
        return self._maildir.messages()

    def copies(self, message_id: str) -> list[StoredMessage]:
        """The stored copies of this message: one per recipient at lab.test and transaction."""
        self._wait_for_delivery(message_id)
        return self._maildir.with_message_id(message_id)

    def delivered(self, message_id: str) -> list[bytes]:
        """The content of each of `copies(message_id)`, with CRLF, as the client sent it."""
        return [message.content for message in self.copies(message_id)]

    def clients(self) -> list[tuple[str, int]]:
        """(address, port) of each client that the services behind a proxy have seen, by the PROXY header.

        Complete for all that have got a greeting (behind_proxy_smtps: have begun with TLS).
        """
        return self._log.clients("behind_proxy")

    def log(self) -> str:
        return tail(self._log_file, leave_out=MARK)

    def stop(self) -> None:
        self._program.stop()

    def _wait_for_delivery(self, message_id: str | None) -> None:
        accepted = self._log.accepted()
        waiting = {entry.queue_id for entry in accepted if message_id in (None, entry.message_id)}
        if not wait_until(lambda: waiting <= self._log.removed(), 10.0, every=0.02):
            raise AssertionError(f"postfix has not delivered {message_id or 'everything'}\n{self.log()}")

    def _write_mark(self, text: str) -> None:
        subprocess.run([self._postlog, "-c", self._etc, text], check=True, timeout=5)

    def _configure(
        self, folder: Path, certificates: Certificates, sasl: Endpoint, endpoints: dict[str, Endpoint]
    ) -> None:
        make_queue(folder / "spool")
        make_folder(folder / "lib", owner="postfix", mode=0o700)
        make_folder(folder / "mail", owner=UNPRIVILEGED)
        owner = pwd.getpwnam(UNPRIVILEGED)
        (self._etc / "main.cf").write_text(
            MAIN_CF.format(
                folder=folder,
                cert=certificates.good.cert_file,
                key=certificates.good.key_file,
                sasl=sasl,
                size=LARGE_LIMIT,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
            )
        )
        answers = "".join(f"{address} {answer}\n" for address, answer in RECIPIENT_ANSWERS.items())
        (self._etc / "recipients").write_text(answers)
        lines = [f"{endpoints[name]} inet n - n - - smtpd {options(name)}\n" for name in SERVICES]
        (self._etc / "master.cf").write_text("".join(lines) + MASTER_CF)
        for path in self._etc.iterdir():
            os.utime(path, (0, 0))  # each Postfix program waits until its configuration is some seconds old


def options(service: str) -> str:
    needs_login = service in ("submission", "smtps")
    return f"-o syslog_name=postfix/{service} {SERVICES[service]}{NEEDS_LOGIN if needs_login else ''}"


def make_queue(spool: Path) -> None:
    make_folder(spool)
    for name in QUEUE:
        make_folder(spool / name, owner="postfix", mode=0o700)
    make_folder(spool / "maildrop", owner="postfix", group="postdrop", mode=0o1730)
    make_folder(spool / "public", owner="postfix", group="postdrop", mode=0o2710)
    make_folder(spool / "pid")
