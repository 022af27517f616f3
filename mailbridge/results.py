"""`SendResult`: what came of a send. A plain frozen value, picklable and deep-copyable.

Nothing here parses or decides: `client.connection` and `mailer` make results.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailbridge.reply import Reply

if TYPE_CHECKING:
    from mailbridge.errors import MailbridgeError, RecipientsRefused
    from mailbridge.message.envelope import Envelope


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SendResult:
    """A message that the server accepted, and how.

    `rejected` names the recipients that were refused while others were accepted; where the server
    takes them in several transactions (LIMITS, RFC 9422) and a later one was lost unsent, the reply
    is 451 4.4.2 and made here. `timings` are
    seconds under the keys queue, dns, connect, tls, auth, envelope, data, total. `message_size`
    is in bytes, as sent but before dot-stuffing. `round_trips` counts the waits for the server
    that this message cost, a new session's opening included. With several servers `server` is the one
    that has it, and `failed_servers` says by name why those asked before it, or passed over, do not.
    """

    accepted: tuple[str, ...]
    rejected: Mapping[str, Reply]
    response: Reply
    envelope: "Envelope"
    message_size: int
    queue_id: str | None = None
    message_id: str | None = None
    attempts: int = 1
    failed_servers: Mapping[str, "MailbridgeError"] = field(default_factory=dict)
    connection_id: str = ""
    connection_reused: bool = False
    server: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    round_trips: int = 0

    def __repr__(self) -> str:
        refused = f", {len(self.rejected)} refused" if self.rejected else ""
        queued = f", queued as {self.queue_id}" if self.queue_id else ""
        return (
            f"<SendResult: {self.server} took {self.message_id or 'a message'} of {self.message_size} bytes"
            f" for {len(self.accepted)} recipient(s){refused}{queued}>"
        )

    @property
    def rejected_errors(self) -> "tuple[RecipientsRefused, ...]":
        """`rejected` as errors, one for each recipient: to raise, or to treat like those of a send."""
        from mailbridge.errors import RecipientsRefused  # which needs this module

        return tuple(
            RecipientsRefused(
                f"The recipient <{address}> was refused", rejected={address: reply}, server=self.server
            )
            for address, reply in self.rejected.items()
        )
