"""`EmailBackend`: Django's door to mailbridge.

Django makes a new backend for every send, so this is a thin handle: it finds out the configuration
(configured.py) and hands the messages to the mailer of this process, which keeps the pool.

Sending is a row of named steps, each of which a subclass may replace:

    configure   which server takes this message           -> SMTPConfig
    prepare     what is sent, from whom and to whom        -> Rendered, Envelope
    deliver     messages for one server go to its mailer   -> SendResult or error, each
    record      the outcome goes onto the message
    announce    signals and log records tell of it
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from django.core.mail import EmailMessage

import mailbridge
from mailbridge import (
    ConfigurationError,
    Envelope,
    EnvelopeOptions,
    InvalidMessage,
    MailbridgeError,
    Priority,
    Rendered,
    SendResult,
    SMTPConfig,
    clears_locals,
)
from mailbridge_django import signals
from mailbridge_django.base import ConfiguredBackend
from mailbridge_django.logs import one_send_deeper, report
from mailbridge_django.resolver import resolved_config

# What Django calls the mailer that is used if no other is named.
DEFAULT_ALIAS = "default"


@dataclass(slots=True, kw_only=True, repr=False)
class Delivery:
    """A message on its way through `send_messages`.

    `outcome` is None as long as there is none, and stays so if the message is not to be sent.
    `may_be_silenced`: `fail_silently` keeps the error from the caller.
    """

    message: EmailMessage
    config: SMTPConfig | None = None
    outcome: SendResult | Exception | None = None
    may_be_silenced: bool = False

    def __repr__(self) -> str:
        """No text of an error: it may quote the message, and error reports keep the repr of variables."""
        return f"<Delivery of {type(self.message).__name__}, outcome: {type(self.outcome).__name__}>"

    @property
    def priority(self) -> Priority | None:
        """The lane in which it waits: the message's attribute `mailbridge_priority`, if it has one."""
        return getattr(self.message, "mailbridge_priority", None)

    @property
    def error(self) -> Exception | None:
        return self.outcome if isinstance(self.outcome, Exception) else None

    @property
    def was_sent(self) -> bool:
        return isinstance(self.outcome, SendResult)


