"""A tree of MIME parts, written part by part into one buffer with canonical line ends.

Python's generator makes a buffer for each level of the tree and a list of all lines; here a large
attachment is held once. Header fields are checked after they were written: each must come out as
exactly one field, whatever the email package of this Python makes of the value (CVE-2024-6923,
CVE-2026-1299). Nothing is added, left out or encoded anew here, and no part is changed.
"""

import io
import re
from collections.abc import Iterable
from email import policy
from email.errors import MessageError
from email.header import Header
from email.message import Message
from typing import Any

from mailbridge.errors import InvalidMessage
from mailbridge.message.addresses import Mailbox, parse_address_list, quoted_phrase, to_ascii_domain
from mailbridge.message.headers import looks_encoded
from mailbridge.rendering.lines import canonical

__all__ = ["raw_payload", "written"]

_ADDRESS_FIELDS = frozenset(
    f"{prefix}{name}" for prefix in ("", "resent-") for name in ("from", "sender", "reply-to", "to", "cc")
)
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 section 2.2
_NEW_FIELD = re.compile(rb"\r\n(?![ \t])|\0")  # what would end a field before its end
# Beside these, readers differ on what becomes of control characters; terminals obey them.
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CHUNK = re.compile(r"[ \t]+[^ \t]+[ \t]*$|[ \t]+[^ \t]+|[^ \t]+|[ \t]+")  # a word with the blanks before it
_LINE_END = re.compile(r"\r\n|\r|\n")
# Text is turned into bytes in pieces of this many characters, to hold a large part only once.
_PIECE = 1 << 18
# RFC 2047 section 2: no line with an encoded word is longer than 76.
_LINE_WIDTH = 76

# RFC 5322 section 2.1.1 allows 998 on a line, the field's name with it; longer words must be encoded.
_LONGEST_WORD = 900

_Group = tuple[str | None, list[tuple[str, Mailbox]]]


def written(
    message: Message, *, smtputf8: bool = False, as_is: bool = False, attached: bool = False
) -> bytes:
    """`message` as bytes: with UTF-8 in its header fields, or `as_is` without folding them anew.

    `attached`: its fields came as bytes, and control characters in them stay.

    Raises InvalidMessage for what can't be written without changing its meaning.
    """
    writer = _Writer(smtputf8=smtputf8, as_is=as_is)
    try:
        writer.write(message, attached=attached)
    except InvalidMessage:
        raise
    except (MessageError, LookupError, TypeError, ValueError, AttributeError) as error:
        # The email package's own: a payload that is no text, a charset that is none.
        raise InvalidMessage(f"The message can't be written: {type(error).__name__}: {error}") from error
    return canonical(writer.out.getvalue())


def raw_payload(part: Message) -> Any:
    """The payload as it is stored, 8-bit data as surrogates: `get_payload()` decodes that."""
    return part._payload  # type: ignore[attr-defined]  # what Python's own generator reads


