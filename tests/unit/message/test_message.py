"""mailbridge.message.message: the MIME structure, and what must never get into a header field."""

import copy
import email
import io
import pickle
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.message.envelope import Envelope
from mailbridge.message.message import Attachment, Message
from mailbridge.rendering.render import render

INVITATION = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nMETHOD:CANCEL\r\nEND:VCALENDAR\r\n"


def message(**fields: Any) -> Message:
    return Message(**({"subject": "Hi", "sender": "a@x.example", "to": ["b@y.example"]} | fields))


def received(sent: Message) -> EmailMessage:
    """What a receiver parses from the wire."""
    return email.message_from_bytes(render(sent).content, policy=policy.default)


def text_of(part: Any) -> str:
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def shape(part: Any) -> Any:
    """The tree of content types: a name for a leaf, a pair of name and list for a container."""
    kind = part.get_content_type()
    return (kind, [shape(child) for child in part.iter_parts()]) if part.is_multipart() else kind


def png(content_id: str | None = None) -> Attachment:
    return Attachment(
        content=b"\x89PNG\0",
        content_type="image/png",
        filename="i.png",
        content_id=content_id,
        disposition="inline",
    )


PDF = Attachment(content=b"%PDF", content_type="application/pdf", filename="a.pdf")
ALTERNATIVE = "multipart/alternative"
RELATED = ("multipart/related", ["text/html", "image/png"])

SHAPES: list[tuple[dict[str, Any], Any]] = [
    ({}, "text/plain"),
    ({"text": "t"}, "text/plain"),
    ({"html": "h"}, "text/html"),
    ({"text": "t", "html": "h"}, (ALTERNATIVE, ["text/plain", "text/html"])),
    ({"text": "t", "attachments": [PDF]}, ("multipart/mixed", ["text/plain", "application/pdf"])),
    ({"html": "h", "attachments": [png("i")]}, RELATED),
    ({"html": "h", "text": "t", "attachments": [png("i")]}, (ALTERNATIVE, ["text/plain", RELATED])),
    ({"text": "t", "attachments": [png("i")]}, ("multipart/mixed", ["text/plain", "image/png"])),
    ({"html": "h", "attachments": [png()]}, ("multipart/mixed", ["text/html", "image/png"])),
    ({"calendar": INVITATION}, "text/calendar"),
    (
        {"text": "t", "html": "h", "alternatives": [("text/x-amp-html", "a")]},
        (ALTERNATIVE, ["text/plain", "text/x-amp-html", "text/html"]),
    ),
    (
        {"text": "t", "html": "h", "calendar": INVITATION, "attachments": [PDF, png("i"), PDF]},
        (
            "multipart/mixed",
            [(ALTERNATIVE, ["text/plain", RELATED, "text/calendar"]), "application/pdf", "application/pdf"],
        ),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), SHAPES)
def test_the_structure_has_no_needless_layer(fields: dict[str, Any], expected: Any) -> None:
    assert shape(received(message(**fields))) == expected


def test_text_html_and_calendar_arrive_as_they_were() -> None:
    parsed = received(message(text="Grüße\n.\nFrom x", html="<p>ü", calendar=INVITATION))
    plain, html, calendar = parsed.iter_parts()
    assert text_of(plain) == "Grüße\n.\nFrom x\n"
    assert text_of(html) == "<p>ü\n"
    assert calendar.get_content_charset() == "utf-8"
    assert calendar["Content-Type"].params["method"] == "CANCEL"
    assert text_of(calendar) == INVITATION.replace("\r\n", "\n")


def test_an_invitation_without_method_is_a_request() -> None:
    assert received(message(calendar="BEGIN:VCALENDAR"))["Content-Type"].params["method"] == "REQUEST"


