"""From what a program hands over to what is sent: the envelope, and the content for the wire.

What the server offers is not known here.
"""

from email.message import Message as AnyMessage

from mailbridge.envelope import Envelope
from mailbridge.errors import InvalidMessage
from mailbridge.message import Message
from mailbridge.rendering import Rendered, render

Sendable = AnyMessage | Message | Rendered | bytes


def prepared(message: Sendable, envelope: Envelope | None) -> tuple[Envelope, Rendered]:
    """The envelope and the content for the wire. Raises `InvalidMessage` and `InvalidAddress`."""
    if isinstance(message, Message):
        # Asked for before it becomes MIME, where Bcc is not.
        envelope, message = envelope or message.envelope(), message.as_email_message()
    if envelope is None:
        if not isinstance(message, AnyMessage):
            raise InvalidMessage("A message of bytes needs envelope=Envelope(sender, recipients)")
        envelope = Envelope.from_message(message)
    return envelope, message if isinstance(message, Rendered) else render(message)
