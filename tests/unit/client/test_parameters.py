"""The parameters of MAIL and RCPT as bytes would show them, and the lengths that servers must take."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.client import parameters
from mailbridge.errors import InvalidMessage
from mailbridge.message.delivery_options import DSN, DeliverBy
from mailbridge.smtp import commands, xtext


def test_reports_of_a_message() -> None:
    # RFC 3461 section 10.1
    assert parameters.dsn_of_message(DSN(ret="HDRS", envid="QQ314159"), None) == [
        "RET=HDRS",
        "ENVID=QQ314159",
    ]
    assert parameters.dsn_of_message(DSN(envid="a+b c=d"), None) == ["ENVID=a+2Bb+20c+3Dd"]
    assert parameters.dsn_of_message(DSN(notify="NEVER"), "<a@b>") == []
    assert parameters.dsn_of_message(DSN(ret="FULL"), None) == ["RET=FULL"]
    assert parameters.dsn_of_message(DSN(ret="FULL"), None, headers_only=True) == ["RET=HDRS"]


@pytest.mark.parametrize(
    ("message_id", "written"),
    [
        ("<a+b@x.example>", ["ENVID=a+2Bb@x.example"]),
        (None, []),
        ("<>", []),
        ("<ü@x>", []),
        ("<a\tb@x>", []),
        (f"<{'x' * 94}>", [f"ENVID={'x' * 94}"]),
        (f"<{'x' * 95}>", []),
    ],
)
def test_the_message_id_as_envid(message_id: str | None, written: list[str]) -> None:
    assert parameters.dsn_of_message(DSN(envid="message-id"), message_id) == written


@pytest.mark.parametrize(
    ("address", "notify", "orcpt", "written"),
    [
        # RFC 3461 section 10.1: Bob, Dana and Fred
        ("Bob@Example.COM", ("SUCCESS",), None, ["NOTIFY=SUCCESS", "ORCPT=rfc822;Bob@Example.COM"]),
        (
            "Dana@Ivory.EDU",
            ("SUCCESS", "FAILURE"),
            None,
            ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Dana@Ivory.EDU"],
        ),
        ("Fred@Bombs.AF.MIL", ("NEVER",), None, ["NOTIFY=NEVER"]),
        # RFC 3461 section 10.5
        (
            "Sam@Boondoggle.GOV",
            ("SUCCESS",),
            "rfc822;George@Tax-ME.GOV",
            ["NOTIFY=SUCCESS", "ORCPT=rfc822;George@Tax-ME.GOV"],
        ),
        ("Fred@x", ("NEVER",), "rfc822;F@y", ["NOTIFY=NEVER", "ORCPT=rfc822;F@y"]),
        ("b+tag@x", (), None, ["ORCPT=rfc822;b+2Btag@x"]),
        ('"a b"@x', (), None, ['ORCPT=rfc822;"a+20b"@x']),
        ("grüße@x", (), None, ["ORCPT=utf-8;gr\\x{FC}\\x{DF}e@x"]),  # RFC 6533 section 3
        ("b@x", (), "utf-8;b+ü@x", ["ORCPT=utf-8;b\\x{2B}\\x{FC}@x"]),
    ],
)
def test_reports_of_a_recipient(
    address: str, notify: tuple[str, ...], orcpt: str | None, written: list[str]
) -> None:
    assert parameters.dsn_of_recipient(address, notify, orcpt) == written


def test_an_original_recipient_that_gets_too_long() -> None:
    long = "世" * 80 + "@x"  # 8 characters each
    assert parameters.dsn_of_recipient(long, (), None) == []
    with pytest.raises(InvalidMessage, match=r"RFC 3461 section 4\.2"):
        parameters.dsn_of_recipient("b@x", (), f"utf-8;{long}")


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_addresses_survive_and_no_line_is_ended(address: str) -> None:
    for parameter in parameters.dsn_of_recipient(address, (), None):
        name, _, value = parameter.partition("=")
        kind, _, encoded = value.partition(";")
        assert name == "ORCPT"
        assert set(parameter) <= set(map(chr, range(33, 127)))
        assert "=" not in value
        decode = xtext.decode if kind == "rfc822" else xtext.decode_address
        assert decode(encoded) == address


@pytest.mark.parametrize(
    ("wish", "written"),
    [
        (DeliverBy(120, "R"), "BY=120;R"),
        (DeliverBy(0), "BY=0;N"),
        (DeliverBy(-30), "BY=-30;N"),
        (DeliverBy(120, "R", True), "BY=120;RT"),
    ],
)
def test_deliver_by(wish: DeliverBy, written: str) -> None:
    assert parameters.deliver_by(wish) == written


def test_holding() -> None:
    assert parameters.hold(86400) == "HOLDFOR=86400"
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert parameters.hold(moment) == "HOLDUNTIL=2030-01-02T02:04:05Z"
    assert parameters.hold(datetime(999, 1, 1, tzinfo=UTC)).startswith("HOLDUNTIL=")


def test_priorities() -> None:
    assert [parameters.priority(n) for n in (-9, 0, 9)] == [
        "MT-PRIORITY=-9",
        "MT-PRIORITY=0",
        "MT-PRIORITY=9",
    ]


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ([], 512),
        (["SIZE=1"], 538),
        (["SIZE=1", "BODY=8BITMIME"], 555),
        (["ORCPT=rfc822;a@b"], 1013),
        (["RET=HDRS", "ENVID=x", "REQUIRETLS", "SMTPUTF8"], 512 + 9 + 101 + 11 + 10),
        (["BY=1;R", "HOLDFOR=1", "MT-PRIORITY=1"], 512 + 17 + 34 + 15),
        (["HOLDUNTIL=2030-01-02T02:04:05Z", "NOTIFY=NEVER"], 512 + 34 + 29),
    ],
)
def test_the_longest_line(said: list[str], allowed: int) -> None:
    line = "MAIL FROM:<>" + "".join(f" {each}" for each in said)
    address = "x" * (allowed - len(line) - 2)
    parameters.require_length(commands.mail_from, address, said)
    with pytest.raises(InvalidMessage, match=rf"{allowed + 1} bytes, and servers take {allowed}") as raised:
        parameters.require_length(commands.mail_from, address + "x", said)
    assert raised.value.stage == "mail_from"
