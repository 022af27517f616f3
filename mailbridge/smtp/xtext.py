"""xtext (RFC 3461 section 4) and its cousin for addresses that are not ASCII (RFC 6533 section 3).

Encoding and decoding alone; what may be encoded, and how long it may get, others decide.
"""

import re

# RFC 3461 section 4: printable ASCII but "+" and "=".
_XCHAR = r"!-*,-<>-~"
_NOT_XCHAR = re.compile(rf"[^{_XCHAR}]")
_XTEXT = re.compile(rf"(?:[{_XCHAR}]|\+[0-9A-F]{{2}})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")

# RFC 6533 section 3: QCHAR leaves out the backslash, too. Digits: two at least, no further zero in front.
_QCHAR = r"!-*,-<>-\[\]-~"
_NOT_QCHAR = re.compile(rf"[^{_QCHAR}]")
_EMBEDDED = re.compile(r"\\x\{(10[0-9A-F]{4}|[1-9A-F][0-9A-F]{1,4}|0[1-9A-F])\}")
_NOT_TEXT = re.compile(r"[\x00-\x1f\ud800-\udfff]")
_NOT_UNITEXT = re.compile(r"[\x00-\x20\x7f\\+=\ud800-\udfff]")


def encode(text: str) -> str:
    """`text` as xtext. Raises ValueError if it is not ASCII."""
    if not text.isascii():
        raise ValueError("xtext is for ASCII")
    return escape(text)


def escape(text: str) -> str:
    """`text`, of characters up to U+00FF, as xtext has bytes."""
    return _NOT_XCHAR.sub(lambda found: f"+{ord(found[0]):02X}", text)


def decode(xtext: str) -> str:
    """What `xtext` stands for. Raises ValueError if it is none, or stands for more than ASCII."""
    if not _XTEXT.fullmatch(xtext):
        raise ValueError("not xtext")
    text = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), xtext)
    if not text.isascii():
        raise ValueError("xtext is for ASCII")
    return text


def encode_address(address: str) -> str:
    """`address` as utf-8-addr-xtext, which is ASCII. Raises ValueError for control characters, surrogates."""
    if _NOT_TEXT.search(address):
        raise ValueError("an address holds neither control characters nor surrogates")
    return _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", address)


def decode_address(encoded: str) -> str:
    """What utf-8-addr-xtext or utf-8-addr-unitext stands for. Raises ValueError if it is neither."""
    pieces = _EMBEDDED.split(encoded)
    if any(_NOT_UNITEXT.search(piece) for piece in pieces[::2]):
        raise ValueError("neither utf-8-addr-xtext nor utf-8-addr-unitext")
    points = [int(digits, 16) for digits in pieces[1::2]]
    if any(0xD800 <= point <= 0xDFFF for point in points):
        raise ValueError("a surrogate is no character")
    pieces[1::2] = map(chr, points)
    return "".join(pieces)
