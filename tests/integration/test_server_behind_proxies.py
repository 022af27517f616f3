"""MailServer behind HAProxy and nginx, configured as docs/receiving.md says: it sees the real client.

From our own client and from swaks. Clients come from loopback addresses of their own, so that they
can't be taken for the proxy.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mailbridge import Envelope, MailbridgeError
from mailbridge.server import Session
from tests.integration.conftest import SECONDS, StartMailer
from tests.receiving import Mailroom
from tests.servers.certificates import Certificates
from tests.servers.fixtures import ask_for
from tests.servers.lab import Lab
from tests.servers.nginx import MODULE
from tests.servers.process import (
    UNPRIVILEGED,
    Endpoint,
    MissingServerError,
    Program,
    find_program,
    free_ports,
    make_folder,
    wait_until,
)

pytestmark = pytest.mark.needs("aiosmtpd")

TEXT = (Path(__file__).parent.parent.parent / "docs" / "receiving.md").read_text(encoding="utf-8")
CLIENT = "127.0.0.41"
SERVER = "10.0.0.5:2525"  # in the documentation
CERTIFICATE = "/etc/haproxy/mail.pem"
StartRoom = Callable[..., Mailroom]
StartProxy = Callable[..., tuple[Endpoint, Endpoint]]


def documented(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return text


def replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        assert old in text, f"docs/receiving.md no longer has {old!r}"
        text = text.replace(old, new)
    return text


@pytest.fixture
def room(certificates: Certificates) -> Iterator[StartRoom]:
    """room(**options): a server that believes 127.0.0.1, and offers STARTTLS."""
    tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
    with ExitStack() as stack:

        def start(**options: Any) -> Mailroom:
            given = {"use_proxy": ["127.0.0.1"], "tls": tls, "name": "mail.lab.test"} | options
            mailroom = Mailroom(**given)
            stack.enter_context(mailroom.server)
            return mailroom

        yield start


@pytest.fixture
def proxy(lab: Lab, certificates: Certificates) -> Iterator[StartProxy]:
    """proxy(kind, room, options_of_haproxy) gives where it listens in clear text and for TLS."""
    with ExitStack() as stack:

        def start(kind: str, room: Mailroom, **changes: str) -> tuple[Endpoint, Endpoint]:
            folder = make_folder(lab.folder / f"receiving-{kind}-{room.port}", owner=UNPRIVILEGED)
            run = {"haproxy": run_haproxy, "nginx": run_nginx}[kind]
            program, ends = ask_for(lambda: run(folder, room, certificates, changes))
            stack.callback(program.stop)
            return ends

        yield start


def run_haproxy(
    folder: Path, room: Mailroom, certificates: Certificates, changes: dict[str, str]
) -> tuple[Program, tuple[Endpoint, Endpoint]]:
    binary = find_program("haproxy", "haproxy", package="haproxy")
    clear, encrypted = free_ports(2)
    text = replaced(
        documented("haproxy"),
        {
            "bind :25\n": f"bind {clear}\n",
            "bind :465 ": f"bind {encrypted} ",
            SERVER: f"127.0.0.1:{room.port}",
            CERTIFICATE: str(certificates.good.combined),
            **changes,
        },
    )
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "global\n  log stdout format raw local0\n"
        + text.replace("mode tcp", "mode tcp\n  log global\n  option log-health-checks")
    )
    program = Program([binary, "-db", "-f", configuration], output=folder / "output", user=UNPRIVILEGED)
    program.wait_until_listening([clear, encrypted], folder / "output")
    return program, (clear, encrypted)


def run_nginx(
    folder: Path, room: Mailroom, certificates: Certificates, changes: dict[str, str]
) -> tuple[Program, tuple[Endpoint, Endpoint]]:
    binary = find_program("nginx", "nginx", package="nginx-light")
    if not Path(MODULE).exists():
        raise MissingServerError("nginx", "it needs the Debian package libnginx-mod-stream")
    (clear,) = free_ports(1)
    text = replaced(
        documented("nginx"), {"listen 25;": f"listen {clear};", SERVER: f"127.0.0.1:{room.port}", **changes}
    )
    log = folder / "log"
    (folder / "nginx.conf").write_text(
        f"load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {log} info;\n"
        f"events {{ worker_connections 64; }}\n{text}"
    )
    command: list[str | Path] = [binary, "-e", log, "-c", folder / "nginx.conf"]
    program = Program(command, output=folder / "output", user=UNPRIVILEGED)
    program.wait_until_listening([clear], log)
    return program, (clear, clear)


@pytest.fixture
def send(
    request: pytest.FixtureRequest, mailer: StartMailer, certificates: Certificates
) -> Callable[..., None]:
    """send(place, security): one mail by the client of this test, from CLIENT."""
    return with_swaks if request.param == "swaks" else lambda *given: with_mailbridge(mailer, *given)


def with_mailbridge(mailer: StartMailer, place: Endpoint, security: str) -> None:
    envelope = Envelope("a@b.example", ["c@d.example"])
    client = mailer(place, security=security, source_address=CLIENT)
    client.send(b"Subject: x\r\n\r\n.dot\r\n", envelope=envelope)


def with_swaks(place: Endpoint, security: str) -> None:
    swaks = ask_for(lambda: find_program("swaks", "swaks", package="swaks"))
    command: list[str | Path] = [swaks, "--server", place.host, "--port", str(place.port)]
    command += [
        "--local-interface",
        CLIENT,
        "--from",
        "a@b.example",
        "--to",
        "c@d.example",
        "--timeout",
        "10",
    ]
    command += ["--helo", "client.test", "--data", "Subject: x\\n\\n.dot\\n", "--hide-all"]
    command += {"none": [], "starttls": ["--tls"], "tls": ["--tls-on-connect"]}[security]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


BOTH_CLIENTS = pytest.mark.parametrize("send", ["mailbridge", "swaks"], indirect=True)


def only_session(room: Mailroom) -> Session:
    """Of the one mail: whose it was."""
    assert wait_until(lambda: bool(room.mails), SECONDS)
    ((session, envelope, content),) = room.mails
    assert envelope.recipients == ("c@d.example",)
    assert b"\r\n.dot\r\n" in content
    assert (session.remote_address, session.proxy_address) == (CLIENT, "127.0.0.1")
    assert session.remote_port > 0
    assert {record.remote_address for record in room.records.of("message")} == {CLIENT}
    return session


@BOTH_CLIENTS
@pytest.mark.parametrize("security", ["none", "starttls"])
@pytest.mark.parametrize("version", [1, 2])
def test_haproxy(
    room: StartRoom, proxy: StartProxy, send: Callable[..., None], version: int, security: str
) -> None:
    changes = {"send-proxy-v2 check check-send-proxy": "send-proxy"} if version == 1 else {}
    mailroom = room(ignored_hosts=["127.0.0.1"])
    send(proxy("haproxy", mailroom, **changes)[0], security)
    session = only_session(mailroom)
    assert (session.tls is not None) == (security == "starttls")
    assert mailroom.records.of("proxy")[0].proxy_version == version


@BOTH_CLIENTS
def test_haproxy_that_ends_tls(room: StartRoom, proxy: StartProxy, send: Callable[..., None]) -> None:
    mailroom = room(ignored_hosts=["127.0.0.1"])
    send(proxy("haproxy", mailroom)[1], "tls")
    session = only_session(mailroom)
    vectors = session.proxy_tlvs.ssl
    assert session.tls is None
    assert vectors is not None
    assert vectors.is_encrypted
    assert vectors.version is not None
    assert vectors.version.startswith("TLSv1.")


@BOTH_CLIENTS
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_haproxy_in_front_of_tls_from_the_first_byte(
    room: StartRoom, proxy: StartProxy, send: Callable[..., None], version: str
) -> None:
    changes = {"send-proxy-v2 check check-send-proxy": version}
    mailroom = room(implicit_tls=True)
    send(proxy("haproxy", mailroom, **changes)[0], "tls")
    assert only_session(mailroom).tls is not None


@BOTH_CLIENTS
@pytest.mark.parametrize("security", ["none", "starttls"])
def test_nginx(room: StartRoom, proxy: StartProxy, send: Callable[..., None], security: str) -> None:
    mailroom = room()
    send(proxy("nginx", mailroom)[0], security)
    assert (only_session(mailroom).tls is not None) == (security == "starttls")


@BOTH_CLIENTS
def test_nginx_in_front_of_tls_from_the_first_byte(
    room: StartRoom, proxy: StartProxy, send: Callable[..., None]
) -> None:
    mailroom = room(implicit_tls=True)
    send(proxy("nginx", mailroom)[0], "tls")
    assert only_session(mailroom).tls is not None


def test_health_checks_are_answered_and_leave_no_trace(room: StartRoom, proxy: StartProxy, lab: Lab) -> None:
    mailroom = room(ignored_hosts=["127.0.0.1"])
    proxy("haproxy", mailroom, **{"check check-send-proxy": "check check-send-proxy inter 100ms"})
    output = lab.folder / f"receiving-haproxy-{mailroom.port}" / "output"
    assert wait_until(lambda: "Layer7 check passed" in output.read_text(), SECONDS), output.read_text()
    assert (mailroom.sessions, mailroom.records.all) == ([], [])


def test_a_proxy_that_is_not_listed_is_not_believed(
    room: StartRoom, proxy: StartProxy, mailer: StartMailer
) -> None:
    mailroom = room(use_proxy=["10.0.0.1"], ignored_hosts=[])
    place, _ = proxy("haproxy", mailroom, **{"send-proxy-v2 check check-send-proxy": "send-proxy-v2"})
    with pytest.raises(MailbridgeError):
        with_mailbridge(mailer, place, "none")
    assert {session.remote_address for session in mailroom.sessions} == {"127.0.0.1"}
    assert mailroom.mails == []
