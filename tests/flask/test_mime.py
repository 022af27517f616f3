"""From a Flask message to MIME: structures, file names, charsets, further alternatives and fields."""

from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest

from mailbridge import Envelope, InvalidAddress, InvalidMessage
from mailbridge_flask import Attachment, Mail, Message, mime
from tests.flask.apps import app_for, parsed


def message(**changes: Any) -> Message:
    return Message(
        **{"subject": "subject", "sender": "from@example.com", "recipients": ["to@example.com"], **changes}
    )


def built(**changes: Any) -> EmailMessage:
    return parsed(message(**changes).as_bytes())


def tree(part: Any) -> Any:
    """The types of a message and its parts, nested as they are."""
    if part.get_content_maintype() != "multipart":
        return part.get_content_type().removeprefix("text/")
    return {part.get_content_subtype(): [tree(child) for child in part.iter_parts()]}


def lines_of(part: Any) -> list[str]:
    """Its text, however it is encoded and its lines end."""
    return str(part.get_content()).splitlines()


FILE = Attachment("a.bin", data=b"\0\1")
IMAGE = Attachment("logo.png", data=b"png", content_id="logo")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "plain"),
        ({"body": "b"}, "plain"),
        ({"html": "<p>"}, "html"),
        ({"body": "b", "html": "<p>"}, {"alternative": ["plain", "html"]}),
        ({"body": "b", "attachments": [FILE]}, {"mixed": ["plain", "application/octet-stream"]}),
        (
            {"body": "b", "html": "<p>", "attachments": [FILE, IMAGE]},
            {
                "mixed": [
                    {"alternative": ["plain", {"related": ["html", "image/png"]}]},
                    "application/octet-stream",
                ]
            },
        ),
        ({"body": "b", "attachments": [IMAGE]}, {"mixed": ["plain", "image/png"]}),
        ({"body": "b", "calendar": "c"}, {"alternative": ["plain", "calendar"]}),
        ({"body": "b", "html": "<p>", "calendar": "c"}, {"alternative": ["plain", "html", "calendar"]}),
        ({"body": "b", "alts": {"json": "{}"}}, {"alternative": ["plain", "json"]}),
        ({"alts": {"json": "{}"}}, {"alternative": ["plain", "json"]}),
        (
            {"body": "b", "alts": {"x-amp-html": "a", "html": "<p>"}},
            {"alternative": ["plain", "x-amp-html", "html"]},
        ),
        (
            {"body": "b", "alts": {"html": "<p>", "json": "{}", "calendar": "c"}},
            {"alternative": ["plain", "html", "json", "calendar"]},
        ),
        ({"alts": {"html": "<p>", "json": "{}"}}, {"alternative": ["html", "json"]}),
        (
            {"alts": {"calendar": "c", "json": "{}", "html": "<p>"}, "attachments": [IMAGE, FILE]},
            {
                "mixed": [
                    {"alternative": ["json", {"related": ["html", "image/png"]}, "calendar"]},
                    "application/octet-stream",
                ]
            },
        ),
    ],
)
def test_the_structure(changes: dict[str, Any], expected: Any) -> None:
    assert tree(built(**changes)) == expected


def test_the_header_fields() -> None:
    made = built(
        subject="Sübject",
        sender=("Mé", "me@example.com"),
        recipients=["z@x.example", ("Shop, Corner", "a@x.example"), "z@x.example"],
        cc=["c@x.example"],
        bcc=["hidden@x.example"],
        reply_to=("Ré", "re@x.example"),
        date=1_000_000_000,
        extra_headers={"X-Extra-Header": "Yes", "List-Unsubscribe": "<mailto:u@x.example>"},
    )
    assert (made["Subject"], made["From"], made["Cc"]) == ("Sübject", "Mé <me@example.com>", "c@x.example")
    assert made["To"] == 'z@x.example, "Shop, Corner" <a@x.example>'
    assert made["Reply-To"] == "Ré <re@x.example>"
    assert made["Date"].datetime.astimezone(UTC) == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert (made["X-Extra-Header"], made["List-Unsubscribe"]) == ("Yes", "<mailto:u@x.example>")
    assert "hidden" not in made.as_string()


def test_a_date_may_be_a_datetime() -> None:
    assert built(date=datetime(2001, 9, 9, tzinfo=UTC))["Date"].datetime == datetime(2001, 9, 9, tzinfo=UTC)


