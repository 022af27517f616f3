"""`import mailbridge` costs a web application next to nothing, and brings none of what is optional.

Measured in CPU time of a process of its own, the best of several: another program's load is not ours.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.matrix

MOST_CPU_MILLISECONDS = 60.0
TRIALS = 7
# The modules of the extras (pyproject.toml), and what they would bring along.
OPTIONAL = (
    *("django", "flask", "celery", "werkzeug", "jinja2", "blinker"),
    *("socks", "oauthlib", "scramp", "spnego", "aiosmtpd", "idna", "cryptography"),
)
# What a program does at its start: names and values, no connection.
FIRST_USE = """
from mailbridge import Envelope, Mailer, Message, SMTPConfig, mailer_for
config = SMTPConfig.from_url("smtp://user:secret@mail.example.test/?pool.max_size=3")
mailer = mailer_for(config)
"""


def run(code: str) -> str:
    # -I: neither this folder nor the environment decides what is imported.
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def cpu_milliseconds(code: str) -> float:
    """CPU time of `code` in a fresh process, without the start of Python; the least of several."""
    timed = f"import time\nbefore = time.process_time()\n{code}\nprint((time.process_time() - before) * 1000)"
    return min(float(run(timed)) for _ in range(TRIALS))


def loaded_after(code: str) -> set[str]:
    return set(run(f"import sys\n{code}\nprint(*sorted(sys.modules))").split())


def test_import_is_cheap(capsys: pytest.CaptureFixture[str]) -> None:
    """The first use is told and not asserted: most of it is the standard library's ssl and email."""
    took, first_use = cpu_milliseconds("import mailbridge"), cpu_milliseconds(FIRST_USE)
    with capsys.disabled():
        print(f"\nimport mailbridge: {took:.1f} ms of CPU; with the first mailer: {first_use:.0f} ms")
    assert took < MOST_CPU_MILLISECONDS


@pytest.mark.parametrize("code", ["import mailbridge", FIRST_USE], ids=["import", "first use"])
def test_nothing_optional_is_imported(code: str) -> None:
    modules = loaded_after(code)
    assert "mailbridge" in modules
    # With a password SCRAM may be used, and its library is loaded before threads need it.
    wanted = {"scramp"} if code == FIRST_USE else set()
    assert {name.partition(".")[0] for name in modules}.isdisjoint(set(OPTIONAL) - wanted)


def test_an_import_starts_nothing() -> None:
    code = "import mailbridge, threading, os\n" + FIRST_USE
    told = run(f"{code}\nprint(threading.active_count(), len(os.listdir('/proc/self/fd')))")
    threads, descriptors = map(int, told.split())
    assert threads == 1
    assert descriptors <= 4  # the three that every process has, and the listing's own
