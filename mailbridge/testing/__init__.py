"""Doubles for tests of code that sends mail: a scripted SMTP server that fails where it is told to.

Ships with mailbridge and needs the standard library alone. It takes nothing from the rest of mailbridge.
"""

from mailbridge.testing.behaviour import DEFAULT_KEYWORDS
from mailbridge.testing.faults import Fault
from mailbridge.testing.journal import Connection, ReceivedMessage
from mailbridge.testing.script import Dialogue
from mailbridge.testing.server import ScriptedServer

__all__ = ["DEFAULT_KEYWORDS", "Connection", "Dialogue", "Fault", "ReceivedMessage", "ScriptedServer"]