def test_extra_headers_may_say_what_has_a_place_of_its_own() -> None:
    made = built(
        reply_to="not@x.example",
        extra_headers={
            "Message-ID": "<own@example.com>",
            "in-reply-to": "<1@example.com>",
            "References": "<0@example.com> <1@example.com>",
            "Reply-To": "a@x.example, B <b@x.example>",
        },
    )
    assert made.get_all("Message-ID") == ["<own@example.com>"]
    assert (made["In-Reply-To"], made["References"]) == ("<1@example.com>", "<0@example.com> <1@example.com>")
    assert made.get_all("Reply-To") == ["a@x.example, B <b@x.example>"]


@pytest.mark.parametrize("name", ["Bcc", "From", "To", "Subject", "Content-Type", "MIME-Version", "Date"])
def test_extra_headers_that_would_be_there_twice_or_hide_someone_are_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        built(extra_headers={name: "x@x.example"})


def test_folded_headers_are_unfolded() -> None:
    made = built(subject="a\r\n b", extra_headers={"X-A": "c\r\n\td"})
    assert (made["Subject"], made["X-A"]) == ("a b", "c d")


class Lazy:
    """A text that is translated when it is used."""

    def __str__(self) -> str:
        return "grüße"


def test_lazy_texts_are_texts() -> None:
    made = built(subject=Lazy(), body=Lazy(), html=Lazy())
    assert made["Subject"] == "grüße"
    assert [lines_of(part) for part in made.iter_parts()] == [["grüße"], ["grüße"]]


def test_an_invitation_carries_its_method() -> None:
    made = built(body="b", calendar="BEGIN:VCALENDAR\r\nMETHOD:CANCEL\r\nEND:VCALENDAR\r\n")
    part = list(made.iter_parts())[1]
    assert part["Content-Type"].params["method"] == "CANCEL"


# ---- attachments


def only_attachment(**arguments: Any) -> Any:
    made = message(body="b")
    made.attach(**arguments)
    (part,) = parsed(made.as_bytes()).iter_attachments()
    return part


def test_bytes_and_text() -> None:
    assert only_attachment(filename="a.bin", data=bytes(range(256))).get_content() == bytes(range(256))
    assert only_attachment(filename="ü.txt", data="grüße").get_content() == "grüße"
    assert only_attachment(data="a,b", content_type="text/csv").get_content_type() == "text/csv"


def test_parameters_of_the_type_are_kept() -> None:
    part = only_attachment(
        filename="a.csv",
        data="grüße".encode("latin-1"),
        content_type="text/csv; charset=latin-1; header=present",
    )
    assert part["Content-Type"].params == {"charset": "latin-1", "header": "present"}
    assert part.get_content() == "grüße"


@pytest.mark.parametrize(
    ("filename", "expected"),
    [("test doc.txt", 'filename="test doc.txt"'), ("ünicöde ←→ ✓.txt", "filename*=utf-8''%C3%BCnic")],
)
def test_file_names(filename: str, expected: str) -> None:
    made = message()
    made.attach(filename, data=b"x")
    assert expected in made.as_string().replace("\r\n ", "")


@pytest.mark.parametrize(
    ("filename", "expected"),
    [("ünicödeß ←.→ ✓.txt", "unicode . .txt"), ("日本語", None), ("plain.txt", "plain.txt")],
)
def test_file_names_in_ascii_where_the_application_wants_them_so(filename: str, expected: str | None) -> None:
    app = app_for(MAILBRIDGE_ASCII_ATTACHMENTS=True)
    Mail(app)
    made = message()
    made.attach(filename, data=b"x")
    with app.app_context():
        (part,) = parsed(made.as_bytes()).iter_attachments()
    assert part.get_filename() == expected


def test_an_attachment_without_a_name() -> None:
    part = only_attachment(data=b"x")
    assert (part.get_filename(), part.get_content_disposition()) == (None, "attachment")


def test_inline_images_stand_with_the_html_that_shows_them() -> None:
    made = message(html='<img src="cid:a"><img src="cid:b"><img src="cid:c">')
    made.attach("a.png", data=b"a", content_id="a")
    made.attach("file.pdf", data=b"file")
    made.attach("b.png", "image/png", b"b", "inline", {"Content-ID": "<b>"})
    made.attach("c.png", "image/png", b"c", "inline", [("content-id", "<c>"), ("X-C", "c")])
    mixed = parsed(made.as_bytes())
    assert tree(mixed) == {
        "mixed": [{"related": ["html", "image/png", "image/png", "image/png"]}, "application/pdf"]
    }
    related = next(mixed.iter_parts())
    images = list(related.iter_parts())[1:]
    assert [image["Content-ID"] for image in images] == ["<a>", "<b>", "<c>"]
    assert [image.get_content_disposition() for image in images] == ["inline"] * 3
    assert images[2]["X-C"] == "c"
    assert [image.get_content() for image in images] == [b"a", b"b", b"c"]


