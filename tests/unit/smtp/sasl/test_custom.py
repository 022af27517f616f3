"""Mechanisms of the user's own: classes, callables, and what they may leave out."""

import pytest

from mailbridge import register_sasl
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret
from mailbridge.smtp.sasl import Credentials, mechanism, registry

CREDENTIALS = Credentials("user", Secret("hunter2"))


@pytest.fixture(autouse=True)
def none_registered(monkeypatch):
    monkeypatch.setattr(registry, "registered", {})


class Small:
    def __init__(self, credentials):
        self.credentials = credentials

    def initial(self):
        return self.credentials.username.encode()

    def step(self, challenge):
        return challenge[::-1]


class Large(Small):
    refusal = "why"
    is_unsuitable = True
    finished = None

    def initial(self):
        return None

    def finish(self, text):
        Large.finished = text


def test_a_class_with_the_two_methods():
    register_sasl("x-small", Small)
    exchange = mechanism("X-SMALL", CREDENTIALS)
    assert (exchange.name, exchange.initial(), exchange.step(b"abc")) == ("X-SMALL", b"user", b"cba")
    assert (exchange.refusal, exchange.is_unsuitable) == ("", False)
    exchange.finish("welcome")


def test_a_class_with_all_of_them():
    register_sasl("X-LARGE", Large)
    exchange = mechanism("X-LARGE", CREDENTIALS)
    assert (exchange.initial(), exchange.refusal, exchange.is_unsuitable) == (None, "why", True)
    exchange.finish("welcome")
    assert Large.finished == "welcome"


def test_a_plain_callable():
    def answer(credentials, challenge):
        return None if challenge is None else credentials.password.reveal().encode() + challenge

    register_sasl("X-CALL", answer)
    exchange = mechanism("X-CALL", CREDENTIALS)
    assert exchange.initial() is None
    assert exchange.step(b"!") == b"hunter2!"
    assert "hunter2" not in repr(exchange)


@pytest.mark.parametrize("message", ["text", 7, None])
def test_an_answer_that_is_no_bytes(message):
    register_sasl("X-BAD", lambda credentials, challenge: message)
    with pytest.raises(ConfigurationError, match=f"X-BAD must give bytes, not {type(message).__name__}"):
        mechanism("X-BAD", CREDENTIALS).step(b"")
    if message is not None:
        with pytest.raises(ConfigurationError, match="must give bytes"):
            mechanism("X-BAD", CREDENTIALS).initial()
