"""Rendering: messages as bytes that any server may get."""

import base64
import copy
import email
import io
import re
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from email import encoders, policy
from email.header import Header, decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.mime.application import MIMEApplication
from email.mime.image import MIMEImage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mailbridge.message.message
from mailbridge.errors import InvalidMessage, NotSupported
from mailbridge.message.addresses import parse_address_list
from mailbridge.rendering.lines import canonical, has_nul, longest_line
from mailbridge.rendering.render import Rendered, render

BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def rendered(message: Any, **options: Any) -> Rendered:
    return render(
        message,
        now=lambda: datetime(2024, 2, 29, 12, tzinfo=UTC),
        token=lambda: "0123456789abcdef",
        **options,
    )


def modern(body: str = "Hello\n", **fields: Any) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"From": "a@x.example", "To": "b@y.example", "Subject": "Hi"} | fields).items():
        message[name.replace("_", "-")] = value
    message.set_content(body)
    return message


def older(body: str = "Hello\n", charset: str | None = None, **fields: Any) -> MIMEText:
    message = MIMEText(body, "plain", charset)
    for name, value in ({"From": "a@x.example", "To": "b@y.example", "Subject": "Hi"} | fields).items():
        message[name.replace("_", "-")] = value
    return message


def parse(content: bytes, rules: policy.Policy = policy.default) -> Any:
    return email.message_from_bytes(content, policy=rules)  # type: ignore[call-overload]  # any policy will do


def fields_of(message: Message) -> list[list[str]]:
    return [[name for name, _ in part.raw_items()] for part in message.walk()]


# Golden bytes


def test_a_plain_message_byte_by_byte() -> None:
    result = rendered(modern())
    assert result == Rendered(
        content=(
            b"From: a@x.example\r\nTo: b@y.example\r\nSubject: Hi\r\n"
            b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n'
            b"MIME-Version: 1.0\r\nDate: Thu, 29 Feb 2024 12:00:00 +0000\r\n"
            b"Message-ID: <0123456789abcdef@x.example>\r\n\r\nHello\r\n"
        ),
        message_id="<0123456789abcdef@x.example>",
        is_eight_bit=False,
        needs_smtputf8=False,
        is_signed=False,
    )


def test_a_structure_byte_by_byte() -> None:
    message = mailbridge.message.message.Message("Hi", "a@x.example", "b@y.example", text="t", html="<i>ü")
    tokens = iter("abc")
    content = render(
        message, now=lambda: datetime(2024, 2, 29, tzinfo=UTC), token=lambda: next(tokens)
    ).content
    assert content == (
        b"From: a@x.example\r\nTo: b@y.example\r\nSubject: Hi\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/alternative; boundary="b"\r\n'
        b"Date: Thu, 29 Feb 2024 00:00:00 +0000\r\nMessage-ID: <a@x.example>\r\n\r\n"
        b'--b\r\nContent-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n'
        b"t\r\n\r\n"
        b'--b\r\nContent-Type: text/html; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"<i>=C3=BC\r\n\r\n--b--\r\n"
    )


def corpus() -> list[Message]:
    """Messages as programs make them, complete, so that Python's own generator writes the same."""
    done = {"Date": "Thu, 29 Feb 2024 12:00:00 +0000", "Message_ID": "<1@x.example>"}
    with_files = modern("Grüße\n", **done)
    with_files.add_alternative("<p>Grüße", subtype="html")
    with_files.add_attachment(
        bytes(range(256)) * 40, maintype="application", subtype="pdf", filename="räp.pdf"
    )
    with_files.add_attachment(modern("inner", **done))
    mixed = MIMEMultipart(boundary="=_b")
    mixed["From"], mixed["To"] = (
        Header("Jörg", "utf-8").encode() + " <a@x.example>",
        "b@y.example, " * 20 + "c@y",
    )
    mixed["Subject"], mixed["Date"], mixed["Message-ID"] = (
        Header("Grüße " * 30, "utf-8"),
        "x",
        "<1@x.example>",
    )  # type: ignore[assignment]
    mixed.preamble, mixed.epilogue = "before\n", "after\n"
    mixed.attach(MIMEText("Grüße\n", "plain", "utf-8"))
    mixed.attach(MIMEImage(b"\x89PNG\0" * 50, "png"))
    mixed.attach(MIMEMessage(older("inner", **done)))
    report = parse(
        b"From: a@x\nTo: b@y\nDate: x\nMessage-ID: <1@x>\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n\n'
        b"--b\n\nbounced\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n"
        b"Final-Recipient: rfc822; b@y\nStatus: 5.1.1\n\n--b--\n"
    )
    latin = older("Grüße", "iso-8859-1", **done)
    plain = [
        modern(**done),
        modern("Grüße\n\n.\nFrom x\n", **done),
        older(**done),
        older("Ü", "utf-8", **done),
    ]
    return [*plain, latin, with_files, mixed, report]


