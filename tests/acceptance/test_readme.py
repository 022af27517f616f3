"""The README's examples do what it says: only the server's name is replaced, by one that is there.

Each runs in an interpreter of its own, as a newcomer's would.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import django
import pytest

from mailbridge.testing import ScriptedServer
from tests.servers.certificates import Certificates

pytestmark = pytest.mark.matrix

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
NAME = "smtp.example.com"
# The certificate of the tests is signed by nobody whom the system knows.
TRUST = "SSL_CERT_FILE"
PASSWORD = "SMTP_PASSWORD"


@dataclass(frozen=True, slots=True)
class Run:
    """What an example may use."""

    server: ScriptedServer
    environment: dict[str, str]
    folder: Path

    def __call__(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str) -> str:
        return self(sys.executable, "-W", "error", "-c", textwrap.dedent(code))

    def write(self, name: str, code: str) -> None:
        """A module that can be imported."""
        (self.folder / name).write_text(self.here(code), encoding="utf-8")

    def here(self, text: str) -> str:
        """`text` with the server of this test in the place of the one that it names."""
        place = f"{self.server.host}:{self.server.port}"
        text = text.replace(f"@{NAME}", f"@{place}")
        text = text.replace(f'"{NAME}", 587', f'"{self.server.host}", {self.server.port}')
        text = text.replace(f'"host": "{NAME}"', f'"host": "{self.server.host}", "port": {self.server.port}')
        text = text.replace(f'host="{NAME}"', f'host="{self.server.host}", port={self.server.port}')
        port = f'app.config["MAILBRIDGE_PORT"] = {self.server.port}'
        return text.replace(f'_HOST"] = "{NAME}"', f'_HOST"] = "{self.server.host}"\n{port}')


@pytest.fixture
def run(certificates: Certificates, tmp_path: Path) -> Iterator[Run]:
    path = f"{ROOT}{os.pathsep}{tmp_path}"
    environment = {**os.environ, TRUST: str(certificates.ca_file), "PYTHONPATH": path, PASSWORD: "secret"}
    with ScriptedServer(
        tls="starttls",
        certfile=certificates.good.cert_file,
        keyfile=certificates.good.key_file,
        users={"user": "secret"},
        auth=("PLAIN", "LOGIN"),  # one round trip each, as in the README's numbers
    ) as server:
        yield Run(server, environment, tmp_path)


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def python_of(title: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)


# The ways that this Django knows: what is for 5.2 warns on 6.1.
if django.VERSION >= (6, 1):
    SETTINGS = {"MAILERS": python_of("Django 6.1")[0]}
else:
    one_line, in_one_place = python_of("Django 5.2 and 6.0")
    as_it_was = f"""
EMAIL_HOST, EMAIL_PORT, EMAIL_USE_TLS = "{NAME}", 587, True
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = "user", "secret"
"""
    SETTINGS = {"EMAIL_* and one line": as_it_was + one_line, "MAILBRIDGE": in_one_place}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_django(run: Run, settings: str) -> None:
    run.write("settings.py", settings)
    run.environment["DJANGO_SETTINGS_MODULE"] = "settings"
    run.python("""
        import django
        django.setup()
        from django.core.mail import send_mail
        for subject in ("one", "two"):
            assert send_mail(subject, "text", "a@example.com", ["b@example.org"]) == 1
    """)
    assert [connection.user for connection in run.server.connections] == ["user"]
    assert len(run.server.messages) == 2
    if "INSTALLED_APPS" in settings:
        said = run(sys.executable, "-m", "django", "verify_smtp")
        assert re.search(r"^ +auth +ok ", said, re.MULTILINE)


def test_flask(run: Run) -> None:
    run.write("app.py", python_of("Flask")[0])
    run.python("from app import app; assert app.test_client().post('/order').text == 'ok'")
    [message] = run.server.messages
    assert (message.sender, message.recipients) == ("shop@example.com", ("ann@example.org",))
    said = run(sys.executable, "-m", "flask", "--app", "app", "mail", "verify")
    assert re.search(r"^auth +ok ", said, re.MULTILINE)


def test_plain_python(run: Run) -> None:
    said = run.python(run.here(python_of("Plain Python")[0]))
    assert said.startswith("('ann@example.org',)")
    assert said.split()[-1] == "9"  # round trips, as the table says of the first mail
    [message] = run.server.messages
    assert b"invoice.pdf" in message.content


def test_several_servers_a_rate_and_a_default_sender(run: Run) -> None:
    run.python(f"""{run.here(python_of("More, in a line or two")[0])}
from mailbridge import Mailer, Message

with Mailer(config) as mailer:
    mailer.send(Message("Hello", to="ann@example.org", text="How are you?"))
""")
    [message] = run.server.messages
    assert (message.sender, message.recipients) == ("shop@example.com", ("ann@example.org",))


def test_command_line(run: Run) -> None:
    lines = [line.strip() for line in section("Command line").splitlines() if line.startswith("    ")]
    url = re.fullmatch(r"export MAILBRIDGE_URL='(.*)'", lines[0])
    assert url is not None
    run.environment["MAILBRIDGE_URL"] = run.here(url[1])
    verified, sent = (run(*command(line)) for line in lines[1:])
    assert "all is well" in verified
    assert "for ann@example.org" in sent
    [message] = run.server.messages
    assert b"How are you?" in message.content


def command(line: str) -> list[str]:
    """`mailbridge …` as this interpreter runs it, without a shell."""
    words = [single or word for single, word in re.findall(r"'([^']*)'|(\S+)", line)]
    assert words[0] == "mailbridge"
    return [sys.executable, "-m", *words]


def test_a_private_authority_is_named_by_an_option(run: Run, certificates: Certificates) -> None:
    """As docs/security.md says, and without the environment's help."""
    del run.environment[TRUST]
    url = f"smtp://user:secret@{run.server.host}:{run.server.port}/"
    refused = subprocess.run(
        [sys.executable, "-m", "mailbridge", "verify", url],
        cwd=run.folder,
        env=run.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.returncode == 1
    assert "tls.ca_file" in refused.stdout
    trust = ("--option", f"tls.ca_file={certificates.ca_file}")
    assert "all is well" in run(sys.executable, "-m", "mailbridge", "verify", url, *trust)