@pytest.mark.needs("idna")
def test_header_fields() -> None:
    sent = Message(
        "Grüße",
        ("Jörg, Ä", "a@bücher.example"),
        ["b@y.example", ("Q. D", "c@y.example"), "Lee <d@y.example>", Address("E", "e", "y.example")],
        cc="f@y.example, g@y.example",
        bcc=["secret@y.example"],
        reply_to="h@y.example",
        headers={"X-One": "1", "List-Unsubscribe": f"<https://x.example/{'u' * 300}>"},
        date=datetime(2024, 2, 29, 12, tzinfo=UTC),
        message_id="<1@x.example>",
        in_reply_to="<0@x.example>",
        references=["<0@x.example>", f"<{'r' * 100}@x.example>"],
    )
    parsed = received(sent)
    assert str(parsed["From"]) == '"Jörg, Ä" <a@xn--bcher-kva.example>'
    assert str(parsed["To"]) == 'b@y.example, "Q. D" <c@y.example>, Lee <d@y.example>, E <e@y.example>'
    assert (parsed["Cc"], parsed["Reply-To"]) == ("f@y.example, g@y.example", "h@y.example")
    assert (parsed["Subject"], parsed["X-One"]) == ("Grüße", "1")
    assert parsed["List-Unsubscribe"] == f"<https://x.example/{'u' * 300}>"
    assert parsed["Date"] == "Thu, 29 Feb 2024 12:00:00 +0000"
    assert (parsed["Message-ID"], parsed["In-Reply-To"]) == ("<1@x.example>", "<0@x.example>")
    assert parsed["References"] == f"<0@x.example> <{'r' * 100}@x.example>"
    assert parsed["MIME-Version"] == "1.0"
    assert "secret" not in str(parsed)


def test_the_envelope_has_all_recipients_in_order() -> None:
    envelope = message(
        to="b@y", cc=["c@y", "b@y"], bcc=Address("D", "d", "y"), sender=("A", "a@x")
    ).envelope()
    assert (envelope.sender, envelope.recipients) == ("a@x", ("b@y", "c@y", "d@y"))


def test_who_sends_it_may_be_another_than_who_wrote_it() -> None:
    sent = message(sender=["a@x", ("Ärna", "b@y")], sent_by="Office <c@z>")
    parsed = received(sent)
    assert (str(parsed["From"]), str(parsed["Sender"])) == ("a@x, Ärna <b@y>", "Office <c@z>")
    assert sent.envelope().sender == "c@z"


def test_several_authors_need_somebody_who_sends() -> None:
    with pytest.raises(InvalidMessage, match="sent_by"):
        message(sender=["a@x", "b@y"]).as_email_message()


PRIORITY_FIELDS = ("Importance", "Priority", "X-Priority")


@pytest.mark.parametrize(
    ("priority", "fields"),
    [
        ("high", ["high", "urgent", "1"]),
        ("low", ["low", "non-urgent", "5"]),
        ("normal", [None, None, None]),
        (None, [None, None, None]),
    ],
)
def test_a_priority_is_told_the_reader(priority: Any, fields: list[str | None]) -> None:
    parsed = received(message(priority=priority))
    assert [parsed[name] for name in PRIORITY_FIELDS] == fields


@pytest.mark.parametrize("priority", ["urgent", "High", 1])
def test_there_are_three_priorities(priority: Any) -> None:
    with pytest.raises(InvalidMessage, match="high, normal or low"):
        message(priority=priority).as_email_message()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"priority": "high"}, "X-PRIORITY"),
        ({"list_unsubscribe": "https://x/u"}, "List-unsubscribe"),
        ({"sent_by": "c@z"}, "Sender"),
    ],
)
def test_what_an_attribute_says_is_not_said_again_in_headers(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidMessage, match="not set through headers"):
        message(headers={name: "c@z"}, **fields).as_email_message()


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), max_size=30)).map(" ".join))
def test_any_subject_arrives(subject: str) -> None:
    assert received(message(subject=subject))["Subject"].strip() == subject.strip()


def test_no_blank_is_lost_where_a_long_subject_is_folded() -> None:
    for length in range(40):
        subject = f"{'ü' * length} ü {'ä' * 60} ö"
        assert received(message(subject=subject))["Subject"] == subject


# Leaving a list (RFC 2369, RFC 8058)


def unsubscribe(*uris: str, **fields: Any) -> list[str | None]:
    parsed = received(message(list_unsubscribe=uris, **fields))
    return [parsed["List-Unsubscribe"], parsed["List-Unsubscribe-Post"]]


def test_ways_to_unsubscribe_keep_their_order() -> None:
    uris = "mailto:leave@x.example?subject=a%20b", "<https://x.example/u?a=1,2&b=[c]>"
    assert unsubscribe(*uris) == [f"<{uris[0]}>, {uris[1]}", None]
    assert unsubscribe() == [None, None]