@pytest.mark.parametrize("message", corpus(), ids=range(len(corpus())))
def test_the_bytes_are_those_of_pythons_own_generator(message: Message) -> None:
    for part in message.walk():
        part.get_boundary() or (part.is_multipart() and part.set_boundary("b" + str(id(part))))
    rules: Any = message.policy.clone(linesep="\r\n")
    assert rendered(message).content == canonical(message.as_bytes(policy=rules))


@pytest.mark.parametrize("size", [1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_are_right_wherever_the_pieces_are_cut(size: int, end: str) -> None:
    message = older()
    message.set_payload(
        ("x" * 63 + end) * (size // (63 + len(end))) + "x" * (size % (63 + len(end))) + end + "y"
    )
    body = rendered(message).content.partition(b"\r\n\r\n")[2]
    assert not BARE.search(body)
    assert body.count(b"\r\n") == message.get_payload().count(end) + 1
    assert body.replace(b"\r\n", b"") == message.get_payload().replace(end, "").encode()


def test_parts_of_older_and_newer_kind_go_together() -> None:
    old_root, new_root = MIMEMultipart(), modern()
    old_root["From"] = "a@x.example"
    new_part = modern()
    new_part.add_header("X-Name", "Grüße")
    old_root.attach(new_part)
    new_root.make_mixed()
    old_part = older()
    old_part["X-Name"] = "Grüße"
    new_root.attach(old_part)
    for root in (old_root, new_root):
        content = rendered(root).content
        assert content.isascii()
        assert list(parse(content).walk())[-1]["X-Name"] == "Grüße"


# What is added, what is left out


def test_bcc_never_appears_and_the_message_stays_as_it_was() -> None:
    for message in (
        modern(Bcc="secret@z.example", Resent_Bcc="hidden@z.example"),
        older(Bcc="secret@z.example", bCC="again@z.example"),
    ):
        before = message.items()
        for options in ({}, {"smtputf8": True}):
            content = rendered(message, **options).content
            assert b"bcc" not in content.lower()
            assert b"@z.example" not in content
        assert message.items() == before


def test_the_bcc_of_an_attached_message_is_content() -> None:
    message = modern()
    message.add_attachment(modern(Bcc="old@z.example"))
    assert b"old@z.example" in rendered(message).content


def test_nothing_of_the_callers_message_is_changed() -> None:
    message = MIMEMultipart()
    message["From"], message["Bcc"] = "a@x.example", "secret@z.example"
    inner = MIMEMultipart("alternative")
    inner.attach(older("x" * 2000))
    message.attach(inner)
    before = [(part.items(), part.policy, copy.copy(part.get_payload())) for part in message.walk()]
    rendered(message)
    assert [(part.items(), part.policy, part.get_payload()) for part in message.walk()] == before


def test_date_and_message_id_are_kept_where_they_are() -> None:
    result = rendered(modern(Date="Fri, 01 Mar 2024 00:00:00 +0000", Message_ID="<mine@z.example>"))
    assert result.message_id == "<mine@z.example>"
    assert result.content.count(b"Date:") == 1
    assert b"29 Feb" not in result.content


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        ("a@x.example", "x.example"),
        ("Ann <a@Y.example>, b@z", "Y.example"),
        ("a@bücher.example", "xn--bcher-kva.example"),
        ("undisclosed:;", "localhost"),
    ],
)
@pytest.mark.needs("idna")
def test_a_message_id_is_under_the_senders_domain(sender: str, domain: str) -> None:
    assert rendered(modern(From=sender)).message_id == f"<0123456789abcdef@{domain}>"


def test_message_ids_differ_and_do_not_tell_the_host() -> None:
    ids = {render(modern()).message_id for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"<[0-9a-f]{32}@x\.example>", str(each)) for each in ids)


# Bytes


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"A: b\n\nc", b"A: b\r\n\r\nc\r\n"),
        (b"A: b\r\n\r\nc\r\n", b"A: b\r\n\r\nc\r\n"),
        (b"A: b\r\rc\n.\n\rd", b"A: b\r\n\r\nc\r\n.\r\n\r\nd\r\n"),
        (b"Bcc: x@y\n\n", b"Bcc: x@y\r\n\r\n"),
        (b"", b""),
    ],
)
def test_bytes_go_as_they_are_but_for_their_line_ends(data: bytes, content: bytes) -> None:
    for given_as in (bytes, bytearray, memoryview):
        assert rendered(given_as(data)).content == content


