"""How the fixtures behave when a server is missing, when a test fails, and when the tests are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers.fixtures import ask_for
from tests.servers.process import Endpoint, accepts, find_program, wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 20.0


def run_pytest(folder: Path, code: str, **environment: str) -> str:
    (folder / "test_inner.py").write_text(code)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.servers.fixtures",
            "-p",
            "no:cacheprovider",
            "-rs",
            ".",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout


def require_smtp_sink() -> None:
    ask_for(lambda: find_program("smtp_sink", "smtp-sink", package="postfix"))


USES_EXIM = "def test_it(exim): pass"


def test_missing_server_skips_on_a_laptop_and_is_named(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, USES_EXIM, MAILBRIDGE_EXIM=str(tmp_path), CI="")
    assert "1 skipped" in output
    assert "LEFT OUT: every test with exim (exim is not here:" in output


def test_missing_server_fails_in_ci(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, USES_EXIM, MAILBRIDGE_EXIM=str(tmp_path), CI="true")
    assert "1 error" in output
    assert "exim is not here:" in output


def test_failed_test_shows_the_log_of_its_server(tmp_path: Path) -> None:
    code = """
import smtplib
def test_it(smtp_sink):
    with smtplib.SMTP("127.0.0.1", smtp_sink().port) as client:
        client.ehlo("marker.of.this.test")
    assert False
"""
    require_smtp_sink()
    output = run_pytest(tmp_path, code)
    assert "1 failed" in output
    _, _, log = output.partition("log of smtp_sink")
    assert "marker.of.this.test" in log


def test_servers_end_with_a_process_that_is_killed() -> None:
    require_smtp_sink()
    code = """
from tests.servers.lab import Lab
lab = Lab()
print(lab.smtp_sink().port, lab.folder, flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        port, folder = child.stdout.readline().split()
        sink = Endpoint(int(port))
        is_started = accepts(sink)
        child.send_signal(signal.SIGKILL)
    shutil.rmtree(folder)
    assert is_started
    assert wait_until(lambda: not accepts(sink), SECONDS)
