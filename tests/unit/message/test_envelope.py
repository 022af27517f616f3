"""Envelopes: sender and recipients in normal form, from arguments and from header fields."""

import copy
import email
import pickle
from dataclasses import FrozenInstanceError, replace
from email import policy
from email.header import Header
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from typing import Any

import pytest

from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.message.delivery_options import DSN, DeliverBy, Recipient
from mailbridge.message.envelope import Envelope

POLICIES = pytest.mark.parametrize("rules", [policy.default, policy.SMTP, policy.compat32], ids=str)


def parsed(text: str | bytes, rules: policy.Policy) -> Message:
    data = text.encode() if isinstance(text, str) else text
    return email.message_from_bytes(data, policy=rules)  # type: ignore[arg-type]  # typeshed knows EmailPolicy


@pytest.mark.needs("idna")
def test_addresses_are_kept_in_normal_form() -> None:
    envelope = Envelope("Ann <a@x.example>", ["b@bücher.example", '"c"@y.example', "D <d@Z.example>"])
    assert envelope.sender == "a@x.example"
    assert envelope.recipients == ("b@xn--bcher-kva.example", "c@y.example", "d@Z.example")
    assert [mailbox.addr_spec for mailbox in envelope.mailboxes] == list(envelope.recipients)
    assert envelope.sender_mailbox is not None
    assert envelope.sender_mailbox.domain == "x.example"


@pytest.mark.parametrize("sender", ["", None, "<>"])
def test_the_null_reverse_path(sender: str | None) -> None:
    envelope = Envelope(sender, ["b@y.example"])
    assert envelope.sender == ""
    assert envelope.sender_mailbox is None


def test_each_recipient_once_in_order() -> None:
    envelope = Envelope("a@x", ["b@y.example", "c@y", "B <b@Y.EXAMPLE>", "B@y.example", "c@y"])
    assert envelope.recipients == ("b@y.example", "c@y", "B@y.example")


def test_one_string_is_one_recipient() -> None:
    assert Envelope("a@x", "b@y").recipients == ("b@y",)


def test_generators_are_read_once() -> None:
    assert Envelope("a@x", (f"{name}@y" for name in "bc")).recipients == ("b@y", "c@y")


@pytest.mark.parametrize("recipients", [[], (), iter(())])
def test_without_recipients_there_is_no_envelope(recipients: list[str]) -> None:
    with pytest.raises(InvalidMessage, match="no recipient"):
        Envelope("a@x", recipients)


@pytest.mark.parametrize(
    "bad", ["", "b", "b@y\r\nDATA", "b@y, c@z", "x: b@y;", "b@y> ORCPT=x", None, b"b@y", 3, ("B", "b@y")]
)
def test_bad_recipients_are_refused(bad: str) -> None:
    with pytest.raises(InvalidAddress, match="Invalid address"):
        Envelope("a@x", ["good@y", bad])


@pytest.mark.parametrize("bad", ["a", "a@x\n", "a@x, b@y", 3, b"a@x"])
def test_bad_senders_are_refused(bad: str) -> None:
    with pytest.raises(InvalidAddress, match="Invalid address"):
        Envelope(bad, ["b@y"])


@pytest.mark.parametrize(
    ("sender", "recipient", "needed"),
    [
        ("a@x", "b@y", False),
        ("ü@x", "b@y", True),
        ("a@x", "ü@y", True),
        ("a@ü.example", "b@y", False),
        ("", "ü@y", True),
    ],
)
@pytest.mark.needs("idna")
def test_smtputf8_is_needed_for_local_parts_alone(sender: str, recipient: str, needed: bool) -> None:
    assert Envelope(sender, recipient).needs_smtputf8 is needed


def test_envelopes_are_values() -> None:
    envelope = Envelope("a@x", ["b@y", "ü@z"])
    assert pickle.loads(pickle.dumps(envelope)) == envelope == copy.deepcopy(envelope)
    assert pickle.loads(pickle.dumps(envelope)).mailboxes == envelope.mailboxes
    assert hash(Envelope("A <a@x>", ["b@y", "ü@z"])) == hash(envelope)
    assert envelope != Envelope("a@x", ["ü@z", "b@y"])
    assert replace(envelope, sender="c@x") == Envelope("c@x", ["b@y", "ü@z"])
    assert repr(envelope) == "<Envelope for 2 recipient(s)>"
    with pytest.raises(FrozenInstanceError):
        envelope.sender = "evil@x"  # type: ignore[misc]


