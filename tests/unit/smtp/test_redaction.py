"""What was sent in secret, recognised in the server's words; the end-to-end search is in acceptance."""

import json
from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.reply import Reply
from mailbridge.secret import MASK, Secret
from mailbridge.smtp.redaction import Redactor
from mailbridge.smtp.xtext import escape as xtext_escape

RESPONSE = b64encode(b"\0tim\0tanstaaftanstaaf")
TEXT = RESPONSE.decode()


def redactor(*responses: bytes) -> Redactor:
    made = Redactor()
    for response in responses:
        made.remember(response)
    return made


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"unknown: AUTH PLAIN {TEXT}", "unknown: AUTH PLAIN ***"),
        (f"unknown: {TEXT[:10]}", "unknown: ***"),
        (f"unknown: {TEXT[5:]} at all", "unknown: *** at all"),
        (f"{TEXT} and {TEXT}", "*** and ***"),
        ("wrong password tanstaaftanstaaf", "wrong password ***"),
        ("no password of tim", "no password of ***"),
        ("authentication failed", "authentication failed"),
        ("", ""),
    ],
)
def test_in_the_exchange(said: str, shown: str) -> None:
    assert redactor(RESPONSE).masked(said, in_exchange=True) == shown


def test_after_it_only_what_cannot_be_an_innocent_word() -> None:
    later = redactor(RESPONSE).masked(f"queued for tim, tanstaaftanstaaf as {TEXT}")
    assert later == "queued for tim, tanstaaftanstaaf as ***"


@pytest.mark.parametrize("response", [b"", b"=", b"*"])
def test_what_is_no_secret_masks_nothing(response: bytes) -> None:
    assert redactor(response).masked("a = b * c", in_exchange=True) == "a = b * c"


def test_a_reply_is_masked_line_by_line() -> None:
    made = redactor(RESPONSE)
    reply = Reply(535, ("5.7.8 no", f"5.7.8 {TEXT}"), (5, 7, 8))
    assert made.masked_reply(reply) == Reply(535, ("5.7.8 no", "5.7.8 ***"), (5, 7, 8))
    innocent = Reply(235, ("welcome",))
    assert made.masked_reply(innocent, in_exchange=True) is innocent


def test_nothing_in_the_repr() -> None:
    assert "tanst" not in repr(redactor(RESPONSE))
    assert TEXT[:8] not in repr(redactor(RESPONSE))


@given(st.binary(min_size=8, max_size=60), st.text(max_size=40), st.text(max_size=40))
def test_no_secret_gets_through(secret: bytes, before: str, behind: str) -> None:
    text = b64encode(secret).decode()
    masked = redactor(text.encode()).masked(f"{before}{text}{behind}")
    assert text not in masked
    assert all(text[i : i + 8] not in masked.split("***") for i in range(len(text) - 7))


@pytest.mark.parametrize("secret", ["Cl1ent S3cret+Wert=&?~'\"/", "short"])
def test_other_secrets_are_found_however_they_are_written(secret: str) -> None:
    redactor = Redactor()
    redactor.remember_secret(Secret(secret))
    xtext = xtext_escape(secret)
    for form in (secret, quote(secret), quote_plus(secret), json.dumps(secret), repr(secret), xtext):
        assert redactor.masked(f"You said {form}.") == redactor.masked(f"You said {form}.", in_exchange=True)
        masked = redactor.masked(f"You said {form}.")
        assert masked.startswith("You said ")
        assert MASK in masked
        assert secret not in masked
    basic = b64encode(f"client:{secret}:x".encode()).decode()
    assert len(redactor.masked(basic, in_exchange=True)) < len(basic)
    assert redactor.masked("You said nothing", in_exchange=True) == "You said nothing"


def test_a_short_password_is_recognised_later_where_it_stands_alone() -> None:
    redactor = Redactor()
    redactor.remember_secret(Secret("hunt"))
    assert redactor.masked("250 hunt <hunt> hunt=x hunter manhunt") == "250 *** <***> ***=x hunter manhunt"


def test_the_shortest_password_leaves_words_readable() -> None:
    redactor = Redactor()
    redactor.remember_secret(Secret("p"))
    assert redactor.masked("Basic authentication") == "Basic authentication"
    assert redactor.masked("Basic authentication", in_exchange=True) == "Basic authentication"
