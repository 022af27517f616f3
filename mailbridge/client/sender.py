"""What surrounds the flow of one message: the plan of its transactions before, the result after. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mailbridge.client.plan import mail_parameters, recipient_groups, recipient_parameters, sending_seconds
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.logs import Log
from mailbridge.message.envelope import Envelope
from mailbridge.rendering.render import Rendered
from mailbridge.results import SendResult
from mailbridge.smtp.capabilities import Capabilities
from mailbridge.smtp.flows.content import Progress
from mailbridge.smtp.flows.transaction import Outcome, Transaction
from mailbridge.smtp.replies import queue_id
from mailbridge.smtp.wire import Spent


class Pace(Protocol):
    """Lets transactions begin at a rate; see `ratelimit.permits`."""

    def begin(self, deadline: Deadline) -> None:
        """Returns when a transaction may begin. For a message's first one that is settled before."""

    def departed(self) -> None:
        """The last byte of one has been written."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is said of a message, to which recipients together, and the message as the server takes it."""

    transaction: Transaction
    groups: Sequence[Sequence[str]]
    rendered: Rendered


def plan(
    envelope: Envelope,
    rendered: Rendered,
    config: SMTPConfig,
    capabilities: Capabilities,
    *,
    is_verified: bool,
    progress: Progress | None,
    pace: Pace | None,
) -> Plan:
    """`is_verified`: the connection goes over TLS, and the server's certificate was checked.

    Raises `NotSupported`, `MessageTooLarge` and `InvalidMessage` for what this server can't take.
    """
    all_or_none = config.partial == "all-or-none"
    envelope = envelope.with_default_dsn(config.dsn)
    rendered, parameters = mail_parameters(envelope, rendered, capabilities, is_verified=is_verified)
    transaction = Transaction(
        sender=envelope.sender,
        recipients=envelope.recipients,
        mail_parameters=parameters,
        recipient_parameters=recipient_parameters(envelope, capabilities),
        content=rendered.content,
        all_or_none=all_or_none,
        # With DATA, all-or-none takes a round trip more: it has to wait for the recipients first.
        chunking="CHUNKING" in capabilities and (all_or_none or "BODY=BINARYMIME" in parameters),
        lmtp=config.protocol == "lmtp",
        progress=progress,
        departed=pace.departed if pace is not None else None,
    )
    return Plan(transaction, recipient_groups(envelope, capabilities, all_or_none=all_or_none), rendered)


def tell_all(progress: Progress, size: int, log: Log) -> None:
    """The message is accepted: what `progress` raises now changes nothing about it."""
    try:
        progress(size, size)
    except Exception as error:
        log.progress_failed(error)
    except BaseException as interrupt:
        interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
        raise


def result_of(
    outcome: Outcome,
    envelope: Envelope,
    rendered: Rendered,
    spent: Spent,
    *,
    seconds: float,
    connection_id: str,
    server: str,
) -> SendResult:
    """What the caller is told. `seconds`: how long it took in all."""
    return SendResult(
        accepted=outcome.accepted,
        rejected=outcome.rejected,
        response=outcome.response,
        envelope=envelope,
        message_size=rendered.size,
        queue_id=queue_id(outcome.response.text),
        message_id=rendered.message_id,
        connection_id=connection_id,
        server=server,
        timings=sending_seconds(spent.seconds) | {"total": seconds},
        round_trips=spent.round_trips,
    )
