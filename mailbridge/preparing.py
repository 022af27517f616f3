"""From what a program hands over to what is sent: the envelope, and the content for the wire.

What the server offers is not known here.
"""

from email.message import Message as AnyMessage

from mailbridge.config import SMTPConfig
from mailbridge.content_sources import Source
from mailbridge.envelope import Envelope
from mailbridge.errors import InvalidMessage
from mailbridge.message import Message
from mailbridge.rendering import Rendered, render
from mailbridge.signing import signed

Sendable = AnyMessage | Message | Rendered | bytes | Source


def as_bytes(text: str) -> bytes:
    """A whole message that is given as text, in UTF-8. Raises `InvalidMessage` for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"The message holds characters that UTF-8 can't write: {error.reason}") from None


def prepared(message: Sendable, envelope: Envelope | None, config: SMTPConfig) -> tuple[Envelope, Rendered]:
    """The envelope and the content for the wire, with `config.defaults` and signed by `config.dkim`.

    Raises `InvalidMessage` and `InvalidAddress`.
    """
    if isinstance(message, Message):
        message = config.defaults.with_sender(message)
        # Asked for before it becomes MIME, where Bcc is not.
        envelope, message = envelope or message.envelope(), message.as_email_message()
    if isinstance(message, AnyMessage):
        message = config.defaults.completed(message)
    if envelope is None:
        if not isinstance(message, AnyMessage):
            raise InvalidMessage("Bytes, files and iterators need envelope=Envelope(sender, recipients)")
        envelope = Envelope.from_message(message)
    if not isinstance(message, Rendered):
        message = render(message, binary=envelope.body == "binarymime")
    return envelope, signed(message, config.dkim)
