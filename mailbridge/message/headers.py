"""What may stand in the header fields of a message that is made here: checked, then set.

Header injection ends here: no control character gets into a field, neither as it is nor inside an
encoded word that the email package would decode. Writing and folding belong to `serializing`.
"""

import re
from collections.abc import Iterable
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.message.addresses import Mailbox, parse_address, parse_address_list, to_ascii_domain

__all__ = [
    "Addresses",
    "AnyAddress",
    "as_address",
    "as_addresses",
    "as_authors",
    "checked",
    "is_message_id",
    "message_ids",
    "set_field",
    "unsubscribe_fields",
    "looks_encoded",
]

#: `a@b`, `Name <a@b>`, (name, address) or the email package's Address.
AnyAddress = str | tuple[str, str] | Address
Addresses = str | Address | Iterable[AnyAddress]

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 section 2.2
#: What readers decode (RFC 2047 section 2, taken generously).
_ENCODED_WORD_BEGINS = re.compile(r"=\?[^?]*\?[bq]\?", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+>")  # RFC 5322 section 3.6.4, without blanks and comments
_URI = re.compile(r"[!#-;=?-~]+")  # RFC 3986 appendix C: what may stand between "<" and ">"
# A URI is one word, and must fit on a line of 998 with the name of the field (RFC 5322 section 2.1.1).
_LONGEST_URI = 890


def looks_encoded(text: str) -> bool:
    """Whether readers would decode a part of `text` as an encoded word (RFC 2047)."""
    begins = _ENCODED_WORD_BEGINS.search(text)
    return begins is not None and "?=" in text[begins.end() :]


def checked(what: str, text: str) -> str:
    """`text`, if it has neither control characters, which could end a field, nor lone surrogates."""
    if found := _CONTROL.search(text):
        raise InvalidMessage(f"The {what} contains the control character {found[0]!r}")
    return text


def set_field(message: EmailMessage, name: str, value: str, *, is_text: bool = False) -> None:
    """Add a field; text arrives as it is, be it like an encoded word. Raises InvalidMessage."""
    if not _FIELD_NAME.fullmatch(name):
        raise InvalidMessage(f"{name!r} can't be the name of a header field")
    text = checked(f"header field {name}", value)
    if looks_encoded(text):
        if not is_text:
            raise InvalidMessage(f"The header field {name} can't hold what looks like an encoded word")
        # The email package decodes them in what it is given, and readers would: so this becomes one itself.
        text = Header(text, "utf-8").encode(linesep="")
    try:
        message[name] = text
    except ValueError as error:
        raise InvalidMessage(f"The header field {name} can't be set: {error}") from error


def as_addresses(given: Addresses) -> list[Address]:
    """All of one field. Raises InvalidAddress, InvalidMessage."""
    if isinstance(given, str):
        return [_made(*each) for each in parse_address_list(given)]
    if not isinstance(given, Iterable):
        return [as_address(given)]
    return [as_address(each) for each in given]


def as_authors(given: AnyAddress | list[AnyAddress]) -> list[Address]:
    """Those of From: one, or a list of them."""
    return [as_address(each) for each in given] if isinstance(given, list) else [as_address(given)]


def as_address(given: object) -> Address:
    """One address. Raises InvalidAddress, InvalidMessage."""
    if isinstance(given, Address):
        return _made(given.display_name, Mailbox(given.username, to_ascii_domain(given.domain)))
    if isinstance(given, str):
        return _made(*parse_address(given))
    match given:
        case (str(name), str(address)):
            return _made(name, parse_address(address)[1])
    raise InvalidAddress(f"Invalid address: {given!r} is neither a string nor a pair of name and address")


def _made(display: str, mailbox: Mailbox) -> Address:
    checked("display name", display)
    return Address(display, mailbox.local, mailbox.domain)


def is_message_id(text: str) -> bool:
    """Whether it is `<left@right>`, of ASCII and without blanks; Content-IDs have that form too."""
    return _MESSAGE_ID.fullmatch(text) is not None


def message_ids(name: str, given: str | Iterable[str] | None) -> str:
    """The value of a field of message ids, which may be empty. Raises InvalidMessage."""
    ids = given.split() if isinstance(given, str) else list(given or ())
    for each in ids:
        if not is_message_id(each):
            raise InvalidMessage(f"{name} is made of ids as <left@right>, and one is none")
    return " ".join(ids)


def unsubscribe_fields(given: str | Iterable[str], *, one_click: bool) -> dict[str, str]:
    """List-Unsubscribe (RFC 2369 section 3.2) and, for one click, List-Unsubscribe-Post (RFC 8058).

    Raises InvalidMessage for what is neither an http, https nor mailto URI, and for one click
    without an https one (RFC 8058 section 3.1).
    """
    uris = [_unsubscribe_uri(each) for each in ([given] if isinstance(given, str) else given)]
    if one_click and not any(uri.lower().startswith("https:") for uri in uris):
        raise InvalidMessage("To unsubscribe with one click, list_unsubscribe needs an https:// URI")
    fields = {"List-Unsubscribe": ", ".join(f"<{uri}>" for uri in uris)} if uris else {}
    return {**fields, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"} if one_click else fields


def _unsubscribe_uri(given: object) -> str:
    uri = given.strip().removeprefix("<").removesuffix(">") if isinstance(given, str) else ""
    if not _URI.fullmatch(uri):
        raise InvalidMessage(
            "list_unsubscribe holds no URI; percent-encode what is not ASCII, blanks, and brackets in it"
        )
    if len(uri) > _LONGEST_URI:
        raise InvalidMessage(f"A URI to unsubscribe is longer than {_LONGEST_URI} characters")
    try:
        parts = urlsplit(uri)
        leads_somewhere = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise InvalidMessage("list_unsubscribe holds what can't be a URI") from None
    if parts.scheme == "mailto":
        parse_address(unquote(parts.path))
    elif parts.scheme not in ("http", "https") or not leads_somewhere:
        raise InvalidMessage(
            "list_unsubscribe holds another URI than https://host/…, http://host/… or mailto:address"
        )
    return uri
