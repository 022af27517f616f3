"""`Reject`, the exception by which a hook says no to a client. Nothing else ends up in a reply."""

import re

_TEXT = re.compile(r"[\x20-\x7e]*")  # RFC 5321 section 4.2: what reply text may consist of, but for tabs
_LONGEST = 400  # characters; a reply line has at most 512 octets (RFC 5321 section 4.5.3.1.5)


class Reject(Exception):
    """Raised by a hook: the client is answered `code` and `text`.

    `code` is 400 to 599: 4yz asks it to try again later, 5yz not to. With 421 and 521 the connection
    ends. `text` is one line of ASCII, up to 400 characters, best with an enhanced code
    (`5.7.1 not from there`, RFC 3463).

    Raises ValueError for a code or text that can't be sent.
    """

    def __init__(self, code: int, text: str) -> None:
        if not 400 <= code <= 599:
            raise ValueError(f"A refusal has a code from 400 to 599, not {code!r}")
        if not _TEXT.fullmatch(text) or len(text) > _LONGEST:
            raise ValueError(f"The text of a refusal is one line of ASCII, up to {_LONGEST} characters")
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code} {self.text}"
