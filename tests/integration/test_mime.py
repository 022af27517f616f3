"""What `Message` makes is read alike by three parsers that know nothing of each other.

Python's email package, mailparser (Nodemailer's) and Dovecot's.
"""

from __future__ import annotations

from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mailbridge import Message, render
from mailbridge.message.headers import looks_encoded
from mailbridge.message.message import Attachment
from tests.servers.doveadm import Doveadm
from tests.servers.mailparser import Mailparser
from tests.servers.parsed_mail import Mailboxes, ParsedFile, ParsedMail, in_one_form, parse_by_python

MESSAGE_ID = "<1.2@x.example>"


class Parse(Protocol):
    def __call__(self, content: bytes) -> ParsedMail: ...


@pytest.fixture(params=["python", "mailparser", "dovecot"])
def parse(request: pytest.FixtureRequest) -> Parse:
    if request.param == "python":
        return parse_by_python
    server: Mailparser | Doveadm = request.getfixturevalue(
        {"mailparser": "mailparser", "dovecot": "doveadm"}[request.param]
    )
    return server.parse


# What can stand in a name or a header field: everything but control characters, and what UTF-8 can't say.
CHARACTERS = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
# Of special meaning somewhere in a message.
TRAPS = st.sampled_from(
    [
        '"',
        "\\",
        "'",
        ",",
        ";",
        ":",
        "<",
        ">",
        "(",
        ")",
        "@",
        "=?utf-8?q?x?=",
        "?=",
        "=",
        "%41",
        "''",
        "*",
        "/",
        "..",
    ]
)
WORDS = st.lists(st.one_of(st.text(CHARACTERS, max_size=20), TRAPS), min_size=1, max_size=5).map("".join)
# A blank at an end is lost to some: RFC 2822 section 2.2.3 lets fields be folded there.
NAMES = (
    st.lists(WORDS, min_size=1, max_size=5)
    .map(" ".join)
    .map(lambda name: " ".join(name.split()))
    .filter(bool)
)
LOCAL_PARTS = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[a-z0-9]{1,10})?", fullmatch=True)
DOMAINS = st.from_regex(r"[a-z0-9]{1,20}(-[a-z0-9]{1,5})?\.(example|test)", fullmatch=True)
BOXES = st.tuples(st.one_of(st.just(""), NAMES), st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS))
LISTS = st.lists(BOXES, max_size=6)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=400),
    st.lists(
        st.sampled_from(["From here", ".", "..", "--", "a " * 60, "grüße", "=", " ", "\t x ", "世界" * 50])
    ).map("\n".join),
)
# What looks like an encoded word, mailparser decodes in a file name too.
FILE_NAMES = NAMES.filter(lambda name: not looks_encoded(name))
FILES = st.builds(
    Attachment,
    content=st.binary(max_size=300),
    filename=FILE_NAMES,
    content_type=st.sampled_from(["application/zip", "image/png", "application/pdf", "text/csv"]),
    disposition=st.sampled_from(["attachment", "inline"]),
    content_id=st.none() | st.from_regex(r"[a-z0-9]{1,40}@[a-z0-9]{1,40}", fullmatch=True),
) | st.builds(Attachment, content=st.just(b"<p>"), filename=FILE_NAMES, content_type=st.just("text/html"))
MESSAGES = st.builds(
    Message,
    subject=NAMES,
    sender=BOXES,
    sent_by=st.none() | BOXES,
    to=st.lists(BOXES, min_size=1, max_size=6),
    cc=LISTS,
    bcc=LISTS,
    reply_to=LISTS,
    text=st.none() | TEXTS,
    html=st.none() | TEXTS,
    calendar=st.none() | TEXTS.map("BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nSUMMARY:{}\r\nEND:VCALENDAR".format),
    attachments=st.lists(FILES, max_size=4),
    headers=st.builds(lambda custom: {"X-Custom": custom}, NAMES),
    in_reply_to=st.none() | st.just("<0@x.example>"),
    list_unsubscribe=st.just(()) | st.just(("https://x.example/u", "mailto:u@x.example")),
    priority=st.sampled_from([None, "high", "low"]),
    message_id=st.just(MESSAGE_ID),
)


def meant(message: Message) -> ParsedMail:
    """What a parser should read, from what the program said."""
    boxes: dict[str, Any] = {
        "from": [message.sender],
        "sender": [message.sent_by] if message.sent_by else [],
        "to": message.to,
        "cc": message.cc,
        "reply-to": message.reply_to,
    }
    named: dict[str, Mailboxes] = {name: tuple(given) for name, given in boxes.items() if given}
    return in_one_form(
        subject=message.subject,
        mailboxes=named,
        message_id=MESSAGE_ID,
        in_reply_to=message.in_reply_to or "",
        custom=dict(message.headers)["X-Custom"],
        text=message.text,
        html=message.html,
        calendar=message.calendar,
        files=[
            ParsedFile(
                filename=each.filename,
                content_type=each.content_type,
                disposition=each.disposition,
                content_id=f"<{each.content_id}>" if each.content_id else None,
                content=each.content,
            )
            for each in message.attachments
        ],
    )


def content_of(message: Message) -> bytes:
    content = render(message).content
    assert isinstance(content, bytes)
    return content


# What fails is shown as it was found: each attempt to make it smaller costs some processes.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.timeout(240)
@settings(max_examples=25, phases=PHASES, suppress_health_check=CHECKS)
@given(message=MESSAGES)
def test_what_was_meant_is_read(parse: Parse, message: Message) -> None:
    assert parse(content_of(message)) == meant(message)


@pytest.mark.parametrize(
    "name", ["räpört ☃ 報告書.pdf", "☃😀" * 60, "a" * 200 + ".txt", 'Nº 7; x="1".pdf', "100%.txt"]
)
def test_names_of_files(parse: Parse, name: str) -> None:
    message = Message("x", ("", "a@x.example"), [("", "b@y.example")], text="t", message_id=MESSAGE_ID)
    message.headers = {"X-Custom": "x"}
    message.attach(b"\0\xff\r\r\n", filename=name)
    assert parse(content_of(message)) == meant(message)


@pytest.mark.parametrize(
    "name", ["Jörg, Ä", "世界" * 40, 'Q "D" \\ D', "=?utf-8?q?x?=", "a" * 200, "ü " * 60 + "ü", "(x)"]
)
def test_names_of_people(parse: Parse, name: str) -> None:
    message = Message(
        name, (name, "a@x.example"), [(name, "b@y.example"), ("", "c@y.example"), (name, "d@y.example")]
    )
    message.text, message.message_id, message.headers = "t", MESSAGE_ID, {"X-Custom": name}
    assert parse(content_of(message)) == meant(message)
