"""The server that all clients send to: Postfix where it can be started, else the scripted one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailbridge.testing import ScriptedServer
from tests.servers.certificates import make_certificates
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.lab import Lab
from tests.servers.process import MissingServerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server that wants STARTTLS and a login."""

    name: str
    address: tuple[str, int]
    ca_file: Path
    username: str = USERNAME
    password: str = PASSWORD


@contextmanager
def running_server() -> Iterator[Target]:
    with closing(Lab()) as lab:
        try:
            postfix = lab.postfix()
        except MissingServerError as missing:
            with scripted_server(str(missing)) as target:
                yield target
            return
        yield Target(name="Postfix", address=postfix.submission.address, ca_file=lab.certificates.ca_file)


@contextmanager
def scripted_server(why: str) -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="mailbridge-bench-") as folder:
        certificates = make_certificates(Path(folder))
        with ScriptedServer(
            tls="starttls",
            certfile=certificates.good.cert_file,
            keyfile=certificates.good.key_file,
            users={USERNAME: PASSWORD},
        ) as server:
            yield Target(
                name=f"a test server in Python ({why})",
                address=(server.host, server.port),
                ca_file=certificates.ca_file,
            )
