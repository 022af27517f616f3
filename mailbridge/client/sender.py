"""One message on an open connection: as many transactions as its recipients need, and what came of them.

Neither opens nor closes the connection, and tries nothing again that may have been accepted.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mailbridge.client.driver import Conversation, complete
from mailbridge.client.plan import is_one_too_many, mail_parameters, recipient_groups, recipient_parameters
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import ConnectionLost, InvalidMessage, MailbridgeError, RecipientsRefused
from mailbridge.logs import Log
from mailbridge.message.envelope import Envelope
from mailbridge.rendering.render import Rendered
from mailbridge.reply import Reply
from mailbridge.smtp.capabilities import Capabilities
from mailbridge.smtp.flows.content import Progress
from mailbridge.smtp.flows.transaction import Outcome, Transaction, transact
from mailbridge.smtp.wire import Spent


class Pace(Protocol):
    """Lets transactions begin at a rate; see `ratelimit.turns`."""

    def begin(self, deadline: Deadline) -> None:
        """Returns when a transaction may begin. For a message's first one that is settled before."""

    def departed(self) -> None:
        """The last byte of one has been written."""


class Sending:
    """The transactions of one session. `needs_reset`: the next one must begin with RSET.

    `spent` is what the last message has cost.
    """

    def __init__(self, talk: Conversation, config: SMTPConfig, log: Log, capabilities: Capabilities) -> None:
        self.needs_reset = False
        self._talk = talk
        self._config = config
        self._log = log
        self._capabilities = capabilities
        self._transactions = 0
        self._pace: Pace | None = None
        self.spent = Spent()

    def send(
        self,
        envelope: Envelope,
        rendered: Rendered,
        deadline: Deadline,
        *,
        progress: Progress | None = None,
        pace: Pace | None = None,
    ) -> tuple[Outcome, Rendered]:
        """What came of it, and the message as this server took it. Raises as `SMTPConnection.send`."""
        self._pace, self.spent = pace, Spent()
        try:
            transaction, groups, rendered = self._planned(envelope, rendered)
        except MailbridgeError as error:
            complete(error, self._config)  # it is this server that can't take it
            raise
        left = pace.departed if pace is not None else None
        transaction = replace(transaction, progress=progress, departed=left)
        outcome = self._deliver_groups(transaction, groups, deadline)
        self._tell_all(progress, rendered.size)
        return outcome, rendered

    def _tell_all(self, progress: Progress | None, size: int) -> None:
        """The message is accepted: what `progress` raises now changes nothing about it."""
        if progress is None:
            return
        try:
            progress(size, size)
        except Exception as error:
            self._log.progress_failed(error)
        except BaseException as interrupt:
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise

    def _planned(
        self, envelope: Envelope, rendered: Rendered
    ) -> tuple[Transaction, Sequence[tuple[str, ...]], Rendered]:
        """What is to be said, to which recipients together, and the message. Nothing was said yet."""
        tls, all_or_none = self._talk.stream.tls, self._config.partial == "all-or-none"
        envelope = envelope.with_default_dsn(self._config.dsn)
        rendered, parameters = mail_parameters(
            envelope, rendered, self._capabilities, is_verified=tls is not None and tls.verified
        )
        groups = recipient_groups(envelope, self._capabilities, all_or_none=all_or_none)
        self._require_room(len(groups))
        transaction = Transaction(
            sender=envelope.sender,
            recipients=envelope.recipients,
            mail_parameters=parameters,
            recipient_parameters=recipient_parameters(envelope, self._capabilities),
            content=rendered.content,
            all_or_none=all_or_none,
            # With DATA, all-or-none takes a round trip more: it has to wait for the recipients first.
            chunking="CHUNKING" in self._capabilities and (all_or_none or "BODY=BINARYMIME" in parameters),
            lmtp=self._config.protocol == "lmtp",
        )
        return transaction, groups, rendered

    @property
    def is_worn(self) -> bool:
        """Whether the server takes no further transaction on this session (RFC 9422 section 4.1)."""
        return self._transactions >= self._capabilities.limits.get("MAILMAX", self._transactions + 1)

    def _require_room(self, transactions: int) -> None:
        most = self._capabilities.limits.get("MAILMAX")
        if most is None or self._transactions + transactions <= most:
            return
        if transactions > most:
            raise InvalidMessage(
                f"The message needs {transactions} transactions, and the server takes {most} on a session",
                stage="mail_from",
                hint="Send to fewer recipients at once.",
            )
        # Nothing was said, and a fresh session has room.
        self._talk.close()
        raise ConnectionLost(f"The server takes {most} transactions on a session", stage="mail_from")

    def _deliver_groups(
        self, transaction: Transaction, groups: Sequence[tuple[str, ...]], deadline: Deadline
    ) -> Outcome:
        """One transaction for each group, as LIMITS (RFC 9422) wants it; usually there is one group.

        Groups stand for themselves: if some recipients have the message, what becomes of the others
        is told, and raised only if it is unknown.
        """
        if len(groups) == 1:
            return self._deliver_all(transaction, deadline)
        done = Outcome((), {}, Reply(0))
        for group in groups:
            done = _joined(done, self._deliver_group(replace(transaction, recipients=group), done, deadline))
        if not done.accepted:
            names, server = ", ".join(done.rejected), self._config.server
            raise RecipientsRefused(
                f"Every recipient was refused: {names}",
                rejected=done.rejected,
                stage="rcpt_to",
                server=server,
            )
        return done

    def _deliver_group(self, transaction: Transaction, done: Outcome, deadline: Deadline) -> Outcome:
        """One of several; after `done`, whose recipients have the message."""
        try:
            return self._deliver_all(transaction, deadline)
        except RecipientsRefused as error:
            return Outcome((), error.rejected, done.response)
        except MailbridgeError as error:
            if error.outcome_unknown or not done.accepted:
                _add_accepted(error, done.accepted)
                raise
            reply = error.reply or Reply(451, (f"4.4.2 {error.message}",), (4, 4, 2))
            return Outcome((), dict.fromkeys(transaction.recipients, reply), done.response)
        except BaseException as interrupt:
            if done.accepted:
                interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise

    def _deliver_all(self, transaction: Transaction, deadline: Deadline) -> Outcome:
        done = self._deliver(transaction, deadline)
        taken = len(done.accepted)
        while rest := [
            a for a, reply in done.rejected.items() if a not in done.late and is_one_too_many(reply, taken)
        ]:
            if self.is_worn:
                break
            more = self._deliver_rest(replace(transaction, recipients=rest), done, deadline)
            if more is None:
                break
            rejected = {a: r for a, r in done.rejected.items() if a not in rest} | dict(more.rejected)
            late = done.late | more.late
            done = Outcome(done.accepted + more.accepted, rejected, done.response, late)
        return done

    def _deliver_rest(self, transaction: Transaction, done: Outcome, deadline: Deadline) -> Outcome | None:
        """The recipients above the limit; None if they do not get it, so that their reply stands.

        The first ones have it: an error would have the whole message sent to them again.
        """
        try:
            return self._deliver(transaction, deadline)
        except MailbridgeError as error:
            if not error.outcome_unknown:
                return None
            _add_accepted(error, done.accepted)
            raise
        except BaseException as interrupt:
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise

    def _deliver(self, transaction: Transaction, deadline: Deadline) -> Outcome:
        transaction = replace(transaction, resets_first=self.needs_reset)
        if self._pace is not None:
            self._pace.begin(deadline)
        self._transactions += 1
        self.needs_reset = True  # unless it succeeds: refused, or given up before the content
        outcome = self._talk.run(transact(self._talk.wire, transaction, self.spent), deadline)
        self.needs_reset = False
        return outcome


def _joined(done: Outcome, more: Outcome) -> Outcome:
    response = done.response if done.accepted else more.response
    rejected = {**done.rejected, **more.rejected}
    return Outcome(done.accepted + more.accepted, rejected, response, done.late | more.late)


def _add_accepted(error: MailbridgeError, accepted: tuple[str, ...]) -> None:
    """Have `error` tell who has the message already."""
    if accepted:
        error.accepted = accepted + error.accepted
        error.reword(f"{error.message.rstrip('.')}; accepted before, for {', '.join(accepted)}")
