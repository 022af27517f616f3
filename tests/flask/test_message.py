"""Message and Attachment: plain data with Flask-Mail's arguments, attributes and methods."""

import copy
import pickle
import socket
from typing import Any

import pytest
from flask import Flask

from mailbridge import InvalidMessage
from mailbridge_flask import Attachment, BadHeaderError, Mail, Message
from mailbridge_flask.message import as_message
from tests.flask.apps import SENDER, app_for, parsed


def message(**changes: Any) -> Message:
    return Message(
        **{"subject": "subject", "sender": "from@example.com", "recipients": ["to@example.com"], **changes}
    )


# ---- plain data


def test_it_is_made_without_an_application() -> None:
    made = Message("Hello", ["to@example.com"], "text", "<b>html</b>")
    assert (made.subject, made.recipients, made.body, made.html) == (
        "Hello",
        ["to@example.com"],
        "text",
        "<b>html</b>",
    )
    assert made.sender is None


def test_the_arguments_stand_in_the_order_of_flask_mail() -> None:
    attachment = Attachment("a.txt", "text/plain", "a")
    made = Message(
        *("s", ["r@x.example"], "b", "<p>", {"amp": "x"}, "f@x.example", ["c@x.example"], ["d@x.example"]),
        *([attachment], "t@x.example", 1.5, "latin-1", {"X-A": "b"}, ["BODY=8BITMIME"], ["NOTIFY=NEVER"]),
    )
    assert made.alts == {"amp": "x", "html": "<p>"}
    assert (made.sender, made.cc, made.bcc) == ("f@x.example", ["c@x.example"], ["d@x.example"])
    assert (made.attachments, made.reply_to, made.date, made.charset) == (
        [attachment],
        "t@x.example",
        1.5,
        "latin-1",
    )
    assert made.extra_headers == {"X-A": "b"}
    assert (made.mail_options, made.rcpt_options) == (["BODY=8BITMIME"], ["NOTIFY=NEVER"])


def test_what_is_not_given_is_empty() -> None:
    made = Message()
    assert (made.recipients, made.cc, made.bcc, made.attachments, made.alts) == ([], [], [], [], {})
    assert (made.body, made.html, made.calendar, made.date, made.charset) == (None, None, None, None, None)
    assert (made.mail_options, made.rcpt_options, made.reply_to) == ([], [], None)
    assert made.mailbridge_result is None


def test_messages_share_nothing() -> None:
    recipients = ["a@b.example"]
    first, second = Message(recipients=recipients), Message(recipients=recipients)
    first.add_recipient("c@d.example")
    assert (recipients, second.recipients) == (["a@b.example"], ["a@b.example"])


@pytest.mark.parametrize("name", ["recipents", "reciepients", "text", "sned"])
def test_a_typo_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(Message(), name)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_it_can_be_copied_and_pickled(duplicate: Any) -> None:
    made = message(html="<b>x</b>", cc=[("C", "c@x.example")], calendar="BEGIN:VCALENDAR")
    made.attach("a.bin", data=b"\0\1", content_id="a", headers={"X-A": "b"})
    twin = duplicate(made)
    assert twin.msgId == made.msgId
    assert parsed(twin.as_bytes())["Cc"] == "C <c@x.example>"
    assert vars(twin.attachments[0]) == vars(made.attachments[0])


def test_making_one_asks_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("DNS was asked"))
    assert message().msgId.endswith("@example.com>")
    assert Message().msgId.endswith("@localhost.invalid>")


def test_each_has_an_id_of_its_own_and_keeps_it() -> None:
    first, second = message(), message()
    assert first.msgId != second.msgId
    assert parsed(first.as_bytes())["Message-ID"] == parsed(first.as_bytes())["Message-ID"] == first.msgId


# ---- sender


@pytest.mark.parametrize(
    ("sender", "shown"),
    [
        ("from@example.com", "from@example.com"),
        (("tester", "tester@example.com"), "tester <tester@example.com>"),
        (("Tester, the", "tester@example.com"), '"Tester, the" <tester@example.com>'),
    ],
)
def test_a_sender_as_a_pair_reads_as_text(sender: Any, shown: str) -> None:
    assert message(sender=sender).sender == shown
    assert parsed(message(sender=sender).as_bytes())["From"] == shown


def test_the_active_application_gives_the_default_sender(app: Flask, mail: Mail) -> None:
    made = Message("testing", ["to@example.com"])
    with app.app_context():
        assert made.sender == SENDER
        assert parsed(made.as_bytes())["From"] == SENDER
        made.sender = "own@example.com"
        assert made.sender == "own@example.com"
        made.sender = None
        assert made.sender == SENDER
    assert made.sender is None
    with pytest.raises(InvalidMessage, match="no sender"):
        made.as_bytes()


def test_an_application_without_mail_gives_none() -> None:
    with app_for().app_context():
        assert Message().sender is None


# ---- recipients


def test_send_to_keeps_the_order_and_names_each_once() -> None:
    made = message(
        recipients=["c@x.example", "a@x.example", "c@x.example"],
        cc=["b@x.example", "a@x.example"],
        bcc=[("D", "d@x.example"), ["D", "d@x.example"]],
    )
    assert list(made.send_to) == ["c@x.example", "a@x.example", "b@x.example", ("D", "d@x.example")]
    assert made.send_to == {"a@x.example", "b@x.example", "c@x.example", ("D", "d@x.example")}
    assert "a@x.example" in made.send_to
    assert len(made.send_to) == 4


