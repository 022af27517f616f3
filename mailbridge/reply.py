"""`Reply`, what a server answered, and `printable`, which makes foreign text safe to show."""

from dataclasses import dataclass

# Reply text comes from the other side: it is capped where it enters messages and logs.
MAX_SHOWN_CHARACTERS = 1024


def printable(text: str, limit: int = MAX_SHOWN_CHARACTERS) -> str:
    """`text` fit for logs and terminals: control characters escaped, at most `limit` characters."""
    if text.isprintable() and len(text) <= limit:
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "…"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the server (RFC 5321 section 4.2).

    `lines` holds the text of each line without the code; `enhanced` is the status of RFC 3463
    when the first line starts with one of the same class as `code`.
    """

    code: int
    lines: tuple[str, ...] = ()
    enhanced: tuple[int, int, int] | None = None

    @property
    def text(self) -> str:
        """All lines, joined by newlines, as the server sent them (untrusted)."""
        return "\n".join(self.lines)

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def is_transient(self) -> bool:
        """4yz: the same command may succeed later."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: the same command will fail again."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code} {printable(' '.join(self.lines))}".rstrip()