def test_clean_bytes_are_not_copied() -> None:
    data = b"A: b\r\n\r\n" + b"x" * 998 + b"\r\n"
    assert rendered(data).content is data


@pytest.mark.parametrize(
    ("data", "message_id", "eight_bit", "utf8", "signed"),
    [
        (b"Message-ID: <1@x>\n\nx", "<1@x>", False, False, False),
        (b"message-id:<1@x>\n\nx", "<1@x>", False, False, False),
        (b"Message-ID:\n <1@x> \n\nx", "<1@x>", False, False, False),
        (b"Message-ID:\n\nx", None, False, False, False),
        (b"A: b\n\nMessage-ID: <1@x>\nDKIM-Signature: x", None, False, False, False),
        (b"\nMessage-ID: <1@x>\n\n", None, False, False, False),
        (b"Message-ID: <1@x>", "<1@x>", False, False, False),
        (b"A: b\n\n\xc3\xbc", None, True, False, False),
        (b"A: \xc3\xbc\n\nx", None, True, True, False),
        (b"DKIM-Signature: v=1\n\nx", None, False, False, True),
        (b"arc-seal: i=1\n\nx", None, False, False, True),
        (b"X-DKIM-Signature: v=1\nA: b\n ARC-Seal: i=1\n\nx", None, False, False, False),
        (b"", None, False, False, False),
    ],
)
def test_what_bytes_tell(
    data: bytes, message_id: str | None, eight_bit: bool, utf8: bool, signed: bool
) -> None:
    result = rendered(data)
    assert (result.message_id, result.is_eight_bit, result.needs_smtputf8, result.is_signed) == (
        message_id,
        eight_bit,
        utf8,
        signed,
    )


@pytest.mark.parametrize("thing", [None, "From: a@x", 3])
def test_other_things_are_no_messages(thing: Any) -> None:
    with pytest.raises(InvalidMessage, match="message or bytes"):
        render(thing)


# Header fields


@pytest.mark.parametrize(
    "value",
    [
        "Jörg <a@x.example>",
        '"Lee, Ann" <a@x.example>, "J. Q." <b@x.example>',
        '"Lëe, Änn" <a@x.example>, ' * 12 + "z@x.example",  # CVE-2025-1795: commas were encoded too
        "team: a@x.example, Jörg <b@x.example>;, c@x.example",
        "undisclosed-recipients:;",
        ", ".join(f"recipient-{n}@some-domain.example" for n in range(200)),
        f'"{"n" * 300}" <a@x.example>',
        f'"{"ü," * 100}" <a@x.example>',
    ],
)
def test_address_fields_mean_the_same_on_the_wire(value: str) -> None:
    content = rendered(modern(To=value)).content
    assert longest_line(content) <= 998
    assert content.isascii()
    parsed = parse(content, policy.compat32)["To"]
    assert parse_address_list(parsed) == parse_address_list(value)
    names = [group.display_name for group in modern(To=value)["To"].groups]
    assert [group.display_name for group in parse(content)["To"].groups] == names


@pytest.mark.parametrize("make", [modern, older])
@pytest.mark.needs("idna")
def test_domains_in_header_fields_become_a_labels(make: Callable[..., Message]) -> None:
    content = rendered(make(To="Jörg <a@bücher.example>")).content
    assert b"To: =?utf-8?b?SsO2cmc=?= <a@xn--bcher-kva.example>\r\n" in content


@pytest.mark.parametrize("make", [modern, older])
def test_a_local_part_beyond_ascii_is_written_raw_and_told(make: Callable[..., Message]) -> None:
    result = rendered(make(To="ü@y.example"))
    assert "To: ü@y.example\r\n".encode() in result.content
    assert result.needs_smtputf8
    assert result.is_eight_bit


