"""The files of a Maildir as they are read at the start, and what stands in them before the mail.

Others may put things there too. Read are regular files only, found by their own name and not by a link;
for all else there is a line in the log, and the inbox starts.
"""

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mailbridge import logs
from mailbridge.reply import printable

# What stands before each mail, as local delivery agents write it.
_FACTS = ("Return-Path", "X-Original-To", "X-Received-From", "X-Received-User")
#: Characters; the recipients of a mail stand in one line.
_LONGEST_FACT = 1_000_000
# Neither of these is everywhere: a link is not followed, and a FIFO is not waited for.
_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)

_logger = logging.getLogger("mailbridge.inbox")


class _NotAMail(Exception):
    """Why an entry of the folder is passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailFile:
    """A mail and its envelope, from a file. `key` is the file's name without the flags behind `colon`."""

    key: str
    arrived_at: datetime
    sender: str
    recipients: tuple[str, ...]
    client: str
    user: str
    content: bytes


def read_files(folder: Path, *, limit: int, limit_bytes: int, colon: str) -> Iterator[MailFile]:
    """The newest `limit` mails, oldest first; a file larger than `limit_bytes` is passed over."""
    found: list[tuple[float, Path]] = []
    for entry in (entry for name in ("new", "cur") for entry in (folder / name).iterdir()):
        try:
            found.append((_examined(entry, entry.lstat()).st_mtime, entry))
        except (OSError, _NotAMail) as reason:
            _pass_over(entry, reason)
    for _, entry in sorted(found)[-limit:]:
        try:
            content, arrived_at = _content(entry, limit_bytes)
        except (OSError, _NotAMail) as reason:
            _pass_over(entry, reason)
            continue
        facts, content = without_facts(content)
        yield MailFile(
            key=entry.name.partition(colon)[0],
            arrived_at=arrived_at,
            sender=facts[0].removeprefix("<").removesuffix(">"),
            recipients=tuple(filter(None, facts[1].split(", "))),
            client=facts[2],
            user=facts[3],
            content=content,
        )


def _examined(entry: Path, status: os.stat_result) -> os.stat_result:
    if entry.name.startswith("."):
        raise _NotAMail("its name begins with a dot")
    if not stat.S_ISREG(status.st_mode):
        raise _NotAMail("it is no regular file")
    return status


def _content(entry: Path, limit_bytes: int) -> tuple[bytes, datetime]:
    with open(os.open(entry, _FLAGS), "rb") as file:
        status = _examined(entry, os.fstat(file.fileno()))  # it may be another than it was
        content = file.read(limit_bytes + 1) if status.st_size <= limit_bytes else None
    if content is None or len(content) > limit_bytes:
        raise _NotAMail(f"it is larger than {limit_bytes} bytes")
    try:
        return content, datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return content, datetime.fromtimestamp(0, UTC)


def _pass_over(entry: Path, reason: Exception) -> None:
    why = reason.strerror if isinstance(reason, OSError) else reason
    logs.write(_logger, logging.WARNING, "%s in the Maildir was passed over: %s", printable(entry.name), why)


def with_facts(facts: Sequence[str], content: bytes) -> bytes:
    """The mail with its envelope in front, and the line ends that files on this system have."""
    pairs = zip(_FACTS, facts, strict=True)
    lines = (f"{name}: {printable(value, _LONGEST_FACT)}\n" for name, value in pairs)
    return "".join(lines).encode("utf-8", "replace") + content.replace(b"\r\n", b"\n")


def without_facts(data: bytes) -> tuple[tuple[str, ...], bytes]:
    """The facts and the mail as it was received; of a file that somebody else has put there, no facts."""
    values: list[str] = []
    whole = rest = data.replace(b"\r\n", b"\n")
    for name in _FACTS:
        line, _, after = rest.partition(b"\n")
        if not line.startswith(f"{name}: ".encode()):
            return ("",) * len(_FACTS), whole.replace(b"\n", b"\r\n")
        values.append(line[len(name) + 2 :].decode("utf-8", "replace").strip())
        rest = after
    return tuple(values), rest.replace(b"\n", b"\r\n")
