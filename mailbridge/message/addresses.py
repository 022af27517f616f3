"""Mail addresses: parsed once into local part and domain, and always written from these parts.

`parse_mailbox` reads what stands in an envelope (RFC 5321 section 4.1.2, with the UTF-8 of RFC 6531),
`parse_address` and `parse_address_list` what people and header fields write (RFC 5322 section 3.4).
What could mean two things is refused, never repaired: no obsolete routes, no white space or comments
inside an address, no encoded words in it, no unquoted specials in a display name.

The scanner is one pass without recursion, so neither long nor deeply nested input can hurt. Nothing
here asks DNS whether a domain exists, and nothing folds or encodes header fields.
"""

import binascii
import quopri
import re
from collections.abc import Iterator

from mailbridge.errors import InvalidAddress
from mailbridge.message.mailbox import (
    ATEXT,
    CONTROL,
    DOT_ATOM,
    Mailbox,
    as_ascii,
    quoted,
    refusal,
    to_ascii_domain,
)

__all__ = [
    "Mailbox",
    "format_address",
    "parse_address",
    "parse_address_list",
    "parse_mailbox",
    "quoted_phrase",
    "to_ascii_domain",
]

# RFC 2047 section 2 ends an encoded word at 75; sloppy writers go beyond, within reason.
MAX_ENCODED_WORD = 1000

# Of these, what not even a display name may hold. The rest is met in old mail (8-bit names).
_BREAK = re.compile("[\x00-\x08\x0a-\x1f\x7f\u2028\u2029]")
_QUOTED = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_DOMAIN_TEXT = re.compile(r"\[[^\[\]\\]*+\]|[^\x00-\x20\x7f\"(),:;<>@\[\]\\]++")
_WORD = re.compile(r"[^\x00-\x20\x7f\"(),:;<>@\[\]\\]++")
_BLANK = re.compile(r"[ \t]++")
_COMMENT_PART = re.compile(r"[^()\\]++|\\.|[()]", re.DOTALL)
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_PLAIN_PHRASE = re.compile(rf"{ATEXT}++(?: {ATEXT}++)*+")
# What nearly all addresses are, and what needs no scanner: a dot-atom of ASCII at a name.
_PLAIN_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]++"
_PLAIN_ADDRESS = re.compile(rf"({_PLAIN_ATOM}(?:\.{_PLAIN_ATOM})*+)@([\w.-]++)", re.ASCII)
_ENCODED_WORD = re.compile(r"=\?([^?*]+)(?:\*[^?]*)?\?([bBqQ])\?([^?]*)\?=")


def parse_mailbox(text: str) -> Mailbox:
    """The mailbox that `text` is: exactly one address, nothing before, after or between.

    A domain that is not ASCII is turned into A-labels (UTS-46; needs the extra `idna`). A domain
    ends without a dot. Raises InvalidAddress.
    """
    scanner = _Scanner(text)
    if CONTROL.search(text):
        raise scanner.refusal("it contains a control character")
    mailbox = scanner.mailbox()
    if scanner.position != len(text):
        raise scanner.unexpected()
    return mailbox


def parse_address(text: str) -> tuple[str, Mailbox]:
    """Display name (decoded; may be empty) and mailbox of `Name <a@b>` or `a@b`. Raises InvalidAddress."""
    scanner = _header_scanner(text)
    if plain := _PLAIN_ADDRESS.fullmatch(scanner.text):
        return "", Mailbox(plain[1], plain[2])
    return scanner.only_address()


def parse_address_list(text: str) -> list[tuple[str, Mailbox]]:
    """The addresses of a header field's value, in order, those of groups among them.

    Folded lines are joined and comments dropped; encoded words (RFC 2047) are decoded in display
    names and nowhere else. Empty elements (`a@b,,c@d`) are skipped. Raises InvalidAddress.
    """
    return list(_header_scanner(text).addresses())


def format_address(display: str, mailbox: Mailbox) -> str:
    """`Name <a@b>`, quoted where it must be, or `a@b` without a name. The name stays Unicode.

    Raises InvalidAddress for a name with control characters.
    """
    return f"{quoted_phrase(display)} <{mailbox.addr_spec}>" if display else mailbox.addr_spec


def quoted_phrase(display: str) -> str:
    """A display name or the name of a group, in quotes where RFC 5322 section 3.2.5 wants them."""
    if CONTROL.search(display):
        raise refusal(display, "its display name contains a control character")
    # What looks like an encoded word would be decoded by the reader.
    is_plain = _PLAIN_PHRASE.fullmatch(display) and "=?" not in display
    return display if is_plain else quoted(display)


def _header_scanner(text: str) -> "_Scanner":
    scanner = _Scanner(text)
    scanner.text = _FOLD.sub("", text)
    if _BREAK.search(scanner.text):
        raise scanner.refusal("it contains a control character")
    return scanner


