"""How the scripted server's small SMTP server behaves when it is healthy: its options, as one value."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from mailbridge.testing.records import ReceivedMessage

__all__ = ["DEFAULT_KEYWORDS", "Behaviour", "Replies", "chosen"]

Text = str | bytes
Argument = TypeVar("Argument")
# One reply for all, replies by address, or a callable; None (or a missing address) means the regular reply.
Replies = Text | Mapping[str, Text] | Callable[[Argument], Text | None] | None

DEFAULT_KEYWORDS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Options of the SMTP session; `ScriptedServer` documents them."""

    tls: Literal["starttls", "implicit"] | None = None
    context: ssl.SSLContext | None = None
    lmtp: bool = False
    hostname: str = "mx.test.example"
    keywords: tuple[str, ...] = DEFAULT_KEYWORDS
    users: Mapping[str, str] = field(default_factory=dict)
    auth: tuple[str, ...] = ("PLAIN", "LOGIN", "CRAM-MD5")
    auth_in_clear: bool = False
    require_auth: bool = False
    require_tls: bool = False
    max_recipients: int | None = None
    mail_replies: Replies[str] = None
    rcpt_replies: Replies[str] = None
    data_reply: Replies[str] = None
    final_replies: Replies[ReceivedMessage] = None

    @property
    def keyword_names(self) -> frozenset[str]:
        """The first words of `keywords`, in upper case."""
        return frozenset(keyword.split(" ")[0].upper() for keyword in self.keywords)

    @property
    def max_size(self) -> int | None:
        """The limit in bytes that the SIZE keyword names; None if it names none (RFC 1870 section 4)."""
        for keyword in self.keywords:
            name, _, value = keyword.partition(" ")
            if name.upper() == "SIZE" and value.isdigit():
                return int(value) or None
        return None


def chosen(replies: Replies[Argument], address: str, argument: Argument) -> Text | None:
    """What the user wants answered here, or None for the regular reply."""
    if replies is None or isinstance(replies, (str, bytes)):
        return replies
    if isinstance(replies, Mapping):
        return replies.get(address)
    return replies(argument)