class _Writer:
    """Writes a tree of parts into one buffer (the email package's generator makes one per level)."""

    def __init__(self, *, smtputf8: bool, as_is: bool) -> None:
        self.out = io.BytesIO()
        self.smtputf8 = smtputf8
        self.as_is = as_is

    def write(self, part: Message, *, signed: bool = False, attached: bool = False) -> None:
        """A part by its own policy, since parts of older and newer kind are put together.

        The fields of an `attached` message are content: control characters that begin no field may stand
        there, so that any mail can be passed on.
        """
        signed = signed or part.get_content_type() == "multipart/signed"
        # RFC 1847 section 2.1: what is signed is not folded anew.
        rules = part.policy.clone(max_line_length=0) if signed else part.policy
        for name, value in part.raw_items():
            written = self.field(name, value, rules)
            if not attached and (found := _CONTROL.search(written)):
                raise InvalidMessage(
                    f"The header field {name} contains the control character {found[0].decode()!r}"
                )
            self.out.write(written)
        self.out.write(b"\r\n")
        payload = raw_payload(part)
        if payload is None or isinstance(payload, str):
            self.text(payload or "")
        elif part.get_content_maintype() == "multipart":
            self.multipart(part, payload, signed=signed, attached=attached)
        elif part.get_content_type() == "message/delivery-status":
            self.blocks(payload)
        else:
            message: Any
            for message in payload:
                self.write(message, signed=signed, attached=True)

    def multipart(self, part: Message, parts: Iterable[Any], *, signed: bool, attached: bool) -> None:
        """RFC 2046 section 5.1.1; the CRLF before a boundary belongs to the boundary."""
        boundary = f"--{part.get_boundary()}".encode("ascii", "surrogateescape")
        if part.preamble is not None:
            self.text(part.preamble)
            self.out.write(b"\r\n")
        opening = boundary + b"\r\n"
        for child in parts:
            self.out.write(opening)
            self.write(child, signed=signed, attached=attached)
            opening = b"\r\n" + boundary + b"\r\n"
        self.out.write(b"\r\n" + boundary + b"--\r\n")
        self.text(part.epilogue or "")

    def blocks(self, blocks: Iterable[Any]) -> None:
        """RFC 3464 section 2.1: groups of fields with one empty line between, none at the end."""
        for number, block in enumerate(blocks):
            if number:
                self.out.write(b"\r\n")
            self.write(block, attached=True)
            self.out.seek(-2, io.SEEK_END)
            self.out.truncate()

    def text(self, text: str) -> None:
        start = 0
        while start < len(text):
            end = start + _PIECE
            if text[end - 1 : end + 1] == "\r\n":  # a cut between the two would make two line ends
                end += 1
            piece = _LINE_END.sub("\n", text[start:end]) if "\r" in text[start:end] else text[start:end]
            self.out.write(piece.replace("\n", "\r\n").encode("ascii", "surrogateescape"))
            start = end

    def field(self, name: str, value: Any, rules: policy.Policy) -> bytes:
        """One header field as bytes; refused if it came out as anything else."""
        if not _FIELD_NAME.fullmatch(name):
            raise InvalidMessage(f"{name!r} can't be the name of a header field")
        is_source = isinstance(value, str) and not hasattr(value, "name")
        stays = self.as_is or isinstance(rules, policy.EmailPolicy)
        if is_source and (stays or _fits_one_line(name, value, rules)):
            written = f"{name}: {value}\r\n".encode("ascii", "surrogateescape")
        else:
            written = self.folded(name, value, rules)
        written = canonical(written)
        if not written.startswith(name.encode() + b":") or _NEW_FIELD.search(written[:-2]):
            raise InvalidMessage(f"The header field {name} contains a line break or a NUL")
        return written

    def folded(self, name: str, value: Any, rules: policy.Policy) -> bytes:
        """A value that a program has set, as that program's policy writes it, its known mistakes aside."""
        if not self.as_is and name.lower() in _ADDRESS_FIELDS:
            if groups := getattr(value, "groups", ()):
                return self.address_field(name, [_group_parts(group) for group in groups])
            if isinstance(value, str) and not value.isascii() and not _is_raw(value):
                # The older policy would encode the addresses along with the names.
                return self.address_field(name, [(None, [each]) for each in parse_address_list(value)])
        if isinstance(value, Header):
            rules = policy.compat32
        if not isinstance(rules, policy.EmailPolicy):
            return rules.clone(linesep="\r\n").fold_binary(name, value)
        text = str(value)
        if not self.as_is and not hasattr(value, "params"):
            # The email package would write what looks like an encoded word as it is, to be decoded, and lose
            # blanks where it breaks a line between two of its own.
            is_encoded = not (text.isascii() or self.smtputf8 or _is_raw(text)) or looks_encoded(text)
            if is_encoded or max(map(len, text.split()), default=0) > _LONGEST_WORD:
                encoded = Header(text, "utf-8", _LINE_WIDTH, name).encode(linesep="\r\n")
                return f"{name}: {encoded}\r\n".encode("ascii")
            if text.isascii():
                return _text_field(name, text)
        return rules.clone(linesep="\r\n", utf8=self.smtputf8).fold_binary(name, value)

    def address_field(self, name: str, groups: list[_Group]) -> bytes:
        """A field of addresses. Written here, since the email package encodes addresses that are not
        ASCII as if they were text, and in some versions the commas between them (CVE-2025-1795)."""
        mailboxes = [mailbox for _, addresses in groups for _, mailbox in addresses]
        utf8 = self.smtputf8 or any(mailbox.needs_smtputf8 for mailbox in mailboxes)
        items: list[str] = []
        for group, addresses in groups:
            members = [_address_item(display, mailbox, utf8) for display, mailbox in addresses]
            if group is not None:
                head = _phrase(group, utf8) + ":"
                members = [f"{head} {members[0]}", *members[1:]] if members else [head]
                members[-1] += ";"
            items += members
        return _laid_out(f"{name}:", [f" {item}," for item in items]).removesuffix(",").encode() + b"\r\n"


def _fits_one_line(name: str, value: str, rules: policy.Policy) -> bool:
    """Whether the older policy, which takes forty calls for a field, would write it as it stands."""
    length = len(name) + len(": ") + len(value)
    return length <= (rules.max_line_length or 0) and value.isascii() and value.isprintable()


def _group_parts(group: Any) -> _Group:
    """From the email package's group; an address without a group's name is a group of one there."""
    return group.display_name, [
        (address.display_name, Mailbox(address.username, to_ascii_domain(address.domain)))
        for address in group.addresses
    ]


def _address_item(display: str, mailbox: Mailbox, utf8: bool) -> str:
    return f"{_phrase(display, utf8)} <{mailbox.addr_spec}>" if display else mailbox.addr_spec


def _phrase(display: str, utf8: bool) -> str:
    """A display name as RFC 5322 or RFC 2047 section 5 (3) wants it."""
    quoted = quoted_phrase(display)  # refuses what no form can hold
    # Readers decode what looks like an encoded word in quotes, too, though RFC 2047 section 5 (3) forbids it.
    is_plain = (utf8 or display.isascii()) and not looks_encoded(display)
    if is_plain and (utf8 or len(display) < _LINE_WIDTH):
        return quoted
    return Header(display, "utf-8").encode(maxlinelen=_LINE_WIDTH, linesep="\r\n")


def _text_field(name: str, text: str) -> bytes:
    """Folded at blanks alone: the email package encodes long words, and a URL or a Message-ID is one."""
    return _laid_out(f"{name}:", _CHUNK.findall(f" {text}")).encode("ascii") + b"\r\n"


def _laid_out(line: str, chunks: Iterable[str]) -> str:
    """`chunks`, each with its leading blank, on lines of at most 76 where their lengths allow."""
    lines: list[str] = []
    for number, chunk in enumerate(chunks):
        first = chunk.partition("\r\n")[0]
        if number and len(line) + len(first) > _LINE_WIDTH:
            lines.append(line)
            line = ""
        line += chunk
        *full, line = line.split("\r\n")
        lines += full
    return "\r\n".join([*lines, line])


def _is_raw(text: str) -> bool:
    """Whether it stands for bytes that a parser could not decode."""
    return any("\udc80" <= character <= "\udcff" for character in text)