class EmailBackend(ConfiguredBackend):
    """Sends through mailbridge. Takes the options of Django's SMTP backend and those of mailbridge.

    Raises MailerMisconfigured (an InvalidMailer, a ConfigurationError, a ValueError) for options that
    can't work. What is set later on the attributes of Django's backend (`timeout`, `host`, ...) counts.
    """

    def send_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """Send all of them, and return how many the server took (for some of their recipients at least).

        A message that is refused does not stop the others; a server that can't be reached does. At the
        end the first error is raised, with `.results`: for each message a SendResult, an error, or None
        (it has no recipients, or was cancelled). `fail_silently` silences the errors of sending, not
        those of configuring and preparing, which are mistakes of the program.
        """
        batch = [Delivery(message=message) for message in email_messages or ()]
        with one_send_deeper() as too_deep:
            if too_deep is None:
                self._send_batch([delivery for delivery in batch if delivery.message.recipients()])
            else:
                _give_outcome(batch, too_deep)
            for delivery in batch:
                self.record(delivery.message, delivery.outcome)
            for delivery in batch if too_deep is None else ():
                self.announce(delivery.message, delivery.outcome)
        return self._conclude(batch)

    def _send_batch(self, batch: list[Delivery]) -> None:
        """Ask the receivers of pre_send about all, then send them in order, server by server."""
        for delivery in batch:
            self._choose_server(delivery)
        ready = (delivery for delivery in batch if delivery.config is not None)
        for (config, _), deliveries in groupby(ready, key=lambda each: (each.config, each.priority)):
            if config is not None:
                self.deliver(config, list(deliveries))

    def _choose_server(self, delivery: Delivery) -> None:
        message = delivery.message
        raised = signals.announce(signals.pre_send, type(self), message=message, alias=self._alias_name)
        if any(isinstance(error, signals.CancelSend) for error in raised) or not message.recipients():
            return
        try:
            delivery.config = self.configure(message)
        except Exception as error:  # a resolver is the project's code, and may raise anything
            delivery.outcome = error

    def _conclude(self, batch: list[Delivery]) -> int:
        for delivery in batch:
            if delivery.error is not None and not (self.fail_silently and delivery.may_be_silenced):
                # The outcome on the message is a copy; the error itself would be part of itself.
                outcomes = (vars(each.message) for each in batch)
                delivery.error.__dict__["results"] = tuple(
                    known["mailbridge_result"] or known["mailbridge_error"] for known in outcomes
                )
                raise delivery.error  # no variable holds it: its repr may quote what the message says
        return sum(delivery.was_sent for delivery in batch)

    # -- the steps ----------------------------------------------------------------------------------------

    def configure(self, message: EmailMessage) -> SMTPConfig:
        """The server for `message`: what `config_resolver` says, or the backend's own."""
        chosen = resolved_config(self._resolver, message, self._alias_name) if self._resolver else None
        return chosen or self.config

    @clears_locals
    def prepare(self, message: EmailMessage, config: SMTPConfig) -> tuple[Rendered, Envelope]:
        """The content of `message`, with the defaults of `config`, and its envelope.

        Whatever it raises becomes the outcome.

        Wishes to the server are in its attribute `mailbridge_envelope_options`, if it has one.
        Django builds the message, mailbridge writes it: Python's own generator lets a line break that
        hides in an encoded word start a header field of its own (CVE-2024-6923).
        """
        sender = self.prep_address(message.from_email, force_ascii=False)
        recipients = [self.prep_address(address, force_ascii=False) for address in message.recipients()]
        has_priority = getattr(message, "mailbridge_priority", None) is not None
        completed = config.defaults.completed(message.message(), has_priority=has_priority)
        return mailbridge.render(completed), Envelope(sender, recipients, **_delivery_options(message))

    def deliver(self, config: SMTPConfig, deliveries: list[Delivery]) -> None:
        """Send through the mailer of `config`, and give each of `deliveries` its outcome.

        They are of one priority.
        """
        handed: list[Delivery] = []
        try:
            outcomes = mailbridge.mailer_for(config).send_many(
                self._prepared(config, deliveries, handed), priority=deliveries[0].priority
            )
        except OSError as error:
            _give_outcome(deliveries, error)
            return
        for delivery, outcome in zip(handed, outcomes, strict=True):
            _give_outcome([delivery], outcome)

    def _prepared(
        self, config: SMTPConfig, deliveries: list[Delivery], handed: list[Delivery]
    ) -> Iterator[tuple[Rendered, Envelope]]:
        """One message after the other, so that only one is in memory as bytes; `handed` grows along."""
        for delivery in deliveries:
            try:
                prepared = self.prepare(delivery.message, config)
            except Exception as error:  # message() may be the project's own, and raise anything
                delivery.outcome = error
            else:
                handed.append(delivery)
                yield prepared

    def record(self, message: EmailMessage, outcome: SendResult | Exception | None) -> None:
        """Leave the outcome on the message, as `mailbridge_result` or `mailbridge_error`; the other is None.

        The error is a copy: the one that is raised holds its traceback, and that holds the message.
        """
        message.__dict__.update(
            mailbridge_result=outcome if isinstance(outcome, SendResult) else None,
            mailbridge_error=_detached(outcome) if isinstance(outcome, Exception) else None,
        )

    def announce(self, message: EmailMessage, outcome: SendResult | Exception | None) -> None:
        """Tell the receivers of signals, and the log if nobody else will hear. Raises nothing."""
        known = {"message": message, "alias": self._alias_name}
        if isinstance(outcome, SendResult):
            signals.announce(signals.post_send, type(self), **known, result=outcome)
        elif outcome is not None:
            if self.fail_silently:
                report(logging.WARNING, "A message was not sent, silently: %s", outcome)
            signals.announce(signals.send_failed, type(self), **known, error=outcome)

    @property
    def _alias_name(self) -> str:
        return self.alias or DEFAULT_ALIAS


def _delivery_options(message: EmailMessage) -> EnvelopeOptions:
    """The delivery options: those of `mailbridge.Envelope`, which refuses others."""
    delivery_options = getattr(message, "mailbridge_envelope_options", None) or {}
    if not isinstance(delivery_options, Mapping):
        raise InvalidMessage(
            f"mailbridge_envelope_options must be a dict, not {type(delivery_options).__name__}"
        )
    return cast("EnvelopeOptions", delivery_options)


def _detached(error: Exception) -> Exception:
    """`error` without its traceback, and the errors of earlier attempts without theirs."""
    try:
        twin = copy(error)
    except Exception:  # a class of the project's that can't be made from its arguments
        return error
    if isinstance(twin, MailbridgeError):
        twin.attempts = tuple(copy(earlier) for earlier in twin.attempts)
    return twin


def _give_outcome(deliveries: Iterable[Delivery], outcome: SendResult | Exception) -> None:
    """To those of `deliveries` that have none yet."""
    for delivery in deliveries:
        if delivery.outcome is None:
            delivery.outcome = outcome
            delivery.may_be_silenced = not isinstance(outcome, ConfigurationError)
