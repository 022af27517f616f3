"""Small conversations on an open session: RSET, NOOP, QUIT (RFC 5321 section 4.1.1)."""

from mailbridge.flows.steps import any_answer
from mailbridge.protocol.commands import Command
from mailbridge.protocol.wire import Wire
from mailbridge.results import Reply


async def single(wire: Wire, command: Command) -> Reply:
    """One command and its reply, whatever it says. Raises only if the session is lost."""
    return await any_answer(wire, wire.call(command), limit="command")
