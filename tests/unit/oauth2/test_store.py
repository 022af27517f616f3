"""The stores: what they keep and how, and that two processes never spend one refresh token twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge import Secret
from mailbridge.deadline import NEVER
from mailbridge.oauth2 import shared
from mailbridge.oauth2.shared import source_for
from mailbridge.oauth2.store import FileTokenStore, MemoryTokenStore, TokenStore
from mailbridge.oauth2.token import AccessToken
from tests.servers.token_server import TokenServer
from tests.unit.oauth2.conftest import Configure, StartTokenServer

TOKEN = AccessToken(Secret("the-token"), 2000.5, "mail send", Secret("the-refresh-token"), 1000.25)

# Each token that the server gives ends at once, so that every round is a renewal. What one process saves the
# other one finds, or the server would revoke the family.
WORKER = """
import json, sys
from mailbridge import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.oauth2.shared import source_for
options = json.loads(sys.argv[1])
source = source_for(SMTPConfig(username="user@example.com", oauth2=options))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    token, _ = source.token(Deadline.after(30))
    source.drop(token)
print("done", flush=True)
"""


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TokenStore:
    return MemoryTokenStore() if request.param == "memory" else FileTokenStore(tmp_path / "tokens")


def test_what_is_saved_is_loaded(store: TokenStore) -> None:
    assert store.load("key") is None
    store.save("key", TOKEN)
    assert store.load("key") == TOKEN
    other = AccessToken(Secret("x"))
    store.save("key", other)
    assert store.load("key") == other
    assert store.load("another") is None


def test_one_holds_a_lock_and_the_others_give_up_in_time(store: TokenStore) -> None:
    with store.lock("key", 1), store.lock("another", 1):
        for _ in range(2):
            with pytest.raises(TimeoutError), store.lock("key", 0.05):
                pytest.fail("two hold it")
    with store.lock("key", 0.05):
        pass


def test_a_lock_is_handed_on(store: TokenStore) -> None:
    held, order = threading.Event(), []

    def wait() -> None:
        held.set()
        with store.lock("key", 10):
            order.append("second")

    with store.lock("key", 1):
        thread = threading.Thread(target=wait)
        thread.start()
        assert held.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_memory_is_bounded() -> None:
    store = MemoryTokenStore(limit=3)
    for number in range(10):
        store.save(str(number), TOKEN)
    assert [store.load(str(number)) for number in range(6, 10)] == [None, TOKEN, TOKEN, TOKEN]


# ---- files


def test_nobody_else_can_read_a_file(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "a" / "tokens")
    before = os.umask(0)
    try:
        store.save("key", TOKEN)
        with store.lock("key", 1):
            pass
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in store.folder.iterdir()}
    assert modes == {"key.json": 0o600, "key.lock": 0o600}
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    store.save("key", TOKEN)
    (tmp_path / "key.json").chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        store.load("key")


def _open_folder(folder: Path) -> None:
    folder.chmod(0o770)


def _linked_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _linked_files(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.rename(folder.parent / path.name)
        path.symlink_to(folder.parent / path.name)


def _dangling_links(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.unlink()
        path.symlink_to(folder.parent / f"new-{path.name}")


def _fifos(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.unlink()
        os.mkfifo(path, 0o600)


def _open_files(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o620)


@pytest.mark.parametrize("prepare", [_open_folder, _linked_folder])
def test_a_folder_that_is_not_this_users_alone_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    store = _filled_store(tmp_path)
    prepare(store.folder)
    for use in (lambda: store.load("key"), lambda: store.save("key", TOKEN), store.lock("key", 1).__enter__):
        with pytest.raises(PermissionError, match=re.escape(str(store.folder))):
            use()
    assert not list(store.folder.glob(".new-*"))


@pytest.mark.parametrize("prepare", [_linked_files, _dangling_links, _fifos, _open_files])
def test_a_file_that_is_not_this_users_alone_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    store = _filled_store(tmp_path)
    prepare(store.folder)
    for use in (lambda: store.load("key"), store.lock("key", 1).__enter__):
        with pytest.raises(PermissionError, match=re.escape(str(store.folder))):
            use()
    store.save("key", TOKEN)  # takes the place of what was there, and follows nothing
    assert store.load("key") == TOKEN
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("new-")] == []


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _filled_store(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="belongs to user id"):
        store.load("key")


def _filled_store(tmp_path: Path) -> FileTokenStore:
    store = FileTokenStore(tmp_path / "tokens")
    store.save("key", TOKEN)
    with store.lock("key", 1):
        pass
    return store


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"access_token": "the-token"}', "the-token", "\udcff"])
def test_a_damaged_file_is_an_error_that_shows_nothing(tmp_path: Path, content: str) -> None:
    store = FileTokenStore(tmp_path)
    store.save("key", TOKEN)
    (tmp_path / "key.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="is damaged") as caught:
        store.load("key")
    assert "the-token" not in repr(caught.value)


def test_a_save_that_fails_leaves_the_old_token_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileTokenStore(tmp_path)
    store.save("key", TOKEN)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        store.save("key", AccessToken(Secret("new")))
    assert store.load("key") == TOKEN
    assert [path.name for path in tmp_path.iterdir()] == ["key.json"]


@pytest.mark.parametrize("key", ["", "../key", "a/b", "a.b", "a" * 129])
def test_a_key_is_no_path(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="A key must be"):
        FileTokenStore(tmp_path).load(key)


def test_stores_of_one_folder_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert FileTokenStore("x") == FileTokenStore(tmp_path / "x")
    assert hash(FileTokenStore("x")) == hash(FileTokenStore(tmp_path / "x"))
    assert FileTokenStore("x") != FileTokenStore("y")
    assert "x" in repr(FileTokenStore("x"))


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.none() | st.text(min_size=1),
)
def test_a_token_survives_its_writing(
    value: str, expires_at: float | None, scope: str, refresh: str | None
) -> None:
    token = AccessToken(Secret(value), expires_at, scope, Secret(refresh) if refresh else None, 5.0)
    assert AccessToken.parse(token.dump()) == token


# ---- processes


def start_worker(options: dict[str, Any], rounds: int) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(options), str(rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


@pytest.fixture
def options(tmp_path: Path) -> Callable[[TokenServer], dict[str, Any]]:
    def build(server: TokenServer) -> dict[str, Any]:
        return {
            "token_url": server.url,
            "client_id": "the-client",
            "refresh_token": "first-refresh-token",
            "allow_insecure_token_url": True,
            "token_store": f"file:{tmp_path / 'tokens'}",
        }

    return build


def test_two_processes_and_a_rotating_server(
    token_server: StartTokenServer,
    configure: Configure,
    options: Callable[[TokenServer], dict[str, Any]],
) -> None:
    rounds = 10
    server = token_server(rotates=True)
    workers = [start_worker(options(server), rounds) for _ in range(2)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        said, errors = worker.communicate(timeout=50)
        assert (said, errors) == ("done\n", "")
        assert worker.returncode == 0
    assert not server.is_revoked
    used = [form["refresh_token"] for form in server.requests]
    assert len(used) == len(set(used))
    # Each dropped what it had: at least one of them asked in each round.
    assert rounds <= len(used) <= 2 * rounds

    # After a restart, the saved token works, and then the saved refresh token does.
    shared.forget_sources()
    source = source_for(configure(server, oauth2={"client_secret": None, **options(server)}))
    token, is_cached = source.token(NEVER)
    assert (token.value.reveal(), is_cached) == (server.issued[-1], True)
    source.drop(token)
    assert source.token(NEVER)[1] is False
    assert not server.is_revoked
