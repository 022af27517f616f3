"""Addresses as Flask-Mail's users write them, and header values on several lines."""

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailbridge
from mailbridge import InvalidMessage
from mailbridge_flask import BadHeaderError, sanitize_address
from mailbridge_flask.addresses import AnyAddress, as_pair, domain_of, shown, unfolded


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a@b.example", "a@b.example"),
        ("Me <me@b.example>", "Me <me@b.example>"),
        (("Me", "me@b.example"), "Me <me@b.example>"),
        (("", "me@b.example"), "me@b.example"),
        ((None, "me@b.example"), "me@b.example"),
        (("Shop, Corner", "me@b.example"), '"Shop, Corner" <me@b.example>'),
        ("ÄÜÖ → ✓ <from@example.com>", "=?utf-8?b?w4TDnMOWIOKGkiDinJM=?= <from@example.com>"),
        (("ÄÜÖ → ✓", "from@example.com"), "=?utf-8?b?w4TDnMOWIOKGkiDinJM=?= <from@example.com>"),
        ("me@faß.example", "me@xn--fa-hia.example"),
        ("grüße@b.example", "grüße@b.example"),
    ],
)
def test_sanitize_address(address: AnyAddress, expected: str) -> None:
    assert sanitize_address(address) == expected


def test_sanitize_address_in_another_charset() -> None:
    assert (
        sanitize_address(("送信者", "a@b.example"), "shift_jis")
        == "=?iso-2022-jp?b?GyRCQXc/LjxUGyhC?= <a@b.example>"
    )
    assert sanitize_address(("送信者", "a@b.example"), "us-ascii").startswith("=?utf-8?b?")
    assert sanitize_address(("送信者", "a@b.example"), "no-such-charset").startswith("=?utf-8?b?")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "a@b.example, c@d.example",
        "a@b.example\r\nBcc: c@d.example",
        ("Me\r\nBcc: c@d.example", "a@b.example"),
        ("Me", "a@b.example>\r\nRCPT TO:<c@d.example"),
        "user@good.example(x)evil.example",
        ("Me", "a@b.example", "more"),
        ("Me", None),
        7,
    ],
)
def test_what_is_no_address_is_refused_and_never_repaired(address: AnyAddress) -> None:
    with pytest.raises(InvalidMessage):
        sanitize_address(address)


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=60)


@given(names)
def test_a_name_survives_being_shown(name: str) -> None:
    """Flask-Mail puts name and address together unquoted, so that a comma makes two addresses of one."""
    field = mailbridge.Message(sender=shown((name, "me@b.example"))).as_email_message()["From"]
    assert field.addresses[0].addr_spec == "me@b.example"
    # Blanks between words are layout where the name stands unquoted (RFC 5322 section 3.2.2).
    assert field.addresses[0].display_name.split() == name.split()


@given(names)
def test_a_sanitized_address_is_one_line_of_ascii_that_readers_understand(name: str) -> None:
    sanitized = sanitize_address((name, "me@b.example"))
    assert sanitized.isascii()
    assert "\n" not in sanitized
    assert email.utils.parseaddr(sanitized)[1] == "me@b.example"


def test_pairs_come_as_tuples_and_as_lists() -> None:
    assert as_pair(["Me", "a@b.example"]) == ("Me", "a@b.example")
    assert as_pair((None, "a@b.example")) == ("", "a@b.example")


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("a@b.example", "b.example"),
        ("Me <a@b.example>", "b.example"),
        (("Me", "a@b.example"), "b.example"),
        ("a@[192.0.2.1]", None),
        ("a@bücher.example", None),
        ("a@b.example\r\n", "b.example"),
        (None, None),
    ],
)
def test_domain_of(address: AnyAddress | None, domain: str | None) -> None:
    assert domain_of(address) == domain


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("testing\r\n testing\r\n testing \r\n \ttesting", "testing testing testing  testing"),
        ("a\r\n\tb", "a b"),
    ],
)
def test_a_folded_value_comes_to_stand_on_one_line(value: str, expected: str) -> None:
    assert unfolded("Subject", value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "testing\r\n",
        "testing\n\r",
        "\r\n testing",
        "a\nb",
        "a\rb",
        "a\n b",
        "a\r\nBcc: c@d.example",
        "testing\r\n testing\r\n ",
        "testing\r\n testing\r\n\t",
        "testing\r\n testing\r\n\n",
        "a\r\n \r\n b",
    ],
)
def test_a_line_break_that_continues_nothing_is_an_error(value: str) -> None:
    with pytest.raises(BadHeaderError):
        unfolded("Subject", value)


@given(st.text(st.sampled_from("ab \t\r\n:"), max_size=12))
def test_what_passes_has_no_line_break(value: str) -> None:
    try:
        text = unfolded("Subject", value)
    except BadHeaderError:
        return
    assert "\r" not in text
    assert "\n" not in text
