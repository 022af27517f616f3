"""Content for the wire: each function against a naive one that goes byte by byte, and each object that is
fed in pieces against the function."""

import re
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailbridge.errors import InvalidMessage
from mailbridge.rendering import lines
from mailbridge.rendering.lines import Canonical, Survey, canonical, has_nul, is_eight_bit, longest_line
from mailbridge.smtp.dot_stuffing import END_OF_DATA, DotStuffer, dot_stuffed

# Few kinds of bytes, so that every combination of line ends and dots comes up.
MESSY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0", b"\xff"]), max_size=30).map(
    b"".join
)


def naive_lines(data: bytes) -> list[bytes]:
    """The lines of `data`, each CRLF, CR or LF ending one."""
    lines, line, i = [], bytearray(), 0
    while i < len(data):
        if data[i] in b"\r\n":
            lines.append(bytes(line))
            line.clear()
            i += 2 if data[i : i + 2] == b"\r\n" else 1
        else:
            line.append(data[i])
            i += 1
    return [*lines, bytes(line)] if line else lines


def received(wire: bytes) -> tuple[bytes, bytes]:
    """What a receiver takes out of the bytes after 354: the content, and what is left over.

    It takes CRLF alone as a line end, and the first line that is a lone dot as the end.
    """
    lines = []
    while not wire.startswith(b".\r\n"):
        line, end, wire = wire.partition(b"\r\n")
        assert end, "no end of data"
        lines.append(line.removeprefix(b".") + end)
    return b"".join(lines), wire.removeprefix(b".\r\n")


@given(MESSY)
@example(b"")
@example(b"\r\r\n")
@example(b"\n\r")
@example(b"\r\n\r")
def test_canonical_is_the_lines_each_with_crlf(data):
    assert canonical(data) == b"".join(line + b"\r\n" for line in naive_lines(data))


@given(MESSY)
def test_canonical_leaves_no_bare_line_end_and_nothing_to_do(data):
    clean = canonical(data)
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", clean)
    assert clean.endswith(b"\r\n") or clean == data == b""
    assert canonical(clean) is clean


@given(MESSY)
def test_a_receiver_gets_the_canonical_content_and_nothing_behind_it(data):
    clean = canonical(data)
    wire = dot_stuffed(clean) + END_OF_DATA
    assert received(wire) == (clean, b"")
    assert (b"\r\n" + wire).count(b"\r\n.\r\n") == 1


