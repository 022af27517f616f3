"""What one application knows of mail, and how a message of it is sent.

`app.extensions["mailbridge"]`, and "mail" for code that looks where Flask-Mail is. It holds settings
and no connection: those are in the pools of the process, which no end of a request closes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Unpack

from flask import Flask

import mailbridge
from mailbridge import (
    ConfigurationError,
    Envelope,
    EnvelopeOptions,
    Mailer,
    Priority,
    Rendered,
    SendResult,
    clears_locals,
)
from mailbridge_flask import flask_mail_keys, mime, signals
from mailbridge_flask.addresses import AnyAddress
from mailbridge_flask.connection import Connection
from mailbridge_flask.errors import IncompleteMessage
from mailbridge_flask.message import Message, as_message
from mailbridge_flask.settings import DEFAULT, MailerSettings, Settings

__all__ = ["MailState"]

#: Hands a message to the server, over whatever connection.
Transmit = Callable[[Rendered, Envelope], SendResult]


class MailState:
    """The mail of one application.

    `default_sender` and `ascii_attachments` may be set, as in tests written for Flask-Mail.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self.app = app
        self.default_sender: AnyAddress | None = settings.default_sender
        self.ascii_attachments = settings.ascii_attachments
        self._mailers = settings.mailers
        self._suppress: bool | None = None

    def __repr__(self) -> str:
        servers = ", ".join(f"{name}: {each.config.server}" for name, each in self._mailers.items())
        return f"<MailState of {self.app.name!r}, {servers}>"

    @property
    def suppress(self) -> bool:
        """Whether nothing is sent. Asked at each send: what was set here, else MAILBRIDGE_SUPPRESS_SEND,
        else MAIL_SUPPRESS_SEND, else TESTING.
        """
        if self._suppress is not None:
            return self._suppress
        said = flask_mail_keys.first_switch(self.app, "MAILBRIDGE_SUPPRESS_SEND")
        return self.app.testing if said is None else said

    @suppress.setter
    def suppress(self, suppress: bool | None) -> None:
        self._suppress = suppress

    @property
    def mailer_names(self) -> tuple[str, ...]:
        return tuple(self._mailers)

    def mailer(self, name: str = DEFAULT) -> Mailer:
        """The mailer of this process for the server called `name`. Raises ConfigurationError."""
        return mailbridge.mailer_for(self._settings_of(name).config)

    def send(
        self,
        message: Message,
        *,
        using: str = DEFAULT,
        deadline: float | None = None,
        priority: Priority | None = None,
        **delivery_options: Unpack[EnvelopeOptions],
    ) -> SendResult | None:
        """Send one message by the mailer `using`. See `Mail.send`."""
        mailer = self.mailer(using)

        def transmit(rendered: Rendered, envelope: Envelope) -> SendResult:
            return mailer.send(rendered, envelope=envelope, deadline=deadline, priority=priority)

        return self.deliver(
            message, using, transmit, has_priority=priority is not None, delivery_options=delivery_options
        )

    def send_message(self, *args: Any, **kwargs: Any) -> SendResult | None:
        """Send the message that these arguments make."""
        try:
            message = Message(*args, **kwargs)
        finally:
            del args, kwargs  # the frames of an error outlive it, and reporters show what they hold
        return self.send(message)

    def connect(self, using: str = DEFAULT) -> Connection:
        """A connection for several messages. See `Mail.connect`."""
        return Connection(self, using)

    @contextmanager
    def record_messages(self) -> Iterator[list[Message]]:
        """A list that gets each message of this application. See `Mail.record_messages`."""
        outbox: list[Message] = []

        def record(_: Flask, message: Message) -> None:
            outbox.append(message)

        with signals.recorded.connected_to(record, sender=self.app):
            yield outbox

    def deliver(
        self,
        given: Message,
        name: str,
        transmit: Transmit,
        *,
        envelope_from: AnyAddress | None = None,
        has_priority: bool = False,
        delivery_options: EnvelopeOptions | None = None,
    ) -> SendResult | None:
        """Prepare a message, tell who listens, and hand it to `transmit` unless sending is suppressed.

        `delivery_options` win over the message's own. What is wrong with a message also shows where
        sending is suppressed.
        """
        message = as_message(given)
        message.mailbridge_result = None
        signals.message_sending.send(self.app, message=message, mailer=name)
        try:
            rendered, envelope = self._prepared(
                message, name, envelope_from, delivery_options or {}, has_priority
            )
            result = None if self.suppress else transmit(rendered, envelope)
        except Exception as error:
            signals.announce(signals.message_failed, self.app, message=message, mailer=name, error=error)
            raise
        message.mailbridge_result = given.mailbridge_result = result
        given.date = message.date
        self._announce_success(message, name, result)
        return result

    def _announce_success(self, message: Message, name: str, result: SendResult | None) -> None:
        signals.recorded.send(self.app, message=message)
        if result is not None:
            signals.announce(signals.message_sent, self.app, message=message, mailer=name, result=result)
            signals.announce(signals.email_dispatched, self.app, message=message)
        else:
            # Nothing was sent, so no result needs protection: what a receiver in a test asserts, counts.
            signals.email_dispatched.send(self.app, message=message)

    @clears_locals
    def _prepared(
        self,
        message: Message,
        name: str,
        envelope_from: AnyAddress | None,
        delivery_options: EnvelopeOptions,
        has_priority: bool,
    ) -> tuple[Rendered, Envelope]:
        if not message.send_to:
            raise IncompleteMessage("No recipients have been added")
        settings = self._settings_of(name)
        defaults = settings.config.defaults
        sender = message.own_sender or settings.default_sender or self.default_sender or defaults.sender
        if not sender:
            raise IncompleteMessage(
                "The message does not specify a sender and a default sender has not been configured",
                hint="Give it sender=..., or set MAILBRIDGE_DEFAULT_SENDER.",
            )
        message.sender = sender
        if message.date is None:
            message.date = time.time()
        rendered = mime.rendered(
            message,
            sender=sender,
            ascii_filenames=self.ascii_attachments,
            defaults=defaults,
            has_priority=has_priority,
        )
        return rendered, mime.envelope(
            message, sender=sender, envelope_from=envelope_from, delivery_options=delivery_options
        )

    def _settings_of(self, name: str) -> MailerSettings:
        if name in self._mailers:
            return self._mailers[name]
        nearest = get_close_matches(name, self._mailers, n=1)
        raise ConfigurationError(
            f"There is no mailer called {name!r}",
            stage="config",
            hint=f"Did you mean {nearest[0]!r}?" if nearest else f"There are: {', '.join(self._mailers)}.",
        )
