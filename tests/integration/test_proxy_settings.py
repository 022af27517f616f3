"""Each place where a proxy can be named: the command line (also with `ssh -D`), Django, Flask."""

from __future__ import annotations

import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.mail import EmailMessage as DjangoMessage
from flask import Flask

import mailbridge
from mailbridge import Mailer, ProxyFailed, SMTPConfig
from mailbridge.config import proxies
from mailbridge_flask import Mail
from mailbridge_flask import Message as FlaskMessage
from tests.django.conftest import MODES, overridden, settings_for
from tests.integration.conftest import SECONDS
from tests.integration.mails import new_mail
from tests.integration.ways import HTTP_LOGIN
from tests.servers.certificates import Certificates
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.postfix import Postfix
from tests.servers.process import LOOPBACK, free_port
from tests.servers.squid import PASSWORD as PROXY_PASSWORD
from tests.servers.squid import Squid
from tests.servers.ssh import SshTunnel

INBOX = "inbox@lab.test"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def close_pools() -> Iterator[None]:
    yield
    mailbridge.close_all()


def mailbridge_verify(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailbridge", "verify", "--debug", url, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * SECONDS, check=False)


class TestCommandLine:
    def test_through_an_http_proxy_with_credentials(
        self, squid: Squid, postfix: Postfix, certificates: Certificates
    ) -> None:
        server = f"{USERNAME}:{PASSWORD}@{squid.known_name}:{postfix.submission.port}"
        done = mailbridge_verify(
            f"smtp://{server}/?proxy=http://{HTTP_LOGIN}{squid.basic}",
            *("--option", f"tls.ca_file={certificates.ca_file}"),
        )
        assert done.returncode == 0, done
        asked = f"http://{squid.basic} CONNECT {squid.known_name}:{postfix.submission.port}: 200 "
        assert asked in done.stdout
        for secret in (PROXY_PASSWORD, f":{PASSWORD}"):
            assert secret not in done.stdout + done.stderr

    def test_as_documented_through_ssh(
        self, ssh_tunnel: SshTunnel, postfix: Postfix, certificates: Certificates
    ) -> None:
        server = f"{USERNAME}:{PASSWORD}@{ssh_tunnel.known_name}:{postfix.submission.port}"
        done = mailbridge_verify(
            f"smtp://{server}/?proxy=socks5://{ssh_tunnel.endpoint}",
            *("--option", f"tls.ca_file={certificates.ca_file}"),
        )
        assert done.returncode == 0, done
        assert ssh_tunnel.connects()[-1] == f"{ssh_tunnel.known_name}:{postfix.submission.port}"

    def test_the_server_refuses_ssh(self, ssh_tunnel: SshTunnel) -> None:
        done = mailbridge_verify(f"smtp://localhost:{free_port().port}/?proxy=socks5://{ssh_tunnel.endpoint}")
        assert done.returncode == 1
        assert "closed the connection" in done.stdout
        assert "ssh -D" in done.stdout


@pytest.mark.parametrize("mode", MODES)
def test_in_djangos_options(mode: str, squid: Squid, postfix: Postfix, certificates: Certificates) -> None:
    options = {
        "host": squid.known_name,
        "port": postfix.plain.port,
        "security": "starttls",
        "tls": {"ca_file": str(certificates.ca_file)},
        "proxy": f"http://{HTTP_LOGIN}{squid.basic}",
    }
    already = len(postfix.accepted_message_ids())
    with overridden(**settings_for(mode, **options)):
        assert DjangoMessage("x", "hello", "shop@example.com", [INBOX]).send() == 1
    assert len(postfix.accepted_message_ids()) == already + 1
    assert squid.connects()[-1] == f"{squid.known_name}:{postfix.plain.port}"
    options["proxy"] = f"http://{squid.basic}"
    with overridden(**settings_for(mode, **options)), pytest.raises(ProxyFailed, match="407"):
        DjangoMessage("x", "hello", "shop@example.com", [INBOX]).send()


def test_in_flasks_configuration(squid: Squid, postfix: Postfix, certificates: Certificates) -> None:
    app = Flask("testapp")
    app.config.from_mapping(
        MAILBRIDGE_HOST=squid.known_name,
        MAILBRIDGE_PORT=postfix.plain.port,
        MAILBRIDGE_TLS={"ca_file": str(certificates.ca_file)},
        MAILBRIDGE_PROXY={
            "url": f"https://localhost:{squid.https.port}",
            "tls": {"ca_file": str(certificates.ca_file)},
        },
        MAILBRIDGE_DEFAULT_SENDER="shop@example.com",
    )
    mail = Mail(app)
    already = len(postfix.accepted_message_ids())
    with app.app_context():
        mail.send(FlaskMessage("x", recipients=[INBOX], body="hello"))
    assert len(postfix.accepted_message_ids()) == already + 1
    assert squid.connects()[-1] == f"{squid.known_name}:{postfix.plain.port}"


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # either side may hang up: nobody awaits the answer to QUIT
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Gateway(socketserver.StreamRequestHandler):
    """What the example in docs/proxies.md speaks to."""

    def handle(self) -> None:
        word, host, port = self.rfile.readline().split()
        assert word == b"OPEN"
        with socket.create_connection((host.decode(), int(port)), SECONDS) as server:
            self.wfile.write(b"OK\n")
            back = threading.Thread(target=pump, args=(server, self.connection))
            back.start()
            pump(self.connection, server)
            back.join()


def test_the_documented_handler(
    postfix: Postfix, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "_registered", {})
    text = (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8")
    [example] = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "register_proxy" in code
    ]
    assert len(example.partition("def ")[2].splitlines()) <= 15
    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Gateway) as gateway:
        thread = threading.Thread(target=gateway.serve_forever, args=(0.01,))
        thread.start()
        try:
            names: dict[str, SMTPConfig] = {}
            exec(example.replace("gateway.example:7000", f"{LOOPBACK}:{gateway.server_address[1]}"), names)
            trust = mailbridge.TLSOptions(ca_file=str(certificates.ca_file))
            config = replace(names["config"], host="localhost", port=postfix.plain.port, tls=trust)
            mail = new_mail()
            with Mailer(config) as mailer:
                first = mail.send(mailer)
                assert new_mail().send(mailer).connection_id == first.connection_id
                assert "by its handler" in mailer.verify()["proxy"].detail
        finally:
            gateway.shutdown()
            thread.join()
    assert postfix.delivered(mail.message_id) == [mail.content]
