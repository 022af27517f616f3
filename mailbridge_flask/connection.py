"""Several messages over one connection: `with mail.connect() as connection: ...`.

The connection is lent by the pool and given back at the end of the block. A lost one is replaced at the
next send, and one that has carried MAIL_MAX_EMAILS messages too: the pool sees to both.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, Unpack

from mailbridge import Envelope, EnvelopeOptions, Mailer, Priority, Rendered, SendResult, Session
from mailbridge_flask.addresses import AnyAddress
from mailbridge_flask.message import Message

__all__ = ["Connection"]


class State(Protocol):
    """What an application has set up for mail: a `MailState`."""

    @property
    def suppress(self) -> bool: ...

    @property
    def deliver(self) -> Callable[..., SendResult | None]: ...

    def mailer(self, name: str = ...) -> Mailer: ...


class Connection:
    """A leased connection; made by `Mail.connect()`, for one thread."""

    def __init__(self, state: State, name: str) -> None:
        self._state = state
        self._name = name
        self._mailer = state.mailer(name)
        self._lease: AbstractContextManager[Session] | None = None
        self._session: Session | None = None
        #: How many messages were sent, or would have been.
        self.num_emails = 0

    def __enter__(self) -> Self:
        """Make sure that the server can be reached; raises why not (see `mailbridge.errors`)."""
        self.num_emails = 0
        if not self._state.suppress and self._outlives_a_look():
            self._mailer.connect()
        self._lease = self._mailer.session()
        self._session = self._lease.__enter__()
        return self

    def _outlives_a_look(self) -> bool:
        """Whether the pool keeps a connection that was opened to see if that works; else it were for nothing.

        It counts as one of its uses.
        """
        pool = self._mailer.config.pool
        return pool.enabled and pool.max_messages > 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease, self._lease, self._session = self._lease, None, None
        if lease is not None:
            lease.__exit__(kind, error, trace)

    def send(
        self,
        message: Message,
        envelope_from: AnyAddress | None = None,
        *,
        deadline: float | None = None,
        priority: Priority | None = None,
        **delivery_options: Unpack[EnvelopeOptions],
    ) -> SendResult | None:
        """Send one message; as `Mail.send`. `envelope_from` is the sender for bounces (MAIL FROM).

        An error leaves the connection usable for the next message.
        """
        session = self._session
        if session is None:
            raise RuntimeError(
                "This connection is not open; send within `with mail.connect() as connection:`"
            )

        def transmit(rendered: Rendered, envelope: Envelope) -> SendResult:
            return session.send(rendered, envelope=envelope, deadline=deadline, priority=priority)

        result = self._state.deliver(
            message,
            self._name,
            transmit,
            envelope_from=envelope_from,
            has_priority=priority is not None,
            delivery_options=delivery_options,
        )
        self.num_emails += 1
        return result

    def send_message(self, *args: Any, **kwargs: Any) -> SendResult | None:
        """Send the message that these arguments make."""
        try:
            message = Message(*args, **kwargs)
        finally:
            del args, kwargs  # the frames of an error outlive it, and reporters show what they hold
        return self.send(message)