def test_with_smtputf8_header_fields_are_utf8() -> None:
    message = modern(Subject="Grüße", To="Jörg <b@y.example>")
    result = rendered(message, smtputf8=True)
    assert "Subject: Grüße\r\n".encode() in result.content
    assert "To: Jörg <b@y.example>\r\n".encode() in result.content
    assert result.needs_smtputf8
    assert not rendered(message).needs_smtputf8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Message-ID", f"<{'m' * 200}@x.example>"),
        ("References", " ".join(f"<{n}{'r' * 70}@x.example>" for n in range(30))),
        ("List-Unsubscribe", f"<https://x.example/{'u' * 400}>, <mailto:u@x.example>"),
        ("Subject", "two  blanks   and\ta tab " * 20 + "end"),
    ],
)
def test_long_words_are_never_encoded(name: str, value: str) -> None:
    content = rendered(modern(**{name: value})).content
    assert b"=?" not in content.partition(b"Content-Type")[0]
    written = content.partition(f"{name}: ".encode())[2]
    unfolded = re.sub(rb"\r\n(?=[ \t])", b"", written).partition(b"\r\n")[0]
    assert unfolded.decode() == value.strip()


def test_text_that_looks_encoded_is_not_decoded_by_the_reader() -> None:
    literal = "=?utf-8?q?x?="
    encoded = base64.b64encode(literal.encode()).decode()
    content = rendered(modern(Subject=f"=?utf-8?b?{encoded}?=")).content
    assert str(make_header(decode_header(parse(content, policy.compat32)["Subject"]))) == literal


@given(
    st.lists(st.text('a=?:;,<>"(é', max_size=9), min_size=1, max_size=6),
    st.sampled_from([" ", "  ", "\t"]),
    st.sampled_from([None, 0, 20, 40, 78]),
)
@example(["too", "long", "for", "twenty"], " ", 20)
def test_short_fields_are_written_as_the_older_policy_writes_them(
    words: list[str], blank: str, width: int | None
) -> None:
    value = blank.join(words)
    rules = policy.compat32.clone(linesep="\r\n", max_line_length=width)
    message = Message(policy=rules)
    message["Subject"] = value
    message["X-Word"] = value
    fields = [rules.fold_binary(name, value) for name in ("Subject", "X-Word")]
    assert rendered(message).content.startswith(b"".join(fields))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=300))
def test_any_subject_is_one_field_and_reads_back(subject: str) -> None:
    try:
        message = modern(Subject=subject)  # some characters the email package refuses itself
        content = rendered(message).content
    except ValueError:
        return
    parsed = parse(content)
    assert parsed.keys() == [*message.keys(), "Date", "Message-ID"]
    assert not BARE.search(content)


INJECTED = [
    "a\r\nBcc: evil@z",
    "a\nBcc: evil@z",
    "a\rBcc: evil@z",
    "a\r\n\r\nbody",
    "a\n\nbody",
    "a\0b",
    "a\r\n",
]


@pytest.mark.parametrize("bad", INJECTED, ids=ascii)
@pytest.mark.parametrize("name", ["Subject", "X-Any", "To", "Content-Type", "Message-ID", "Bcc-Like"])
def test_old_messages_whose_fields_hold_line_breaks_are_refused(name: str, bad: str) -> None:
    for value in (bad, Header(bad), Header(f"ü{bad}", "utf-8"), f"ü{bad}"):
        message = older()
        del message[name]
        message[name] = value  # type: ignore[assignment]  # the older policy checks nothing
        expected = len(message.keys()) + 2 - (name == "Message-ID")
        try:
            content = rendered(message).content
        except InvalidMessage:
            continue
        parsed = parse(content)  # where it was taken, it was encoded
        assert len(parsed.keys()) == expected
        assert parsed["Bcc"] is None
        assert parsed.get_payload() in ("Hello\r\n", "Hello\n")


def with_control(control: str) -> dict[str, Message]:
    """A message of each kind whose header fields hold `control`, where the email package takes it."""
    bad = f"a{control}b"
    encoded = "=?utf-8?b?" + base64.b64encode(bad.encode()).decode() + "?="
    setters: dict[str, Callable[[Message], object]] = {
        "text": lambda message: message.__setitem__("X-Any", bad),
        "text that is encoded": lambda message: message.__setitem__("X-Any", f"ü{bad}"),
        "encoded word": lambda message: message.__setitem__("X-Any", encoded),
        "Header": lambda message: message.__setitem__("X-Any", Header(bad)),
        "Header in UTF-8": lambda message: message.__setitem__("X-Any", Header(bad, "utf-8")),
        "display name": lambda message: message.__setitem__("Cc", f'"{bad}" <c@y.example>'),
        "parameter": lambda message: message.set_param("name", bad),
        "file name": lambda message: message.add_header("Content-Disposition", "inline", filename=bad),
        "list of fields": lambda message: message._headers.append(("X-Any", bad)),  # type: ignore[attr-defined]
    }
    found: dict[str, Message] = {}
    for name, put in setters.items():
        for make in (modern, older):
            message = make()
            try:
                put(message)
            except (TypeError, ValueError):  # the email package refuses by itself
                continue
            found[f"{make.__name__}: {name}"] = message
            found[f"{make.__name__}: {name}, in a part"] = outer = MIMEMultipart()
            outer["From"] = "a@x.example"
            outer.attach(message)
            found[f"{make.__name__}: {name}, signed"] = signed = copy.deepcopy(message)
            signed["DKIM-Signature"] = "v=1"
    for rules in (policy.default, policy.compat32, policy.SMTPUTF8):
        source = b"From: a@x.example\nSubject: a%bb\n\nx\n" % control.encode()
        found[f"parsed by {type(rules).__name__}"] = parse(source, rules)
    return found