def test_one_click_is_promised_where_there_is_an_https_uri() -> None:
    click = "List-Unsubscribe=One-Click"
    assert unsubscribe("HTTPS://x/", one_click_unsubscribe=True) == ["<HTTPS://x/>", click]
    one = message(list_unsubscribe="https://x/u", one_click_unsubscribe=True)  # a string is one URI
    assert received(one)["List-Unsubscribe"] == "<https://x/u>"
    for uris in ([], ["mailto:a@x"], ["http://x/u"]):
        with pytest.raises(InvalidMessage, match="https"):
            unsubscribe(*uris, one_click_unsubscribe=True)


@pytest.mark.parametrize(
    "uri",
    [
        *("", "x", "x/u", "https:", "https:///u", "https://x y/", "https://x/<a>", "https://x/\nBcc: y@z"),
        *("https://x/ü", "javascript:alert(1)", "ftp://x/u", "data:,x", "mailto:", "mailto:nobody"),
        *("mailto:a@x%0d%0aBcc:b@y", "mailto:a@x,b@y", "https://x:y/", "https://x:0/", "https://[/"),
        f"https://x/{'u' * 900}",
        3,
    ],
)
def test_nonsense_is_no_way_to_unsubscribe(uri: Any) -> None:
    with pytest.raises(InvalidMessage):
        unsubscribe(uri)


@given(st.from_regex(r"https://x/[!#-;=?-~]*", fullmatch=True).filter(lambda uri: len(uri) <= 890))
def test_any_uri_arrives_as_one(uri: str) -> None:
    assert unsubscribe(uri, "mailto:a@x") == [f"<{uri}>, <mailto:a@x>", None]


def test_without_a_sender_there_is_no_message() -> None:
    with pytest.raises(InvalidMessage, match="sender"):
        message(sender=None).as_email_message()


@pytest.mark.parametrize(
    "bad", ["b@y, c@z", "x", "b@y\r\nBcc: e@x", ("b@y", "c@y", "d@y"), 3, ("N\r\nX: y", "b@y")]
)
def test_bad_addresses_are_refused(bad: Any) -> None:
    for fields in ({"sender": bad}, {"to": [bad]}, {"cc": [bad]}, {"reply_to": [bad]}):
        with pytest.raises(InvalidMessage):
            message(**fields).as_email_message()


def test_a_pair_of_strings_is_two_addresses_not_name_and_address() -> None:
    assert message(to=("b@y", "c@y")).envelope().recipients == ("b@y", "c@y")
    with pytest.raises(InvalidAddress):
        message(to=("Bea", "b@y")).envelope()


# Attachments


def test_attachments_come_as_bytes_paths_and_open_files(tmp_path: Path) -> None:
    path = tmp_path / "räpört.csv"
    path.write_bytes(b"1;2\r\n")
    sent = message(text="t")
    sent.attach(b"\0\xff\r\r\n", filename="data.bin")
    sent.attach(path)
    with path.open("rb") as file:
        sent.attach(file, content_type="text/x-special")
    sent.attach(io.BytesIO(b"memory"), filename="m.tar.gz")
    sent.attach(bytearray(b"x"), disposition="inline")
    path.unlink()  # read when attached
    found = [
        (
            part.get_filename(),
            part.get_content_type(),
            part.get_content_disposition(),
            part.get_payload(decode=True),
        )
        for part in received(sent).iter_attachments()
    ]
    assert found == [
        ("data.bin", "application/octet-stream", "attachment", b"\0\xff\r\r\n"),
        ("räpört.csv", "text/csv", "attachment", b"1;2\r\n"),
        ("räpört.csv", "text/x-special", "attachment", b"1;2\r\n"),
        ("m.tar.gz", "application/octet-stream", "attachment", b"memory"),
        (None, "application/octet-stream", "inline", b"x"),
    ]


def test_an_image_for_the_html_is_found_by_its_content_id() -> None:
    sent = message(html='<img src="cid:logo@x">')
    sent.attach(b"\x89PNG", filename="logo.png", content_id="<logo@x>")
    related = received(sent)
    image = list(related.iter_parts())[1]
    assert (image["Content-ID"], image.get_content_disposition()) == ("<logo@x>", "inline")
    assert related["Content-Type"].params["type"] == "text/html"


def test_equal_attachments_are_two() -> None:
    parsed = received(message(html="h", attachments=[png("i"), png(), png("i")]))
    assert shape(parsed) == (
        "multipart/mixed",
        [("multipart/related", ["text/html", "image/png", "image/png"]), "image/png"],
    )


def test_the_charset_of_a_text_file() -> None:
    sent = message(text="t")
    sent.attach("1;ü".encode("latin-1"), filename="a.csv", charset="iso-8859-1")
    (attached,) = received(sent).iter_attachments()
    assert (attached.get_content_type(), attached.get_content()) == ("text/csv", "1;ü")


