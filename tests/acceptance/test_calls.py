"""The route of one message is short: a warm send makes so many Python calls at most, on every machine.

Whoever goes beyond a limit looks at `python -m benchmarks.calls 100`, which names the functions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The highest of Python 3.11 to 3.13 with Django 5.2 to 6.1, and a little more.
MOST_CALLS = {"mailer": 430, "django": 810}


@pytest.mark.matrix
def test_a_warm_send_makes_few_calls() -> None:
    counted = subprocess.run(
        [sys.executable, "-m", "benchmarks.calls", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    calls = json.loads(counted.stdout)
    assert {name: calls[name] for name in MOST_CALLS if calls[name] > MOST_CALLS[name]} == {}
    assert all(calls[name] > MOST_CALLS[name] / 2 for name in MOST_CALLS)  # they are counted at all
