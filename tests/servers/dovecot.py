"""Dovecot: a submission service with a login, the judge of logins for Postfix, and a store of mail by LMTP.

What it accepts for submission goes on to an smtp-sink, where it can be compared; its own answer waits for the
sink's. What comes by LMTP is put into a maildir for each user.
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.introspection import Introspection
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
)
from tests.servers.sink import SmtpSink
from tests.servers.storage import Maildir, StoredMessage

USERNAME = "lab"
PASSWORD = "s3cret"
# Besides the one who can log in, who gets mail by LMTP. BROKEN is accepted at RCPT, but can't be stored for.
MAILBOXES = ("alice", "bob", "carol")
BROKEN = "broken"
CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = submission lmtp
listen = 127.0.0.1
ssl = required
ssl_cert = <{cert}
ssl_key = <{key}
ssl_min_protocol = TLSv1.2
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 oauthbearer xoauth2
# A refused login shall not cost the test two seconds, nor the next one from this address some more.
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
hostname = dovecot.lab.test
default_login_user = dovenull
default_internal_user = dovecot
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {folder}/oauth2.conf
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid={user} gid=nogroup home={folder}/mail/%u
}}
submission_relay_host = {sink.host}
submission_relay_port = {sink.port}
submission_relay_trusted = yes
submission_max_mail_size = 30M
service submission-login {{
  inet_listener submission {{
    port = {submission.port}
  }}
  inet_listener submissions {{
    port = {submissions.port}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp.port}
  }}
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
}}
protocol lmtp {{
  # A user has no domain, but an address in an envelope has one.
  auth_username_format = %Ln
}}
service auth {{
  inet_listener {{
    port = {sasl.port}
  }}
}}
"""
# Which token is whose is asked over HTTP (RFC 7662).
OAUTH2 = """\
introspection_mode = post
introspection_url = {introspection_url}
active_attribute = active
active_value = true
username_attribute = username
client_id = dovecot
client_secret = lab
tls_ca_cert_file = {ca_file}
"""


class Dovecot:
    """A running Dovecot: `submission` (STARTTLS), `submissions` (TLS at once), `sasl` (for Postfix), `lmtp`.

    `lmtp_socket` is the path of a UNIX socket for LMTP too; mail goes to MAILBOXES at any domain.

    Both services want a login as USERNAME with PASSWORD, or with an access token that `introspection` knows:
    `good-NAME` is NAME's, and others can be made known. Dovecot takes loopback for as good as TLS: it offers
    the login in the clear too, where a server elsewhere would not. `introspection_url`: another's to ask
    about tokens.
    """

    name = "dovecot"

    def __init__(self, folder: Path, certificates: Certificates, *, introspection_url: str = "") -> None:
        require_root(self.name)
        program = find_program(self.name, "dovecot", package="dovecot-core")
        find_program(self.name, "/usr/lib/dovecot/submission", package="dovecot-submissiond")
        find_program(self.name, "/usr/lib/dovecot/lmtp", package="dovecot-lmtpd")
        require_user(self.name, "dovecot", "dovenull")
        self._log_file = folder / "log"
        self.submission, self.submissions, self.sasl, self.lmtp = free_ports(4)
        self.lmtp_socket = folder / "lmtp"
        make_folder(folder)
        make_folder(folder / "mail", owner=UNPRIVILEGED)
        (folder / "mail" / BROKEN).write_text("This is no folder")
        names = (USERNAME, *MAILBOXES, BROKEN)
        (folder / "users").write_text("".join(f"{name}:{{PLAIN}}{PASSWORD}\n" for name in names))
        self._maildirs = {name: Maildir(folder / "mail" / name) for name in MAILBOXES}
        self.introspection = Introspection()
        asked = introspection_url or self.introspection.url
        (folder / "oauth2.conf").write_text(
            OAUTH2.format(introspection_url=asked, ca_file=certificates.ca_file)
        )
        self._sink = SmtpSink(folder / "sink")
        (folder / "dovecot.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                user=UNPRIVILEGED,
                cert=certificates.good.cert_file,
                key=certificates.good.key_file,
                sink=self._sink.endpoint,
                submission=self.submission,
                submissions=self.submissions,
                sasl=self.sasl,
                lmtp=self.lmtp,
            )
        )
        self._program = Program([program, "-F", "-c", folder / "dovecot.conf"], output=folder / "output")
        endpoints: list[Endpoint] = [self.submission, self.submissions, self.sasl, self.lmtp]
        self._program.wait_until_listening(endpoints, self._log_file)

    def messages(self) -> list[StoredMessage]:
        """What has been passed on so far."""
        return self._sink.messages()

    def mailbox(self, name: str) -> list[StoredMessage]:
        """All that lies in the mailbox of one of MAILBOXES."""
        return self._maildirs[name].messages()

    def stored(self, name: str, message_id: str) -> list[bytes]:
        """The copies of this message that lie in the mailbox of one of MAILBOXES, as they were sent."""
        return [message.content for message in self._maildirs[name].with_message_id(message_id)]

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop()
        self._sink.stop()
        self.introspection.stop()