HEADERS: list[tuple[str, str, list[str]]] = [
    ("From: a@x\nTo: b@y\n", "a@x", ["b@y"]),
    ("From: Ann <a@x>, c@x\nTo: b@y, D <d@y>\nCc: e@y\nBcc: f@y\n", "a@x", ["b@y", "d@y", "e@y", "f@y"]),
    ("Sender: s@x\nFrom: a@x, c@x\nTo: b@y\n", "s@x", ["b@y"]),
    ("From: a@x\nTo: b@y,\n c@y,\n\td@y\n", "a@x", ["b@y", "c@y", "d@y"]),
    ("From: a@x\nTo: b@y\nTo: c@y\nBcc: d@y\nBcc: e@y\n", "a@x", ["b@y", "c@y", "d@y", "e@y"]),
    ("From: a@x\nTo: list: b@y, c@y;\nCc: b@y\n", "a@x", ["b@y", "c@y"]),
    ("From: a@x\nTo: undisclosed-recipients:;\nBcc: b@y\n", "a@x", ["b@y"]),
    ("FROM: a@x\ntO: b@y\n", "a@x", ["b@y"]),
    ("From: =?utf-8?q?J=C3=B6rg=2C?= <a@x>\nTo: b@y\n", "a@x", ["b@y"]),
    ("From: a@x\nTo: =?utf-8?q?evil=40z?=@y\n", "a@x", ["=?utf-8?q?evil=40z?=@y"]),
    ("From: a@x\nTo: jörg@y\nCc: Jörg <c@y>\n", "a@x", ["jörg@y", "c@y"]),
    ("From: a@x\nTo: b@y\nResent-From: r@x\nResent-To: c@y\nResent-Bcc: d@y\n", "r@x", ["c@y", "d@y"]),
    (
        "From: a@x\nTo: b@y\nResent-Date: now\nResent-Sender: s@x\nResent-From: r@x\nResent-Cc: c@y\n",
        "s@x",
        ["c@y"],
    ),
    ("From: a@x\nTo: b@y (comment, c@d)\n", "a@x", ["b@y"]),
]


@POLICIES
@pytest.mark.parametrize(("text", "sender", "recipients"), HEADERS)
def test_header_fields_tell_the_envelope(
    text: str, sender: str, recipients: list[str], rules: policy.Policy
) -> None:
    envelope = Envelope.from_message(parsed(text + "\nbody", rules))
    assert envelope.sender == sender
    assert list(envelope.recipients) == recipients


@POLICIES
@pytest.mark.parametrize(
    "text",
    [
        "From: a@x\nTo: user@good.example(x)evil.example\n",
        "From: a@x\nTo: b@y c@z\n",
        "From: a@x\nTo: <@a:b@c>\n",
        "From: a@x\nTo: a@b <c@d>\n",
        "From: a@x\nTo: Name\n",
        'From: a@x\nTo: "foo@psres.net> ORCPT=admin@admin.com"@test.com\n',
        "From: a@x\nSubject: no recipient\n",
        "To: b@y\n",
        "From: undisclosed:;\nTo: b@y\n",
        "From: a@x\nTo: b@y\nResent-To: c@y\n",
        "From: a@x\nResent-Date: x\nResent-Date: y\nResent-From: r@x\nResent-To: c@y\n",
        "From: a@x\nResent-From: q@x\nResent-From: r@x\nResent-To: c@y\n",
    ],
)
def test_messages_without_a_clear_envelope_are_refused(text: str, rules: policy.Policy) -> None:
    with pytest.raises(InvalidMessage):
        Envelope.from_message(parsed(text + "\nbody", rules))


@POLICIES
def test_bytes_that_are_no_utf8_may_stand_in_names_only(rules: policy.Policy) -> None:
    assert Envelope.from_message(parsed(b"From: a@x\nTo: J\xf6rg <b@y>\n\n", rules)).recipients == ("b@y",)
    with pytest.raises(InvalidAddress):
        Envelope.from_message(parsed(b"From: a@x\nTo: j\xf6rg@y\n\n", rules))


@pytest.mark.parametrize(
    "value",
    [
        "user@good.example(x)evil.example",
        "=?utf-8?q?evil=40z?=@y",
        "a@b@c",
        "a@b <c@d>",
        '"a"b@c <x@y>',
        "a b@c",
        "<b@y",
    ],
)
def test_what_the_email_package_repaired_is_refused(value: str) -> None:
    message = EmailMessage()
    message["From"], message["To"] = "a@x", value
    with pytest.raises(InvalidAddress):
        Envelope.from_message(message)


def test_messages_made_by_programs() -> None:
    modern = EmailMessage()
    modern["From"], modern["To"] = "Jörg <a@x>", '"Q. D" <b@y>, J. Q. <c@y>'
    older = MIMEText("x")
    older["From"], older["To"] = Header("Jörg", "utf-8").encode() + " <a@x>", '"Q. D" <b@y>, J. Q. <c@y>'
    wrapped = MIMEText("x")
    wrapped["From"], wrapped["To"] = Header("Jörg <a@x>", "utf-8"), Header("b@y, c@y")  # type: ignore[assignment]
    for message in (modern, older, wrapped):
        assert Envelope.from_message(message) == Envelope("a@x", ["b@y", "c@y"])


EXTENSIONS: dict[str, Any] = {
    "dsn": {"ret": "HDRS", "envid": "QQ314159", "notify": ["SUCCESS"]},
    "require_tls": True,
    "deliver_by": 120,
    "send_at": 60,
    "mt_priority": 3,
    "body": "8bitmime",
    "prefer": ["DSN"],
    "require": ("MT-PRIORITY",),
}


