"""Programs of other people: find them, give them free ports, start them, wait for them, stop them.

It knows nothing of mail. Nothing here looks a process up by name: only what was started here is stopped here.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below the range from which Linux takes the ports of outgoing connections (32768 and up), so that a port
# which was free a moment ago is not taken by some client before the server binds it.
PORT_RANGE = range(20000, 32000)
START_SECONDS = 10.0  # a server needs well under one second; a busy machine may need several
STOP_SECONDS = 5.0
UNPRIVILEGED = "nobody"
# Pairs of own files and their places come first, then "--", then the program and its arguments.
MOUNT = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done; shift; exec "$@"'
WITH_MOUNTS = ("unshare", "--mount", "sh", "-c", MOUNT, "sh")


class MissingServerError(Exception):
    """The server cannot be had on this machine; the text says what would bring it."""

    def __init__(self, server: str, need: str) -> None:
        super().__init__(f"{server} is not here: {need}")
        self.server = server
        self.need = need


class ServerFailedError(Exception):
    """The server is installed but did not come up; the text ends with its log."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service listens."""

    port: int
    host: str = LOOPBACK

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def find_program(server: str, *candidates: str | Path, package: str) -> Path:
    """The first of the candidates (names or absolute paths) that can be executed; else MissingServerError."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    for candidate in candidates:
        found = shutil.which(candidate, path=path)
        if found:
            return Path(found)
    raise MissingServerError(server, f"it needs the Debian package {package}")


def require_root(server: str) -> None:
    if os.geteuid() != 0:
        raise MissingServerError(server, "only root can start it")


def require_user(server: str, *names: str) -> None:
    for name in names:
        try:
            pwd.getpwnam(name)
        except KeyError:
            raise MissingServerError(server, f"it needs the system user {name}") from None


def free_ports(count: int) -> list[Endpoint]:
    """Different loopback ports on which nobody listens now."""
    chosen: list[Endpoint] = []
    for port in random.sample(PORT_RANGE, len(PORT_RANGE)):
        if len(chosen) == count:
            break
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            chosen.append(Endpoint(port))
    return chosen


def free_port() -> Endpoint:
    return free_ports(1)[0]


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.01) -> bool:
    """Ask again and again until the condition holds or the time is over; the last answer is returned."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return condition()
        time.sleep(every)
    return True


def accepts(endpoint: Endpoint) -> bool:
    try:
        with socket.create_connection(endpoint.address, timeout=1.0):
            return True
    except OSError:
        return False


def tail(path: Path, lines: int = 60, *, leave_out: str = "\0") -> str:
    """The last lines of a log file, or a remark that there is none."""
    if not path.exists():
        return f"({path.name} was never written)"
    kept = [line for line in path.read_text(errors="replace").splitlines() if leave_out not in line]
    return "\n".join(kept[-lines:])


def make_folder(path: Path, *, owner: str | None = None, group: str | None = None, mode: int = 0o755) -> Path:
    """A folder with exactly this mode; the owner is changed only where that is possible (as root)."""
    path.mkdir(parents=True, exist_ok=True)
    if owner is not None and os.geteuid() == 0:
        shutil.chown(path, owner, group)
    path.chmod(mode)
    return path


def can_have_own_mounts() -> bool:
    """Whether a program can be shown files of its own in fixed places (a private mount namespace)."""
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True, timeout=5, check=False)
    return trial.returncode == 0


class Program:
    """One server process in the foreground, with its output in a file.

    The kernel ends it when this process dies in whatever way (PR_SET_PDEATHSIG, through setpriv), so that
    an aborted test run leaves nothing behind. A change of user would clear that signal: a server that wants
    to run under another user is therefore started as that user.

    `shown` maps fixed places (which must exist) to own files or folders that the program, and nobody else,
    finds there; it has no effect where `can_have_own_mounts` is False.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        output: Path,
        user: str | None = None,
        shown: Mapping[Path, Path] | None = None,
    ) -> None:
        self.output = output
        prefix: list[str | Path] = []
        if shown and can_have_own_mounts():
            pairs = [part for place, own in shown.items() for part in (own, place)]
            prefix += [*WITH_MOUNTS, *pairs, "--"]
        prefix += ["setpriv", "--pdeathsig", "TERM"]
        if user is not None and os.geteuid() == 0:
            group = str(pwd.getpwnam(user).pw_gid)
            prefix += ["--reuid", user, "--regid", group, "--clear-groups"]
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                [*prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=output.parent,
                start_new_session=True,  # Control-C is for the tests, which then stop the servers
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def open_files(self) -> set[Path]:
        """What the program itself, not its children, has open now."""
        found = set()
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.add(descriptor.readlink())
        return found

    def wait_until_listening(self, endpoints: Sequence[Endpoint], log: Path) -> None:
        """Return when all endpoints accept connections; else ServerFailedError."""
        waiting = list(endpoints)

        def is_settled() -> bool:
            while waiting and accepts(waiting[0]):
                waiting.pop(0)
            return not waiting or not self.is_running

        wait_until(is_settled, START_SECONDS)
        if not waiting:
            return
        what = (
            f"did not listen on {waiting[0]}" if self.is_running else f"ended with {self._process.returncode}"
        )
        self.stop()
        raise ServerFailedError(f"{self._process.args!r} {what}\n{tail(self.output)}\n{tail(log)}")

    def stop(self, *, politely: bool = True) -> None:
        if self.is_running and politely:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                politely = False
        if not politely:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what it left behind in the group that was made for it
