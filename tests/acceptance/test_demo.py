"""`make demo`, as a newcomer runs it: what it prints is what happened, and it says so if mail is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# The demo with a server that refuses one of the recipients; its own text is not touched.
REFUSED = """
import sys
from functools import partial
sys.path.insert(0, {root!r})
from mailbridge.server import Reject
from testproject import demo, demo_server

def refuse(session, recipient):
    if recipient == "ann@example.org":
        raise Reject(550, "5.1.1 no such user")

demo_server.InboxServer = partial(demo_server.InboxServer, on_rcpt_to=refuse)
sys.exit(demo.main())
"""


def run(command: list[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=scratch,  # from anywhere, not only from the project's folder
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=40,
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    scratch = tmp_path_factory.mktemp("demo")
    done = run([str(ROOT / "testproject" / "demo.py")], scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert list(scratch.iterdir()) == []  # it has cleaned up
    return done.stdout


def test_every_mail_arrives(output: str) -> None:
    assert output.splitlines()[-1] == "16 of 16 mails arrived as they should."
    for subject in (
        "[Contact] Brötchen & Café",
        "Reset your password for the Corner Shop",
        "[Contact] Recipe",
    ):
        assert subject in output


def test_verify_goes_through_every_stage(output: str) -> None:
    passed = re.findall(r"^  (\w+) +ok ", output, re.MULTILINE)
    assert passed == ["config", "tcp", "greeting", "tls", "ehlo", "auth", "quit"]
    assert "PLAIN accepted" in output


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        # TCP, greeting, EHLO, STARTTLS, handshake, EHLO, AUTH, MAIL, RCPT, DATA, content, QUIT: twelve each
        ("Django's own backend", ["6", "6", "72", "12.0"]),
        # the same up to AUTH, then two for each mail
        ("mailbridge, Django site", ["6", "1", "19", "3.2"]),
        ("mailbridge, Flask app", ["4", "0", "8", "2.0"]),
    ],
)
def test_the_comparison_is_what_passed_on_the_wire(output: str, name: str, numbers: list[str]) -> None:
    [row] = re.findall(rf"^ +{re.escape(name)} +(.+)$", output, re.MULTILINE)
    assert row.split()[:4] == numbers


def test_django_and_flask_share_one_connection(output: str) -> None:
    assert re.search(r"^ +1  connections opened$", output, re.MULTILINE)
    assert re.search(r"^ +9  times a mail went over one that was there already$", output, re.MULTILINE)


def test_missing_mail_is_told(tmp_path: Path) -> None:
    done = run(["-c", REFUSED.format(root=str(ROOT))], tmp_path)
    assert done.returncode == 1
    assert "14 of 16 mails arrived" in done.stdout
    subject = "'Reset your password for the Corner Shop' to ann@example.org"
    assert f"missing (mailbridge, Django site): {subject}" in done.stdout
