"""`Mail`: the extension. It serves any number of applications and holds no state of any of them.

Which application is meant is the active one's context to say, or `app=`. What is done for it stands in
`state.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack
from weakref import WeakSet

from flask import Flask, current_app, got_request_exception, has_app_context
from werkzeug.local import LocalProxy

from mailbridge import ConfigurationError, EnvelopeOptions, Mailer, Priority, SendResult
from mailbridge_flask import signals
from mailbridge_flask.commands import add_commands
from mailbridge_flask.connection import Connection
from mailbridge_flask.message import Message
from mailbridge_flask.settings import DEFAULT, mask_config, read_settings
from mailbridge_flask.state import MailState

__all__ = ["Mail"]


class Mail:
    """Sends the mail of Flask applications.

    `name` is the mailer that this object uses: "default" (the MAILBRIDGE_* keys) or one of
    MAILBRIDGE_MAILERS. `Mail(app)` is `Mail()` and `init_app(app)`.
    """

    def __init__(self, app: Flask | None = None, *, name: str = DEFAULT) -> None:
        self.name = name
        # Only to know, outside of any context, whose messages to record.
        self._apps: WeakSet[Flask] = WeakSet()
        if app is not None:
            self.init_app(app)

    def __repr__(self) -> str:
        return f"<Mail {self.name!r} of {len(self._apps)} applications>"

    def init_app(self, app: Flask) -> MailState:
        """Read the configuration of `app` and add the commands `flask mail …`. Nothing connects.

        May be called again to read it anew. Raises ConfigurationError: an unknown key (naming the
        nearest known one), a bad value, or another extension that sends this application's mail.
        """
        app = _real(app)
        other = app.extensions.get("mail")
        if other is not None and not isinstance(other, MailState):
            raise ConfigurationError(
                f"app.extensions['mail'] belongs to {type(other).__module__}: two extensions would send mail",
                stage="config",
                hint="Leave out its init_app(). Messages of Flask-Mail's class are taken by this one too.",
            )
        mask_config(app)
        got_request_exception.connect(mask_config, app)
        state = MailState(app, read_settings(app))
        state.mailer(self.name)
        app.extensions["mailbridge"] = app.extensions["mail"] = state
        self._apps.add(app)
        add_commands(app)
        return state

    def state_of(self, app: Flask | None = None) -> MailState:
        """What `app`, or else the active application, knows of mail. Raises RuntimeError if nothing."""
        if app is None and not has_app_context():
            raise RuntimeError(
                "Mail is sent for an application: work within `with app.app_context():`, or give app=..."
            )
        app = _real(current_app if app is None else app)
        state = app.extensions.get("mailbridge")
        if not isinstance(state, MailState):
            raise RuntimeError(f"Mail.init_app() was not called for the application {app.name!r}")
        return state

    @property
    def state(self) -> MailState:
        """What the active application knows of mail."""
        return self.state_of()

    @property
    def mailer(self) -> Mailer:
        """The core's mailer, for what it can do beyond this: verify(), stats(), send_many(), …

        It knows neither TESTING nor MAILBRIDGE_SUPPRESS_SEND, and sends no signals.
        """
        return self.state_of().mailer(self.name)

    def send(
        self,
        message: Message,
        *,
        using: str | None = None,
        app: Flask | None = None,
        deadline: float | None = None,
        priority: Priority | None = None,
        **delivery_options: Unpack[EnvelopeOptions],
    ) -> SendResult | None:
        """Send one message by the mailer `using`, or the one this object is named for.

        Returns what the server said, also kept in `message.mailbridge_result`; None where sending is
        suppressed (TESTING, MAILBRIDGE_SUPPRESS_SEND). `deadline` in seconds bounds all of it.
        `priority` is "high", "normal" or "low" where messages wait for the rate or a connection.
        `delivery_options` are options of the envelope (`dsn`, `send_at`, …) over those of the message.

        Raises BadHeaderError, IncompleteMessage and other kinds of InvalidMessage before anything is
        sent, MailbridgeError where the server can't be reached or refuses (then `outcome_unknown`
        says whether it may have taken the message), RuntimeError without an application.
        """
        return self.state_of(app).send(
            message, using=using or self.name, deadline=deadline, priority=priority, **delivery_options
        )

    def send_message(self, *args: Any, **kwargs: Any) -> SendResult | None:
        """Send the message that these arguments make; see `Message`."""
        try:
            message = Message(*args, **kwargs)
        finally:
            del args, kwargs  # the frames of an error outlive it, and reporters show what they hold
        return self.send(message)

    def connect(self, *, using: str | None = None, app: Flask | None = None) -> Connection:
        """A connection for several messages, lent by the pool for the time of a `with` block."""
        return self.state_of(app).connect(using or self.name)

    @contextmanager
    def record_messages(self, *, app: Flask | None = None) -> Iterator[list[Message]]:
        """For tests: a list that gets each message that is sent, or would be if not suppressed.

        Of `app`, else of the active application; outside of a context, of all that this object was
        initialised for.
        """
        if app is not None or has_app_context():
            with self.state_of(app).record_messages() as outbox:
                yield outbox
            return
        everything: list[Message] = []

        def record(sender: Flask, message: Message) -> None:
            if sender in self._apps:
                everything.append(message)

        with signals.recorded.connected_to(record):
            yield everything


def _real(app: Flask) -> Flask:
    """The application itself where `app` is `current_app`: signals compare senders by identity."""
    if isinstance(app, LocalProxy):
        found: Flask = app._get_current_object()
        return found
    return app
