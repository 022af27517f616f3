"""Small conversations on an open session: RSET, NOOP, QUIT (RFC 5321 section 4.1.1)."""

from mailbridge.results import Reply
from mailbridge.smtp.commands import Command
from mailbridge.smtp.flows.steps import any_answer
from mailbridge.smtp.wire import Wire


async def single(wire: Wire, command: Command) -> Reply:
    """One command and its reply, whatever it says. Raises only if the session is lost."""
    return await any_answer(wire, wire.call(command), limit="command")
