"""The dialogue on the logger `mailbridge.smtp` at DEBUG: secrets masked, bodies left out.

Masking happens where the command is made (`Command.secret`), not here by pattern.
"""

import logging
from collections.abc import Iterable

from mailbridge.results import printable

logger = logging.getLogger("mailbridge.smtp")


class DialogueLog:
    """Writes one line for each line of the dialogue, if the option `debug` is set."""

    __slots__ = ("_connection_id", "_hides_replies", "_is_on")

    def __init__(self, connection_id: str, *, is_on: bool) -> None:
        self._connection_id = connection_id
        self._is_on = is_on
        self._hides_replies = False

    def sent(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._hides_replies = "***" in line
            self._write("C", printable(line))

    def content(self, size: int) -> None:
        self._hides_replies = False
        if size:
            self._write("C", f"<{size} bytes of content>")

    def received(self, data: bytes) -> None:
        if not data:
            self._write("S", "<end of file>")
        elif self._hides_replies:
            # A server may quote what it was sent: of answers to AUTH only the code is shown.
            self._write("S", f"{printable(data[:3].decode('latin-1'))} ***")
        else:
            for line in data.decode("utf-8", "backslashreplace").splitlines():
                self._write("S", printable(line))

    def _write(self, side: str, text: str) -> None:
        if self._is_on:
            logger.debug(
                "[%s] %s: %s", self._connection_id, side, text, extra={"connection_id": self._connection_id}
            )
