"""xtext and utf-8-addr-xtext: the RFCs' grammar, and back again whatever the text."""

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailbridge.smtp import xtext

# Written out from RFC 3461 section 4 and RFC 6533 section 3, not taken from the code.
XCHARS = frozenset(map(chr, range(33, 127))) - {"+", "="}
ADDRESS = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]))


@given(st.text(st.characters(max_codepoint=127)))
@example("a+b=c d")
def test_xtext_goes_there_and_back(text: str) -> None:
    encoded = xtext.encode(text)
    assert set(re.sub(r"\+[0-9A-F]{2}", "", encoded)) <= XCHARS
    assert xtext.decode(encoded) == text


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("QQ314159", "QQ314159"),  # RFC 3461 section 10.1
        ("Bob@Example.COM", "Bob@Example.COM"),
        ("user+tag@x", "user+2Btag@x"),
        ("a=b c", "a+3Db+20c"),
        ("\r\n", "+0D+0A"),
        ("", ""),
    ],
)
def test_xtext_as_it_is_written(text: str, encoded: str) -> None:
    assert xtext.encode(text) == encoded
    assert xtext.decode(encoded) == text


@pytest.mark.parametrize("bad", ["a+2b", "a+", "a+4", "a b", "a=b", "é", "+FF", "a\n", "a\x7f"])
def test_what_is_no_xtext(bad: str) -> None:
    with pytest.raises(ValueError, match="xtext"):
        xtext.decode(bad)


def test_xtext_is_for_ascii() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        xtext.encode("ü@x")


@given(ADDRESS)
@example("grüße+1=\\@x")
@example("\U0010ffff\x7f\x80ÿĀ\uffff\U00010000")
def test_addresses_go_there_and_back(address: str) -> None:
    encoded = xtext.encode_address(address)
    assert set(re.sub(r"\\x\{[0-9A-F]{2,6}\}", "", encoded)) <= XCHARS - {"\\"}
    assert xtext.decode_address(encoded) == address


@given(ADDRESS)
def test_unitext_is_read_too(address: str) -> None:
    """utf-8-addr-unitext: only what ASCII must hide is embedded."""
    unitext = "".join(c if c > "\x7f" else xtext.encode_address(c) for c in address)
    assert xtext.decode_address(unitext) == address


@pytest.mark.parametrize(
    ("address", "encoded"),
    [
        ("grüße@x.example", "gr\\x{FC}\\x{DF}e@x.example"),
        ("世@x", "\\x{4E16}@x"),
        ("\U0001f600@x", "\\x{1F600}@x"),
        ("a+b@x", "a\\x{2B}b@x"),
        ('"a b"@x', '"a\\x{20}b"@x'),
        ("a\\b", "a\\x{5C}b"),
    ],
)
def test_addresses_as_they_are_written(address: str, encoded: str) -> None:
    assert xtext.encode_address(address) == encoded
    assert xtext.decode_address(encoded) == address


@pytest.mark.parametrize(
    "bad",
    [r"a\x{D800}", r"a\x{110000}", r"a\x{fc}", r"a\x{0FC}", r"a\x{}", r"a\x41", "a b", "a+b", "a=b", "a\x00"],
)
def test_what_is_no_encoded_address(bad: str) -> None:
    with pytest.raises(ValueError, match=r"neither|surrogate"):
        xtext.decode_address(bad)


@pytest.mark.parametrize("bad", ["\ud800@x", "a\0@x", "a\r\n@x"])
def test_addresses_that_are_none(bad: str) -> None:
    with pytest.raises(ValueError, match="neither control"):
        xtext.encode_address(bad)


def test_every_printable_character_stands_for_itself_or_is_encoded() -> None:
    for character in string.printable.strip():
        assert (xtext.encode(character) == character) is (character in XCHARS)