def test_options_are_part_of_the_value() -> None:
    plain = Envelope("a@x", ["b@y"])
    wishing = Envelope("a@x", ["b@y"], **EXTENSIONS)
    assert wishing.dsn == DSN(ret="HDRS", envid="QQ314159", notify="SUCCESS")
    assert (wishing.deliver_by, wishing.send_at, wishing.mt_priority) == (DeliverBy(120), 60, 3)
    assert (wishing.require_tls, wishing.body) == (True, "8bitmime")
    assert (wishing.prefer, wishing.require) == (("DSN",), ("MT-PRIORITY",))
    assert wishing != plain
    assert wishing == Envelope("a@x", ["b@y"], **EXTENSIONS)
    assert pickle.loads(pickle.dumps(wishing)) == wishing == replace(plain, **EXTENSIONS)
    assert hash(pickle.loads(pickle.dumps(wishing))) == hash(wishing)
    for name in EXTENSIONS:
        assert Envelope("a@x", ["b@y"], **{**EXTENSIONS, name: None}) != wishing
        assert name in repr(wishing)


def test_none_is_not_given() -> None:
    assert Envelope("a@x", ["b@y"], **dict.fromkeys(EXTENSIONS)) == Envelope("a@x", ["b@y"])


def test_recipients_with_options_of_their_own() -> None:
    envelope = Envelope(
        "a@x", ["b@y", Recipient("C <c@y>", notify="NEVER"), Recipient("d@y"), Recipient("B@y", orcpt="l@y")]
    )
    assert envelope.recipients == ("b@y", "c@y", "d@y", "B@y")
    assert [each.address for each in envelope.recipient_options] == ["c@y", "B@y"]
    assert envelope.recipient_options[0] == Recipient("c@y", notify="NEVER")
    assert replace(envelope, sender="z@x").recipient_options == envelope.recipient_options
    assert Envelope("a@x", Recipient("b@y", notify="DELAY")).recipients == ("b@y",)
    given = {"c@y": {"notify": "NEVER"}, "B@y": {"orcpt": "l@y"}}
    assert Envelope("a@x", ["b@y", "c@y", "d@y", "B@y"], recipient_options=given) == envelope


def test_of_two_options_for_one_recipient_the_first_counts() -> None:
    envelope = Envelope("a@x", ["b@y", Recipient("b@Y", notify="NEVER"), Recipient("b@y", notify="DELAY")])
    assert envelope.recipient_options == (Recipient("b@y", notify="NEVER"),)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dns": {"ret": "HDRS"}}, "Did you mean 'dsn'"),
        ({"use8BitMime": True}, "Unknown envelope option"),
        ({"dsn": "NEVER"}, "a mapping, not str"),
        ({"dsn": {"orcpt": "l@y"}}, "several recipients"),
        ({"require_tls": "yes"}, "require_tls is true or false"),
        ({"deliver_by": "soon"}, "deliver_by"),
        ({"send_at": 0}, "send_at"),
        ({"mt_priority": 10}, "mt_priority"),
        ({"body": "9bit"}, "body is one of"),
        ({"prefer": ["SIZE"]}, "prefer names 'SIZE'"),
        ({"require": 3}, "require is a list"),
        ({"prefer": "DSN", "require": ["dsn"]}, "DSN can't be both"),
        ({"recipient_options": [Recipient("z@y", notify="NEVER")]}, "z@y, who is no recipient"),
        ({"recipient_options": ["b@y"]}, "holds Recipients, not str"),
        ({"recipient_options": {"b@y": {"notfy": "NEVER"}}}, "Did you mean .*notify"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidMessage, match=complaint):
        Envelope("a@x", ["b@y", "c@y"], **options)


def test_header_fields_and_options_together() -> None:
    message = parsed("From: a@x\nTo: b@y\n\n", policy.default)
    assert Envelope.from_message(message, mt_priority=3) == Envelope("a@x", ["b@y"], mt_priority=3)


def test_the_reports_of_a_configuration() -> None:
    default = DSN(ret="HDRS", notify="FAILURE")
    envelope = Envelope("a@x", ["b@y"], prefer=["REQUIRETLS"])
    assert envelope.with_default_dsn(default).dsn == default
    assert envelope.with_default_dsn(default).prefer == ("DSN", "REQUIRETLS")
    assert replace(envelope, require=["DSN"]).with_default_dsn(default).prefer == ("REQUIRETLS",)
    own = Envelope("a@x", [Recipient("b@y", notify="NEVER")])
    assert own.with_default_dsn(default).prefer == ()
    for untouched in (
        replace(envelope, dsn=DSN()),
        replace(envelope, dsn={"ret": "FULL"}),
        Envelope("", "b@y"),
    ):
        assert untouched.with_default_dsn(default) is untouched
    assert envelope.with_default_dsn(None) is envelope
