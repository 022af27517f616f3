"""SMTP commands as values: `bytes()` of one is the exact line that goes out (RFC 5321 section 4.1).

Arguments are refused, never repaired: no control character can reach the wire from here. Nothing
here knows an order of commands; that is `flows`.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from mailbridge.errors import InvalidMessage
from mailbridge.reply import printable
from mailbridge.smtp.replies import MAX_EHLO_LINES, MAX_LINES

# RFC 5321 section 4.5.3.1.4, in octets with CRLF; RFC 4954 section 4 holds AUTH to it, too.
LONGEST_LINE = 512

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Command:
    """One line for the server.

    `stage` names the step in errors and timings. `ends_group`: nothing may be pipelined behind it
    (RFC 2920 section 3.1). `secret`: the line is masked in logs. `reply_lines` bounds the answer.
    """

    line: bytes
    stage: str
    ends_group: bool = False
    secret: bool = False
    reply_lines: int = MAX_LINES

    def __post_init__(self) -> None:
        if _CONTROL.search(self.line):
            shown = "" if self.secret else f": {printable(self.line.decode('utf-8', 'replace'))}"
            raise InvalidMessage(f"An SMTP command may hold no control character{shown}", stage=self.stage)

    def __bytes__(self) -> bytes:
        return self.line + b"\r\n"

    def __repr__(self) -> str:
        """The verb alone: addresses are no business of an error report's."""
        return f"<Command {self.shown if self.secret else self.shown.partition(' ')[0]}>"

    @property
    def shown(self) -> str:
        """The line as logs may show it."""
        text = self.line.decode("utf-8", "replace")
        if not self.secret:
            return text
        verb, _, rest = text.partition(" ")
        return f"{verb} {rest.split(' ')[0]} ***" if verb == "AUTH" else "***"

    @property
    def hidden(self) -> bytes:
        """The part of a secret line that `shown` masks: the SASL response."""
        if not self.line.startswith(b"AUTH "):
            return self.line
        return b"".join(self.line.split(b" ", 2)[2:])


def ehlo(name: str) -> Command:
    return Command(b"EHLO " + name.encode("ascii"), "ehlo", ends_group=True, reply_lines=MAX_EHLO_LINES)


def helo(name: str) -> Command:
    return Command(b"HELO " + name.encode("ascii"), "ehlo", ends_group=True)


def lhlo(name: str) -> Command:
    """LMTP's own EHLO (RFC 2033 section 4.1)."""
    return Command(b"LHLO " + name.encode("ascii"), "ehlo", ends_group=True, reply_lines=MAX_EHLO_LINES)


def mail_from(address: str, parameters: Iterable[str] = ()) -> Command:
    """MAIL FROM (section 4.1.1.2); `address` is an addr-spec, or empty for the null reverse-path."""
    return Command(_path("MAIL FROM", address, parameters), "mail_from")


def rcpt_to(address: str, parameters: Iterable[str] = ()) -> Command:
    return Command(_path("RCPT TO", address, parameters), "rcpt_to")


def _path(verb: str, address: str, parameters: Iterable[str]) -> bytes:
    return " ".join([f"{verb}:<{address}>", *parameters]).encode()


def bdat(size: int, *, last: bool = False) -> Command:
    """BDAT (RFC 3030 section 2): `size` bytes of content follow it; the `last` ones commit the message."""
    if last:
        return Command(f"BDAT {size} LAST".encode(), "final")
    return Command(f"BDAT {size}".encode(), "content")


def auth(mechanism: str, initial: bytes | None) -> Command:
    """AUTH (RFC 4954 section 4); an empty initial response is written as `=`."""
    line = b"AUTH " + mechanism.encode("ascii")
    if initial is not None:
        line += b" " + (b64encode(initial) or b"=")
    return Command(line, "auth", ends_group=True, secret=True)


def auth_response(data: bytes) -> Command:
    return Command(b64encode(data), "auth", ends_group=True, secret=True)


# What is awaited without a command of ours: the greeting, and the answer to content. Of content
# there are two: END_OF_CONTENT takes the place of CONTENT once the final dot may leave.
GREETING = Command(b"", "greeting", ends_group=True)
CONTENT = Command(b"", "content", ends_group=True)
END_OF_CONTENT = Command(b"", "final")

STARTTLS = Command(b"STARTTLS", "tls", ends_group=True)
# Gives an AUTH exchange up (RFC 4954 section 4); the server answers 501.
# Secret, since the server may quote what came before.
AUTH_CANCEL = Command(b"*", "auth", ends_group=True, secret=True)
DATA = Command(b"DATA", "data", ends_group=True)
RSET = Command(b"RSET", "rset")
NOOP = Command(b"NOOP", "noop", ends_group=True)
QUIT = Command(b"QUIT", "quit", ends_group=True)