@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize("control", [chr(c) for c in (*range(9), *range(0x0A, 0x20), 0x7F)], ids=ascii)
def test_no_control_character_stands_in_a_header_field(control: str, smtputf8: bool) -> None:
    """Whatever kind of message it comes in, it is refused, or stands encoded within an encoded word."""
    outcomes: dict[str, str] = {}
    for kind, message in with_control(control).items():
        try:
            content = rendered(message, smtputf8=smtputf8).content
        except InvalidMessage:
            outcomes[kind] = "refused"
            continue
        assert isinstance(content, bytes)
        for line in content.split(b"\r\n"):
            assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line), (kind, line)
        outcomes[kind] = "encoded"
    assert outcomes["older: list of fields"] == "refused" or control in "\r\n"


def test_fields_of_attached_messages_are_content() -> None:
    """Mail can be passed on as a report, whatever stands in it, as long as it begins no field."""
    reported = parse(b"From: spam@x.example\nSubject: buy\x1b[2J\n\nx\n")
    message = MIMEMultipart()
    message["From"] = "a@x.example"
    message.attach(MIMEMessage(reported))
    assert b"Subject: buy\x1b[2J\r\n" in rendered(message).content


def test_bytes_go_as_they_are_to_servers_without_8bitmime_too() -> None:
    content = "From: a@x.example\r\nSubject: buy\x1b[2J\r\nMIME-Version: 1.0\r\n\r\nü\r\n".encode()
    assert b"Subject: buy\x1b[2J\r\n" in rendered(content).seven_bit().content


@pytest.mark.parametrize("name", ["X Y", "X\r\nBcc: evil@z\r\nX", "X\nY", "", "Ü", "X:"])
def test_names_of_fields_are_tokens(name: str) -> None:
    message = older()
    message._headers.append((name, "v"))  # type: ignore[attr-defined]  # as a parser or a careless program may
    with pytest.raises(InvalidMessage, match="name of a header field"):
        rendered(message)


@pytest.mark.parametrize("bad", INJECTED, ids=ascii)
def test_encoded_line_breaks_do_not_come_out(bad: str) -> None:
    encoded = "=?utf-8?q?" + "".join(f"={ord(c):02X}" for c in bad) + "?="
    for rules in (policy.default, policy.compat32):
        for part in (
            f"Subject: {encoded}",
            f"To: {encoded} <b@y.example>",
            f"Content-Type: x/y; name={encoded}",
        ):
            message = parse(f"From: a@x.example\n{part}\n\nx\n".encode(), rules)
            assert len(parse(rendered(message).content).keys()) == 4
    message = modern()
    try:
        message.replace_header("Subject", encoded)
        content = rendered(message).content
    except ValueError:
        return
    assert fields_of(parse(content)) == [[*message.keys(), "Date", "Message-ID"]]


def test_parsed_fields_go_as_they_came() -> None:
    source = (
        b"From: =?utf-8?q?J=C3=B6rg=2C?= <a@x.example>\r\nSubject: " + b"long " * 60 + b"\r\n\tfolded\r\n"
        b"Date: Thu, 29 Feb 2024 12:00:00 +0000\r\nMessage-ID: <1@x.example>\r\n\r\nBody\r\n"
    )
    assert rendered(parse(source)).content == source


@pytest.mark.parametrize("payload", ["ü", 3, b"x", ["text"]])
def test_payloads_that_are_no_text_are_invalid_messages(payload: Any) -> None:
    message = MIMENonMultipart("text", "plain")
    message["From"] = "a@x.example"
    message._payload = payload  # type: ignore[attr-defined]
    with pytest.raises(InvalidMessage):
        rendered(message)


# Encodings


