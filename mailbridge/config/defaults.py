"""The option `defaults`: what messages have that do not say it themselves, such as a common From.

For `Message` and messages of the email package, never for bytes and never for what is signed already:
whatever is added could make a signature invalid. No message of the caller's is changed.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from email.message import Message as AnyMessage
from functools import lru_cache
from typing import Any

from mailbridge.config.values import as_switch, invalid
from mailbridge.errors import InvalidMessage
from mailbridge.message.headers import as_address, as_addresses
from mailbridge.message.message import Message
from mailbridge.message.priority import Priority

__all__ = ["MessageDefaults"]

_NOBODY = "nobody@invalid"  # for trying the others out; RFC 2606 section 2: a domain that nobody has
_WITHOUT_DEFAULT = frozenset({"from", "subject", "mime-version", "content-type", "content-transfer-encoding"})
# These say one thing together: a message with one of them has its own.
_PRIORITY_FIELDS = frozenset({"importance", "priority", "x-priority"})
_LIST_FIELDS = frozenset({"list-unsubscribe", "list-unsubscribe-post"})
_SIGNATURES = ("dkim-signature", "arc-seal")


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDefaults:
    """Given as the attributes of `Message` are; each holds where a message has none of its own.

    `headers` is a mapping; each field holds by itself. Raises ConfigurationError.
    """

    sender: Any = None
    reply_to: Any = ()
    headers: Any = ()
    list_unsubscribe: Any = ()
    one_click_unsubscribe: bool = False
    priority: Priority | None = None

    def __post_init__(self) -> None:
        try:
            values = {
                "sender": str(as_address(_pair(self.sender))) if self.sender else None,
                "reply_to": tuple(map(str, as_addresses(self.reply_to or ()))),
                "headers": _pairs(self.headers),
                "list_unsubscribe": _texts(self.list_unsubscribe),
                "one_click_unsubscribe": as_switch(
                    "defaults.one_click_unsubscribe", self.one_click_unsubscribe
                ),
                "priority": self.priority or None,
            }
            for name, value in values.items():
                object.__setattr__(self, name, value)
            _fields_of(self)
        except InvalidMessage as error:
            raise invalid("defaults", f"can't be for messages: {error.message}") from error

    def with_sender(self, message: Message) -> Message:
        """`message`, from the default sender if it is from nobody."""
        return message if message.sender or not self.sender else replace(message, sender=self.sender)

    def completed(self, message: AnyMessage, *, has_priority: bool = False) -> AnyMessage:
        """`message` with the fields that it lacks; the same one if it lacks none.

        `has_priority`: it is sent with one of its own, whatever its fields say.
        """
        own = set(map(str.lower, message.keys())) | ({"priority"} if has_priority else set())
        if not own.isdisjoint(_SIGNATURES):
            return message
        for together in (_PRIORITY_FIELDS, _LIST_FIELDS):
            if not own.isdisjoint(together):
                own |= together
        lacking = [(name, value) for name, value in _fields_of(self) if name.lower() not in own]
        if not lacking:
            return message
        twin = copy.copy(message)
        del twin["\0"]  # no such field, but from here on the copy has a list of fields of its own
        for name, value in lacking:
            twin[name] = value
        return twin


# Asked for each message; the pairs that were made for the last few configurations are kept.
@lru_cache(maxsize=64)
def _fields_of(defaults: MessageDefaults) -> tuple[tuple[str, str], ...]:
    """The fields as a message has them. Raises InvalidMessage."""
    probe = Message(
        sender=defaults.sender or _NOBODY,
        reply_to=defaults.reply_to,
        headers=defaults.headers,
        list_unsubscribe=defaults.list_unsubscribe,
        one_click_unsubscribe=defaults.one_click_unsubscribe,
        priority=defaults.priority,
    )
    made = probe.as_email_message().items()
    fields = [(name, str(value)) for name, value in made if name.lower() not in _WITHOUT_DEFAULT]
    return (("From", defaults.sender), *fields) if defaults.sender else tuple(fields)


def _pair(given: object) -> object:
    return tuple(given) if isinstance(given, list) else given  # a pair as JSON has it


def _pairs(given: object) -> tuple[tuple[str, str], ...]:
    if isinstance(given, Mapping):
        return tuple((str(name), str(value)) for name, value in given.items())
    if isinstance(given, tuple) and all(isinstance(each, tuple) and len(each) == 2 for each in given):
        return given
    raise invalid("defaults.headers", f"must be a mapping, not {type(given).__name__}")


def _texts(given: object) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Iterable):
        raise invalid("defaults.list_unsubscribe", f"must be a URI or a list, not {type(given).__name__}")
    return tuple(given)
