"""The arguments of MAIL and RCPT (RFC 5321 section 4.1.2): a path in angle brackets, and parameters.

Refuses what is not a mailbox: comments, lists, display names. What a parameter means is not asked here.
"""

import re

from mailbridge.errors import InvalidAddress
from mailbridge.message.addresses import parse_address
from mailbridge.server.reject import Reject

# A source route (`@a,@b:`) is taken and ignored, as section 4.1.1.3 asks.
_PATH = re.compile(r" ?<(?:@[^:<>]{0,512}:)?([^<>]{0,1024})>(?: +(.*))?", re.DOTALL)
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_VALUE = re.compile(r"[\x21-\x3c\x3e-\x7e]{1,512}")


def parse_path(argument: str | None, keyword: str) -> tuple[str, dict[str, str]]:
    """Address ("" for `<>`) and parameters (names in upper case) behind `keyword`, "FROM:" or "TO:".

    Raises Reject.
    """
    text = argument or ""
    found = _PATH.fullmatch(text, len(keyword))
    if found is None or text[: len(keyword)].upper() != keyword:
        raise Reject(501, f"5.5.4 Syntax: {keyword}<address> [parameters]")
    return _address(found[1]), _parameters(found[2] or "")


def _address(path: str) -> str:
    if not path or path.lower() == "postmaster":  # section 4.5.1: a reserved mailbox, known without a domain
        return path
    if path != path.strip() or ("(" in path and not path.startswith('"')):
        raise Reject(553, "5.1.3 Malformed address")
    try:
        return parse_address(path)[1].addr_spec
    except InvalidAddress:
        raise Reject(553, "5.1.3 Malformed address") from None


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        name = name.upper()
        if not _KEYWORD.fullmatch(name) or (equals and not _VALUE.fullmatch(value)) or name in found:
            raise Reject(501, "5.5.4 Malformed or repeated parameter")
        found[name] = value
    return found
