"""One message on an open connection: what is said of it is planned, and `smtp.flows.submission` is run.

Neither opens nor closes the connection, and tries nothing again that may have been accepted.
"""

from collections.abc import Sequence
from typing import Protocol

from mailbridge.client.driver import Driver, Performers
from mailbridge.client.hints import complete
from mailbridge.client.plan import mail_parameters, recipient_groups, recipient_parameters
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import MailbridgeError
from mailbridge.logs import Log
from mailbridge.message.envelope import Envelope
from mailbridge.rendering.render import Rendered
from mailbridge.smtp.flows.connection import ConnectionState
from mailbridge.smtp.flows.content import Progress
from mailbridge.smtp.flows.steps import AskPermit
from mailbridge.smtp.flows.submission import Submission
from mailbridge.smtp.flows.transaction import Outcome, Transaction
from mailbridge.smtp.wire import Spent


class Pace(Protocol):
    """Lets transactions begin at a rate; see `ratelimit.permits`."""

    def begin(self, deadline: Deadline) -> None:
        """Returns when a transaction may begin. For a message's first one that is settled before."""

    def departed(self) -> None:
        """The last byte of one has been written."""


class Sender:
    """Sends messages on one open connection."""

    def __init__(self, driver: Driver, state: ConnectionState, config: SMTPConfig, log: Log) -> None:
        self._driver = driver
        self._state = state
        self._config = config
        self._log = log

    def send(
        self,
        envelope: Envelope,
        rendered: Rendered,
        deadline: Deadline,
        spent: Spent,
        *,
        progress: Progress | None = None,
        pace: Pace | None = None,
    ) -> tuple[Outcome, Rendered]:
        """What came of it, and the message as this server took it; what it cost is added to `spent`.

        Raises as `SMTPConnection.send`.
        """
        try:
            transaction, groups, rendered = self._planned(envelope, rendered, progress, pace)
        except MailbridgeError as error:
            complete(error, self._config)  # it is this server that can't take it
            raise
        submission = Submission(self._driver.wire, self._state, pace is not None, spent)
        others: Performers = {} if pace is None else {AskPermit: lambda _: pace.begin(deadline)}
        outcome = self._driver.run(submission.run(transaction, groups), deadline, others)
        if progress is not None:
            self._tell_all(progress, rendered.size)
        return outcome, rendered

    def _planned(
        self, envelope: Envelope, rendered: Rendered, progress: Progress | None, pace: Pace | None
    ) -> tuple[Transaction, Sequence[Sequence[str]], Rendered]:
        """What is to be said, to which recipients together, and the message. Nothing was said yet."""
        tls, capabilities = self._driver.stream.tls, self._state.capabilities
        all_or_none = self._config.partial == "all-or-none"
        envelope = envelope.with_default_dsn(self._config.dsn)
        rendered, parameters = mail_parameters(
            envelope, rendered, capabilities, is_verified=tls is not None and tls.verified
        )
        transaction = Transaction(
            sender=envelope.sender,
            recipients=envelope.recipients,
            mail_parameters=parameters,
            recipient_parameters=recipient_parameters(envelope, capabilities),
            content=rendered.content,
            all_or_none=all_or_none,
            # With DATA, all-or-none takes a round trip more: it has to wait for the recipients first.
            chunking="CHUNKING" in capabilities and (all_or_none or "BODY=BINARYMIME" in parameters),
            lmtp=self._config.protocol == "lmtp",
            progress=progress,
            departed=pace.departed if pace is not None else None,
        )
        return transaction, recipient_groups(envelope, capabilities, all_or_none=all_or_none), rendered

    def _tell_all(self, progress: Progress, size: int) -> None:
        """The message is accepted: what `progress` raises now changes nothing about it."""
        try:
            progress(size, size)
        except Exception as error:
            self._log.progress_failed(error)
        except BaseException as interrupt:
            interrupt.outcome_unknown = True  # type: ignore[attr-defined]  # it can't carry a result
            raise