@pytest.mark.parametrize("body", ["x" * 1200 + "\nend\n", "ü" * 1200 + "\n", "a\n" + "x y " * 400])
@pytest.mark.parametrize("cte", ["7bit", "8bit"])
def test_lines_that_are_too_long_are_encoded(body: str, cte: str) -> None:
    message = MIMENonMultipart("text", "plain", charset="utf-8")
    message["From"], message["Content-Transfer-Encoding"] = "a@x.example", cte
    message.set_payload(body.encode().decode("ascii", "surrogateescape"))
    content = rendered(message).content
    assert longest_line(content) <= 998
    assert parse(content).get_content().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n")


@pytest.mark.parametrize("give", [bytes, lambda data: iter([data]), io.BytesIO])
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"A: b\n\n" + b"x" * 999, "a line of 999 bytes, over the 998"),
        (b"A: b\n\n" + b"x" * 1500 + b"\nshort\n", "a line of 1500 bytes"),
        (b"A: " + b"b" * 998 + b"\n\nx", "a line of 1001 bytes"),
        (b"A: b\n\na\0b\n", "a NUL"),
        (b"A: \0\n\nb\n", "a NUL"),
        (b"DKIM-Signature: v=1\n\n" + b"x" * 999, "a line of 999 bytes"),
    ],
)
def test_what_no_mail_may_hold_is_refused_in_bytes(
    data: bytes, complaint: str, give: Callable[[bytes], Any]
) -> None:
    with pytest.raises(InvalidMessage, match=complaint) as caught:
        render(give(data))
    assert "message_from_bytes" in caught.value.hint


@pytest.mark.parametrize("give", [bytes, lambda data: iter([data])])
@pytest.mark.parametrize("body", [b"", b"\r", b"\n", b"a\0b\r.\r\n\xff" + b"x" * 5000, b"\r\n\r\n"])
def test_a_binary_body_may_be_anything(body: bytes, give: Callable[[bytes], Any]) -> None:
    result = render(give(b"Message-ID: <1@x>\r\n\r\n" + body), binary=True)
    assert (result.is_binary, result.message_id) == (True, "<1@x>")
    assert result.content == b"Message-ID: <1@x>\r\n\r\n" + body
    assert result.size == len(result.content)


@pytest.mark.parametrize("give", [bytes, lambda data: iter([data])])
@pytest.mark.parametrize(
    "head",
    [b"A: b\n\n", b"A: b\r\nC: d\n\r\n\r\n", b"A: \0\r\n\r\n", b"A: " + b"b" * 996 + b"\r\n\r\n", b"A: b"],
)
def test_the_header_of_binary_content_may_not(head: bytes, give: Callable[[bytes], Any]) -> None:
    with pytest.raises(InvalidMessage, match="header fields of binary content"):
        render(give(head), binary=True)


def test_a_message_is_written_as_ever_for_servers_that_take_binary_content() -> None:
    assert rendered(modern(), binary=True) == rendered(modern())


@pytest.mark.parametrize("rules", [policy.default, policy.compat32], ids=str)
@pytest.mark.parametrize("body", [b"x" * 999 + b"\r\n", b"a\0b\r\n", b"\0\r\n" + b"\xc3\xbc" * 600 + b"\r\n"])
def test_the_hint_helps(rules: policy.Policy, body: bytes) -> None:
    data = b"Message-ID: <1@x>\r\nDate: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + body
    content = bytes(rendered(parse(data, rules)).content)
    assert not has_nul(content)
    assert longest_line(content) <= 998
    assert parse(content, policy.compat32).get_payload(decode=True) == body


def test_long_lines_of_attached_messages_are_encoded_too() -> None:
    message = modern()
    message.add_attachment(parse(b"Subject: inner\n\n" + b"x" * 1500 + b"\n"))
    content = bytes(rendered(message).content)
    assert longest_line(content) <= 998
    (attached,) = parse(content).iter_attachments()
    assert attached.get_content().get_content().strip() == "x" * 1500


def test_long_lines_in_a_signed_part_are_refused() -> None:
    data = b"A: b\nContent-Type: multipart/signed; boundary=c\n\n--c\n\n" + b"x" * 999 + b"\n--c--\n"
    with pytest.raises(InvalidMessage, match="999"):
        rendered(parse(data))


def test_binary_data_is_not_changed_by_line_ends() -> None:
    data = bytes(range(256)) + b"\r\n\r\r\n\n"
    message = MIMEMultipart()
    message["From"] = "a@x.example"
    part = MIMEApplication(data, _encoder=encoders.encode_noop)
    part["Content-Transfer-Encoding"] = "binary"
    message.attach(part)
    (parsed,) = parse(rendered(message).content).iter_attachments()
    assert parsed.get_content() == data


