"""From what a program hands over to what is sent: the envelope, and the content for the wire.

What the server offers is not known here.
"""

from email.message import Message as AnyMessage

from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.errors import InvalidMessage
from mailbridge.message.envelope import Envelope
from mailbridge.message.message import Message
from mailbridge.message.priority import Priority
from mailbridge.rendering.dkim import signed
from mailbridge.rendering.render import Rendered, render
from mailbridge.rendering.sources import ContentSource
from mailbridge.secret import clears_locals

Sendable = AnyMessage | Message | Rendered | bytes | ContentSource


def as_bytes(text: str) -> bytes:
    """A whole message that is given as text, in UTF-8. Raises `InvalidMessage` for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"The message holds characters that UTF-8 can't write: {error.reason}") from None


def priority_of(message: Sendable, given: Priority | None) -> Priority | None:
    """The one that is given, else the message's own."""
    return given or (message.priority if isinstance(message, Message) else None)


@clears_locals
def prepared(
    message: Sendable, envelope: Envelope | None, config: SMTPConfig, *, priority: Priority | None = None
) -> tuple[Envelope, Rendered]:
    """The envelope and the content for the wire, with `config.defaults` and signed by `config.dkim`.

    With a `priority` of its own, a message does not get the fields of the default one. Raises
    `InvalidMessage` and `InvalidAddress`.
    """
    has_priority = priority_of(message, priority) is not None
    if isinstance(message, Message):
        message = config.defaults.with_sender(message)
        # Asked for before it becomes MIME, where Bcc is not.
        envelope, message = envelope or message.envelope(), message.as_email_message()
    if isinstance(message, AnyMessage):
        message = config.defaults.completed(message, has_priority=has_priority)
    if envelope is None:
        if not isinstance(message, AnyMessage):
            raise InvalidMessage("Bytes, files and iterators need envelope=Envelope(sender, recipients)")
        envelope = Envelope.from_message(message)
    if not isinstance(message, Rendered):
        message = render(message, binary=envelope.body == "binarymime")
    return envelope, signed(message, config.dkim)
