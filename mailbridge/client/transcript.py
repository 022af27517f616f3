"""The dialogue on the logger `mailbridge.smtp` at DEBUG: secrets masked, bodies left out.

Masking happens where the command is made (`Command.secret`), not here by pattern.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal

from mailbridge.config.values import ROOT
from mailbridge.logs import Log
from mailbridge.reply import printable

_ANY_SERVER = Log(ROOT, "")
_CODE = re.compile(rb"[2-5][0-9][0-9](?=[ -])")


class DialogueLog:
    """Writes one line for each line of the dialogue. There is one only if the option `debug` is set.

    `mask` takes out of a line of the server what it must not show. A line is written when all of it has
    come: what a read ends within is a part of a secret, perhaps, which nobody recognises.
    """

    __slots__ = ("_connection_id", "_hides_replies", "_log", "_mask", "_shows_code", "_unfinished")

    def __init__(
        self,
        connection_id: str,
        *,
        log: Log = _ANY_SERVER,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._log = log
        self._connection_id = connection_id
        self._mask = mask
        self._hides_replies = False
        self._shows_code = False
        self._unfinished = b""

    def sent(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._hides("***" in line)
            self._write("C", printable(line))

    def content(self, size: int) -> None:
        self._hides(False)
        if size:
            self._write("C", f"<{size} bytes of content>")

    def received(self, data: bytes) -> None:
        """Bytes of the server; none at its end of file."""
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._received_line(line.removesuffix(b"\r"))
        if not data:
            self.interrupted()
            self._write("S", "<end of file>")

    def interrupted(self) -> None:
        """Nobody reads on: of a line that has begun only its size is shown."""
        if self._unfinished:
            self._write("S", f"<{len(self._unfinished)} bytes of an unfinished line>")
        self._unfinished = b""

    def _hides(self, is_secret: bool) -> None:
        """Whether replies from here on may quote a secret; the rest of one that has begun stays hidden."""
        self._shows_code = is_secret
        self._hides_replies = is_secret or (self._hides_replies and bool(self._unfinished))

    def _received_line(self, line: bytes) -> None:
        if not self._hides_replies:
            self._write("S", printable(self._mask(line.decode("utf-8", "backslashreplace"))))
            return
        # A server may quote what it was sent: of answers to AUTH only the code is shown, and only
        # where the answer begins: what comes after may be anything.
        code = _CODE.match(line) if self._shows_code else None
        self._write("S", f"{code[0].decode()} ***" if code else "***")
        self._shows_code = False

    def _write(self, side: Literal["C", "S"], text: str) -> None:
        self._log.said(self._connection_id, side, text)
