"""Opening a connection: greeting, EHLO, HELO or LHLO, STARTTLS, EHLO again (RFC 5321 3.1, RFC 3207).

Decides nothing about certificates or credentials, and sends nothing but these.
"""

from mailbridge.errors import GreetingRefused, NotSupported, ProtocolViolation, TLSModeMismatch
from mailbridge.reply import Reply
from mailbridge.smtp import commands
from mailbridge.smtp.capabilities import EMPTY, Capabilities
from mailbridge.smtp.flows.answers import answer, any_answer, nothing_is_there, take_in
from mailbridge.smtp.flows.steps import LOOK, StartTls, Transfer
from mailbridge.smtp.wire import Wire

# The first byte of a TLS record that a server may send on its own: an alert, or a handshake.
_TLS_RECORDS = (b"\x15", b"\x16")


async def greeting(wire: Wire) -> Reply:
    """Read the greeting. Raises `GreetingRefused` unless it is 220 (RFC 5321 section 4.2)."""
    call = wire.expect(commands.GREETING)
    first = await Transfer(b"", (), "greeting", "greeting", is_new=True)
    if first[:1] in _TLS_RECORDS:
        raise TLSModeMismatch(
            "The server speaks TLS where clear text was expected",
            stage="greeting",
            hint="Use security='tls'.",
        )
    take_in(wire, first, "greeting")
    reply = await any_answer(wire, call, limit="greeting", is_new=False)
    if reply.code != 220:
        raise GreetingRefused("The server refused the connection", stage="greeting", reply=reply)
    return reply


async def introduction(
    wire: Wire, name: str, *, may_be_helo: bool = False, lmtp: bool = False
) -> Capabilities:
    """EHLO, or HELO where the server knows no EHLO and nothing of it is needed (section 3.2).

    In LMTP it is LHLO, and nothing takes its place (RFC 2033 section 4.1).
    """
    reply = await answer(wire, wire.call(commands.lhlo(name) if lmtp else commands.ehlo(name)))
    if reply.is_positive:
        await nothing_is_there(wire, "ehlo")
        return Capabilities.parse(reply)
    if lmtp:
        hint = "The server may speak SMTP: then leave protocol='lmtp' out." if reply.is_permanent else ""
        raise GreetingRefused("The server refused LHLO", stage="ehlo", reply=reply, hint=hint)
    if may_be_helo and reply.is_permanent:
        reply = await answer(wire, wire.call(commands.helo(name)))
        if reply.is_positive:
            return EMPTY
    raise GreetingRefused("The server refused EHLO", stage="ehlo", reply=reply)


async def start_tls(wire: Wire) -> None:
    """STARTTLS and the handshake (RFC 3207). Nothing but one 220 line may precede the handshake."""
    reply = await answer(wire, wire.call(commands.STARTTLS))
    if reply.code != 220:
        raise NotSupported("The server refused STARTTLS", extension="STARTTLS", stage="tls", reply=reply)
    if not (wire.parser.is_empty and wire.is_quiet) or await LOOK is not None:
        # Section 6: what an attacker put behind the 220 must not be read as said under TLS.
        raise ProtocolViolation("The server sent more than one reply to STARTTLS", stage="tls")
    await StartTls()