def test_lists_may_be_unset() -> None:
    made = message()
    made.cc = made.bcc = None  # type: ignore[assignment]  # as code for Flask-Mail does
    made.attachments = made.extra_headers = None  # type: ignore[assignment]
    assert list(made.send_to) == ["to@example.com"]
    assert parsed(made.as_bytes())["To"] == "to@example.com"


def test_one_address_in_place_of_a_list_is_one_recipient() -> None:
    assert Message(recipients="to@example.com").recipients == ["to@example.com"]


# ---- header injection


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "testing\r\n"},
        {"subject": "testing\nBcc: evil@x.example"},
        {"sender": "from@example.com\r\n"},
        {"sender": ("A\r\nBcc: evil@x.example", "from@example.com")},
        {"recipients": ["to@example.com", "to\r\n@example.com"]},
        {"cc": ["c@example.com\n"]},
        {"bcc": ["c@example.com\n"]},
        {"reply_to": "evil@example.com\r"},
        {"extra_headers": {"X-A": "b\r\nBcc: evil@x.example"}},
        {"extra_headers": {"X-A\r\nBcc": "evil@x.example"}},
        {"extra_headers": {"In-Reply-To": "<a@b>\r\nBcc: evil@x.example"}},
        {"attachments": [Attachment("a\r\nX-Evil: 1", data=b"")]},
        {"attachments": [Attachment("a", "text/plain\r\nX-Evil: 1", data=b"")]},
        {"attachments": [Attachment("a", data=b"", disposition="inline\r\nX-Evil: 1")]},
        {"attachments": [Attachment("a", data=b"", headers={"X-A": "b\r\nX-Evil: 1"})]},
        {"attachments": [Attachment("a", data=b"", headers={"X-A\r\nX-Evil": "1"})]},
    ],
)
def test_a_line_break_in_a_header_is_refused(changes: dict[str, Any]) -> None:
    made = message(**changes)
    assert made.has_bad_headers()
    with pytest.raises(BadHeaderError):
        made.as_bytes()


def test_the_error_is_one_of_invalid_messages() -> None:
    assert issubclass(BadHeaderError, InvalidMessage)


@pytest.mark.parametrize("made", [message(), message(subject="a\r\n b"), message(subject=None), Message()])
def test_sound_headers(made: Message) -> None:
    assert not made.has_bad_headers()


# ---- attachments


def test_attach_makes_an_attachment_and_returns_it() -> None:
    made = message()
    attachment = made.attach(data=b"this is a test", content_type="text/plain")
    assert made.attachments == [attachment]
    assert (attachment.filename, attachment.disposition) == (None, "attachment")
    assert (attachment.content_type, attachment.data, attachment.headers) == (
        "text/plain",
        b"this is a test",
        {},
    )


@pytest.mark.parametrize(
    ("arguments", "content_type"),
    [
        ({"data": "text"}, "text/plain"),
        ({"data": b"bytes"}, "application/octet-stream"),
        ({"filename": "a.pdf", "data": b""}, "application/pdf"),
        ({"filename": "a.unknown-to-all", "data": b""}, "application/octet-stream"),
        ({"filename": "a.pdf", "content_type": "text/csv", "data": ""}, "text/csv"),
    ],
)
def test_the_type_is_guessed(arguments: dict[str, Any], content_type: str) -> None:
    assert Attachment(**arguments).content_type == content_type


def test_an_attachment_needs_data() -> None:
    with pytest.raises(ValueError, match="needs data"):
        Attachment("a.txt", "text/plain")
    with pytest.raises(ValueError, match="needs data"):
        message().attach("a.txt")


# ---- html, calendar and other alternatives


def test_html_and_calendar_are_alternatives() -> None:
    made = message(alts={"html": "<p>", "json": "{}"})
    assert made.html == "<p>"
    made.calendar = "BEGIN:VCALENDAR"
    assert made.alts == {"html": "<p>", "json": "{}", "calendar": "BEGIN:VCALENDAR"}
    made.html = made.calendar = None
    made.html = None
    assert made.alts == {"json": "{}"}


def test_as_string_str_and_bytes_say_the_same() -> None:
    made = message(body="grüße", date=0)
    assert made.as_string() == str(made) == made.as_bytes().decode() == bytes(made).decode()


# ---- messages of other classes


class Alike:
    """What an extension hands over that has made its message with another library."""

    subject = "alike"
    recipients = ("to@example.com",)
    body, html, charset, reply_to, date = "text", "<p>", None, None, 5.0
    alts = {"html": "<p>"}  # noqa: RUF012
    sender = "from@example.com"
    cc = bcc = attachments = mail_options = rcpt_options = ()
    extra_headers = None
    msgId = "<1@example.com>"  # noqa: N815  # Flask-Mail's name


def test_a_message_like_flask_mails_is_taken() -> None:
    taken = as_message(Alike())
    assert (taken.subject, taken.html, taken.date) == ("alike", "<p>", 5.0)
    assert parsed(taken.as_bytes())["Message-ID"] == "<1@example.com>"


def test_a_message_is_taken_as_it_is() -> None:
    made = message()
    assert as_message(made) is made


@pytest.mark.parametrize("thing", [None, "text", b"bytes", object()])
def test_anything_else_is_a_type_error(thing: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(thing).__name__}"):
        as_message(thing)
