"""The content of a message as bytes for the wire: line ends, dots, and what a server must be asked for.

Pure functions over whole messages, each a few passes at C speed. One that has nothing to change gives
back the very object it was given: a large clean message is never copied. Headers and encodings are
not known here.
"""

#: Ends the content of DATA, which itself ends in CRLF or is empty (RFC 5321 section 4.1.1.4).
END_OF_DATA = b".\r\n"
#: The longest line of a message in bytes, CRLF not counted (RFC 5322 section 2.1.1).
LINE_LIMIT = 998

_CRLF = b"\r\n"
# Bytes that `longest_line` looks at in one go: what bounds the memory for the pieces.
_WINDOW = 1 << 18


def canonical(data: bytes) -> bytes:
    """`data` with every bare CR and every bare LF as CRLF, ending in CRLF; empty stays empty.

    A bare CR or LF on the wire can end the message early at one server and not at the next
    (RFC 5321 section 2.3.8 forbids both).
    """
    pairs = data.count(_CRLF)
    if data.count(b"\r") != pairs or data.count(b"\n") != pairs:
        # One name for all steps: each intermediate copy goes when the next is made.
        data = data.replace(_CRLF, b"\n")
        data = data.replace(b"\r", b"\n")
        data = data.replace(b"\n", _CRLF)
    return data if not data or data.endswith(_CRLF) else data + _CRLF


def dot_stuffed(data: bytes) -> bytes:
    """Canonical `data` with a second dot where a line begins with one (RFC 5321 section 4.5.2)."""
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


def is_eight_bit(data: bytes) -> bool:
    """Whether there is a byte above 127, so that BODY=8BITMIME is due (RFC 6152)."""
    return not data.isascii()


def has_nul(data: bytes) -> bool:
    """Whether there is a NUL, which neither 7-bit nor 8-bit content may hold (RFC 2045 section 2.7)."""
    return b"\0" in data


def longest_line(data: bytes) -> int:
    """Bytes of the longest line of canonical `data`, CRLF not counted."""
    longest = start = 0
    while start < len(data):
        end = data.rfind(_CRLF, start, start + _WINDOW)
        if end < 0:  # one line longer than the window, or the rest without a line end
            end = data.find(_CRLF, start)
            end = len(data) if end < 0 else end
            longest = max(longest, end - start)
        else:
            longest = max(longest, max(map(len, data[start:end].split(_CRLF))))
        start = end + len(_CRLF)
    return longest
