"""What a transaction says of its message, and what its replies and times mean. No I/O."""

from collections.abc import Mapping

from mailbridge.envelope import Envelope
from mailbridge.errors import NotSupported
from mailbridge.protocol.capabilities import Capabilities
from mailbridge.rendering import Rendered
from mailbridge.results import Reply

_ENVELOPE_STAGES = ("rset", "mail_from", "rcpt_to", "data")
_DATA_STAGES = ("content", "final")
_LEAST_RECIPIENTS = 100  # a server must take so many in one transaction (RFC 5321 section 4.5.3.1.8)


def mail_parameters(
    envelope: Envelope, rendered: Rendered, capabilities: Capabilities
) -> tuple[Rendered, list[str]]:
    """The parameters of MAIL FROM, and the message as this server can take it.

    SMTPUTF8 (RFC 6531) and BODY=8BITMIME (RFC 6152) where the message needs them, SIZE (RFC 1870)
    where it is offered. Raises `NotSupported` for what is needed and not offered.
    """
    parameters: list[str] = []
    if envelope.needs_smtputf8 or rendered.needs_smtputf8:
        if "SMTPUTF8" not in capabilities:
            raise NotSupported(
                "An address or header field needs SMTPUTF8, which the server does not offer",
                extension="SMTPUTF8",
                stage="mail_from",
            )
        parameters.append("SMTPUTF8")
    if rendered.is_eight_bit and "8BITMIME" not in capabilities:
        rendered = rendered.seven_bit()
    if rendered.is_eight_bit:
        parameters.append("BODY=8BITMIME")
    if "SIZE" in capabilities:
        parameters.append(f"SIZE={rendered.size}")
    return rendered, parameters


def is_one_too_many(reply: Reply, accepted: int) -> bool:
    """Whether a recipient was refused only because others, `accepted` in number, had been accepted.

    RFC 3463 says x.5.3, and something else of a full mailbox. Without an enhanced code 452 means it
    (RFC 5321 section 4.5.3.1.10), and 552 does from servers that have taken as many as they must.
    """
    if reply.enhanced is not None:
        return reply.code in (452, 552) and reply.enhanced[1:] == (5, 3)
    return reply.code == 452 or (reply.code == 552 and accepted >= _LEAST_RECIPIENTS)


def sending_seconds(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """`SendResult.timings` of one transaction, from the times by stage before and after it."""

    def spent(stages: tuple[str, ...]) -> float:
        return sum(after.get(stage, 0.0) - before.get(stage, 0.0) for stage in stages)

    return {"envelope": spent(_ENVELOPE_STAGES), "data": spent(_DATA_STAGES)}