def test_further_fields_of_an_attachment() -> None:
    part = only_attachment(
        filename="a.pdf",
        data=b"x",
        headers={"Content-Description": "Bill", "Content-Disposition": 'inline; filename="b.pdf"'},
    )
    assert part["Content-Description"] == "Bill"
    assert part.get_all("Content-Disposition") == ['inline; filename="b.pdf"']


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": b"", "content_type": "nonsense"},
        {"data": b"", "content_type": "multipart/mixed"},
        {"data": b"", "disposition": "hidden"},
        {"data": b"", "headers": {"Content-Type": "text/html"}},
        {"data": b"", "headers": {"Content-Transfer-Encoding": "8bit"}},
        {"data": b"", "content_id": "a b"},
        {"data": b"", "filename": "a\0b"},
        {"data": b"", "headers": {"X A": "b"}},
        {"data": b"", "headers": {"X-A": "b\0c"}},
        {"data": 7},
    ],
)
def test_an_attachment_that_can_not_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        only_attachment(**arguments)


def test_an_attached_message_is_not_encoded_and_its_own_parts_are_its_own() -> None:
    inner = message(body="inner")
    inner.attach("inner.bin", data=b"x")
    made = message(body="outer")
    made.attach("mail.eml", "message/rfc822", inner.as_bytes())
    made.attach("after.bin", data=b"y", headers={"X-After": "1"})
    attached, after = parsed(made.as_bytes()).iter_attachments()
    assert attached.get_content_type() == "message/rfc822"
    assert attached.get_content().get_body().get_content() == "inner\n"
    assert after["X-After"] == "1"


def test_equal_attachments_are_all_sent() -> None:
    made = message(attachments=[FILE, FILE])
    assert len(list(parsed(made.as_bytes()).iter_attachments())) == 2


def test_making_it_changes_nothing() -> None:
    made = message(html="<p>", attachments=[IMAGE], recipients=["a@x.example", "a@x.example"])
    before = {**vars(made), "alts": dict(made.alts), "recipients": list(made.recipients)}
    made.as_bytes()
    assert vars(made) == before


# ---- charsets


@pytest.mark.parametrize(
    ("charset", "named"), [("us-ascii", "us-ascii"), ("latin-1", "iso-8859-1"), ("shift_jis", "shift_jis")]
)
def test_another_charset(charset: str, named: str) -> None:
    text = {"us-ascii": "plain", "latin-1": "grüße", "shift_jis": "内容"}[charset]
    made = built(body=text, html=f"<p>{text}", charset=charset)
    parts = list(made.iter_parts())
    assert [lines_of(part) for part in parts] == [[text], [f"<p>{text}"]]
    assert [part.get_content_charset() for part in parts] == [named, named]


def test_another_charset_for_a_text_alone() -> None:
    made = built(body="grüße\nund mehr", charset="latin-1")
    assert (made.get_content_charset(), lines_of(made)) == ("iso-8859-1", ["grüße", "und mehr"])
    assert made["Subject"] == "subject"


def test_attachments_and_invitations_stay_as_they_are() -> None:
    made = built(
        body="b", calendar="SUMMARY:✓", attachments=[Attachment("a.txt", data="✓")], charset="latin-1"
    )
    alternative, attachment = made.iter_parts()
    assert lines_of(list(alternative.iter_parts())[1]) == ["SUMMARY:✓"]
    assert attachment.get_content() == "✓"


@pytest.mark.parametrize(
    ("text", "charset"), [("grüße", "us-ascii"), ("✓", "latin-1"), ("a", "no-such-charset")]
)
def test_a_text_that_its_charset_can_not_say_is_refused(text: str, charset: str) -> None:
    with pytest.raises(InvalidMessage, match=charset):
        built(body=text, charset=charset)


# ---- envelope and options


def test_the_envelope_has_everybody_once_and_in_order() -> None:
    made = message(
        recipients=["c@x.example", ("A, a", "a@x.example"), "C <c@X.example>"],
        cc=["b@x.example"],
        bcc=["a@x.example"],
    )
    envelope = mime.envelope(made, sender=("Me", "me@example.com"), envelope_from=None, delivery_options={})
    assert envelope == Envelope("me@example.com", ["c@x.example", "a@x.example", "b@x.example"])
    source = ("B", "bounces@example.com")
    bounces = mime.envelope(made, sender="me@example.com", envelope_from=source, delivery_options={})
    assert bounces.sender == "bounces@example.com"


def test_an_address_that_could_mean_two_is_refused() -> None:
    made = message(recipients=["to@example.com>\r\nRCPT TO:<evil@example.com"])
    with pytest.raises(InvalidAddress):
        mime.envelope(made, sender="me@example.com", envelope_from=None, delivery_options={})
