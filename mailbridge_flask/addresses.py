"""Addresses and header values as Flask-Mail's users write them: strings, or pairs of name and address.

Addresses are read by the core, which refuses what could mean two things; nothing is repaired here.
"""

import re
from collections.abc import Iterable
from email.header import Header

import mailbridge
from mailbridge import InvalidAddress
from mailbridge_flask.errors import BadHeaderError

__all__ = ["AnyAddress", "as_pair", "domain_of", "sanitize_address", "shown", "unfolded"]

#: `a@b`, `Name <a@b>`, or (name, address).
AnyAddress = str | tuple[str, str]

# RFC 5322 section 2.2.3: a line break before a blank continues the field, unless a line is blank altogether.
_FOLD = re.compile(r"(?<=[^\r\n])\r\n[ \t]+(?=[^ \t\r\n])")
# What a phrase may hold unquoted: RFC 5322 section 3.2.3, and everything beyond ASCII.
_PLAIN_NAME = re.compile(r"[^\x00-\x1f\"(),.:;<>@\[\]\\]*")
_DOMAIN = re.compile(r"@([A-Za-z0-9.-]+)>?\s*\Z")


def as_pair(value: object) -> tuple[str, str]:
    """(name, address) from a sequence of two; no name at all may be None. Raises InvalidAddress."""
    parts = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(parts) != 2 or not isinstance(parts[1], str):
        raise InvalidAddress("Invalid address: it must be a string, or a pair of name and address")
    return "" if parts[0] is None else str(parts[0]), parts[1]


def shown(address: AnyAddress) -> str:
    """A pair as one string, with the name in quotes where it needs them; a string as it is."""
    if isinstance(address, str):
        return address
    name, addr_spec = as_pair(address)
    if not _PLAIN_NAME.fullmatch(name):
        name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    return f"{name} <{addr_spec}>" if name else addr_spec


def domain_of(address: AnyAddress | None) -> str | None:
    """The domain of an address, where a glance is enough to see an ASCII one."""
    found = _DOMAIN.search(shown(address)) if address else None
    return found[1] if found else None


def sanitize_address(address: AnyAddress, encoding: str = "utf-8") -> str:
    """`address` in ASCII, as a header field has it: name as an encoded word, domain in A-labels.

    A local part that is not ASCII stays as it is (SMTPUTF8); `encoding` is that of the name.
    Raises InvalidMessage, mostly as its kind InvalidAddress; for line breaks in a name too.
    """
    plain = address if isinstance(address, str) else as_pair(address)
    field = mailbridge.Message(sender=plain).as_email_message()["From"]
    mailbox = field.addresses[0]
    if mailbox.display_name.isascii():
        return str(mailbox)
    try:
        name = Header(mailbox.display_name, encoding).encode(linesep="")
    except (LookupError, UnicodeEncodeError):
        name = Header(mailbox.display_name, "utf-8").encode(linesep="")
    return f"{name} <{mailbox.addr_spec}>"


def unfolded(name: str, value: str) -> str:
    """The value of the header field `name` on one line.

    Raises BadHeaderError for a line break that does not continue it.
    """
    text = _FOLD.sub(" ", value)
    if "\r" in text or "\n" in text:
        raise BadHeaderError(f"There is a line break in the header field {name}")
    return text