@pytest.mark.parametrize(
    "kind", ["text/plain", "text/html", "TEXT/Calendar", "application/json", "text", "text/x y"]
)
def test_alternatives_are_further_texts(kind: str) -> None:
    with pytest.raises(InvalidMessage, match="alternative"):
        message(text="t", alternatives=[(kind, "x")]).as_email_message()


def test_an_attached_message_is_not_encoded() -> None:
    sent = message(text="t")
    sent.attach(b"Subject: inner\r\n\r\nBody\r\n", content_type="message/rfc822", filename="m.eml")
    (attached,) = received(sent).iter_attachments()
    assert attached.get_content()["Subject"] == "inner"


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "file:///etc/passwd", "https://x.example/", 3, None, io.StringIO("x")]
)
def test_strings_name_no_file(source: Any) -> None:
    with pytest.raises(InvalidMessage, match="bytes, a path object or a binary file"):
        message().attach(source)


def test_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        message().attach(tmp_path / "none")


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=80)


@given(NAMES.filter(lambda name: name.strip() == name))
def test_any_file_name_arrives(name: str) -> None:
    sent = message(attachments=[Attachment(content=b"x", filename=name)])
    (attached,) = received(sent).iter_attachments()
    assert attached["Content-Disposition"].params["filename"] == name  # get_filename() would unquote it twice


# Header injection

BREAKS = [
    "\r\nBcc: evil@x",
    "\nX: y",
    "\rX: y",
    "a\r\n\r\nbody",
    "a\r\n b",
    "a\x0bb",
    "a\x0cb",
    "a\x1db",
    "a\x85b",
]
CONTROLS = [*BREAKS, "\x00", "a\u2028b", "a\u2029X: y", "\x7f", "\ud800"]
INJECTIONS = [*CONTROLS, "=?utf-8?q?=0D=0ABcc=3A_evil=40x?="]

