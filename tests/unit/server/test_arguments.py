"""The arguments of MAIL and RCPT: one mailbox and nothing that could be taken for another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.server.arguments import parse_path
from mailbridge.server.reject import Reject


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("FROM:<a@b.example>", ("a@b.example", {})),
        ("from: <a@b.example>", ("a@b.example", {})),
        ("FROM:<>", ("", {})),
        ("FROM:<> BODY=8BITMIME", ("", {"BODY": "8BITMIME"})),
        ("FROM:<a@b.example> size=12  SMTPUTF8", ("a@b.example", {"SIZE": "12", "SMTPUTF8": ""})),
        ("FROM:<@relay.example,@b.example:a@c.example>", ("a@c.example", {})),
        ('FROM:<"a b"@c.example>', ('"a b"@c.example', {})),
        ('FROM:<"a(b"@c.example>', ('"a(b"@c.example', {})),
        ("FROM:<a@[192.0.2.1]>", ("a@[192.0.2.1]", {})),
        ("FROM:<a@[IPv6:2001:db8::1]>", ("a@[IPv6:2001:db8::1]", {})),
        ("FROM:<post\u00e9@b.example>", ("post\u00e9@b.example", {})),
        ("FROM:<Postmaster>", ("Postmaster", {})),
    ],
)
def test_a_path(argument: str, expected: object) -> None:
    assert parse_path(argument, "FROM:") == expected


@pytest.mark.parametrize(
    "argument",
    [
        None,
        "",
        "FROM:",
        "FROM:a@b.example",
        "TO:<a@b.example>",
        "FROM:<a@b.example",
        "FROM:<a@b.example>SIZE=1",
        "FROM:<a@b.example> SIZE=1 SIZE=2",
        "FROM:<a@b.example> SIZE==1",
        "FROM:<a@b.example> -X=1",
        "FROM:<a@b.example> X=\u00e9",
        "FROM:<a>",
        "FROM:<user@good.example(x)evil.example>",
        "FROM:<(x)a@b.example>",
        "FROM:< a@b.example>",
        "FROM:<a@b.example >",
        "FROM:<a@b.example,c@d.example>",
        "FROM:<Name <a@b.example>>",
        "FROM:<a@b.example> <c@d.example>",
        "FROM:<a\x1b@b.example>",
        "FROM:<a@b.example\udcff>",
        "FROM:<" + "a" * 300 + "@b.example>",
        "FROM:<" + "(" * 2000 + ">",
    ],
)
def test_no_path(argument: str | None) -> None:
    with pytest.raises(Reject) as caught:
        parse_path(argument, "FROM:")
    assert caught.value.code in (501, 553)


@given(st.text(max_size=60))
def test_whatever_comes_is_a_path_or_a_refusal(text: str) -> None:
    try:
        address, _ = parse_path(f"TO:<{text}>", "TO:")
    except Reject:
        return
    assert not set(address) & set("\r\n\0<>")
