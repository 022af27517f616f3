"""Transparency of DATA (RFC 5321 section 4.5.2): a second dot where a line begins with one."""

#: Ends the content of DATA, which itself ends in CRLF or is empty (RFC 5321 section 4.1.1.4).
END_OF_DATA = b".\r\n"


def dot_stuffed(data: bytes) -> bytes:
    """Canonical `data` with a second dot where a line begins with one (RFC 5321 section 4.5.2)."""
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


class DotStuffer:
    """`dot_stuffed` for canonical content that comes in pieces."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = b"\r\n"  # the two bytes before the next piece

    def feed(self, piece: bytes) -> bytes:
        """`piece` as it goes to the server."""
        stuffed = piece.replace(b"\r\n.", b"\r\n..")
        # A line that begins with a dot may have its CRLF, or the CR alone, in the piece before.
        dot = (self._before + piece[:2]).find(b"\r\n.")
        self._before = (self._before + piece[-2:])[-2:]
        return stuffed if dot < 0 else stuffed[:dot] + b"." + stuffed[dot:]
