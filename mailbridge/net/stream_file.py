"""A stream as a raw binary file, for libraries that read and write files. One deadline for all of it."""

import io
from typing import Any

from mailbridge.deadline import Deadline
from mailbridge.net.stream import Stream


class StreamFile(io.RawIOBase):
    """Reads no more than is asked for; closing it leaves the stream open."""

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.receive(self._deadline, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        return self._stream.send(bytes(data), self._deadline)