class _Scanner:
    """A position in a text, and what can stand there."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise InvalidAddress(f"Invalid address: it must be a string, not {type(text).__name__}")
        self.text = text
        self.position = 0

    def refusal(self, why: str) -> InvalidAddress:
        return refusal(self.text, why)

    def unexpected(self) -> InvalidAddress:
        found = self.peek()
        if not found:
            return self.refusal("it ends too early")
        return self.refusal(f"{found!r} can't stand at position {self.position}")

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def skip_blanks_and_comments(self) -> None:
        while True:
            self.take(_BLANK)
            if self.peek() != "(":
                return
            self.skip_comment()

    def skip_comment(self) -> None:
        depth = 0  # comments nest (RFC 5322 section 3.2.2); counted, since recursion could be exhausted
        while True:
            part = self.take(_COMMENT_PART)
            if part is None:
                raise self.refusal("a comment is not closed")
            depth += {"(": 1, ")": -1}.get(part, 0)
            if depth == 0:
                return

    def local_part(self) -> str | None:
        """A local part if one stands here with its "@" right behind it; both are taken."""
        start = self.position
        token = self.take(_QUOTED) if self.peek() == '"' else self.take(DOT_ATOM)
        if token is None or self.peek() != "@":
            self.position = start
            return None
        self.position += 1
        return _QUOTED_PAIR.sub(r"\1", token[1:-1]) if token.startswith('"') else token

    def mailbox(self) -> Mailbox:
        local = self.local_part()
        if local is None:
            raise self.refusal("it is not of the form name@domain")
        return self.after_local_part(local)

    def after_local_part(self, local: str) -> Mailbox:
        domain = self.take(_DOMAIN_TEXT)
        if domain is None:
            raise self.unexpected()
        ascii_domain, problem = as_ascii(domain)
        if problem:
            raise refusal(f"{local}@{domain}", problem)
        return Mailbox(local, ascii_domain)

    def only_address(self) -> tuple[str, Mailbox]:
        """One address, neither a group nor a list, and then the end."""
        self.skip_blanks_and_comments()
        address = self.address(may_be_group=False)
        self.skip_blanks_and_comments()
        if address is None or self.peek():
            raise self.unexpected()
        return address

    def addresses(self) -> Iterator[tuple[str, Mailbox]]:
        """RFC 5322 section 3.4: address-list, with the empty elements of section 4.4."""
        in_group = False
        while True:
            self.skip_blanks_and_comments()
            found = self.peek()
            if found == "," or (found == ";" and in_group):
                self.position += 1
                if found == ";":
                    in_group = False
                    self.end_of_element(")")
                continue
            if not found:
                break
            address = self.address(may_be_group=not in_group)
            if address is None:
                in_group = True
                continue
            yield address
            self.end_of_element(";" if in_group else "")
        if in_group:
            raise self.refusal('a group is not closed by ";"')

    def end_of_element(self, closing: str) -> None:
        self.skip_blanks_and_comments()
        found = self.peek()
        if found and found != "," and found != closing:
            raise self.unexpected()

    def address(self, *, may_be_group: bool) -> tuple[str, Mailbox] | None:
        """An address, or None where it was the name of a group and its colon."""
        local = self.local_part()
        if local is not None:
            return "", self.after_local_part(local)
        display = self.phrase()
        found = self.peek()
        if found == ":" and display and may_be_group:
            self.position += 1
            return None
        if found != "<":
            if display and found in {"", ",", ";"}:
                raise self.refusal("it is not of the form name@domain")
            raise self.unexpected()
        self.position += 1
        self.skip_blanks_and_comments()
        mailbox = self.mailbox()
        self.skip_blanks_and_comments()
        if self.peek() != ">":
            raise self.unexpected()
        self.position += 1
        return display, mailbox

    def phrase(self) -> str:
        """A display name up to what can't be part of one, decoded, control characters blanked."""
        words: list[str] = []
        after_encoded = False
        while True:
            start = self.position
            self.skip_blanks_and_comments()
            gap = " " if words and self.position > start else ""
            token = self.take(_QUOTED) if self.peek() == '"' else self.take(_WORD)
            if token is None:
                return CONTROL.sub(" ", "".join(words))
            decoded = None if token.startswith('"') else _decode_word(token)
            if not (after_encoded and decoded is not None):  # RFC 2047 section 6.2: the gap is no blank
                words.append(gap)
            plain = _QUOTED_PAIR.sub(r"\1", token[1:-1]) if token.startswith('"') else token
            words.append(plain if decoded is None else decoded)
            after_encoded = decoded is not None


def _decode_word(word: str) -> str | None:
    """The text of an encoded word (RFC 2047), or None if it is none or can't be read."""
    match = _ENCODED_WORD.fullmatch(word) if len(word) <= MAX_ENCODED_WORD else None
    if match is None or not word.isascii():
        return None
    charset, encoding, content = match.groups()
    try:
        if encoding in "bB":
            data = binascii.a2b_base64(content + "=" * (-len(content) % 4), strict_mode=True)
        else:
            data = quopri.decodestring(content.encode(), header=True)
        return data.decode(charset, "replace")
    except (LookupError, ValueError):  # an unknown charset, or base64 that is none
        return None
