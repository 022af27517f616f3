"""mailbridge.inbox: one mail must not stop the inbox, whatever it is made of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.inbox import Reading, mail, parsing, read, sandbox
from mailbridge.inbox.charsets import to_text

HEAD = b"Subject: here\r\nMIME-Version: 1.0\r\n"
GUARD = "could not be taken apart"


def nested(depth: int, body: bytes) -> bytes:
    layers = (b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return HEAD + b"".join(layers) + b"\r\n" + body


def check(content: bytes) -> Reading:
    """Read without the last resort, and every text can be sent."""
    said = read(content)
    assert GUARD not in " ".join(said.left_out)
    headers = (text for header in said.headers for text in header)
    files = (text for part in said.parts for text in (part.filename, part.content_type, part.content_id))
    for text in (said.subject, said.sender, said.to, said.cc, said.date, *headers, *files):
        assert text.isprintable()
    for text in (said.text, said.html):
        text.encode("utf-8")
    for part in said.parts:
        assert not re.search(r"[/\\]|^\.*$", part.filename)
    sandbox.document(said).encode("utf-8")
    return said


FIELDS = {
    "RFC 2231, mixed": b"Content-Disposition: attachment; filename*0*=''a; filename=b; filename*1*=%ff",
    "RFC 2231, type": b"Content-Type: text/plain; charset*0*=a''b; charset=c; charset*=nope''%ff",
    "RFC 2231, boundary": b"Content-Type: multipart/mixed; boundary*0*=u'';boundary*1=x; boundary=y",
    "RFC 2231, number": b"Content-Type: a/b; name*" + b"9" * 1000 + b"=x",
    "RFC 2231, NUL": b"Content-Disposition: attachment; filename*=\"a\0b\"''x%ff",
    "RFC 2231, half characters": b"Content-Disposition: attachment; filename*=raw_unicode_escape''a%5cud800",
    "raw bytes in the type": b"Content-Type: multip\xffart/mixed; boundary=\xff",
    "raw bytes in Content-ID": b"Content-Type: image/png\r\nContent-ID: <\xff\xfe>",
    "half characters": b"Content-Type: text/plain; charset=utf-7\r\nSubject: =?utf-7?q?+2AA-?=",
    "half characters in html": b"Content-Type: text/html; charset=utf-7",
    "a date out of range": b"Date: Mon, 99 Foo 99999 99:99:99 +9999999999",
    "the first date": b"Date: Mon, 1 Jan 0001 00:00:00 +2359",
    "odd groups": b'From: :;,<>;:@,"\\"<\r\nTo: a:b:c;<<>>, :::\r\nCc: =?utf-8?q?a:;?= <x',
    "an encoded word that is none": b"Subject: =?utf-8?b?a?= =?idna?q?x?= =?\xff?q?=ff?= =?hex?q?41?=",
    "no such encoding": b"Content-Transfer-Encoding: \xff\xfe",
    "field without a name": b": x\r\n:\r\n\0: \0",
    "types of parts": b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64",
    "a status of nothing": b"Content-Type: message/delivery-status",
    "a part of a message": b"Content-Type: message/partial; id=1",
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize(
    "body", [b"+2AA-", b"\xff\r\n", b"", b"--x\r\n\r\n--y\r\n\r\n", b"a: b\r\n\r\nc: d\r\n"]
)
def test_odd_fields(fields: bytes, body: bytes) -> None:
    check(fields + b"\r\n\r\n" + body)
    check(HEAD + fields + b"\r\n\r\n" + body)
    inside = check(nested(2, fields + b"\r\n\r\n" + body))
    assert inside.subject == "here"


@pytest.mark.parametrize(
    ("given_name", "filename"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\boot.ini", "boot.ini"),
        ("..", "part-1"),
        ("a/..", "part-1"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ("a\0b\x1b[2J", "a_b_[2J"),
        ("Größe.pdf", "Größe.pdf"),
        ("x" * 1900, "x" * 200),
    ],
)
def test_names_of_files(given_name: str, filename: str) -> None:
    head = HEAD + b'Content-Type: application/pdf\r\nContent-Disposition: attachment; filename="'
    (part,) = check(head + given_name.encode() + b'"\r\n\r\nx').parts
    assert part.filename == filename


@pytest.mark.parametrize(
    ("parameter", "filename"),
    [
        ("filename*=utf-8''Gr%C3%B6%C3%9Fe.pdf", "Größe.pdf"),
        ("filename*=iso-8859-1'de'Gr%F6%DFe.pdf", "Größe.pdf"),
        ("filename*0*=utf-8''Gr%C3%B6;filename*1*=%C3%9Fe;filename*2=.pdf", "Größe.pdf"),
        ("filename*=idna''xn--mnchen-3ya", "xn--mnchen-3ya"),
        ("filename*=utf-7''+2AA-", "+2AA-"),
        ("filename*=''a", "a"),
    ],
)
def test_names_of_files_with_a_charset(parameter: str, filename: str) -> None:
    (part,) = check(HEAD + f"Content-Disposition: attachment; {parameter}\r\n\r\nx".encode()).parts
    assert part.filename == filename


class TestLimits:
    def test_parts(self) -> None:
        whole = HEAD + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\na\r\n" * 10_000
        said = check(whole)
        assert said.subject == "here"
        assert 0 < said.text.count("a") < parsing.MOST_PARTS
        assert said.left_out == (f"Only the first {parsing.MOST_PARTS} parts are shown.",)

    @pytest.mark.parametrize("depth", [parsing.DEEPEST + 1, 300, 3000])
    def test_depth(self, depth: int) -> None:
        said = check(nested(depth, b"x"))
        assert said.subject == "here"
        assert "nested" in said.left_out[0]

    def test_the_deepest_that_is_read(self) -> None:
        said = check(nested(parsing.DEEPEST, b"found"))
        assert (said.text, said.left_out) == ("found", ())

    def test_what_stands_before_is_read(self) -> None:
        said = check(nested(1, b"first\r\n--b0\r\n" + nested(3000, b"").split(b"\r\n", 2)[2]))
        assert said.text.strip() == "first"

    def test_messages_within_messages(self) -> None:
        said = check(HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 1500 + b"x")
        assert said.subject == "here"
        assert "nested" in said.left_out[0]

    def test_fields(self) -> None:
        said = check(HEAD + b"a: b\r\n" * (parsing.MOST_FIELDS * 2))
        assert said.subject == "here"
        assert len(said.headers) <= parsing.MOST_FIELDS
        assert "header fields" in said.left_out[0]

    def test_bytes_and_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parsing, "MOST_BYTES", 1 << 20)
        monkeypatch.setattr(parsing, "MOST_LINES", 1000)
        assert check(HEAD + b"\r\n" + b"x" * (2 << 20)).left_out == (
            "Only the first 1 MB of this mail are shown.",
        )
        for end in (b"\n", b"\r", b"\r\n"):
            said = check(HEAD + b"\r\n" + end * 2000)
            assert said.subject == "here"
            assert "more than 1000 lines" in said.left_out[0]

    @pytest.mark.parametrize("kind", ["plain", "html"])
    def test_characters(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mail, "MOST_CHARACTERS", 1000)
        said = check(HEAD + b"Content-Type: text/%s\r\n\r\n" % kind.encode() + b"x" * 2000)
        assert said.text + said.html == "x" * 1000
        assert "1000 characters" in said.left_out[0]

    def test_a_header_field_of_a_megabyte(self) -> None:
        said = check(b"Subject: " + b"a" * 1_000_000 + b"\r\nTo: b\r\n\r\nc")
        assert len(said.subject) <= 4096
        assert (said.to, said.text) == ("b", "c")

    def test_an_attached_message_is_whole(self) -> None:
        inner = b"To: " + b"maja@example.org,\n " * 2000 + b"x@example.org\nX: \xff\n\ntext\n"
        (part,) = check(HEAD + b"Content-Type: message/rfc822\r\n\r\n" + inner.replace(b"\n", b"\r\n")).parts
        assert part.content == inner


class TestTheLastResort:
    """Nothing is known that comes here; what is not known must not stop the inbox either."""

    @pytest.mark.parametrize("error", [TypeError, RecursionError, MemoryError])
    def test_the_source_is_shown(self, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(content: bytes) -> None:
            raise error("secret")

        monkeypatch.setattr(mail, "parsed", fails)
        said = read(b"Subject: a\r\n b\r\nFrom: x@y\r\nodd\r\n\r\nte\xffxt\r\n")
        assert (said.subject, said.sender, said.text) == ("a b", "x@y", "te\ufffdxt\n")
        assert said.left_out == (f"This mail could not be taken apart ({error.__name__}).",)


ATOMS = [
    b"Content-Type: ", b"Content-Disposition: ", b"Content-ID: ", b"Subject: ", b"Date: ",
    b"Content-Transfer-Encoding: ", b"multipart/mixed", b"multipart/digest", b"text/plain", b"text/html",
    b"message/rfc822", b"message/delivery-status", b"; boundary=x", b"; boundary*=nope''x",
    b"; boundary*0*=u'';boundary*1=x", b"; charset*=nope''%ff", b"; charset*0*=a''b", b"; charset=punycode",
    b"; charset=utf-7", b"; charset=idna", b"; filename*=nope''%ff", b"; filename*0*=''a; filename*1*=%ff",
    b"; name*x=1", b"; name=..", b"; filename*99999999999999999999=a", b"attachment", b"inline", b"base64",
    b"quoted-printable", b"uuencode", b"x-uue", b"\r\n", b"\r\n\r\n", b"\r\n--x\r\n", b"\r\n--x--\r\n",
    b"=?utf-8?b?a?=", b"=?nope?q?=ff?=", b"=?utf-7?q?+2AA-?=", b"\xff", b"\0", b"\xe2\x80\xa8", b"=", b'"',
    b"\r", b"begin 666 a\r\n", b"end", b"+2AA-", b"cid:", b"<a>", b"1 Jan 99999 00:00 +9999",
]  # fmt: skip
MAILS = st.lists(st.one_of(st.sampled_from(ATOMS), st.binary(max_size=6)), max_size=30).map(b"".join)


@given(MAILS)
def test_whatever_arrives_is_read(content: bytes) -> None:
    check(content)
    check(HEAD + content)


@given(MAILS, st.integers(0, 400), st.integers(0, 40))
def test_a_mail_that_was_damaged_is_read(damage: bytes, place: int, lost: int) -> None:
    whole = nested(
        2, b"text\r\n--b1\r\nContent-Type: image/png; name=a\r\nContent-ID: <a>\r\n\r\nx\r\n--b1--\r\n"
    )
    check(whole[:place] + damage + whole[place + lost :])


@pytest.mark.parametrize(
    ("charset", "content", "text"),
    [
        ("utf-8", "Größe".encode(), "Größe"),
        ("UTF8", "Größe".encode(), "Größe"),
        ("iso-8859-1", b"Gr\xf6\xdfe", "Größe"),
        ("ISO-8859-15", b"\xa4", "€"),
        ("windows-1252", b"\x80", "€"),
        ("us-ascii", b"a", "a"),
        ("koi8-r", "Да".encode("koi8-r"), "Да"),
        ("gb2312", "中".encode("gb2312"), "中"),
        ("big5", "中".encode("big5"), "中"),
        ("Shift_JIS", "日本".encode("shift_jis"), "日本"),
        ("iso-2022-jp", "日本".encode("iso-2022-jp"), "日本"),
        ("ks_c_5601-1987", "한".encode("euc-kr"), "한"),
        ("utf-16", "ä".encode("utf-16"), "ä"),
        ("us-ascii", "ä".encode(), "ä"),
        *((odd, b"+2AA-a", "+2AA-a") for odd in ("punycode", "idna", "utf-7", "rot13", "hex", "uu", "hz")),
        *(
            (odd, b"\\ud800", "\\ud800")
            for odd in ("unicode_escape", "raw-unicode-escape", "undefined", "a\0b")
        ),
        ("mbcs", b"\xff", "\ufffd"),
        ("ä" * 10_000, b"x", "x"),
    ],
)
def test_charsets(charset: str, content: bytes, text: str) -> None:
    assert to_text(content, charset) == text


SHAPES: dict[str, Callable[[int], bytes]] = {
    "parts": lambda n: HEAD + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\na\r\n" * n,
    "depth": lambda n: nested(n // 10, b"x"),
    "lines within parts within parts": lambda n: nested(parsing.DEEPEST, b"a\n" * n),
    "messages": lambda n: HEAD + b"Content-Type: message/rfc822\r\n\r\n" * n,
    "statuses": lambda n: HEAD + b"Content-Type: message/delivery-status\r\n\r\n" + b"a: b\r\n\r\n" * n,
    "parameters": lambda n: b"Content-Type: a/b" + b"; a=b" * 5 * n,
    "quotes": lambda n: b"Content-Type: a/b" + b'; a="' + b";" * n,
    "parameters of parts": lambda n: nested(
        1, (b"--b0\r\nContent-Type: a/b" + b";a*1=" * 300 + b"\r\n\r\n") * (n // 100)
    ),
    "one long field": lambda n: b"Subject: " + b"=?utf-8?q?a?= " * n,
    "fields": lambda n: b"a: b\r\n" * n,
    "words without an end": lambda n: (b"A: " + b"=?a?q?" * 600 + b"\r\n") * (n // 100),
    "a folded field": lambda n: b"Subject: a\r\n" + b" b\r\n" * n,
    "recipients of an attached message": lambda n: b"Content-Type: message/rfc822\r\n\r\nTo: " + b"a@b, " * n,
    "uuencode": lambda n: b"Content-Transfer-Encoding: x-uue\r\n\r\nbegin 666 a\r\n" + b"!!\r\n" * n,
    "base64": lambda n: b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=a==" * n,
    "quoted-printable": lambda n: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=\r\n=" * n,
    "punycode": lambda n: (
        b"Content-Type: text/plain; charset=punycode\r\n\r\n" + b"a" * 2 * n + b"-" + b"ba" * n
    ),
    "html": lambda n: b"Content-Type: text/html\r\n\r\n" + b"cid:" * n + b"<img src=cid:a >" * n,
    "url(": lambda n: b"Content-Type: text/html\r\n\r\n" + b"url(" + b" " * n,
}
NOTHING = 0.03  # seconds; what is faster is not measured
GROWTH = 9.0  # for four times the input; 4 is linear, 16 quadratic


def seconds(content: bytes) -> float:
    best = float("inf")
    for _ in range(2):
        began = time.process_time()
        said = read(content)
        sandbox.document(said)
        sandbox.has_remote_content(said.html)
        best = min(best, time.process_time() - began)
        if best < NOTHING:
            break
    return best


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_time_grows_with_the_mail_and_no_faster(shape: Callable[[int], bytes]) -> None:
    longest = seconds(shape(40_000))
    assert longest < NOTHING or longest < GROWTH * seconds(shape(10_000))
