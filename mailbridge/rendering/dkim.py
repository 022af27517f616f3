"""DKIM signatures (RFC 6376, RFC 8463) for finished messages, by dkimpy (extra `dkim`).

A message that cannot be signed is refused: with a key configured, no message goes out unsigned. A message
that others have signed is not changed, and gets a further signature. Signatures are not verified here.

The hash of the body (RFC 6376 sections 3.4.3 and 3.4.4) is computed here, in pieces and in linear time:
dkimpy hashes whole bodies only, and its expression for blanks at the end of lines takes quadratic time.
"""

import base64
import hashlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

from mailbridge.config.dkim import DKIMOptions, signing_key
from mailbridge.errors import InvalidMessage, MailbridgeError, NotSupported
from mailbridge.rendering.files import PIECE_SIZE, FileContent
from mailbridge.rendering.render import Rendered
from mailbridge.reply import printable
from mailbridge.secret import clear_locals

__all__ = ["signed"]

# Signed once more than they occur, be it not at all, so that nobody can add one that readers then show:
# RFC 6376 section 8.15.
_SEALED = ("from", "reply-to", "subject", "to", "cc", "in-reply-to", "references")
# The same where they occur. Where they do not, a relay may add them.
_SEALED_IF_PRESENT = (
    *("sender", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding"),
    *("importance", "priority", "x-priority"),
    *("list-unsubscribe", "list-unsubscribe-post"),  # RFC 8058 section 4 wants them signed
)
# Signed as they are: who passes a message on may add these.
_SIGNED = (
    *("content-id", "content-description", "resent-date", "resent-from", "resent-sender", "resent-to"),
    *("resent-cc", "resent-message-id", "list-id", "list-help", "list-subscribe", "list-post"),
    *("list-owner", "list-archive"),
)
# Bytes; far more than any server takes.
_MOST_HEAD = 4 << 20


def signed(
    rendered: Rendered, keys: tuple[DKIMOptions, ...], *, now: Callable[[], float] = time.time
) -> Rendered:
    """`rendered` with a DKIM-Signature of each of `keys` in front.

    What is 8-bit and not signed by others is encoded before, so that no relay has to (RFC 6376
    section 5.3). Raises InvalidMessage for what can't be signed: no From field, or several;
    malformed fields; binary content.
    """
    if not keys:
        return rendered
    if rendered.is_binary:
        raise InvalidMessage(
            "Binary content can't be signed with DKIM", hint="Send it without body='binarymime'."
        )
    # Not possible with UTF-8 in header fields, parts that are signed, and what stays in a file: such
    # mail goes to servers with 8BITMIME alone.
    with suppress(NotSupported):
        rendered = rendered.seven_bit()
    head, hashes = _read(rendered.content, {key.canonicalization.partition("/")[2] for key in keys})
    # Each is made without the others: they do not vouch for each other.
    moment = now()
    signatures = b"".join(
        _signature(head, hashes[key.canonicalization.partition("/")[2]], key, moment) for key in keys
    )
    content = rendered.content
    return replace(
        rendered,
        content=signatures + content if isinstance(content, bytes) else content.behind(signatures),
        is_signed=True,
    )


def _read(content: bytes | FileContent, kinds: set[str]) -> tuple[bytes, dict[str, bytes]]:
    """The header fields, each with its CRLF, and the hash of the body by each kind of canonicalization."""
    pieces = _in_pieces(content) if isinstance(content, bytes) else content.pieces()
    start = b""
    # The empty line may come at once, before any field.
    for piece in pieces:
        start += piece
        if start.startswith(b"\r\n") or b"\r\n\r\n" in start:
            break
        if len(start) > _MOST_HEAD:
            raise InvalidMessage(f"The header fields are longer than {_MOST_HEAD} bytes")
    head, _, body = (b"\r\n" + start).partition(b"\r\n\r\n")
    hashes = {kind: BodyHash(relaxed=kind == "relaxed") for kind in kinds}
    for piece in itertools.chain([body], pieces):
        for each in hashes.values():
            each.feed(piece)
    return head[2:].removesuffix(b"\r\n") + b"\r\n", {kind: each.value() for kind, each in hashes.items()}


def _in_pieces(content: bytes) -> Iterator[bytes]:
    return (content[start : start + PIECE_SIZE] for start in range(0, len(content), PIECE_SIZE))


def _signature(head: bytes, body_hash: bytes, options: DKIMOptions, now: float) -> bytes:
    """The whole field, with its CRLF. No error leaves with the library's frames, which hold the key."""
    outer = sys.exception()
    try:
        return _made(head, body_hash, options, now)
    except MailbridgeError:
        raise
    except Exception as error:
        # What its other errors say may be of the key.
        is_of_message = type(error).__name__ == "MessageFormatError"
        problem = printable(str(error)) if is_of_message else f"{type(error).__name__} in dkimpy"
    except BaseException as interrupt:
        clear_locals(interrupt, outer=outer)
        raise
    raise InvalidMessage(f"The message can't be signed with DKIM for {options.domain}: {problem}")


def _made(head: bytes, body_hash: bytes, options: DKIMOptions, now: float) -> bytes:
    algorithm, key = signing_key(options.private_key)
    if head[:1] in (b" ", b"\t"):
        raise InvalidMessage("The message begins with white space, not with a header field")
    signer: Any = import_module("dkim").DKIM(head)
    present = Counter(name.lower().decode("ascii") for name, _ in signer.headers)
    if present["from"] != 1:
        raise InvalidMessage(
            f"The message has {present['from']} From fields, and DKIM signs one (RFC 6376 section 5.4)"
        )
    _complete(signer, body_hash, now, options.expires)
    field: bytes = signer.sign(
        selector=options.selector.encode(),
        domain=options.domain.encode(),
        privkey=key.reveal().encode(),
        signature_algorithm=algorithm.encode(),
        identity=options.identity.encode() if options.identity else None,
        canonicalize=tuple(options.canonicalization.encode().split(b"/")),
        include_headers=[name.encode() for name in _fields_to_sign(present, options.headers)],
    )
    return field


def _fields_to_sign(present: Counter[str], wanted: tuple[str, ...]) -> Iterator[str]:
    if wanted:
        for name in dict.fromkeys(("from", *wanted)):
            yield from [name] * (present[name] + 1)
        return
    for name in _SEALED:
        yield from [name] * (present[name] + 1)
    for name in _SEALED_IF_PRESENT:
        yield from [name] * (present[name] + 1 if present[name] else 0)
    for name in _SIGNED:
        yield from [name] * present[name]


def _complete(signer: Any, body_hash: bytes, now: float, expires: float | None) -> None:
    """Have the tag bh= be `body_hash`, t= say `now`, and x= the end, which dkimpy does not write
    (RFC 6376 section 3.5). It was given no body, since it takes whole ones only."""
    make = signer.gen_header

    def make_completed(fields: list[tuple[bytes, bytes]], *rest: Any, **more: Any) -> bytes:
        known = {b"bh": body_hash, b"t": b"%d" % now}
        fields[:] = [(name, known.get(name, value)) for name, value in fields]
        if expires is not None:
            fields.insert([name for name, _ in fields].index(b"t") + 1, (b"x", b"%d" % (now + expires)))
        made: bytes = make(fields, *rest, **more)
        return made

    signer.gen_header = make_completed


__all__ = ["BodyHash"]

_CRLF = b"\r\n"


class BodyHash:
    """Fed with canonical content (all lines end in CRLF), cut anywhere."""

    __slots__ = ("_empty_lines", "_hash", "_is_empty", "_is_relaxed", "_line")

    def __init__(self, *, relaxed: bool) -> None:
        self._is_relaxed = relaxed
        self._hash = hashlib.sha256()
        self._line = b""  # the beginning of one that goes on in the next piece
        self._empty_lines = (
            0  # held back, since those at the end do not count; the first ends the line before
        )
        self._is_empty = True

    def feed(self, piece: bytes) -> None:
        data = self._line + piece
        end = data.rfind(_CRLF) + len(_CRLF)
        if end < len(_CRLF):
            self._line = data
            return
        self._line = data[end:]
        self._feed_lines(data[:end])

    def _feed_lines(self, lines: bytes) -> None:
        if self._is_relaxed:
            lines = lines.replace(b"\t", b" ")
            while b"  " in lines:  # halves the longest run each time
                lines = lines.replace(b"  ", b" ")
            lines = lines.replace(b" \r\n", _CRLF)
        content = lines.rstrip(_CRLF)
        if content:
            self._hash.update(_CRLF * self._empty_lines)
            self._hash.update(content)
            self._empty_lines = 0
            self._is_empty = False
        self._empty_lines += (len(lines) - len(content)) // 2

    def value(self) -> bytes:
        """The value of the tag bh=. To be asked for once, at the end."""
        # An empty body is one empty line to "simple", and nothing at all to "relaxed".
        if not (self._is_empty and self._is_relaxed):
            self._hash.update(_CRLF)
        return base64.b64encode(self._hash.digest())
