"""The pytest plugin: fixtures for projects that send mail. pytest finds it by itself; see docs/testing.md.

smtp_server            a server on loopback that takes everything
scripted_smtp_server   starts servers with options: faults, TLS, logins, dialogues
recording_mailer       every mailer of the process records, and nothing is sent
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mailbridge.testing import RecordingMailer, ScriptedServer

StartServer = Callable[..., "ScriptedServer"]


@pytest.fixture
def smtp_server() -> Iterator[ScriptedServer]:
    """A `ScriptedServer` in clear text that takes every message.

    `url` configures a mailer for it, `messages` is what came, `the_message(to=…, subject=…)` the one
    that is looked for. What a client must not do fails the test at its end.
    """
    from mailbridge.testing import ScriptedServer

    with ScriptedServer() as server:
        yield server


@pytest.fixture
def scripted_smtp_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers: `scripted_smtp_server(tls="starttls", users={"u": "p"}, faults=[Fault(…)])`.

    The options are those of `ScriptedServer`. With `tls` and neither certificate nor context a
    certificate for localhost, 127.0.0.1 and [::1] is made (it needs the library cryptography), which
    `server.options` trust. All are checked and stopped at the end of the test.
    """
    from mailbridge.testing import ScriptedServer

    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> ScriptedServer:
            if options.get("tls") and not {"certfile", "ssl_context"} & options.keys():
                options["certfile"], options["keyfile"] = _certificate(tmp_path)
            return stack.enter_context(ScriptedServer(*arguments, **options))

        yield start


@pytest.fixture
def recording_mailer() -> Iterator[RecordingMailer]:
    """Whatever Django, Flask or `mailer_for()` send within the test is in `recording_mailer.messages`."""
    from mailbridge.testing import recording

    with recording() as mailer:
        yield mailer


def _certificate(folder: Path) -> tuple[Path, Path]:
    try:
        from mailbridge.inbox.certificate import make_certificate
    except ImportError as error:
        raise pytest.UsageError(
            "A server with TLS needs a certificate: give certfile and keyfile, or install cryptography"
        ) from error
    found = folder / "certificate.pem", folder / "key.pem"
    return found if found[0].exists() else make_certificate(folder)
