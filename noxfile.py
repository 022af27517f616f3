"""The environments of the test suite: which Python and framework versions run what.

`make test` runs all of them and ends with tests/summary.py. It installs no Python: a version that cannot be
found here is left out, and the summary says so.

    .venv/bin/python -m nox -l                       which sessions there are
    .venv/bin/python -m nox -s units -- -k pool      hand arguments to pytest
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"

HERE = Path(__file__).parent
REPORTS = HERE / ".nox" / "reports"
BASE_PYTHON = "{}.{}".format(*sys.version_info)
# Each supported Django release series, with the Python that its environment takes.
SUPPORTED = (("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1"))
# `units` has hypothesis think as long as it likes; other environments look for differences between versions.
BRIEF = {"MAILBRIDGE_HYPOTHESIS": "brief"}
# Run outside the project, so that only the wheel can answer.
WHEEL_CHECK = """
import mailbridge
from importlib.util import find_spec
from pathlib import Path
print("imported", mailbridge.__file__)
for name in ("mailbridge", "mailbridge_django", "mailbridge_flask"):
    assert (Path(find_spec(name).origin).parent / "py.typed").exists(), f"the wheel lacks {name}/py.typed"
"""


def interpreter(version: str) -> str | None:
    """The path of a Python of this version that really starts: a pyenv shim on PATH may refuse to."""
    pyenv = shutil.which("pyenv")
    root = Path(output_of(pyenv, "root") if pyenv else Path.home() / ".pyenv")
    on_path = shutil.which(f"python{version}")
    candidates = [sys.executable, on_path, *root.glob(f"versions/{version}.*/bin/python")]
    # ensurepip is a package of its own on Debian; without it no environment can be made.
    question = "import ensurepip, sys; print('{}.{}'.format(*sys.version_info))"
    found = (str(path) for path in candidates if path and output_of(path, "-c", question) == version)
    return next(found, None)


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()


# The unit tests run as a whole on the Python of `make` (`units`) and on this one (`core`).
NEWEST = next(filter(None, (interpreter(python) for python, _ in reversed(SUPPORTED))), sys.executable)


def install_once(session: nox.Session, *arguments: str) -> None:
    """Install, unless this environment was filled from the same pyproject.toml and arguments before."""
    wanted = hashlib.sha256((HERE / "pyproject.toml").read_bytes() + repr(arguments).encode()).hexdigest()
    stamp = Path(session.virtualenv.location) / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        session.install("--quiet", "--disable-pip-version-check", *arguments)
        stamp.write_text(wanted)


def run_pytest(
    session: nox.Session,
    *arguments: str,
    python: str = "python",
    report: str = "",
    env: dict[str, str] | None = None,
) -> None:
    REPORTS.mkdir(parents=True, exist_ok=True)
    xml = REPORTS / f"{report or session.name}.xml"
    session.run(python, "-m", "pytest", "-q", f"--junit-xml={xml}", *arguments, *session.posargs, env=env)


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Style, format and types."""
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        session.run(sys.executable, "-m", *command)


@nox.session(python=False)
def units(session: nox.Session) -> None:
    """Units and frameworks, in the environment that make has built (Django 5.2)."""
    run_pytest(session, "tests/unit", "tests/django", "tests/flask", python=sys.executable)


@nox.session(python=False)
def integration(session: nox.Session) -> None:
    """Real servers: Postfix, Dovecot, Exim, OpenSMTPD, proxies, Redis."""
    run_pytest(session, "tests/integration", "-m", "not campaign", python=sys.executable)


@nox.session(python=False)
def campaigns(session: nox.Session) -> None:
    """Whole tables of faults and attacks: many cases, which wait more than they work."""
    run_pytest(session, "tests/acceptance", "tests/integration", "-m", "campaign", python=sys.executable)


@nox.session(python=False)
def acceptance(session: nox.Session) -> None:
    """What else the whole promises: forks, secrets, memory, rates, pages."""
    run_pytest(session, "tests/acceptance", "-m", "not campaign", python=sys.executable)


@nox.session(python=False)
def tools(session: nox.Session) -> None:
    """The test bed itself: its servers, its proxies, what a missing one means."""
    run_pytest(session, "tests/tools", python=sys.executable)


@nox.session(python=NEWEST)
def core(session: nox.Session) -> None:
    """No extra, the newest Python: the built wheel imports elsewhere, the unit tests pass."""
    install_once(session, "h11>=0.16", "pytest", "pytest-timeout", "hypothesis", "cryptography")
    wheels = Path(session.create_tmp())
    build = (sys.executable, "-m", "hatchling", "build", "--clean", "-t", "wheel", "-d", str(wheels))
    session.run(*build, external=True, silent=True)
    wheel = str(next(wheels.glob("*.whl")))
    session.install("--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall", wheel)
    with session.chdir(wheels):
        session.run("python", "-I", "-W", "error", "-c", WHEEL_CHECK)
        session.run("mailbridge", "--help", silent=True)
    run_pytest(session, "tests/unit", env=BRIEF)


def framework_versions(python: str, django: str) -> None:
    """Add the session that runs on this Python with this Django what depends on either."""
    path = interpreter(python)

    def run(session: nox.Session) -> None:
        if path is None:
            session.skip(f"no Python {python} that can make environments")
        extras = "test,django,flask,idna,server,socks,oauth2-jwt,scram,gssapi,dkim,redis"
        install_once(session, "-e", f".[{extras}]", f"Django~={django}.0")
        run_pytest(session, "tests/django", "tests/flask", env=BRIEF)
        promises = ("tests/acceptance", "-m", "matrix")
        run_pytest(session, *promises, report=f"{session.name}-acceptance", env=BRIEF)
        if path == NEWEST:  # `core` left out what needs an extra
            run_pytest(session, "tests/unit", "-m", "needs", report=f"{session.name}-extras", env=BRIEF)
        elif python == SUPPORTED[0][0]:
            run_pytest(session, "tests/unit", report=f"{session.name}-unit", env=BRIEF)

    run.__doc__ = f"Python {python} with Django {django}: the adapters, and promises that depend on either."
    nox.session(run, name=f"py{python}-django{django}", python=path or False, tags=["versions"])


for row in SUPPORTED:
    if row != (BASE_PYTHON, "5.2"):
        framework_versions(*row)
