"""The server's half of the mechanisms, with the RFCs' own examples where there are any."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Any

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


class TestScram:
    """The client's half is computed here, from RFC 5802 section 3."""

    FIRST = b"n=tim,r=abc"

    def converse(
        self,
        header: bytes = b"n,,",
        password: str = "tanstaaftanstaaf",
        binding: bytes | None = None,
        **changes: bytes,
    ) -> tuple[str | None, bytes]:
        """Who is let in, and what the server said last."""
        exchange = EXCHANGES["SCRAM-SHA-256"](USERS, header + self.FIRST, b"challenge")
        said = b""
        try:
            said = next(exchange)
            nonce, salt, iterations = (part[2:] for part in said.split(b","))
            salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(salt), int(iterations))
            final = (
                b"c="
                + b64encode(header if binding is None else binding)
                + b",r="
                + changes.get("nonce", nonce)
            )
            signed = b",".join((self.FIRST, said, final))
            key = hmac.digest(salted, b"Client Key", "sha256")
            signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
            proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
            said = exchange.send(final + b",p=" + changes.get("proof", b64encode(proof)))
            server_key = hmac.digest(salted, b"Server Key", "sha256")
            assert said == b"v=" + b64encode(hmac.digest(server_key, signed, "sha256"))
            exchange.send(changes.get("end", b""))
        except StopIteration as finished:
            return finished.value, said
        raise AssertionError("it asks for ever")

    @pytest.mark.parametrize("header", [b"n,,", b"y,,"])
    def test_who_knows_the_password_is_let_in_and_told_so(self, header: bytes) -> None:
        assert self.converse(header)[0] == "tim"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"password": "wrong"},
            {"header": b"p=tls-unique,,"},
            {"header": b"n,a=admin,"},
            {"binding": b"y,,"},
            {"nonce": b"abc"},
            {"proof": b"AAAA"},
            {"proof": b"!"},
            {"proof": b""},
            {"end": b"x"},
        ],
    )
    def test_what_is_refused(self, wrong: dict[str, Any]) -> None:
        user, said = self.converse(**wrong)
        assert user is None
        assert said.startswith(b"v=") is ("end" in wrong)

    def test_a_stranger(self) -> None:
        exchange = EXCHANGES["SCRAM-SHA-1"](USERS, b"n,,n=nobody,r=abc", b"challenge")
        assert next(exchange).startswith(b"r=abc")
        with pytest.raises(StopIteration) as finished:
            exchange.send(b"c=biws,r=abc,p=AAAA")
        assert finished.value.value is None


@pytest.mark.parametrize(
    ("mechanism", "initial"),
    [
        ("XOAUTH2", b"user=tim\1auth=Bearer tanstaaftanstaaf\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=Bearer tanstaaftanstaaf\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1host=h\1port=25\1auth=Bearer tanstaaftanstaaf\1\1"),
    ],
)
def test_a_token_that_is_good(mechanism: str, initial: bytes) -> None:
    assert play(mechanism, initial) == "tim"
    assert play(mechanism, None, initial) == "tim"


@pytest.mark.parametrize(
    ("mechanism", "initial"),
    [
        ("XOAUTH2", b"user=tim\1auth=Bearer wrong\1\1"),
        ("XOAUTH2", b"user=nobody\1auth=Bearer tanstaaftanstaaf\1\1"),
        ("XOAUTH2", b"user=tim\1auth=Bearer tanstaaftanstaaf\1"),
        ("XOAUTH2", b"user=tim\1auth=tanstaaftanstaaf\1\1"),
        ("XOAUTH2", b""),
        ("OAUTHBEARER", b"n,a=tim,\1auth=Bearer wrong\1\1"),
        ("OAUTHBEARER", b"y,a=tim,\1auth=Bearer tanstaaftanstaaf\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=tanstaaftanstaaf\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=Bearer tanstaaftanstaaf\1"),
        ("OAUTHBEARER", b""),
    ],
)
def test_a_token_that_is_not_is_answered_by_an_error(mechanism: str, initial: bytes) -> None:
    assert play(mechanism, initial, b"\1" if mechanism == "OAUTHBEARER" else b"") is None
