"""AUTH (RFC 4954): the mechanisms in the given order until one is accepted.

Which mechanisms may be tried, and whether the channel is safe enough, was decided before.
"""

from collections.abc import Callable, Sequence

from mailbridge.errors import AuthenticationFailed, DeadlineExceeded, MailbridgeError, ProtocolViolation
from mailbridge.reply import Reply
from mailbridge.smtp import commands
from mailbridge.smtp.flows.answers import answer, nothing_is_there
from mailbridge.smtp.sasl.base import Mechanism, decode_challenge
from mailbridge.smtp.wire import Wire

# 504: mechanism not supported. 534: too weak (RFC 4954 section 6). Both say nothing of credentials.
_TRY_ANOTHER = frozenset({504, 534})
# A server that asks for more than this is not authenticating anybody.
_MOST_CHALLENGES = 10


async def authentication(wire: Wire, mechanisms: Sequence[Callable[[], Mechanism]]) -> str:
    """Authenticate; gives the name of the mechanism that was accepted.

    Raises `AuthenticationFailed` with the server's reply and, decoded, what it said in a challenge;
    also where the server accepts and does not prove itself, though the mechanism asks for it.
    Credentials that one mechanism was refused are not tried under another: that would be a second
    wrong login.
    """
    refusal: AuthenticationFailed | None = None
    for make in mechanisms:
        mechanism = make()
        reply = await _exchange(wire, mechanism)
        if reply.code == 235:
            await nothing_is_there(wire, "auth")
            mechanism.finish(reply.text)
            if not mechanism.refusal:
                return mechanism.name
        refusal = AuthenticationFailed(
            "The server refused the credentials",
            mechanism=mechanism.name,
            challenge=wire.redactor.masked(mechanism.refusal, in_exchange=True),
            stage="auth",
            reply=reply,
        )
        if reply.code not in _TRY_ANOTHER and not mechanism.is_unsuitable:
            break
    if refusal is None:
        raise AuthenticationFailed("No mechanism to authenticate with", stage="auth")
    raise refusal


async def _exchange(wire: Wire, mechanism: Mechanism) -> Reply:
    initial = mechanism.initial()
    command = commands.auth(mechanism.name, initial)
    # RFC 4954 section 4: what is too long for the line waits for a challenge, which is empty then.
    # Some servers put words there that are no base64, so it is not read.
    waits = initial is not None and len(bytes(command)) > commands.LONGEST_LINE
    if waits:
        command = commands.auth(mechanism.name, None)
    reply = await answer(wire, wire.call(command))
    for _ in range(_MOST_CHALLENGES):
        if reply.code != 334:
            return reply
        try:
            said = initial if waits and initial else mechanism.step(decode_challenge(reply.text))
            response = commands.auth_response(said)
        except MailbridgeError as error:
            error.reword(wire.redactor.masked(error.message, in_exchange=True))
            # Leave the exchange in step (RFC 4954 section 4), then say what was wrong.
            try:
                await answer(wire, wire.call(commands.AUTH_CANCEL))
            except DeadlineExceeded:
                if not isinstance(error, DeadlineExceeded):
                    raise
            raise
        waits = False
        reply = await answer(wire, wire.call(response))
    raise ProtocolViolation("The server's challenges never end", stage="auth")