def eight_bit(kind: bytes = b"text/plain; charset=utf-8", body: bytes = "Grüße\n".encode()) -> bytes:
    return (
        b"From: a@x.example\nMessage-ID: <1@x>\nMIME-Version: 1.0\n"
        b"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n"
        b"--b\nContent-Type: " + kind + b"\nContent-Transfer-Encoding: 8bit\n\n"
        + body + b"\n--b\nContent-Type: text/plain\n\nplain\n--b--\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        (b"text/plain; charset=utf-8", "base64"),
        (b"text/html; charset=utf-8", "base64"),
        (b"image/x", "base64"),
    ],
)
def test_seven_bit_encodes_what_has_to_be(kind: bytes, encoding: str) -> None:
    result = rendered(eight_bit(kind))
    assert result.is_eight_bit
    plain = result.seven_bit()
    assert plain.content.isascii()
    assert (plain.is_eight_bit, plain.message_id) == (False, "<1@x>")
    message = parse(plain.content)
    first, second = message.iter_parts()
    assert first["Content-Transfer-Encoding"] == encoding
    assert first.get_payload(decode=True).rstrip() == "Grüße".encode()
    assert second.get_content() == "plain"
    assert message["Content-Transfer-Encoding"] == "7bit"


def test_text_that_is_mostly_ascii_becomes_quoted_printable() -> None:
    body = "A longer line of text with one Umlaut: ü, and a trailing blank \n.\n=\n"
    plain = rendered(eight_bit(body=body.encode())).seven_bit()
    first = next(parse(plain.content).iter_parts())
    assert first["Content-Transfer-Encoding"] == "quoted-printable"
    assert first.get_content().replace("\r\n", "\n") == body


def test_seven_bit_of_seven_bit_is_itself() -> None:
    result = rendered(modern())
    assert result.seven_bit() is result


def test_seven_bit_reaches_into_attached_messages() -> None:
    kind = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
    inner = b"Subject: inner\n" + kind + b"\nGr\xc3\xbc\xc3\x9fe\n"
    plain = rendered(eight_bit(b"message/rfc822", inner)).seven_bit()
    attached = next(parse(plain.content).iter_parts())
    assert attached["Content-Transfer-Encoding"] == "7bit"
    assert attached.get_content().get_content().rstrip() == "Grüße"


@pytest.mark.parametrize(
    "data",
    [
        b"DKIM-Signature: v=1\nContent-Type: text/plain; charset=utf-8\n\n\xc3\xbc",
        b"ARC-Seal: i=1\nContent-Type: text/plain; charset=utf-8\n\n\xc3\xbc",
        b"Subject: \xc3\xbc\n\nx",
        eight_bit(b"multipart/signed; boundary=c", b"--c\n\n\xc3\xbc\n--c--\n"),
        eight_bit().replace(b"\n\n--b", b"\n\npre\xc3\xa4mble\n--b", 1),
    ],
)
def test_what_must_not_be_encoded_needs_the_extension(data: bytes) -> None:
    with pytest.raises(NotSupported) as caught:
        rendered(data).seven_bit()
    assert caught.value.extension == "8BITMIME"


@given(
    st.binary(max_size=600).map(lambda body: body.replace(b"\0", b"")),
    st.sampled_from([b"text/plain; charset=utf-8", b"application/x", b"text/plain"]),
)
def test_seven_bit_changes_no_byte_of_a_body(body: bytes, kind: bytes) -> None:
    head = b"From: a@x.example\r\nContent-Type: " + kind + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    result = rendered(head + body)
    plain = result.seven_bit()
    assert plain.content.isascii()
    decoded = parse(plain.content).get_payload(decode=True)
    expected = result.content.partition(b"\r\n\r\n")[2]
    assert decoded.replace(b"\r\n", b"\n").rstrip(b"\n") == expected.replace(b"\r\n", b"\n").rstrip(b"\n")


# Signed messages

SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s;\r\n\th=from:subject; bh=" + b"A" * 90
    + b";\r\n b=BBBB\r\n"
    b"From: Very Long Name <a@x.example>\r\nSubject: " + b"long " * 30 + b"\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + "Grüße\r\n".encode() + b"x" * 998 + b"\r\n"
)  # fmt: skip


