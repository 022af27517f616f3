"""`Inbox`: the mails that a development server has received, in memory or in a Maildir.

Safe for all threads. Knows neither SMTP nor HTTP: a server puts mails in, a page or a test reads them.
"""

import mailbox
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from mailbridge.inbox.mail import Reading, read
from mailbridge.inbox.maildir import read_files, with_facts

#: Mails that are kept in memory; the oldest go first.
MOST_MAILS = 1000
#: Their bytes, all together: 256 MB.
MOST_BYTES = 256 * 1024 * 1024


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class ReceivedMail:
    """One mail: what came over the wire, and what it says.

    `number` counts the arrivals at this inbox, from 1. `sender` and `recipients` are the envelope's.
    `client` is the address of who sent it, `user` who logged in; both may be empty.
    """

    id: str
    number: int
    received_at: datetime
    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    client: str = ""
    user: str = ""
    is_encrypted: bool = False

    @cached_property
    def reading(self) -> Reading:
        return read(self.content)

    @property
    def size(self) -> int:
        """In bytes, as received, without dot-stuffing."""
        return len(self.content)

    def matches(self, words: str = "", to: str = "", subject: str = "") -> bool:
        """Whether all `words` stand in it, `to` is a recipient, and `subject` is part of the subject."""
        if to and to.lower() not in map(str.lower, self.recipients):
            return False
        if subject and subject.lower() not in self.reading.subject.lower():
            return False
        return not words or all(word in self._haystack for word in words.lower().split())

    @cached_property
    def _haystack(self) -> str:
        said = self.reading
        names = " ".join(part.filename for part in said.parts)
        people = " ".join((said.sender, said.to, said.cc, self.sender, *self.recipients))
        return "\n".join((said.subject, people, said.text, said.html, names)).lower()


class Inbox:
    """Received mails. At most `limit`, of `limit_bytes` together, are at hand; the oldest are dropped.

    With `maildir`, a path, each mail is also a file there, which stays when the mail is dropped and goes
    when it is deleted. The folder is made if it is missing, and what lies there is read first.
    """

    def __init__(
        self,
        maildir: Path | None = None,
        *,
        limit: int = MOST_MAILS,
        limit_bytes: int = MOST_BYTES,
        now: Callable[[], datetime] = _now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._now = now
        self._clock = clock
        self._changed = threading.Condition()
        self._mails: dict[str, ReceivedMail] = {}
        self._files: dict[str, str] = {}  # mail to its key in the Maildir
        self._number = 0
        self._version = 0
        self._is_closed = False
        self._filing = threading.Lock()  # a Maildir's list of its files is for one thread
        self._maildir = self._opened(maildir) if maildir is not None else None

    def __len__(self) -> int:
        return len(self._mails)

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self._version

    def add(
        self,
        content: bytes,
        *,
        sender: str,
        recipients: Sequence[str],
        client: str = "",
        user: str = "",
        is_encrypted: bool = False,
    ) -> ReceivedMail:
        """Keep a mail. With a Maildir it is on disk when this returns; raises OSError if it can't be."""
        facts = (f"<{sender}>", ", ".join(recipients), client, user)
        key: str | None = None
        if self._maildir is not None:
            with self._filing:
                key = self._maildir.add(with_facts(facts, content))
        with self._changed:
            mail = self._enter(content, sender, tuple(recipients), client, user, is_encrypted)
            if key is not None:
                self._files[mail.id] = key
        return mail

    def _enter(
        self,
        content: bytes,
        sender: str,
        recipients: tuple[str, ...],
        client: str,
        user: str,
        is_encrypted: bool,
        received_at: datetime | None = None,
    ) -> ReceivedMail:
        self._number += 1
        mail = ReceivedMail(
            id=secrets.token_hex(6),
            number=self._number,
            received_at=received_at or self._now(),
            sender=sender,
            recipients=recipients,
            content=content,
            client=client,
            user=user,
            is_encrypted=is_encrypted,
        )
        self._mails[mail.id] = mail
        self._bytes += mail.size
        while len(self._mails) > self._limit or (self._bytes > self._limit_bytes and len(self._mails) > 1):
            self._drop(next(iter(self._mails)))
        self._tell()
        return mail

    def _drop(self, identity: str) -> tuple[ReceivedMail | None, str | None]:
        mail = self._mails.pop(identity, None)
        self._bytes -= mail.size if mail is not None else 0
        return mail, self._files.pop(identity, None)

    def mails(self, words: str = "", *, to: str = "", subject: str = "") -> list[ReceivedMail]:
        """Those that match, newest first."""
        with self._changed:
            mails = list(self._mails.values())
        return [mail for mail in reversed(mails) if mail.matches(words, to, subject)]

    def get(self, identity: str) -> ReceivedMail | None:
        return self._mails.get(identity)

    def delete(self, identity: str) -> bool:
        """Delete one mail, its file too; false if there is none."""
        with self._changed:
            mail, key = self._drop(identity)
            if mail is not None:
                self._tell()
        if key is not None and self._maildir is not None:
            with self._filing:
                self._maildir.discard(key)
        return mail is not None

    def clear(self) -> int:
        """Delete all mails; gives their number."""
        return sum(self.delete(identity) for identity in list(self._mails))

    def wait(
        self, *, after: int = 0, to: str = "", subject: str = "", timeout: float = 10.0
    ) -> ReceivedMail | None:
        """The first mail with a number above `after` that matches, waiting `timeout` seconds for it."""
        end = self._clock() + timeout
        while True:
            with self._changed:
                version = self._version
                mails = [mail for mail in self._mails.values() if mail.number > after]
            # Outside the lock: what takes long to read holds nobody who brings a mail or looks at others.
            for mail in mails:
                if mail.matches("", to, subject):
                    return mail
                after = mail.number
            if not self._wait_until_other(version, end):
                return None

    def wait_for_change(self, version: int, timeout: float = 25.0) -> int:
        """The version, once it is another than `version`, or after `timeout` seconds."""
        self._wait_until_other(version, self._clock() + timeout)
        return self._version

    def close(self) -> None:
        """Let everyone go who waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _wait_until_other(self, version: int, end: float) -> bool:
        """Wait until the version is another; false if `end` comes first, or the inbox is closed."""
        with self._changed:
            while self._version == version:
                left = end - self._clock()
                if self._is_closed or left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _tell(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _opened(self, folder: Path) -> mailbox.Maildir:
        maildir = mailbox.Maildir(folder)
        for name in ("tmp", "new", "cur"):  # the library makes them only together with the folder
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        files = read_files(folder, limit=self._limit, limit_bytes=self._limit_bytes, colon=maildir.colon)
        with self._changed:
            for file in files:
                mail = self._enter(
                    file.content, file.sender, file.recipients, file.client, file.user, False, file.arrived_at
                )
                if mail.id in self._mails:
                    self._files[mail.id] = file.key
        return maildir