PLACES = {
    "subject": lambda bad: message(subject=bad),
    "header value": lambda bad: message(headers={"X-A": bad}),
    "header pair": lambda bad: message(headers=[("X-A", "b"), ("X-B", f"x{bad}")]),
    "unsubscribe": lambda bad: message(headers={"List-Unsubscribe": f"<https://x/{bad}>"}),
    "filename": lambda bad: message(attachments=[Attachment(content=b"", filename=f"a{bad}.txt")]),
    "content type": lambda bad: message(attachments=[Attachment(content=b"", content_type=f"text/{bad}")]),
    "content id": lambda bad: message(html="", attachments=[Attachment(content=b"", content_id=f"a{bad}")]),
    "display name": lambda bad: message(to=[(f"N{bad}", "b@y")]),
    "address": lambda bad: message(to=[f"b@y{bad}"]),
    "message id": lambda bad: message(message_id=f"<a{bad}@x>"),
    "references": lambda bad: message(references=[f"<a{bad}@x>"]),
    "in reply to": lambda bad: message(in_reply_to=f"<a{bad}@x>"),
    "sent by": lambda bad: message(sent_by=f"A{bad} <a@x>"),
    "list unsubscribe": lambda bad: message(list_unsubscribe=[f"https://x/{bad}"]),
    "alternative": lambda bad: message(alternatives=[(f"text/x{bad}", "y")]),
    "sender": lambda bad: message(sender=f"A{bad} <a@x>"),
    "calendar method": lambda bad: message(calendar=f"METHOD:X{bad}"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", INJECTIONS, ids=ascii)
def test_nothing_injects_a_header_field(place: str, bad: str) -> None:
    good = received(PLACES[place]("plain"))
    try:
        parsed = received(PLACES[place](bad))
    except InvalidMessage:
        return
    # Where it was taken, it was encoded: the same fields in the same parts.
    for part, expected in zip(parsed.walk(), good.walk(), strict=True):
        assert [name for name, _ in part.raw_items()] == [name for name, _ in expected.raw_items()]
        assert not part.defects


@pytest.mark.parametrize("bad", CONTROLS, ids=ascii)
def test_control_characters_in_fields_are_errors(bad: str) -> None:
    for place in (
        "subject",
        "header value",
        "filename",
        "content type",
        "content id",
        "display name",
        "address",
    ):
        with pytest.raises(InvalidMessage):
            PLACES[place](bad).as_email_message()


LIKE_ENCODED = [
    "=?utf-8?q?=0D=0ABcc=3A_evil=40x?=",
    "a =?utf-8?q?x?= b",
    "x=?utf-8?Q?y?=z",
    "=?utf-8?B?YQ==?=",
]


@pytest.mark.parametrize("text", LIKE_ENCODED)
def test_text_that_looks_like_an_encoded_word_is_text(text: str) -> None:
    parsed = received(message(subject=text, headers={"X-A": text}, to=[(text, "b@y")]))
    assert (parsed["Subject"], parsed["X-A"]) == (text, text)
    assert parsed["To"].addresses[0].display_name == text


@pytest.mark.parametrize("text", LIKE_ENCODED)
def test_where_a_field_is_no_text_an_encoded_word_is_an_error(text: str) -> None:
    word = text.replace(" ", "")
    for fields in ({"message_id": f"<{word}@x>"}, {"list_unsubscribe": f"https://x/{word}"}):
        with pytest.raises(InvalidMessage, match="encoded word"):
            message(**fields).as_email_message()


def test_a_uri_stays_readable_for_programs() -> None:
    uri = "<https://x.example/u?a=?b&c=?d>"
    content = render(message(list_unsubscribe=uri, headers={"X-A": uri})).content
    assert isinstance(content, bytes)
    assert content.count(uri.encode()) == 2


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\r\nY", "Ü", "X\x00", "X\n", " X"])
def test_field_names_are_tokens(name: str) -> None:
    with pytest.raises(InvalidMessage):
        message(headers={name: "v"}).as_email_message()


@pytest.mark.parametrize(
    "name",
    [
        "Bcc",
        "BCC",
        "Resent-Bcc",
        "From",
        "To",
        "Subject",
        "Content-Type",
        "content-id",
        "MIME-Version",
        "Date",
    ],
)
def test_fields_that_a_message_says_itself_are_not_set_twice(name: str) -> None:
    with pytest.raises(InvalidMessage, match="not set through headers"):
        message(headers={name: "v"}).as_email_message()


@pytest.mark.parametrize(
    "details",
    [
        {"content_type": "text"},
        {"content_type": "text/html; charset=x"},
        {"content_type": "multipart/mixed"},
        {"disposition": "form-data"},
        {"content_id": "a b"},
        {"content_id": "a>b"},
        {"content_id": ""},
        {"content_id": "ü"},
        {"charset": "utf-8"},
        {"charset": "utf 8", "content_type": "text/csv"},
        {"charset": "x\n", "content_type": "text/csv"},
    ],
)
def test_attachments_are_checked_when_made(details: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        Attachment(content=b"", **details)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_text_that_mail_can_not_say(text: str) -> None:
    if "\x00" in text:
        content = render(message(text=text)).content
        assert b"\0" not in content
        assert text_of(received(message(text=text))) == "a\x00b\n"
    else:
        with pytest.raises(InvalidMessage, match="surrogate"):
            render(message(text=text))


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=2000)


@given(TEXTS, TEXTS)
def test_any_text_arrives(text: str, html: str) -> None:
    plain, rich = received(message(text=text, html=html)).iter_parts()
    assert text_of(plain).removesuffix("\n") == text.removesuffix("\n")
    assert text_of(rich).removesuffix("\n") == html.removesuffix("\n")


def test_a_message_is_plain_data() -> None:
    sent = message(text="t", attachments=[PDF])
    assert pickle.loads(pickle.dumps(sent)) == sent == copy.deepcopy(sent)
    assert b"PDF" not in repr(sent).encode().replace(b"a.pdf", b"").replace(b"application/pdf", b"")
    with pytest.raises(AttributeError):
        sent.recipient = "typo@x"  # type: ignore[attr-defined]


def test_options_are_those_of_the_envelope() -> None:
    message = Message("s", "a@x.example", ["b@y.example"], envelope_options={"dsn": {"ret": "HDRS"}})
    assert message.envelope() == Envelope("a@x.example", ["b@y.example"], dsn={"ret": "HDRS"})
    message.envelope_options["mt_priority"] = 3
    assert message.envelope().mt_priority == 3
    assert Message("s", "a@x.example", ["b@y.example"]).envelope_options == {}
    with pytest.raises(InvalidMessage, match="Did you mean 'dsn'"):
        Message("s", "a@x", ["b@y"], envelope_options={"dns": {}}).envelope()  # type: ignore[typeddict-unknown-key]
