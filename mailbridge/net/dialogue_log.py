"""The dialogue on the logger `mailbridge.smtp` at DEBUG: secrets masked, bodies left out.

Masking happens where the command is made (`Command.secret`), not here by pattern.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal

from mailbridge.logs import ROOT, Log
from mailbridge.results import printable

_ANY_SERVER = Log(ROOT, "")
_CODE = re.compile(rb"[2-5][0-9][0-9](?=[ -])")


class DialogueLog:
    """Writes one line for each line of the dialogue, if the option `debug` is set.

    `mask` takes out of a line of the server what it must not show.
    """

    __slots__ = ("_connection_id", "_hides_replies", "_is_on", "_log", "_mask", "_shows_code")

    def __init__(
        self,
        connection_id: str,
        *,
        is_on: bool,
        log: Log = _ANY_SERVER,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._log = log
        self._connection_id = connection_id
        self._is_on = is_on
        self._mask = mask
        self._hides_replies = False
        self._shows_code = False

    def sent(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._hides_replies = self._shows_code = "***" in line
            self._write("C", printable(line))

    def content(self, size: int) -> None:
        self._hides_replies = False
        if size:
            self._write("C", f"<{size} bytes of content>")

    def received(self, data: bytes) -> None:
        if not data:
            self._write("S", "<end of file>")
        elif self._hides_replies:
            # A server may quote what it was sent: of answers to AUTH only the code is shown, and only
            # where the answer begins: what comes after may be anything, byte by byte.
            code = _CODE.match(data) if self._shows_code else None
            self._write("S", f"{code[0].decode()} ***" if code else "***")
            self._shows_code = False
        else:
            for line in data.decode("utf-8", "backslashreplace").splitlines():
                self._write("S", printable(self._mask(line)))

    def _write(self, side: Literal["C", "S"], text: str) -> None:
        if self._is_on:
            self._log.said(self._connection_id, side, text)
