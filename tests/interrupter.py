"""An exception before any one line of a package: what tests of interrupts strike with.

A signal's KeyboardInterrupt comes after a call or a jump back, so that lines which do neither
(`try:`, `except …:`) and the way out of a `with` are left out: nothing is raised there in reality.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from linecache import getline
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

QUIET_LINE = re.compile(r"\s*(try|finally|else|except\b.*):(\s*#.*)?$")


class Interrupt(BaseException):
    pass


class Interrupter:
    """Raises `Interrupt` once, before the line with number `at` that this thread runs in `package`.

    `on_call`: what is done when the function of this name is entered for the first time.
    """

    def __init__(
        self, at: int, package: ModuleType, on_call: Mapping[str, Callable[[], None]] | None = None
    ) -> None:
        self.at = at
        self.folder = str(Path(next(iter(package.__path__))))
        self.lines = 0
        self.struck_in: list[str] = []  # the functions on the stack, the innermost first
        self.on_call = dict(on_call or {})

    @contextmanager
    def tracing(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if not self._is_inside(frame):
            return None
        if act := self.on_call.pop(frame.f_code.co_name, None):
            act()
        entered: set[int] = set()

        def in_frame(frame: FrameType, event: str, argument: object) -> Any:
            if event == "line" and self._counts(frame, entered):
                self.lines += 1
                if self.lines == self.at:
                    self.struck_in = list(self._functions_of(frame))
                    raise Interrupt
            return in_frame

        return in_frame

    def _is_inside(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self.folder)

    @staticmethod
    def _counts(frame: FrameType, entered: set[int]) -> bool:
        line = getline(frame.f_code.co_filename, frame.f_lineno)
        if line.strip().startswith("with "):
            is_way_out = frame.f_lineno in entered
            entered ^= {frame.f_lineno}
            return not is_way_out
        return not QUIET_LINE.match(line)

    def _functions_of(self, frame: FrameType | None) -> Iterator[str]:
        while frame is not None and self._is_inside(frame):
            yield frame.f_code.co_name
            frame = frame.f_back
