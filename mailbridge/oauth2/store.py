"""Where tokens are kept: in this process (`MemoryTokenStore`) or in a folder (`FileTokenStore`).

A store keeps what it is given under a key and has a lock for each key, so that two workers never spend
one refresh token twice. It knows nothing of expiry or of grants.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from mailbridge.oauth2.token import AccessToken
from mailbridge.process import PerProcess

# Each has some kilobytes. More users than this in one process want a store that is shared anyway.
MOST_TOKENS = 4096
# How often a lock of another process is asked for: a token request takes some ten milliseconds at least.
POLL_SECONDS = 0.02
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")


class TokenStore(Protocol):
    """What keeps tokens. Keys are of letters, digits, - and _, and hold no secret."""

    def load(self, key: str) -> AccessToken | None:
        """What was saved last under `key`; None if nothing was."""

    def save(self, key: str, token: AccessToken) -> None:
        """Keep `token`; once this returns, every other process must get it from `load`."""

    def lock(self, key: str, timeout: float) -> AbstractContextManager[None]:
        """Held by one at a time, in all processes. Raises TimeoutError after `timeout` seconds."""


class MemoryTokenStore:
    """Keeps tokens as long as this process lives. At most `limit`, the least recently used out first.

    Enough for tokens that can always be had anew. Where the provider rotates refresh tokens, use a store
    that all processes share and that outlives them.
    """

    def __init__(self, limit: int = MOST_TOKENS) -> None:
        self._limit = limit
        self._tokens: OrderedDict[str, AccessToken] = OrderedDict()
        self._locks: PerProcess[dict[str, threading.Lock]] = PerProcess(dict)

    def load(self, key: str) -> AccessToken | None:
        return self._tokens.get(key)

    def save(self, key: str, token: AccessToken) -> None:
        # Each step on a dict is atomic, and one key has one writer at a time.
        self._tokens[key] = token
        with suppress(KeyError):  # another thread's `save` may have thrown it out
            self._tokens.move_to_end(key)
        while len(self._tokens) > self._limit:
            with suppress(KeyError):
                self._tokens.popitem(last=False)

    @contextmanager
    def lock(self, key: str, timeout: float) -> Iterator[None]:
        lock = self._locks.get().setdefault(key, threading.Lock())
        if not lock.acquire(timeout=timeout):
            raise TimeoutError(f"Another thread held the token for {timeout:g} s")
        try:
            yield
        finally:
            lock.release()


class FileTokenStore:
    """Keeps each token in a file of `folder`, which only this user can read (0600 in 0700).

    For all processes of one machine. Files are replaced as a whole, so that a crash leaves the old or the
    new token. The folder is made when first written to. Two stores of one folder are equal.

    Every method raises PermissionError if the folder or a file belongs to another user, can be written (a
    file: or read) by others, or is a symbolic link; what is checked is what was opened.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.abspath(folder))

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self.folder)!r})"

    def __eq__(self, other: object) -> bool:
        return self.folder == other.folder if isinstance(other, FileTokenStore) else NotImplemented

    def __hash__(self) -> int:
        return hash((FileTokenStore, self.folder))

    def load(self, key: str) -> AccessToken | None:
        """Raises PermissionError as the class says, ValueError for a file that is damaged."""
        name = _file_name(key, "json")
        try:
            with self._opened_folder() as folder:
                descriptor = self._open(name, os.O_RDONLY, folder)
            with os.fdopen(descriptor, encoding="utf-8") as file:
                return AccessToken.parse(file.read())
        except FileNotFoundError:
            return None
        except ValueError:
            problem = ValueError(f"{self.folder / name} is damaged")
        raise problem

    def save(self, key: str, token: AccessToken) -> None:
        name, temporary = _file_name(key, "json"), f".new-{secrets.token_hex(8)}"
        self._make_folder()
        with self._opened_folder() as folder:
            descriptor = self._open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(token.dump())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            # The new name must reach the disk too, or a power cut could bring the spent token back.
            os.fsync(folder)

    @contextmanager
    def lock(self, key: str, timeout: float) -> Iterator[None]:
        """By flock(2), which the system takes back from a process that dies."""
        name = _file_name(key, "lock")
        self._make_folder()
        ends = time.monotonic() + timeout
        with self._opened_folder() as folder:
            descriptor = self._open(name, os.O_RDWR | os.O_CREAT, folder)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= ends:
                        message = f"Another process held {self.folder / name} for {timeout:g} s"
                        raise TimeoutError(message) from None
                    time.sleep(POLL_SECONDS)
            try:
                yield
            finally:
                # Said, not left to close(): a child that was forked meanwhile has the descriptor too.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _opened_folder(self) -> Iterator[int]:
        """A descriptor of the folder. Files are opened through it: nobody can put another in its place."""
        descriptor = _open_no_link(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _require_private(descriptor, self.folder, forbidden=_OTHERS_WRITE, remedy="chmod go-w")
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int, folder: int) -> int:
        path = self.folder / name
        descriptor = _open_no_link(path, flags, folder)
        try:
            _require_private(descriptor, path, forbidden=_OTHERS, remedy="chmod 600")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _file_name(key: str, suffix: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError("A key must be of letters, digits, - and _")
    return f"{key}.{suffix}"


def _open_no_link(path: Path, flags: int, folder: int | None = None) -> int:
    """A descriptor of `path`, which stands in `folder`. Made with mode 0600 where `flags` has it made."""
    # O_NONBLOCK: a FIFO in a file's place must not hang the process.
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path if folder is None else path.name, flags, 0o600, dir_fd=folder)
    except OSError as problem:
        # ENOTDIR is what Linux says of a link where a folder is asked for.
        if problem.errno not in (errno.ELOOP, errno.ENOTDIR) or not path.is_symlink():
            raise
    raise PermissionError(f"{path} is a symbolic link: name the place that it leads to, or remove it")


def _require_private(descriptor: int, path: Path, *, forbidden: int, remedy: str) -> None:
    """Raise PermissionError unless what was opened is this user's alone."""
    found = os.fstat(descriptor)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise PermissionError(f"{path} is no regular file")
    if found.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to user id {found.st_uid}, and this process runs as {os.geteuid()}: chown it"
        )
    if found.st_mode & forbidden:
        raise PermissionError(f"{path} is open to other users (mode {found.st_mode & 0o7777:o}): {remedy} it")
