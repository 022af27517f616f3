"""Replies from bytes: whole, byte by byte, with a tail, hostile; always the same, always bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import ProtocolViolation
from mailbridge.reply import Reply
from mailbridge.smtp.replies import (
    MAX_EHLO_LINES,
    MAX_EMPTY_LINES,
    MAX_LINE,
    MAX_LINES,
    MAX_REPLY,
    ReplyParser,
)

Events = list[Reply | str]


def events(pieces: list[bytes], max_lines: int = MAX_LINES) -> tuple[Events, bool]:
    """What comes out when fed piece by piece, as a connection does; and whether nothing is left."""
    parser = ReplyParser()
    found: Events = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while reply := parser.next_reply(max_lines):
                found.append(reply)
        except ProtocolViolation as violation:
            return [*found, str(violation)], parser.is_empty
    return found, parser.is_empty


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def problem(data: bytes) -> str:
    found, is_empty = events([data])
    assert not is_empty
    assert isinstance(found[-1], str)
    return found[-1]


@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"250 ok\r\n", Reply(250, ("ok",))),
        (b"250\r\n", Reply(250, ("",))),
        (b"250 \r\n", Reply(250, ("",))),
        (b"250 ok\n", Reply(250, ("ok",))),
        (b"250-a\r\n250 b\r\n", Reply(250, ("a", "b"))),
        (b"250-\r\n250\r\n", Reply(250, ("", ""))),
        (b"250-a\n250-b\r\n250\n", Reply(250, ("a", "b", ""))),
        (b"250  two blanks \r\n", Reply(250, (" two blanks ",))),
        (b"250 a\rb\0c\r\r\n", Reply(250, ("a\rb\0c\r",))),
        (b"354 go\r\n", Reply(354, ("go",))),
        (b"571 no\r\n", Reply(571, ("no",))),
        (b"550 5.1.1 nobody\r\n", Reply(550, ("5.1.1 nobody",), (5, 1, 1))),
        ("250 grüße\r\n".encode(), Reply(250, ("grüße",))),
        (b"250 gr\xfc\xdfe\r\n", Reply(250, (r"gr\xfc\xdfe",))),
    ],
)
def test_reply(data, reply, cut):
    assert events(cut(data)) == ([reply], True)


@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["whole", "byte by byte"])
def test_replies_of_one_flight_come_in_order_and_the_tail_waits(cut):
    data = b"250 a\r\n250-b\r\n250 c\r\n354 d\r\n250-half"
    assert events(cut(data)) == ([Reply(250, ("a",)), Reply(250, ("b", "c")), Reply(354, ("d",))], False)


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("4.2.2 full", (4, 2, 2)),
        ("4.999.123 x", (4, 999, 123)),
        ("4.2.2", (4, 2, 2)),
        ("5.2.2 another class than the code", None),
        ("4.2 x", None),
        ("4.2.2.1 x", None),
        ("4.2.2: x", None),
        ("4.1000.1 x", None),
        ("\u0664.2.2 x", None),
        (" 4.2.2 x", None),
        ("x 4.2.2 x", None),
    ],
)
def test_enhanced_status_stands_first_and_agrees_with_the_code(text, enhanced):
    assert events([f"452 {text}\r\n".encode()])[0] == [Reply(452, (text,), enhanced)]


@pytest.mark.parametrize(
    ("data", "enhanced"),
    [
        (b"250 2.0.0 Ok: queued as 4jW\r\n", (2, 0, 0)),
        (b"250-2.1.5 ok\r\n250 2.1.5 ok\r\n", (2, 1, 5)),  # RFC 2034 section 4: on every line
        (b"550-5.1.1 no such user\r\n550-5.1.1 at all\r\n550 5.1.1 anywhere\r\n", (5, 1, 1)),
        (b"250-2.1.5 ok\r\n250 2.6.0 ok\r\n", (2, 1, 5)),
        (b"250 Ok\r\n", None),
        (b"250 5.1.1 Ok\r\n", None),
        (b"221 4.7.0 bye\r\n", None),
        (b"250\r\n", None),
    ],
)
def test_enhanced_status_of_yes_and_no(data, enhanced):
    assert events([data])[0][0].enhanced == enhanced


def test_enhanced_status_of_a_long_reply_is_that_of_its_first_line():
    assert events([b"550-no\r\n550 5.7.1 no\r\n"])[0] == [Reply(550, ("no", "5.7.1 no"))]
    assert events([b"354 3.0.0 go\r\n"])[0] == [Reply(354, ("3.0.0 go",))]


@pytest.mark.parametrize("between", [b"\r\n", b"\n", b"\r\n\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_empty_lines_between_replies_are_nothing(between, size):
    data = between + b"250-a\r\n250 b\r\n" + between + b"251 c\r\n" + between
    parser, found = ReplyParser(), []
    for start in range(0, len(data), size):
        parser.feed(data[start : start + size])
        while (reply := parser.next_reply()) is not None:
            found.append(reply)
    assert found == [Reply(250, ("a", "b")), Reply(251, ("c",))]
    parser.skip_empty_lines()
    assert parser.is_empty


def test_an_empty_line_within_a_reply_is_a_violation():
    assert "no SMTP reply" in problem(b"250-a\r\n\r\n250 b\r\n")
    parser = ReplyParser()
    parser.feed(b"250-a\r\n")
    assert parser.next_reply() is None
    parser.feed(b"\r\n250 b\r\n")
    with pytest.raises(ProtocolViolation):
        parser.next_reply()


def test_empty_lines_have_an_end():
    assert events([b"\r\n" * MAX_EMPTY_LINES + b"250 ok\r\n"])[0] == [Reply(250, ("ok",))]
    assert "empty lines" in problem(b"\r\n" * (MAX_EMPTY_LINES + 1))
    assert "empty lines" in problem(b"\n" * 100_000)


@pytest.mark.parametrize(
    "line",
    [
        b" ",
        b"\r\r",
        b"25",
        b"2500 four digits",
        b"250ok",
        b"250\tok",
        b"250_ok",
        b"-250 ok",
        b" 250 ok",
        b"+25 ok",
        b"HTTP/1.1 400 Bad Request",
        b"\x15\x03\x01\x00\x02\x02F",
        "\u0662\u0665\u0660 ok".encode(),
    ],
)
def test_what_is_no_reply_is_a_violation(line):
    assert "no SMTP reply" in problem(line + b"\n")


@pytest.mark.parametrize("code", [b"000", b"120", b"199", b"600", b"999"])
def test_code_out_of_range_is_a_violation(code):
    assert "outside 200 to 599" in problem(code + b" ok\r\n")


def test_codes_in_one_reply_must_agree():
    assert "mixed code 250" in problem(b"250-a\r\n550 b\r\n")


def test_violation_shows_the_line_without_its_control_characters_and_capped():
    text = problem(b"\x1b[31mred\0\xff" + b"x" * 5000 + b"\r\n")
    assert r"\x1b[31mred" in text
    assert text.isprintable()
    assert len(text) < 400


def test_a_violation_stays():
    parser = ReplyParser()
    parser.feed(b"250 a\r\nnonsense\r\n250 b\r\n")
    assert parser.next_reply() == Reply(250, ("a",))
    for _ in range(3):
        with pytest.raises(ProtocolViolation, match="nonsense") as caught:
            parser.next_reply()
        assert caught.value.is_transient
        assert not parser.is_empty


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_line_limit(end):
    longest = b"250 " + b"x" * (MAX_LINE - 4 - len(end)) + end
    assert events([longest])[0] == [Reply(250, ("x" * (MAX_LINE - 4 - len(end)),))]
    assert "line of more than 8192 bytes" in problem(b"250 x" + longest[4:])


def test_line_without_end_is_refused_at_the_limit_and_not_before():
    assert events([b"250 " + b"x" * (MAX_LINE - 5)]) == ([], False)
    assert "line of more than" in problem(b"250 " + b"x" * (MAX_LINE - 4))


@pytest.mark.parametrize("max_lines", [1, 2, MAX_LINES, MAX_EHLO_LINES])
def test_number_of_lines(max_lines):
    most = b"250-x\r\n" * (max_lines - 1) + b"250 x\r\n"
    assert events([most * 2], max_lines) == ([Reply(250, ("x",) * max_lines)] * 2, True)
    found, _ = events([b"250-x\r\n" + most], max_lines)
    assert f"more than {max_lines} lines" in str(found[0])


def test_reply_limit():
    line = b"250-" + b"x" * (MAX_LINE - 6) + b"\r\n"
    assert MAX_REPLY % len(line) == 0
    most = line * (MAX_REPLY // len(line) - 1) + b"250 " + line[4:]
    found, is_empty = events([most])
    assert len(found) == 1
    assert isinstance(found[0], Reply)
    assert is_empty
    assert "reply of more than 65536 bytes" in problem(b"250-\r\n" + most)


@pytest.mark.parametrize("flood", [b"250-" + b"x" * 1000 + b"\r\n", b"x", b"250-\n", b"2", b"\0"])
@pytest.mark.parametrize("step", [1, 1000, 65536])
def test_endless_reply_ends_within_the_bounds(flood, step):
    endless = flood * (2 * MAX_REPLY // len(flood))
    parser = ReplyParser()
    fed = 0

    def feed_on() -> None:
        nonlocal fed
        while fed < len(endless):
            parser.feed(endless[fed : fed + step])
            fed += step
            assert parser.next_reply(max_lines=10**9) is None

    with pytest.raises(ProtocolViolation):
        feed_on()
    assert fed <= MAX_REPLY + step


def test_each_byte_is_searched_once_however_small_the_pieces():
    """Linear time, counted: all searches together look at no more bytes than there are."""

    class Counting(bytearray):
        looked_at = 0

        def find(self, sub, start=0, end=None):
            at = super().find(sub, start, end)
            stop = min(len(self), end) if at < 0 else at + 1
            Counting.looked_at += stop - start
            return at

    parser = ReplyParser()
    parser._buffer = Counting()
    data = (b"250-" + b"x" * 1000 + b"\r\n") * 60 + b"250 ok\r\n"
    for byte in one_by_one(data):
        assert parser.next_reply() is None
        parser.feed(byte)
    assert parser.next_reply() is not None
    assert Counting.looked_at == len(data)


def test_clear_forgets_half_lines_half_replies_and_the_search():
    for before in (b"250-a\r\n250", b"250-a\r\n", b"x" * 5000, b"250 a\r\n250 b\r\n", b"nonsense\n"):
        parser = ReplyParser()
        parser.feed(before)
        if not before.startswith((b"250 ", b"nonsense")):
            assert parser.next_reply() is None
        assert not parser.is_empty
        parser.clear()
        assert parser.is_empty
        parser.feed(b"220 ready\r\n")
        assert parser.next_reply() == Reply(220, ("ready",))
        assert parser.is_empty


LINES = st.one_of(
    st.tuples(
        st.sampled_from([b"250", b"550", b"220", b"451"]),
        st.sampled_from([b" ", b"-", b""]),
        st.binary(max_size=12),
        st.sampled_from([b"\r\n", b"\n"]),
    ).map(b"".join),
    st.binary(max_size=20),
    st.integers(MAX_LINE - 3, MAX_LINE + 3).map(lambda n: b"250-" + b"x" * (n - 6) + b"\r\n"),
)
STREAMS = st.lists(LINES, max_size=14).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 9000), max_size=12))
def test_however_cut_the_same_comes_out(stream, cuts):
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(stream[start : start + cut])
        start += cut
    pieces.append(stream[start:])
    assert events(pieces) == events([stream])


@given(st.binary(max_size=300))
def test_any_bytes_give_replies_or_a_violation(stream):
    found, _ = events([stream])
    for event in found:
        assert isinstance(event, Reply | str)


TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(st.integers(200, 599), st.lists(TEXTS, min_size=1, max_size=5)), max_size=5))
def test_what_is_well_formed_comes_out_as_written(replies):
    written = b"".join(
        f"{code}{'-' if i < len(texts) - 1 else ' '}{text}\r\n".encode()
        for code, texts in replies
        for i, text in enumerate(texts)
    )
    found, is_empty = events([written])
    assert [(r.code, list(r.lines)) for r in found if isinstance(r, Reply)] == replies
    assert is_empty
