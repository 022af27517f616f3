"""The end of content, un-stuffing, and what a client must not send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.testing.content import ContentReader, content_violations, unstuffed


def stuffed(lines: list[bytes]) -> bytes:
    """As a client would, line by line, by the letter of RFC 5321 section 4.5.2."""
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


LINES = st.lists(st.text(alphabet=".a\r \n", max_size=4).map(lambda t: t.replace("\r", "").replace("\n", "")))


@given(LINES, st.data())
def test_content_survives_any_cut(lines: list[str], data: st.DataObject) -> None:
    encoded = [line.encode() for line in lines]
    wire = stuffed(encoded) + b"MAIL FROM:<>\r\n"
    reader = ContentReader()
    rest = None
    while rest is None:
        assert wire, "the end was not found"
        size = data.draw(st.integers(1, max(1, len(wire))))
        rest = reader.feed(wire[:size])
        wire = wire[size:]
    assert rest + wire == b"MAIL FROM:<>\r\n"
    assert unstuffed(bytes(reader.raw)) == b"".join(line + b"\r\n" for line in encoded)


def test_content_byte_by_byte() -> None:
    wire = stuffed([b"a", b".", b""])
    reader = ContentReader()
    found = [reader.feed(bytes([byte])) for byte in wire]
    assert found == [None] * (len(wire) - 1) + [b""]


@pytest.mark.parametrize(
    "fake", [b"a\n.\r\n", b"a\r\n.\n", b"a\r.\r\n", b"a\n.\n", b"a\r\n.\r", b"a\r\n..\r\n"]
)
def test_only_crlf_dot_crlf_is_the_end(fake: bytes) -> None:
    reader = ContentReader()
    assert reader.feed(fake) is None
    assert reader.feed(b"x\r\n.\r\n") == b""
    assert bytes(reader.raw) == fake + b"x\r\n.\r\n"


def test_empty_content() -> None:
    reader = ContentReader()
    assert reader.feed(b".\r\nQUIT\r\n") == b"QUIT\r\n"
    assert unstuffed(bytes(reader.raw)) == b""


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a\nb\r\n.\r\n", "bare"),
        (b"a\rb\r\n.\r\n", "bare"),
        (b".a\r\n.\r\n", "not doubled"),
        (b"a\r\n.b\r\n.\r\n", "not doubled"),
        ("ä\r\n.\r\n".encode(), "8-bit"),
    ],
)
def test_violations(raw: bytes, words: str) -> None:
    [violation] = content_violations(raw, may_be_8bit=False)
    assert words in violation


@pytest.mark.parametrize("raw", [b".\r\n", b"..\r\n.\r\n", b"a\r\n..b\r\n.\r\n", b"a\r\n\r\nb\r\n.\r\n"])
def test_clean_content(raw: bytes) -> None:
    assert content_violations(raw, may_be_8bit=False) == []


def test_8bit_is_fine_where_announced() -> None:
    assert content_violations("ä\r\n.\r\n".encode(), may_be_8bit=True) == []
