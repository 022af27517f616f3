"""Where tokens are kept: in this process (`MemoryTokenStore`) or in a folder (`FileTokenStore`).

A store keeps what it is given under a key and has a lock for each key, so that two workers never spend
one refresh token twice. It knows nothing of expiry or of grants.
"""

import fcntl
import os
import re
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from mailbridge.oauth2.tokens import AccessToken

# Each has some kilobytes. More users than this in one process want a store that is shared anyway.
MOST_TOKENS = 4096
# How often a lock of another process is asked for: a token request takes some ten milliseconds at least.
POLL_SECONDS = 0.02
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
        # By process: a lock that was inherited by a fork may be held for ever.
        self._locks: dict[int, dict[str, threading.Lock]] = {os.getpid(): {}}

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
        locks = self._locks.setdefault(os.getpid(), {})
        lock = locks.setdefault(key, threading.Lock())
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
        """Raises PermissionError for a file that others can read, ValueError for one that is damaged."""
        path = self._path(key, "json")
        try:
            with path.open(encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise PermissionError(f"{path} can be read by other users: chmod 600 it")
                return AccessToken.parse(file.read())
        except FileNotFoundError:
            return None
        except ValueError:
            problem = ValueError(f"{path} is damaged")
        raise problem

    def save(self, key: str, token: AccessToken) -> None:
        path = self._path(key, "json")
        self._make_folder()
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")  # 0600 from the beginning
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(token.dump())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        self._settle()

    @contextmanager
    def lock(self, key: str, timeout: float) -> Iterator[None]:
        """By flock(2), which the system takes back from a process that dies."""
        path = self._path(key, "lock")
        self._make_folder()
        ends = time.monotonic() + timeout
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= ends:
                        raise TimeoutError(f"Another process held {path} for {timeout:g} s") from None
                    time.sleep(POLL_SECONDS)
            try:
                yield
            finally:
                # Said, not left to close(): a child that was forked meanwhile has the descriptor too.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _path(self, key: str, suffix: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError("A key must be of letters, digits, - and _")
        return self.folder / f"{key}.{suffix}"

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _settle(self) -> None:
        """Let the new name reach the disk too, or a power cut could bring the spent token back."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
