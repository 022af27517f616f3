"""One message on an open connection: as many transactions as its recipients need, and what came of them.

Tries nothing again that may have been accepted. What it says in which transaction was planned before.
"""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mailbridge.errors import ConnectionLost, InvalidMessage, MailbridgeError, RecipientsRefused
from mailbridge.reply import Reply
from mailbridge.smtp.flows.connection import ConnectionState
from mailbridge.smtp.flows.steps import AskPermit, SayGoodbye, Step
from mailbridge.smtp.flows.transaction import Outcome, Transaction, transact
from mailbridge.smtp.wire import Spent, Wire

_LEAST_RECIPIENTS = 100  # a server must take so many in one transaction (RFC 5321 section 4.5.3.1.8)


@dataclass(slots=True)
class Submission:
    """The transactions of one message, on one connection.

    `groups` are the recipients as the server takes them together (RFC 9422); usually there is one group.
    `is_paced`: each transaction needs a permit. `spent` is what they cost.
    """

    wire: Wire
    state: ConnectionState
    is_paced: bool
    spent: Spent

    def run(self, transaction: Transaction, groups: Sequence[Sequence[str]]) -> Coroutine[Step, Any, Outcome]:
        """Send the message; gives who has it, and who was refused. Raises as `transact` does."""
        if len(groups) == 1 and not self.state.is_worn:
            return self._to_all(transaction)  # no frame more than the usual message needs
        return self._to_groups(transaction, groups)

    async def _to_groups(self, transaction: Transaction, groups: Sequence[Sequence[str]]) -> Outcome:
        """If some recipients have the message, what becomes of the others is told, and no error.

        Unless it is unknown: then it is raised.
        """
        await self._require_room(len(groups))
        done = Outcome((), {}, Reply(0))
        for group in groups:
            done = _joined(done, await self._to_group(replace(transaction, recipients=group), done))
        if not done.accepted:
            names = ", ".join(done.rejected)
            raise RecipientsRefused(
                f"Every recipient was refused: {names}", rejected=done.rejected, stage="rcpt_to"
            )
        return done

    async def _require_room(self, transactions: int) -> None:
        most = self.state.capabilities.limits.get("MAILMAX")
        if most is None or self.state.transactions + transactions <= most:
            return
        if transactions > most:
            raise InvalidMessage(
                f"The message needs {transactions} transactions, and the server takes {most} on a connection",
                stage="mail_from",
                hint="Send to fewer recipients at once.",
            )
        # Nothing was said, and a fresh connection has room.
        await SayGoodbye()
        raise ConnectionLost(f"The server takes {most} transactions on a connection", stage="mail_from")

    async def _to_group(self, transaction: Transaction, done: Outcome) -> Outcome:
        """One of several; after `done`, whose recipients have the message."""
        try:
            return await self._to_all(transaction)
        except RecipientsRefused as error:
            return Outcome((), error.rejected, done.response)
        except MailbridgeError as error:
            if error.outcome_unknown or not done.accepted:
                _add_accepted(error, done.accepted)
                raise
            reply = error.reply
            if reply is None or reply.code < 400:
                reply = Reply(451, (f"4.4.2 {error.message}",), (4, 4, 2))
            return Outcome((), dict.fromkeys(transaction.recipients, reply), done.response)
        except BaseException as interrupt:
            if done.accepted:
                interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise

    async def _to_all(self, transaction: Transaction) -> Outcome:
        """Recipients above the server's limit (RFC 5321 section 4.5.3.1.10) go in further transactions."""
        done = await transact(self.wire, await self._begun(transaction), self.spent)
        self.state.needs_reset = False
        if not done.rejected:
            return done
        taken = len(done.accepted)
        while rest := [
            a for a, reply in done.rejected.items() if a not in done.late and is_one_too_many(reply, taken)
        ]:
            if self.state.is_worn:
                break
            more = await self._to_rest(replace(transaction, recipients=rest), done)
            if more is None:
                break
            rejected = {a: r for a, r in done.rejected.items() if a not in rest} | dict(more.rejected)
            done = Outcome(done.accepted + more.accepted, rejected, done.response, done.late | more.late)
        return done

    async def _to_rest(self, transaction: Transaction, done: Outcome) -> Outcome | None:
        """The recipients above the limit; None if they do not get it, so that their reply stands.

        The first ones have it: an error would have the whole message sent to them again.
        """
        try:
            more = await transact(self.wire, await self._begun(transaction), self.spent)
            self.state.needs_reset = False
            return more
        except MailbridgeError as error:
            if not error.outcome_unknown:
                return None
            _add_accepted(error, done.accepted)
            raise
        except BaseException as interrupt:
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise

    async def _begun(self, transaction: Transaction) -> Transaction:
        """The next one on this connection, which may begin now. Raises if the one before has ended it."""
        if self.wire.is_over or self.wire.unanswered_count:
            raise ConnectionLost("The connection ended with the transaction before", stage="mail_from")
        state = self.state
        if state.needs_reset:
            transaction = replace(transaction, resets_first=True)
        if self.is_paced:
            await AskPermit()
        state.transactions += 1
        state.needs_reset = True  # unless it succeeds: refused, or given up before the content
        return transaction


def is_one_too_many(reply: Reply, accepted: int) -> bool:
    """Whether a recipient was refused only because others, `accepted` in number, had been accepted.

    RFC 3463 says x.5.3, and something else of a full mailbox. Without an enhanced code 452 means it
    (RFC 5321 section 4.5.3.1.10), and 552 does from servers that have taken as many as they must.
    """
    if reply.enhanced is not None:
        return reply.code in (452, 552) and reply.enhanced[1:] == (5, 3)
    return reply.code == 452 or (reply.code == 552 and accepted >= _LEAST_RECIPIENTS)


def _joined(done: Outcome, more: Outcome) -> Outcome:
    response = done.response if done.accepted else more.response
    rejected = {**done.rejected, **more.rejected}
    return Outcome(done.accepted + more.accepted, rejected, response, done.late | more.late)


def _add_accepted(error: MailbridgeError, accepted: tuple[str, ...]) -> None:
    """Have `error` tell who has the message already."""
    if accepted:
        error.accepted = accepted + error.accepted
        error.reword(f"{error.message.rstrip('.')}; accepted before, for {', '.join(accepted)}")
