"""Doubles for tests of code that sends mail: see docs/testing.md.

`ScriptedServer` is a real server on loopback that fails where it is told to; it needs the standard library
alone and takes nothing from the rest of mailbridge, whose judge it is. `RecordingMailer` takes the place of
a mailer, without a server. The pytest fixtures stand in `plugin`.
"""

from typing import TYPE_CHECKING, Any

from mailbridge.testing.faults import Fault
from mailbridge.testing.options import DEFAULT_KEYWORDS
from mailbridge.testing.records import Connection, ReceivedMessage
from mailbridge.testing.script import Dialogue
from mailbridge.testing.server import ScriptedServer

if TYPE_CHECKING:
    from mailbridge.testing.recorder import RecordedMessage, RecordingMailer, recording

__all__ = [
    "DEFAULT_KEYWORDS",
    "Connection",
    "Dialogue",
    "Fault",
    "ReceivedMessage",
    "RecordedMessage",
    "RecordingMailer",
    "ScriptedServer",
    "recording",
]


def __getattr__(name: str) -> Any:
    """What records is loaded when it is asked for, since it brings the rest of mailbridge along."""
    if name in ("RecordedMessage", "RecordingMailer", "recording"):
        from mailbridge.testing import recorder

        return getattr(recorder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