@given(MESSY)
def test_stuffing_is_a_dot_before_each_dot_that_begins_a_line(data):
    clean = canonical(data)
    stuffed = b"".join(
        (b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in clean.split(b"\r\n")[:-1]
    )
    assert dot_stuffed(clean) == stuffed


@pytest.mark.parametrize(
    "smuggled", [b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\n.\r"]
)
def test_no_end_of_data_can_be_smuggled_in(smuggled):
    wire = dot_stuffed(canonical(b"a" + smuggled + b"MAIL FROM:<x@evil.example>\r\n")) + END_OF_DATA
    assert wire == b"a\r\n..\r\nMAIL FROM:<x@evil.example>\r\n.\r\n"


def test_empty_content():
    assert canonical(b"") == dot_stuffed(b"") == b""
    assert longest_line(b"") == 0


@given(st.lists(st.binary(max_size=12).filter(lambda line: not set(line) & set(b"\r\n")), max_size=12))
@pytest.mark.parametrize("window", [2, 3, 5, 16])
def test_longest_line_wherever_the_windows_end(window, lines):
    data = b"".join(line + b"\r\n" for line in lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mailbridge.rendering.lines._WINDOW", window)
        assert longest_line(data) == max(map(len, lines), default=0)


@pytest.mark.parametrize("length", [998, 999, lines._WINDOW - 1, lines._WINDOW, 3 * lines._WINDOW])
def test_longest_line_among_many(length):
    many = b"x" * 76 + b"\r\n"
    assert longest_line(many * 5000 + b"y" * length + b"\r\n" + many * 5000) == length
    assert longest_line(many + b"y" * length) == length


@given(st.binary(max_size=40))
def test_what_a_server_must_be_asked_for(data):
    assert is_eight_bit(data) == any(byte > 127 for byte in data)
    assert has_nul(data) == (0 in data)


def copies(function, data: bytes) -> float:
    """The most memory that `function` held at once, in sizes of `data`."""
    tracemalloc.start()
    try:
        function(data)
        return tracemalloc.get_traced_memory()[1] / len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("function", [canonical, dot_stuffed, longest_line, is_eight_bit, has_nul])
@pytest.mark.parametrize("line", [b"x" * 76 + b"\r\n", b"x\r\n", b"\r\n", b"x"], ids=repr)
def test_a_clean_message_is_not_copied(function, line):
    data = line * (8_000_000 // len(line)) + b"\r\n"
    assert copies(function, data) < 0.25
    if function in (canonical, dot_stuffed):
        assert function(data) is data


@pytest.mark.parametrize(
    "line", [b"x" * 76 + b"\n", b"x" * 76 + b"\r", b"x" * 70 + b"\n" + b"x" * 70 + b"\r\n"], ids=repr
)
def test_a_dirty_message_is_copied_one_step_at_a_time(line):
    assert copies(canonical, line * (4_000_000 // len(line))) < 2.1


# In pieces


@st.composite
def cut(draw, data=MESSY):
    """Data, and the same in pieces; some are empty."""
    whole = draw(data)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return whole, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def in_pieces(transform, pieces: list[bytes]) -> bytes:
    return b"".join([transform.feed(piece) or b"" for piece in pieces])


@given(cut())
@example((b"\r\n", [b"\r", b"\n"]))
@example((b"\r\r\n", [b"\r", b"\r", b"\n"]))
@example((b"a\r", [b"a", b"\r", b""]))
@example((b"\r\na", [b"\r", b"", b"\n", b"a"]))
def test_canonical_wherever_it_is_cut(given_as):
    data, pieces = given_as
    transform = Canonical()
    made = [transform.feed(piece) for piece in pieces]
    assert b"".join(made) + transform.finish() == canonical(data)
    assert not any(piece.endswith(b"\r") for piece in made)


@given(cut(MESSY.map(canonical)))
@example((b".\r\n..\r\n", [b"", b".", b"\r", b"\n", b"", b".", b".", b"\r\n"]))
@example((b"\r\n.\r\n", [b"\r", b"\n.\r", b"\n"]))
@example((b"\r\n.\r\n.\r\n", [b"\r\n", b".\r\n", b".\r\n"]))
def test_dots_are_stuffed_wherever_it_is_cut(given_as):
    data, pieces = given_as
    assert in_pieces(DotStuffer(), pieces) == dot_stuffed(data)


@given(cut())
def test_one_after_the_other(given_as):
    data, pieces = given_as
    clean, stuffer = Canonical(), DotStuffer()
    made = b"".join([stuffer.feed(clean.feed(piece)) for piece in pieces]) + stuffer.feed(clean.finish())
    assert made == dot_stuffed(canonical(data))


def head_of(data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    end = lines.index(b"") if b"" in lines[:-1] else None
    return data if end is None else b"".join(line + b"\r\n" for line in lines[:end])


@given(cut(MESSY.map(canonical)))
@example((b"\r\n", [b"\r", b"\n"]))
@example((b"a\r\n\r\n\r\n", [b"a\r", b"\n\r", b"\n\r", b"\n"]))
@example((b"aaa\r\n", [b"aaa\r", b"\n"]))
@pytest.mark.parametrize("window", [2, 3, 1 << 18])
def test_a_survey_wherever_it_is_cut(window, given_as):
    data, pieces = given_as
    survey = Survey()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mailbridge.rendering.lines._WINDOW", window)
        in_pieces(survey, pieces)
    assert survey.size == len(data)
    assert survey.is_eight_bit == is_eight_bit(data)
    assert survey.has_nul == has_nul(data)
    assert survey.longest_line == longest_line(data)
    assert survey.head == head_of(data)


@given(cut(st.binary(max_size=60)))
def test_a_survey_of_binary_content(given_as):
    """No line ends are promised; what counts is the rest."""
    data, pieces = given_as
    survey = Survey()
    in_pieces(survey, pieces)
    head = b"" if data.startswith(b"\r\n") else data.partition(b"\r\n\r\n")[0]
    assert survey.head in (data, head, head + b"\r\n")
    assert (survey.size, survey.has_nul, survey.is_eight_bit) == (len(data), 0 in data, not data.isascii())


def test_header_fields_without_an_end():
    piece = b"A: " + b"b" * 995 + b"\r\n"
    survey = Survey()
    with pytest.raises(InvalidMessage, match="No empty line") as caught:
        in_pieces(survey, [piece] * 10_000)
    assert "body" in caught.value.hint
    assert 8 << 20 < survey.size < 9 << 20


@pytest.mark.parametrize("transform", [Canonical, DotStuffer, Survey])
def test_a_clean_piece_is_not_copied_either(transform):
    data = b"\r\n" + (b"x" * 76 + b"\r\n") * 100_000
    assert copies(transform().feed, data) < 0.25


def test_many_pieces_take_no_longer_than_few():
    """Linear, with a head that never seems to end and a line that goes on and on."""
    survey, canon, stuffer = Survey(), Canonical(), DotStuffer()
    for _ in range(200_000):
        survey.feed(stuffer.feed(canon.feed(b"12345678")))
    assert survey.longest_line == survey.size == len(survey.head) == 1_600_000
