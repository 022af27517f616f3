"""Small programs run in processes of their own, against a scripted server of the test, and its verdict.

Everything is bounded in time: a program ends itself by an alarm (see `inside`), and whatever it leaves
behind in its process group is ended here.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailbridge.testing import ScriptedServer
from tests.acceptance.sending import number_of
from tests.servers.certificates import Certificates

ROOT = Path(__file__).parents[2]
SECONDS = 30.0  # above the alarm of the programs themselves, which tells more

# Python 3.12 warns of every fork beside a thread; a program whose point is such a fork is run with this.
THREADS_AND_FORK = ("-W", "ignore:This process:DeprecationWarning")

CHANNELS = ("clear", "tls1.2", "tls1.3")
_VERSIONS = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}


def server_over(channel: str, certificates: Certificates, **options: Any) -> ScriptedServer:
    """A server in clear text, or with one version of TLS: 1.2 from the start, 1.3 after STARTTLS."""
    if channel == "clear":
        return ScriptedServer(**options)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.good.combined)
    context.minimum_version = context.maximum_version = _VERSIONS[channel]
    mode = "implicit" if channel == "tls1.2" else "starttls"
    return ScriptedServer(tls=mode, ssl_context=context, **options)


def options_for(
    server: ScriptedServer, certificates: Certificates | None = None, **options: Any
) -> dict[str, Any]:
    """What a client of this server needs; with `certificates` it finds out whether there is TLS."""
    security = {None: "none", "implicit": "tls", "starttls": "starttls"}[server._behaviour.tls]
    defaults: dict[str, Any] = {"host": server.host, "port": server.port, "security": security}
    if certificates is not None:
        defaults["tls"] = {"ca_file": str(certificates.ca_file)}
    return defaults | options


def environment(options: Mapping[str, Any], **more: str) -> dict[str, str]:
    """The environment of a program that sends with these options."""
    return os.environ | {"MAIL_OPTIONS": json.dumps(options), "PYTHONPATH": str(ROOT)} | more


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended. `exit_seconds`: from its last line (`leaving()`) to its end."""

    stdout: str
    stderr: str
    ended_at: float  # time.monotonic(), one clock for all processes of a machine

    @property
    def exit_seconds(self) -> float:
        return self.ended_at - float(self.stdout.split()[-1])


def run(
    program: str,
    options: Mapping[str, Any],
    *arguments: str,
    before: str = "",
    flags: tuple[str, ...] = (),
    status: int = 0,
    is_quiet: bool = True,
) -> Ended:
    """Runs a program to its end, in Python's development mode with warnings as errors.

    `before` runs before mailbridge is imported. `is_quiet`: it must have nothing to say on stderr,
    where Python also puts what goes wrong in finalizers: an unclosed socket, say.
    """
    text = "\n".join([before, "from tests.acceptance.inside import *", textwrap.dedent(program)])
    command = [sys.executable, "-X", "dev", "-W", "error", *flags, "-c", text, *arguments]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
            ended_at = time.monotonic()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status, f"ended with {process.returncode}\n{stdout}{stderr}"
    assert not (is_quiet and stderr), stderr
    return Ended(stdout=stdout, stderr=stderr, ended_at=ended_at)


# The server's verdict


def messages_by_connection(server: ScriptedServer) -> dict[int, list[int]]:
    """The numbers of the messages that were committed, by the number of their connection."""
    found: dict[int, list[int]] = {one.number: [] for one in server.connections}
    for received in server.messages:
        found[received.connection].append(number_of(received.content))
    return found


def goodbyes(server: ScriptedServer) -> list[int]:
    """How often each connection said QUIT, once all of them have ended; in order."""
    server.wait_for(lambda: all(one.is_closed for one in server.connections))
    return [one.verbs.count("QUIT") for one in server.connections]


def disturbances(server: ScriptedServer) -> list[str]:
    """What else happened on the connections than SMTP: alerts and garbage under TLS, resets."""
    found = [f"connection {one.number}: {one.tls_error}" for one in server.connections if one.tls_error]
    return found + [
        f"connection {one.number}: reset" for one in server.connections if one.closed_by == "client reset"
    ]