@pytest.mark.parametrize("rules", [policy.default, policy.SMTP, policy.compat32], ids=str)
def test_a_signed_message_is_not_touched(rules: policy.Policy) -> None:
    for source in (SIGNED, SIGNED.replace(b"DKIM-Signature", b"ARC-Message-Signature")):
        result = rendered(parse(source, rules))
        assert result.content == source
        assert result.is_signed
        assert result.message_id is None


def test_a_message_that_a_program_signed_is_written_as_the_signer_saw_it() -> None:
    message = modern(To="Jörg <b@y.example>, " * 5 + "c@y.example", DKIM_Signature="v=1; b=" + "A" * 200)
    assert rendered(message).content == message.as_bytes(policy=policy.SMTP)


# Depth


def nested(depth: int) -> Message:
    message: Message = older("Grüße", "utf-8")
    for _ in range(depth):
        outer = MIMEMultipart()
        outer.attach(message)
        message = outer
    message["From"] = "a@x.example"
    return message


def test_deep_nesting_is_refused_not_run_into() -> None:
    assert rendered(nested(50)).content.count(b"--0123456789abcdef--") == 50
    for depth in (51, 800):
        with pytest.raises(InvalidMessage, match="nested"):
            rendered(nested(depth))


def test_deep_nesting_in_bytes_ends_in_an_error_of_ours() -> None:
    heads = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(3000))
    with pytest.raises(NotSupported, match="8BITMIME"):
        rendered(b"From: a@x.example\n" + heads + b"\n\xc3\xbc\n").seven_bit()


# Memory


@pytest.mark.parametrize("make", [modern, older])
def test_a_large_message_is_held_little_more_than_once(make: Callable[..., Message]) -> None:
    """20 MB: the limit is three times the size with the message itself; both are looked at."""
    message = MIMEMultipart() if make is older else modern()
    if isinstance(message, EmailMessage):
        message.add_attachment(bytes(15_000_000), maintype="application", subtype="x", filename="big")
    else:
        message["From"] = "a@x.example"
        message.attach(MIMEApplication(bytes(15_000_000)))
    payload = len(message.get_payload()[-1].get_payload())  # type: ignore[index,union-attr,arg-type]
    tracemalloc.start()
    try:
        result = render(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(result.content) > 20_000_000
    assert peak < 1.5 * len(result.content)
    assert peak + payload < 3 * len(result.content)


def test_composing_a_large_message_stays_within_the_limit_too() -> None:
    message = mailbridge.message.message.Message("Hi", "a@x.example", "b@y.example", text="t")
    attached = message.attach(bytes(15_000_000), filename="big.bin")
    tracemalloc.start()
    try:
        content = render(message).content
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + len(attached.content) < 3 * len(content)


@given(st.lists(st.tuples(st.text(max_size=20), st.emails()), min_size=1, max_size=8))
def test_any_addresses_read_back(pairs: list[tuple[str, str]]) -> None:
    message = EmailMessage()
    message["From"] = "a@x.example"
    try:
        given_addresses = [Address(name, addr_spec=address) for name, address in pairs]
        message["To"] = given_addresses
        content = rendered(message).content
    except (ValueError, email.errors.MessageError):
        return
    found = [(each.display_name, each.addr_spec) for each in parse(content)["To"].addresses]
    # The email package drops or changes blanks around and inside names; the addresses are exact.
    assert [address for _, address in found] == [each.addr_spec for each in given_addresses]


def test_a_word_too_long_for_a_line_is_encoded() -> None:
    message = EmailMessage()
    message["Subject"] = "s" * 1200
    content = render(message).content
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert email.message_from_bytes(content, policy=policy.default)["Subject"] == "s" * 1200


@pytest.mark.parametrize("before", ["", "short\n", "short\r\n", "\n" * 3])
@pytest.mark.parametrize(("length", "encoding"), [(998, "7bit"), (999, "quoted-printable")])
def test_one_long_line_wherever_it_stands(before: str, length: int, encoding: str) -> None:
    message = EmailMessage()
    message.set_content("x")
    message.set_payload(f"{before}{'x' * length}\nshort\n")
    content = render(message).content
    assert email.message_from_bytes(content)["Content-Transfer-Encoding"] == encoding


def test_long_lines_take_no_longer_than_short_ones() -> None:
    """CPU time of 3 MB, the least of three; a search from each character on takes 50 times as long."""

    def seconds(length: int) -> float:
        message = EmailMessage()
        message.set_content("x")
        message.set_payload(("x" * length + "\n") * (3_000_000 // length))
        took = []
        for _ in range(3):
            began = time.process_time()
            render(message)
            took.append(time.process_time() - began)
        return min(took)

    assert seconds(990) < 5 * seconds(50)
