"""mailbridge.inbox.mail: what a mail says, whatever arrives."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge import Message
from mailbridge.inbox import read


def test_a_mail_with_everything() -> None:
    message = Message(
        "Größe, 日本",
        "Zoë Müller <zoe@example.com>",
        ["maja@example.org"],
        cc=["lin@example.org"],
        text="Guten Tag\n\nIhre Rechnung",
        html='<p>Guten Tag <img src="cid:logo@shop"></p>',
    )
    message.attach(b"%PDF", filename="Rechnung größe.pdf")
    message.attach(b"\x89PNG", filename="logo.png", content_id="logo@shop")
    said = read(message.as_email_message().as_bytes())

    assert said.subject == "Größe, 日本"
    assert said.sender == "Zoë Müller <zoe@example.com>"
    assert (said.to, said.cc) == ("maja@example.org", "lin@example.org")
    assert said.text.strip() == "Guten Tag\n\nIhre Rechnung"
    assert "cid:logo@shop" in said.html
    names = {part.filename: part for part in said.parts}
    assert names["Rechnung größe.pdf"].content == b"%PDF"
    assert not names["Rechnung größe.pdf"].is_inline
    assert names["logo.png"].content_id == "logo@shop"
    assert names["logo.png"].is_inline
    assert said.preview == "Guten Tag Ihre Rechnung"


def test_the_fields_stand_in_their_order_and_decoded() -> None:
    said = read(b"Received: one\r\nReceived: two\r\n =?utf-8?q?=C3=A4?=\r\nX-Odd: a\r\n\tb\r\n\r\ntext\r\n")
    assert said.headers == (("Received", "one"), ("Received", "two ä"), ("X-Odd", "a b"))
    assert said.text == "text\n"


def test_raw_utf8_in_a_field_is_read() -> None:
    assert read("Subject: Größe\r\n\r\n".encode()).subject == "Größe"


def test_an_attached_message_is_a_file() -> None:
    outer = EmailMessage()
    inner = EmailMessage()
    inner["Subject"] = "inside"
    inner.set_content("hello")
    outer.set_content("see attached")
    outer.add_attachment(inner)
    (part,) = read(outer.as_bytes()).parts
    assert part.content_type == "message/rfc822"
    assert b"Subject: inside" in part.content
    assert part.filename.endswith(".eml")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"Subject: =?nonsense?q?x?=\r\n\r\n",
        b"Content-Type: text/plain; charset=no-such\r\n\r\n\xff\xfe",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a",
        b"Content-Transfer-Encoding: base64\r\n\r\n!!!!",
        b"Content-Type: image/\"><script>; name*=x'y'%%%\r\n\r\n",
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (depth, depth)
            for depth in range(300)
        ),
    ],
)
def test_what_is_malformed_is_read_as_well_as_it_can_be(content: bytes) -> None:
    read(content)


@given(st.binary(max_size=300), st.sampled_from([b"", b"Content-Type: ", b"Subject: =?utf-8?", b"From: "]))
def test_nothing_raises(tail: bytes, start: bytes) -> None:
    said = read(start + tail)
    assert said.subject.isprintable()


def test_a_file_name_holds_no_path() -> None:
    content = (
        b'Content-Type: application/x; name="..\\..\\C:\\evil/../passwd"\r\n'
        b"Content-Disposition: attachment\r\n\r\nx"
    )
    (part,) = read(content).parts
    assert part.filename == "passwd"
