"""What tests say of the messages that a double was given, and what is told where it does not hold."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Protocol

__all__ = ["Expectations", "SeenMessage"]


class SeenMessage(Protocol):
    """A message as a double saw it: the envelope, and the content as bytes."""

    @property
    def sender(self) -> str: ...

    @property
    def recipients(self) -> tuple[str, ...]: ...

    @property
    def content(self) -> bytes: ...


def parsed(content: bytes) -> EmailMessage:
    """The message as Python's email package has it: `message["Subject"]`, `message.get_body()`."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


class Expectations:
    """For a double with `messages`. Each method raises AssertionError, which lists what there was."""

    @property
    def messages(self) -> Sequence[SeenMessage]:
        raise NotImplementedError

    def the_message(self, *, to: str | None = None, subject: str | None = None) -> EmailMessage:
        """The one message to `to` (a recipient of the envelope) whose Subject holds `subject`.

        AssertionError if there is none, or more than one.
        """
        found = [parsed(one.content) for one in self.messages if _matches(one, to, subject)]
        if len(found) != 1:
            wanted = " ".join(filter(None, [to and f"to {to}", subject and f"with {subject!r}"]))
            raise AssertionError(f"{len(found)} messages {wanted}, not one; {_listed(self.messages)}")
        return found[0]

    def assert_messages(self, count: int) -> None:
        """Exactly so many messages were taken."""
        if len(self.messages) != count:
            raise AssertionError(f"{len(self.messages)} messages, not {count}; {_listed(self.messages)}")


def _matches(message: SeenMessage, to: str | None, subject: str | None) -> bool:
    if to is not None and to not in message.recipients:
        return False
    return subject is None or subject in str(parsed(message.content)["Subject"] or "")


def _listed(messages: Sequence[SeenMessage]) -> str:
    if not messages:
        return "there are no messages"
    lines = (
        f"  {', '.join(message.recipients)}: {parsed(message.content)['Subject']}" for message in messages
    )
    return "\n".join(["the messages were:", *lines])
