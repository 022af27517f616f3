"""The server's half of the mechanisms, with the RFCs' own examples where there are any."""

from __future__ import annotations

import pytest

from mailbridge.testing.sasl import EXCHANGES

USERS = {"tim": "tanstaaftanstaaf", "jürgen": "gehéim"}


def play(mechanism: str, initial: bytes | None, *responses: bytes, challenge: bytes = b"") -> str | None:
    """The user that the exchange ends with; it must ask exactly as often as there are responses."""
    exchange = EXCHANGES[mechanism](USERS, initial, challenge)
    given = iter(responses)
    try:
        next(exchange)
        while True:
            exchange.send(next(given))
    except StopIteration as finished:
        assert next(given, None) is None
        return finished.value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("initial", "user"),
    [
        (b"\0tim\0tanstaaftanstaaf", "tim"),  # RFC 4616 section 4
        (b"tim\0tim\0tanstaaftanstaaf", "tim"),
        (b"Ursel\0tim\0tanstaaftanstaaf", None),
        (b"\0tim\0wrong", None),
        (b"\0nobody\0tanstaaftanstaaf", None),
        (b"tim\0tanstaaftanstaaf", None),
        (b"", None),
        ("\0jürgen\0gehéim".encode(), "jürgen"),
    ],
)
def test_plain(initial: bytes, user: str | None) -> None:
    assert play("PLAIN", initial) == user
    assert play("PLAIN", None, initial) == user


def test_login() -> None:
    assert play("LOGIN", None, b"tim", b"tanstaaftanstaaf") == "tim"
    assert play("LOGIN", b"tim", b"tanstaaftanstaaf") == "tim"
    assert play("LOGIN", None, b"tim", b"") is None
    assert play("LOGIN", None, b"nobody", b"tanstaaftanstaaf") is None


def test_cram_md5_example_of_rfc_2195() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert play("CRAM-MD5", None, b"tim b913a602c7eda7a495b4e6e7334d3890", challenge=challenge) == "tim"
    assert play("CRAM-MD5", None, b"tim b913a602c7eda7a495b4e6e7334d3891", challenge=challenge) is None
    assert play("CRAM-MD5", None, b"tom b913a602c7eda7a495b4e6e7334d3890", challenge=challenge) is None
    assert play("CRAM-MD5", None, b"", challenge=challenge) is None
    assert play("CRAM-MD5", b"tim b913a602c7eda7a495b4e6e7334d3890", challenge=challenge) is None
