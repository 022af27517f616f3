"""Callables of the user's own are inside the deadline: one that is slow does not hold the send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mailbridge import (
    DeadlineExceeded,
    Mailer,
    RateUnavailable,
    SMTPConfig,
    SMTPConnection,
    TokenUnavailable,
    register_sasl,
)
from mailbridge.oauth2.shared import forget_sources
from mailbridge.smtp.sasl import registry
from mailbridge.testing import ScriptedServer
from tests.acceptance.sending import PASSWORD, USER, committed, config_for, envelope, message

SECONDS, MARGIN, LATER = 0.3, 0.25, 30.0


class Slow:
    """Gives `value` once it may; fails first if there is an `error`."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.may_end = threading.Event()
        self.has_ended = threading.Semaphore(0)
        self.error: Exception | None = None
        self.calls = 0

    def __call__(self, *_: object) -> Any:
        self.calls += 1
        try:
            assert self.may_end.wait(LATER)
            if self.error is not None:
                raise self.error
            return self.value
        finally:
            self.has_ended.release()


@pytest.fixture(autouse=True)
def nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "registered", {})
    forget_sources()
    yield
    forget_sources()


def by_mechanism(slow: Slow) -> dict[str, Any]:
    register_sasl("X-SLOW", slow)
    return {"username": USER, "password": PASSWORD, "auth": "X-SLOW"}


TOKEN = "ya29.token"
LOGIN = f"\0{USER}\0{PASSWORD}".encode()
# What the callable gives, how it is configured, what is told of it, its error, the calls once it was slow.
Kind = tuple[Any, Callable[[Slow], dict[str, Any]], str, type[Exception], int]
KINDS: dict[str, Kind] = {
    "username": (
        USER,
        lambda slow: {"username": slow, "password": PASSWORD},
        "callable of the option username",
        KeyError,
        1,
    ),
    "password": (
        PASSWORD,
        lambda slow: {"username": USER, "password": slow},
        "callable of the option password",
        KeyError,
        1,
    ),
    "token": (
        TOKEN,
        lambda slow: {"username": USER, "oauth2": slow},
        "provider of access tokens",
        TokenUnavailable,
        1,
    ),
    "rate": (0.0, lambda slow: {"rate": slow}, "rate limiter", RateUnavailable, 2),
    "SASL": (LOGIN, by_mechanism, "SASL mechanism X-SLOW", KeyError, 2),
}
each_kind = pytest.mark.parametrize("name", KINDS)


def server_for(name: str) -> ScriptedServer:
    if name == "rate":
        return ScriptedServer()
    if name == "SASL":
        return ScriptedServer(users={USER: PASSWORD}, auth=["X-SLOW", "PLAIN"])
    if name == "token":
        return ScriptedServer(users={USER: TOKEN}, auth=["XOAUTH2"])
    return ScriptedServer(users={USER: PASSWORD}, auth=["PLAIN"])


def config_of(server: ScriptedServer, name: str, slow: Slow) -> SMTPConfig:
    return config_for(server, **KINDS[name][1](slow))


@each_kind
@pytest.mark.parametrize("by_option", [False, True], ids=["deadline", "timeouts.total"])
def test_a_slow_one_is_left_and_its_result_kept(name: str, by_option: bool) -> None:
    value, options, what, _, calls = KINDS[name]
    slow = Slow(value)
    total = {"timeouts": {"total": SECONDS}} if by_option else {}
    with server_for(name) as server, Mailer(config_for(server, **options(slow), **total)) as mailer:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=what) as caught:
            mailer.send(message(1), envelope=envelope(), **({} if by_option else {"deadline": SECONDS}))
        assert time.monotonic() - began < SECONDS + MARGIN
        assert not caught.value.outcome_unknown
        assert caught.value.is_transient
        assert committed(server) == {}
        slow.may_end.set()
        assert slow.has_ended.acquire(timeout=LATER)
        if name != "SASL":  # the testing server does not know this mechanism
            mailer.send(message(2), envelope=envelope())
            assert committed(server) == {2: 1}
            assert slow.calls == calls


@each_kind
def test_an_error_is_the_same_with_and_without_a_deadline(name: str) -> None:
    value, options, _, kind, _ = KINDS[name]
    slow = Slow(value)
    slow.error = KeyError("not found")
    slow.may_end.set()
    with server_for(name) as server:
        for limit in (None, LATER):
            forget_sources()
            with Mailer(config_for(server, **options(slow))) as mailer, pytest.raises(kind):
                mailer.send(message(1), envelope=envelope(), deadline=limit)
        assert committed(server) == {}


@pytest.mark.parametrize("name", [name for name in KINDS if name != "SASL"])
def test_a_send_takes_over_the_call_that_another_left(name: str) -> None:
    slow = Slow(KINDS[name][0])
    with server_for(name) as server, Mailer(config_of(server, name, slow)) as mailer:
        for number in (1, 2):
            with pytest.raises(DeadlineExceeded):
                mailer.send(message(number), envelope=envelope(), deadline=SECONDS)
        assert slow.calls == 1
        slow.may_end.set()
        mailer.send(message(3), envelope=envelope(), deadline=LATER)
        assert committed(server) == {3: 1}


def test_what_is_fast_or_cached_costs_no_thread_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(PASSWORD)
    slow.may_end.set()
    with server_for("password") as server, Mailer(config_of(server, "password", slow)) as mailer:
        mailer.send(message(1), envelope=envelope(), deadline=LATER)
        monkeypatch.setattr("mailbridge.net.aside._Call.start", lambda _: pytest.fail("a thread"))
        mailer.send(message(2), envelope=envelope(), deadline=LATER)
        assert committed(server) == {1: 1, 2: 1}
        assert slow.calls == 1


def test_a_mechanism_that_is_slow_in_mid_exchange_ends_the_connection() -> None:
    """What comes next would be taken for its response."""
    slow = Slow(USER.encode())
    register_sasl("LOGIN", lambda credentials, challenge: None if challenge is None else slow())
    with ScriptedServer(users={USER: PASSWORD}, auth=["LOGIN"]) as server:
        connection = SMTPConnection(config_for(server, username=USER, password=PASSWORD, auth="LOGIN"))
        connection.connect()
        with pytest.raises(DeadlineExceeded, match="SASL mechanism LOGIN"):
            connection.login(deadline=SECONDS)
        assert slow.calls == 1
        assert not connection.is_open
        connection.close()
        assert server.connections[0].verbs == ("EHLO", "AUTH")
    slow.may_end.set()
