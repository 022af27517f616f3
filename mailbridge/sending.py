"""One message on an open session: as many transactions as its recipients need, and what came of them.

Neither opens nor closes the session, and tries nothing again that may have been accepted.
"""

from dataclasses import replace

from mailbridge.config import SMTPConfig
from mailbridge.conversation import Conversation
from mailbridge.envelope import Envelope
from mailbridge.errors import MailbridgeError, Refused
from mailbridge.flows.content import Progress
from mailbridge.flows.delivery import Delivered, Transaction, delivery
from mailbridge.net.deadline import Deadline
from mailbridge.protocol.capabilities import Capabilities
from mailbridge.rendering import Rendered
from mailbridge.transactions import is_one_too_many, mail_parameters


class Sending:
    """The transactions of one session. `needs_reset`: the next one must begin with RSET."""

    def __init__(self, talk: Conversation, config: SMTPConfig, capabilities: Capabilities) -> None:
        self.needs_reset = False
        self._talk = talk
        self._config = config
        self._capabilities = capabilities

    def send(
        self, envelope: Envelope, rendered: Rendered, deadline: Deadline, progress: Progress | None = None
    ) -> tuple[Delivered, Rendered]:
        """What came of it, and the message as this server took it. Raises as `SMTPConnection.send`."""
        rendered, parameters = mail_parameters(envelope, rendered, self._capabilities)
        all_or_none = self._config.partial == "all-or-none"
        transaction = Transaction(
            sender=envelope.sender,
            recipients=envelope.recipients,
            mail_parameters=parameters,
            content=rendered.content,
            all_or_none=all_or_none,
            # With DATA, all-or-none takes a round trip more: it has to wait for the recipients first.
            chunking="CHUNKING" in self._capabilities and (all_or_none or "BODY=BINARYMIME" in parameters),
            lmtp=self._config.protocol == "lmtp",
            progress=progress,
        )
        return self._deliver_all(transaction, deadline), rendered

    def _deliver_all(self, transaction: Transaction, deadline: Deadline) -> Delivered:
        done = self._deliver(transaction, deadline)
        taken = len(done.accepted)
        while rest := [
            a for a, reply in done.rejected.items() if a not in done.late and is_one_too_many(reply, taken)
        ]:
            more = self._deliver_rest(replace(transaction, recipients=rest), done, deadline)
            if more is None:
                break
            rejected = {a: r for a, r in done.rejected.items() if a not in rest} | dict(more.rejected)
            late = done.late | more.late
            done = Delivered(done.accepted + more.accepted, rejected, done.response, late)
        return done

    def _deliver_rest(
        self, transaction: Transaction, done: Delivered, deadline: Deadline
    ) -> Delivered | None:
        """The recipients above the limit; None if they do not get it, so that their reply stands.

        The first ones have it: an error would have the whole message sent to them again.
        """
        try:
            return self._deliver(transaction, deadline)
        except MailbridgeError as error:
            if not error.outcome_unknown:
                return None
            error.accepted = done.accepted + error.accepted
            error.reword(f"{error.message.rstrip('.')}; accepted before, for {', '.join(done.accepted)}")
            raise
        except BaseException as interrupt:
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise

    def _deliver(self, transaction: Transaction, deadline: Deadline) -> Delivered:
        transaction = replace(transaction, resets_first=self.needs_reset)
        try:
            delivered = self._talk.run(delivery(self._talk.wire, transaction), deadline)
        except Refused:
            self.needs_reset = True
            raise
        self.needs_reset = False
        return delivered
