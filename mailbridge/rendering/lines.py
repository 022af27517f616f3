"""The content of a message as bytes for the wire: line ends, dots, and what a server must be asked for.

Each thing comes twice: as a function of a whole message, which is a few passes at C speed and gives back
the very object it was given where nothing has to change, and as an object that is fed a message in
pieces and comes to the same, wherever the pieces end. Encodings are not known here, and of header
fields only where they end.
"""

from mailbridge.errors import InvalidMessage

#: The longest line of a message in bytes, CRLF not counted (RFC 5322 section 2.1.1).
LINE_LIMIT = 998
#: Bytes of header fields. Thousands of addresses fit; what is longer has no header, and is no message.
HEAD_LIMIT = 8 << 20

_CRLF = b"\r\n"
# Bytes that are looked at in one go where a copy is made: what bounds the memory for it.
_WINDOW = 1 << 18


def canonical(data: bytes) -> bytes:
    """`data` with every bare CR and every bare LF as CRLF, ending in CRLF; empty stays empty.

    A bare CR or LF on the wire can end the message early at one server and not at the next
    (RFC 5321 section 2.3.8 forbids both).
    """
    data = _with_crlf(data)
    return data if not data or data.endswith(_CRLF) else data + _CRLF


def _with_crlf(data: bytes) -> bytes:
    pairs = data.count(_CRLF)
    if data.count(b"\r") != pairs or data.count(b"\n") != pairs:
        # One name for all steps: each intermediate copy goes when the next is made.
        data = data.replace(_CRLF, b"\n")
        data = data.replace(b"\r", b"\n")
        data = data.replace(b"\n", _CRLF)
    return data


class Canonical:
    """`canonical` for a message that comes in pieces; what it gives never ends between CR and LF."""

    __slots__ = ("_ends_in_cr", "_is_within_line")

    def __init__(self) -> None:
        self._ends_in_cr = False  # held back, since an LF may follow
        self._is_within_line = False

    def feed(self, piece: bytes) -> bytes:
        """What can be said of the message now; may be empty."""
        if not piece:
            return b""
        if self._ends_in_cr:
            piece = b"\r" + piece
        self._ends_in_cr = piece.endswith(b"\r")
        clean = _with_crlf(piece[:-1] if self._ends_in_cr else piece)
        self._is_within_line = not clean.endswith(_CRLF)
        return clean

    def finish(self) -> bytes:
        """The last line end, if it was missing."""
        return _CRLF if self._ends_in_cr or self._is_within_line else b""


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


class Survey:
    """What must be known of content before it is sent; of canonical content, or of binary as it is.

    `size` in bytes; `is_eight_bit`, `has_nul` and `longest_line` as the functions say; `head` is the
    header fields, each with its CRLF, or everything if no empty line ends them.
    """

    __slots__ = (
        "_before",
        "_head",
        "_head_is_over",
        "_line",
        "has_nul",
        "is_eight_bit",
        "longest_line",
        "size",
    )

    def __init__(self) -> None:
        self.size = 0
        self.is_eight_bit = False
        self.has_nul = False
        self.longest_line = 0
        self._line = 0  # bytes of the line that has not ended
        self._before = b""  # the last byte
        self._head = bytearray()
        self._head_is_over = False

    @property
    def head(self) -> bytes:
        return bytes(self._head)

    def feed(self, piece: bytes) -> None:
        """Raises `InvalidMessage` if the header fields are longer than `HEAD_LIMIT`."""
        if not piece:
            return
        self.size += len(piece)
        self.is_eight_bit = self.is_eight_bit or not piece.isascii()
        self.has_nul = self.has_nul or b"\0" in piece
        for start in range(0, len(piece), _WINDOW):
            if self._head_is_over:
                break
            self._read_head(piece[start : start + _WINDOW])
        self._measure_lines(piece)

    def _read_head(self, piece: bytes) -> None:
        seam = max(0, len(self._head) - 3)
        self._head += piece
        end = -2 if self._head.startswith(_CRLF) else self._head.find(b"\r\n\r\n", seam)
        self._head_is_over = end != -1
        if self._head_is_over:
            del self._head[end + 2 :]
        elif len(self._head) > HEAD_LIMIT:
            raise InvalidMessage(
                f"No empty line ends the header fields within the first {HEAD_LIMIT} bytes",
                hint="A whole message is needed: header fields, an empty line, the body.",
            )

    def _measure_lines(self, piece: bytes) -> None:
        if self._before == b"\r" and piece.startswith(b"\n"):
            self._before, self._line, piece = b"\n", 0, piece[1:]
            if not piece:
                return
        self._before = piece[-1:]
        last = piece.rfind(_CRLF)
        if last < 0:
            self._line += len(piece)
        else:
            # All of the piece, uncopied, unless its end is no line yet of which the length is known.
            inner = longest_line(piece[:last] if self._before == b"\r" else piece)
            self.longest_line = max(self.longest_line, self._line + piece.find(_CRLF), inner)
            self._line = len(piece) - last - len(_CRLF)
        # A CR at the end counts for the line only if no LF follows.
        self.longest_line = max(self.longest_line, self._line - (self._before == b"\r"))
