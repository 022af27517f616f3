"""One renewal for all: threads, failures, refused tokens, stores. Time passes where a test says so."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from mailbridge import DeadlineExceeded, MailbridgeError, Secret, TokenUnavailable
from mailbridge.config.oauth2 import parse_oauth2
from mailbridge.deadline import NEVER, Deadline
from mailbridge.oauth2 import shared
from mailbridge.oauth2.shared import source_for
from mailbridge.oauth2.source import LONGEST_PAUSE, SHORTEST_PAUSE, TokenSource
from mailbridge.oauth2.store import FileTokenStore, MemoryTokenStore
from mailbridge.oauth2.token import AccessToken
from tests.servers.process import wait_until
from tests.unit.oauth2.conftest import Configure, StartTokenServer

OPTIONS = {
    "token_url": "https://idp.test/token",
    "client_id": "c",
    "client_secret": "s",
    "refresh_token": "first",
}


class Desk:
    """Hands out tokens in the place of a server: what it was asked, and what it is to say."""

    def __init__(self, lifetime: float = 3600.0) -> None:
        self.now = 1_000_000.0
        self.ticks = 0.0
        self.lifetime = lifetime
        self.asked: list[str | None] = []
        self.fails: MailbridgeError | None = None
        self.rotates = False
        self.gate: threading.Event | None = None

    def __call__(self, refresh_token: Secret | None, deadline: Deadline) -> AccessToken:
        self.asked.append(refresh_token.reveal() if refresh_token is not None else None)
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.fails is not None:
            raise copy.copy(self.fails)
        number = len(self.asked)
        rotated = Secret(f"rotated-{number}") if self.rotates else None
        return AccessToken(Secret(f"token-{number}"), self.now + self.lifetime, "", rotated, self.now)

    def source(self, store: Any = None, **options: Any) -> TokenSource:
        return TokenSource(
            parse_oauth2(OPTIONS | options),
            "user@example.com",
            ask=self,
            store=store if store is not None else MemoryTokenStore(),
            wall_clock=lambda: self.now,
            clock=lambda: self.ticks,
        )


def value(found: tuple[AccessToken, bool]) -> tuple[str, bool]:
    return found[0].value.reveal(), found[1]


def unavailable(*, transient: bool, retry_after: float | None = None) -> TokenUnavailable:
    error = TokenUnavailable("No access token: no", stage="token")
    error.transient, error.retry_after = transient, retry_after
    return error


@pytest.mark.parametrize(("lifetime", "skew"), [(3600, 300), (600, 60), (10, 1)])
def test_a_token_is_renewed_ahead_of_its_end(lifetime: float, skew: float) -> None:
    desk = Desk(lifetime)
    source = desk.source()
    assert value(source.token(NEVER)) == ("token-1", False)
    desk.now += lifetime - skew - 0.01
    assert value(source.token(NEVER)) == ("token-1", True)
    desk.now += 0.01
    assert value(source.token(NEVER)) == ("token-2", False)
    assert desk.asked == ["first", "first"]


def test_a_rotated_refresh_token_takes_the_place_of_the_configured_one() -> None:
    desk, store = Desk(), MemoryTokenStore()
    desk.rotates = True
    source = desk.source(store)
    for _ in range(3):
        source.token(NEVER)
        desk.now += 3600
    desk.rotates = False  # this answer has no refresh token: the last one stays good
    source.token(NEVER)
    desk.now += 3600
    # Another source is what a restart makes.
    desk.source(store).token(NEVER)
    assert desk.asked == ["first", "rotated-1", "rotated-2", "rotated-3", "rotated-3"]


def test_a_rotation_that_is_kept_in_memory_only_is_warned_about_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    desk = Desk()
    desk.rotates = True
    for store, warnings in ((FileTokenStore(tmp_path), 0), (MemoryTokenStore(), 1)):
        source = desk.source(store)
        for _ in range(2):
            source.token(NEVER)
            desk.now += 3600
        assert caplog.text.count("set oauth2.token_store") == warnings


def test_a_token_that_was_saved_too_late_is_renewed() -> None:
    desk, store = Desk(), BrokenStore()
    desk.rotates = True
    source = desk.source(store)
    with pytest.raises(TokenUnavailable, match="No space left"):
        source.token(NEVER)
    store.is_full, desk.ticks, desk.now = False, 30, desk.now + 3600
    assert value(source.token(NEVER)) == ("token-2", False)
    assert desk.asked == ["first", "rotated-1"]


def test_a_token_in_the_store_is_used_after_a_restart() -> None:
    desk, store = Desk(), MemoryTokenStore()
    desk.source(store).token(NEVER)
    assert value(desk.source(store).token(NEVER)) == ("token-1", True)
    assert len(desk.asked) == 1


def test_changed_settings_do_not_meet_an_old_token() -> None:
    desk, store = Desk(), MemoryTokenStore()
    desk.source(store).token(NEVER)
    changes: list[dict[str, Any]] = [
        {"refresh_token": "second"},
        {"client_secret": "t"},
        {"scope": "mail"},
        {"extra_params": {"a": "b"}},
        {"token_url": "https://other.test/"},
    ]
    for number, change in enumerate(changes, 2):
        assert value(desk.source(store, **change).token(NEVER)) == (f"token-{number}", False)


def test_keys_of_the_store_hold_no_secret() -> None:
    key = parse_oauth2(OPTIONS | {"client_secret": "very-secret"}).fingerprint("user@example.com")
    assert key.isalnum()
    assert "secret" not in key
    assert key == parse_oauth2(OPTIONS | {"client_secret": "very-secret"}).fingerprint("user@example.com")
    assert key != parse_oauth2(OPTIONS | {"client_secret": "very-secret"}).fingerprint("other@example.com")


def test_a_refused_token_is_replaced_once_for_all_who_had_it() -> None:
    desk = Desk()
    source = desk.source()
    refused, _ = source.token(NEVER)
    source.drop(refused)
    assert value(source.token(NEVER, fresh=True)) == ("token-2", False)
    source.drop(refused)  # by another session, later
    assert value(source.token(NEVER, fresh=True)) == ("token-2", True)
    assert len(desk.asked) == 2


def test_a_token_refused_here_is_not_taken_from_the_store_again() -> None:
    desk, store = Desk(), MemoryTokenStore()
    first, second = desk.source(store), desk.source(store)
    refused, _ = first.token(NEVER)
    second.token(NEVER)
    first.drop(refused)
    assert value(first.token(NEVER)) == ("token-2", False)
    second.drop(refused)
    assert value(second.token(NEVER)) == ("token-2", True)
    assert len(desk.asked) == 2


def test_fresh_asks_where_nothing_was_refused() -> None:
    desk = Desk()
    source = desk.source()
    source.token(NEVER)
    assert value(source.token(NEVER, fresh=True)) == ("token-2", False)


def test_a_configured_access_token_is_the_first_one() -> None:
    desk = Desk()
    source = desk.source(access_token="given", expires=desk.now + 100)
    assert value(source.token(NEVER)) == ("given", True)
    desk.now += 100
    assert value(source.token(NEVER)) == ("token-1", False)


def test_a_static_token_is_never_cached_and_ends() -> None:
    desk = Desk()
    options = parse_oauth2({"access_token": "given", "expires": desk.now + 100})
    source = TokenSource(options, "u", ask=desk, store=MemoryTokenStore(), wall_clock=lambda: desk.now)
    assert value(source.token(NEVER)) == ("given", False)
    source.drop(source.token(NEVER)[0])
    assert value(source.token(NEVER, fresh=True)) == ("given", False)
    assert source.describe() == "configured access token, expires in 100 s"
    desk.now += 100
    with pytest.raises(TokenUnavailable, match="has expired"):
        source.token(NEVER)
    assert desk.asked == []


# ---- failures


def test_a_failure_is_remembered_for_a_while_that_grows() -> None:
    desk = Desk()
    source = desk.source()
    desk.fails = unavailable(transient=True)
    for pause in (5, 10, 20, 30, 30):
        calls = len(desk.asked)
        for _ in range(3):
            with pytest.raises(TokenUnavailable):
                source.token(NEVER)
        assert len(desk.asked) == calls + 1
        desk.ticks += pause - 0.5
        with pytest.raises(TokenUnavailable, match="The next try is in"):
            source.token(NEVER)
        desk.ticks += 0.5
    desk.fails = None
    assert value(source.token(NEVER)) == ("token-6", False)


@pytest.mark.parametrize(
    ("failure", "pause"),
    [
        (unavailable(transient=False), LONGEST_PAUSE),
        (unavailable(transient=True, retry_after=17), 17),
        (unavailable(transient=True, retry_after=3600), LONGEST_PAUSE),
        (unavailable(transient=True, retry_after=0), SHORTEST_PAUSE),
    ],
)
def test_how_long_it_is_remembered(failure: TokenUnavailable, pause: float) -> None:
    desk = Desk()
    source = desk.source()
    desk.fails = failure
    for wait, calls in ((0.0, 1), (pause - 0.1, 1), (0.1, 2)):
        desk.ticks += wait
        with pytest.raises(TokenUnavailable) as caught:
            source.token(NEVER)
        assert len(desk.asked) == calls
        assert caught.value.is_transient is failure.is_transient


def test_a_token_that_cannot_be_renewed_ahead_of_time_serves_till_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()
    source = desk.source()
    source.token(NEVER)
    desk.now += 3600 - 200
    desk.fails = unavailable(transient=True)
    assert value(source.token(NEVER)) == ("token-1", True)
    assert value(source.token(NEVER)) == ("token-1", True)
    assert len(desk.asked) == 2
    assert "could not be renewed ahead of time" in caplog.text
    desk.now += 200
    with pytest.raises(TokenUnavailable):
        source.token(NEVER)


# ---- threads


def crowd(source: TokenSource, count: int, deadline: Callable[[], Deadline]) -> tuple[list[Any], Any]:
    """(what each thread got, a function that waits for all)."""
    got: list[Any] = []

    def ask() -> None:
        try:
            got.append(value(source.token(deadline())))
        except MailbridgeError as error:
            got.append(error)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()

    return got, join


def test_fifty_threads_make_one_request(token_server: StartTokenServer, configure: Configure) -> None:
    server = token_server()
    config = configure(server)
    source = source_for(config)
    source._store.save(
        source._key, AccessToken(Secret("ended"), 1000.0, "", Secret("first-refresh-token"), 10.0)
    )
    server.gate = threading.Event()
    got, join = crowd(source, 50, lambda: Deadline.after(20))
    assert wait_until(lambda: len(server.requests) == 1, 10)
    server.gate.set()
    join()
    assert len(server.requests) == 1
    assert len(got) == 50
    assert {token for token, _ in got} == {"access-token-1.of.the-token-server"}


def test_fifty_threads_get_the_same_error() -> None:
    desk = Desk()
    desk.gate, desk.fails = threading.Event(), unavailable(transient=False)
    got, join = crowd(desk.source(), 50, lambda: Deadline.after(20))
    assert wait_until(lambda: len(desk.asked) == 1, 10)
    desk.gate.set()
    join()
    assert len(desk.asked) == 1
    assert len(got) == 50
    assert {(type(error), error.message) for error in got} == {(TokenUnavailable, "No access token: no")}
    assert len({id(error) for error in got}) == 50  # each its own: tracebacks grow


def test_waiters_wait_no_longer_than_their_deadline() -> None:
    desk = Desk()
    desk.gate = threading.Event()
    source = desk.source()
    got, join = crowd(source, 1, lambda: NEVER)
    assert wait_until(lambda: len(desk.asked) == 1, 10)
    with pytest.raises(DeadlineExceeded) as caught:
        source.token(Deadline.after(0.05))
    assert caught.value.stage == "token"
    desk.gate.set()
    join()
    assert got == [("token-1", False)]


def test_the_impatience_of_one_is_no_error_of_the_others() -> None:
    desk = Desk()
    source = desk.source()
    given: list[str] = []

    def ask(refresh_token: Secret | None, deadline: Deadline) -> AccessToken:
        given.append("asked")
        if len(given) == 1:
            raise TimeoutError
        return desk(refresh_token, deadline)

    source._ask = ask
    with pytest.raises(DeadlineExceeded):
        source.token(Deadline.after(0))
    assert value(source.token(NEVER)) == ("token-1", False)


def test_an_interrupt_leaves_the_turn_to_the_next() -> None:
    desk = Desk()
    source = desk.source()

    def interrupted(*_: Any) -> AccessToken:
        raise KeyboardInterrupt

    source._ask = interrupted
    with pytest.raises(KeyboardInterrupt):
        source.token(NEVER)
    source._ask = desk
    assert value(source.token(NEVER)) == ("token-1", False)


def test_an_error_that_nobody_expected_leaves_without_the_secrets_of_its_frames() -> None:
    source = Desk().source()

    def broken(refresh_token: Secret | None, deadline: Deadline) -> AccessToken:
        body = f"refresh_token={refresh_token.reveal() if refresh_token else ''}"
        raise RuntimeError(len(body))

    source._ask = broken
    with pytest.raises(RuntimeError) as caught:
        source.token(NEVER)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert any(frame.name == "broken" for frame in shown.stack)
    assert "refresh_token=first" not in "".join(shown.format())


# ---- stores


class BrokenStore(MemoryTokenStore):
    is_full = True

    def save(self, key: str, token: AccessToken) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().save(key, token)


def test_a_token_that_cannot_be_saved_is_kept_and_never_spent_twice() -> None:
    desk, store = Desk(), BrokenStore()
    desk.rotates = True
    source = desk.source(store)
    for _ in range(2):
        with pytest.raises(TokenUnavailable, match="No space left") as caught:
            source.token(NEVER)
        assert caught.value.is_transient
        desk.ticks += 30
    store.is_full = False
    assert value(source.token(NEVER)) == ("token-1", True)
    assert desk.asked == ["first"]
    saved = store.load(source._key)
    assert saved is not None
    assert saved.refresh_token == Secret("rotated-1")


def test_it_is_saved_before_the_callback_and_before_it_is_used(caplog: pytest.LogCaptureFixture) -> None:
    desk, store = Desk(), MemoryTokenStore()
    told: list[Any] = []

    def on_refresh(token: AccessToken, username: str) -> None:
        told.append((token.value.reveal(), username, store.load(source._key) == token))
        raise RuntimeError("token-1")

    source = desk.source(store, on_refresh=on_refresh)
    assert value(source.token(NEVER)) == ("token-1", False)
    assert told == [("token-1", "user@example.com", True)]
    assert "on_refresh raised RuntimeError" in caplog.text
    assert "token-1" not in caplog.text


def test_a_lock_that_is_never_free_ends_at_the_deadline() -> None:
    class Locked(MemoryTokenStore):
        def lock(self, key: str, timeout: float) -> AbstractContextManager[None]:
            raise TimeoutError("never free")

    desk = Desk()
    with pytest.raises(DeadlineExceeded):
        desk.source(Locked()).token(Deadline.after(0))
    with pytest.raises(TokenUnavailable, match="never free") as caught:
        desk.source(Locked()).token(NEVER)
    assert caught.value.is_transient
    assert desk.asked == []


# Python 3.12 warns of every fork beside a thread.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_forked_child_has_locks_of_its_own(kind: str, tmp_path: Any) -> None:
    desk = Desk()
    store = MemoryTokenStore() if kind == "memory" else FileTokenStore(tmp_path / "tokens")
    source = desk.source(store)
    desk.gate = threading.Event()
    _, join = crowd(source, 1, lambda: NEVER)
    assert wait_until(lambda: len(desk.asked) == 1, 10)  # the parent holds everything that can be held
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            desk.gate.set()
            if kind == "memory":
                status = 0 if value(source.token(Deadline.after(10))) == ("token-2", False) else 2
            else:  # the lock is the parent's, truly: the child waits its turn and gives up in time
                with pytest.raises(DeadlineExceeded):
                    source.token(Deadline.after(0.2))
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    desk.gate.set()
    join()


# ---- where sources come from, and what they tell


def test_equal_configurations_share_a_source(token_server: StartTokenServer, configure: Configure) -> None:
    server = token_server()
    assert source_for(configure(server)) is source_for(configure(server, port=465))
    assert source_for(configure(server)) is not source_for(configure(server, proxy="http://proxy.test:3128"))
    assert source_for(configure(server)) is not source_for(configure(server, oauth2={"scope": "x"}))


def test_the_registry_is_bounded(
    token_server: StartTokenServer, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "MOST_SOURCES", 3)
    server = token_server()
    for number in range(10):
        source_for(configure(server, oauth2={"scope": str(number)}))
    assert len(shared._sources) == 3


def test_description_and_log_show_no_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    desk = Desk()
    source = desk.source(scope="mail.send")
    assert source.describe() == "refresh_token at idp.test:443, scope mail.send"
    found, _ = source.token(NEVER)
    told = source.describe()
    assert told == "refresh_token at idp.test:443, scope mail.send, expires in 3600 s"
    for shown in (told, repr(source), caplog.text, repr(found), str(found), repr(pickle.dumps(found))):
        assert "token-1" not in shown
        assert "first" not in shown
    assert "access token for user@example.com from idp.test:443, good for 3600 s" in caplog.text


def test_a_provider_of_ones_own(configure: Configure) -> None:
    desk = Desk()
    given: list[Any] = ["one", "two", AccessToken(Secret("three"), desk.now + 1000), 7, ValueError("secret")]

    def provider() -> Any:
        found = given.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    from mailbridge.oauth2.request import asker

    options = parse_oauth2(provider)
    ask = asker(None, options, "u", lambda: desk.now)  # type: ignore[arg-type]  # it needs no way to a server
    source = TokenSource(
        options,
        "u",
        ask=ask,
        store=MemoryTokenStore(),
        wall_clock=lambda: desk.now,
        clock=lambda: desk.ticks,
    )
    assert value(source.token(NEVER)) == ("one", True)  # who knows how old it is
    assert value(source.token(NEVER, fresh=True)) == ("two", False)
    assert value(source.token(NEVER))[0] == "three"
    assert value(source.token(NEVER)) == ("three", True)
    desk.now += 1000
    with pytest.raises(TokenUnavailable, match="returned int"):
        source.token(NEVER)
    desk.ticks += 30
    with pytest.raises(TokenUnavailable, match="raised ValueError") as caught:
        source.token(NEVER)
    assert "secret" not in str(caught.value)
    assert "provider " in source.describe()
