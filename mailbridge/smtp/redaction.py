"""What was sent in secret, masked where the server's words repeat it.

Servers quote what they were sent, above all when they refuse it, and their words stand in logs,
errors and reports. Recognises a SASL response as it stood on the line and decoded, and passwords and
tokens as they are written in forms, headers, parameters and quotations; whole or cut short. Says
nothing about what is secret: that is marked on the command, or remembered at the login.
"""

import json
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import quote, quote_plus

from mailbridge.reply import Reply
from mailbridge.secret import MASK, Secret
from mailbridge.smtp import xtext

# A server may cut its quotation short: so many characters of a secret in a row are recognised. Fewer
# would be found in innocent words; a secret that is shorter is recognised as a whole.
_RUN = 8
# The shortest base64 text there is. "=" and "*" stand in an exchange too, and are no secrets.
_SHORTEST = 4


class Redactor:
    """The secrets of one connection. Its `repr` shows none of them."""

    __slots__ = ("_always", "_in_exchange", "_words")

    def __init__(self) -> None:
        self._always: set[str] = set()  # of _RUN characters each
        self._in_exchange: set[str] = set()
        self._words: set[str] = set()

    def remember(self, response: bytes) -> None:
        """A SASL response that goes out, in base64 as it stands on the line."""
        if len(response) < _SHORTEST:
            return
        (self._always if len(response) >= _RUN else self._in_exchange).update(_runs(response.decode("ascii")))
        decoded = b64decode(response)
        for part in (decoded, *decoded.split(b"\0")):  # PLAIN is in parts
            self._in_exchange |= _runs(part.decode("utf-8", "replace"))

    def remember_secret(self, secret: Secret) -> None:
        """A password or token, which is never to be shown, neither as it is nor written otherwise."""
        self._in_exchange |= _runs(secret.reveal())
        for form in set(_spellings(secret.reveal())):
            if len(form) >= _RUN:
                self._always |= _runs(form)
            elif len(form) >= _SHORTEST:
                self._in_exchange.add(form)
                self._words.add(form)

    def masked(self, text: str, *, in_exchange: bool = False) -> str:
        """`text` without what repeats a secret.

        The parts of SASL responses, user names among them, are looked for `in_exchange` only, since later
        replies are there to be read. Short passwords are found in innocent words, in queue IDs too: later
        they are recognised where they stand alone.
        """
        is_hidden = [False] * len(text)
        sizes = {len(run) for run in self._in_exchange} if in_exchange else set()
        for size in {_RUN} | sizes:
            for start in range(len(text) - size + 1):
                run = text[start : start + size]
                if run in self._always or (in_exchange and run in self._in_exchange):
                    is_hidden[start : start + size] = [True] * size
        for word in self._words:
            for start in _found_alone(word, text):
                is_hidden[start : start + len(word)] = [True] * len(word)
        return "".join(_kept(text, is_hidden)) if any(is_hidden) else text

    def masked_reply(self, reply: Reply, *, in_exchange: bool = False) -> Reply:
        """`reply` with its lines `masked`."""
        if not (self._always or self._words or (in_exchange and self._in_exchange)):
            return reply
        lines = tuple([self.masked(line, in_exchange=in_exchange) for line in reply.lines])
        return reply if lines == reply.lines else replace(reply, lines=lines)


def _spellings(secret: str) -> Iterator[str]:
    """As it is, and as URLs, forms, parameters of commands, quoted strings and base64 have it."""
    yield secret
    for encoded in (quote(secret, safe=""), quote_plus(secret), quote(secret)):
        yield encoded
        yield re.sub("%..", lambda found: found[0].lower(), encoded)
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    yield xtext.escape(data.decode("latin-1"))
    for spell in (b64encode, urlsafe_b64encode):
        for shift in range(
            3
        ):  # within a longer text: only the characters that its neighbours have no part in
            first, end = -(-8 * shift // 6), 8 * (shift + len(data)) // 6
            yield spell(bytes(shift) + data).decode("ascii")[first:end]


def _runs(secret: str) -> set[str]:
    size = min(len(secret), _RUN)
    return {secret[start : start + size] for start in range(len(secret) - size + 1)} - {""}


def _found_alone(word: str, text: str) -> Iterator[int]:
    """Where `word` stands in `text` with neither letter nor digit beside it."""
    start = text.find(word)
    while start >= 0:
        beside = text[max(start - 1, 0) : start] + text[start + len(word) : start + len(word) + 1]
        if not any(character.isalnum() for character in beside):
            yield start
        start = text.find(word, start + 1)


def _kept(text: str, is_hidden: list[bool]) -> Iterable[str]:
    was_hidden = False
    for character, hidden in zip(text, is_hidden, strict=True):
        if not hidden:
            yield character
        elif not was_hidden:
            yield MASK
        was_hidden = hidden
