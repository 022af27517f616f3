"""DKIM signatures (RFC 6376, RFC 8463) for finished messages, by dkimpy (extra `dkim`).

What can't be signed is refused: with a key configured, no message goes out unsigned. A message that is
signed by others is not changed, and gets ours in addition. Verifying is the business of receivers.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

from mailbridge.dkim_options import DKIMOptions, signing_key
from mailbridge.errors import InvalidMessage, NotSupported
from mailbridge.rendering import Rendered
from mailbridge.results import printable
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
_BLANKS = re.compile(rb"[\t ]+")


def signed(
    rendered: Rendered, keys: tuple[DKIMOptions, ...], *, now: Callable[[], float] = time.time
) -> Rendered:
    """`rendered` with a DKIM-Signature of each of `keys` in front.

    What is 8-bit and not signed by others is encoded before, so that no relay has to (RFC 6376
    section 5.3). Raises InvalidMessage for what can't be signed: no From field, or several;
    malformed fields; binary content, and what is so large that it is not held in memory.
    """
    if not keys:
        return rendered
    rendered, content = _settled(rendered)
    head, body = _head_and_body(content)
    # Each is made without the others: they do not vouch for each other.
    signatures = [_signature(head, body, key, now()) for key in keys]
    return replace(rendered, content=b"".join([*signatures, content]), is_signed=True)


def _settled(rendered: Rendered) -> tuple[Rendered, bytes]:
    """The message in its last form, and its bytes."""
    content = rendered.content
    if rendered.is_binary or not isinstance(content, bytes):
        what = "Binary content" if rendered.is_binary else "So large a message from a file or an iterator"
        raise InvalidMessage(
            f"{what} can't be signed with DKIM",
            hint="Send it through a mailer without `dkim`, or as a message.",
        )
    try:
        rendered = rendered.seven_bit()
    except NotSupported:  # UTF-8 in header fields, or a part that is signed: for servers with 8BITMIME alone
        return rendered, content
    content = rendered.content
    assert isinstance(content, bytes)  # noqa: S101  # as it was
    return rendered, content


def _head_and_body(content: bytes) -> tuple[bytes, bytes]:
    """The header fields, each with its CRLF, and what follows the empty line."""
    if content.startswith(b"\r\n"):
        return b"", content[2:]
    head, _, body = content.partition(b"\r\n\r\n")
    return head.removesuffix(b"\r\n") + b"\r\n", body


def _signature(head: bytes, body: bytes, options: DKIMOptions, now: float) -> bytes:
    """The whole field, with its CRLF. No error leaves with the library's frames, which hold the key."""
    outer = sys.exception()
    try:
        return _made(head, body, options, now)
    except InvalidMessage:
        raise
    except Exception as error:
        # What its other errors say may be of the key.
        is_of_message = type(error).__name__ == "MessageFormatError"
        problem = printable(str(error)) if is_of_message else f"{type(error).__name__} in dkimpy"
    except BaseException as interrupt:
        clear_locals(interrupt, outer=outer)
        raise
    raise InvalidMessage(f"The message can't be signed with DKIM for {options.domain}: {problem}")


def _made(head: bytes, body: bytes, options: DKIMOptions, now: float) -> bytes:
    algorithm, key = signing_key(options.private_key)
    if head[:1] in (b" ", b"\t"):
        raise InvalidMessage("The message begins with white space, not with a header field")
    signer: Any = import_module("dkim").DKIM(head)
    # Its own expression for blanks at the end of lines takes quadratic time for many blanks; so they are
    # one already, which is half of "relaxed". For "simple" the body stays as it is.
    signer.body = _BLANKS.sub(b" ", body) if options.canonicalization.endswith("/relaxed") else body
    present = Counter(name.lower().decode("ascii") for name, _ in signer.headers)
    if present["from"] != 1:
        raise InvalidMessage(
            f"The message has {present['from']} From fields, and DKIM signs one (RFC 6376 section 5.4)"
        )
    _add_times(signer, now, options.expires)
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


def _add_times(signer: Any, now: float, expires: float | None) -> None:
    """Have the tag t= say `now`, and x= the end, which dkimpy does not write (RFC 6376 section 3.5)."""
    make = signer.gen_header

    def make_with_times(fields: list[tuple[bytes, bytes]], *rest: Any, **more: Any) -> bytes:
        place = [name for name, _ in fields].index(b"t")
        times = [(b"t", b"%d" % now)]
        if expires is not None:
            times.append((b"x", b"%d" % (now + expires)))
        fields[place : place + 1] = times
        made: bytes = make(fields, *rest, **more)
        return made

    signer.gen_header = make_with_times
