"""docs/testing.md, followed in an empty folder with the built wheel: a Django project and a Flask app."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs("django"), pytest.mark.needs("flask"), pytest.mark.needs("hatchling")]

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", re.DOTALL)
# Four tests in each; where mailbridge comes from is asked beside them.
FROM = "import mailbridge\n\ndef test_it_is_the_wheel():\n    assert {folder!r} in mailbridge.__file__\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, entry points included."""
    built, installed = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=50)
    (file,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed)]
    subprocess.run([*install, str(file)], check=True, capture_output=True, timeout=50)
    return installed


@pytest.mark.parametrize("framework", ["Django", "Flask"])
def test_the_examples_pass(framework: str, wheel: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {framework}\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    for name, code in BLOCK.findall(section[1]):
        (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "test_origin.py").write_text(FROM.format(folder=str(wheel)))
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTHONPATH"] = str(wheel)
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
