"""Commands: the exact bytes, what logs may show, and that nothing can be smuggled in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import InvalidMessage
from mailbridge.smtp import commands
from mailbridge.smtp.commands import Command


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (commands.ehlo("me.example"), b"EHLO me.example\r\n"),
        (commands.helo("[192.0.2.1]"), b"HELO [192.0.2.1]\r\n"),
        (commands.mail_from("a@x.example"), b"MAIL FROM:<a@x.example>\r\n"),
        (commands.mail_from(""), b"MAIL FROM:<>\r\n"),
        (
            commands.mail_from("a@x.example", ["SIZE=5", "SMTPUTF8"]),
            b"MAIL FROM:<a@x.example> SIZE=5 SMTPUTF8\r\n",
        ),
        (commands.rcpt_to("ü@x.example"), "RCPT TO:<ü@x.example>\r\n".encode()),
        (commands.auth("PLAIN", b"\0u\0p"), b"AUTH PLAIN AHUAcA==\r\n"),
        (commands.auth("LOGIN", None), b"AUTH LOGIN\r\n"),
        (commands.auth("EXTERNAL", b""), b"AUTH EXTERNAL =\r\n"),
        (commands.auth_response(b"u"), b"dQ==\r\n"),
        (commands.auth_response(b""), b"\r\n"),
        (commands.STARTTLS, b"STARTTLS\r\n"),
        (commands.AUTH_CANCEL, b"*\r\n"),
        (commands.lhlo("me.example"), b"LHLO me.example\r\n"),
        (commands.DATA, b"DATA\r\n"),
        (commands.bdat(100000), b"BDAT 100000\r\n"),
        (commands.bdat(0, last=True), b"BDAT 0 LAST\r\n"),
        (commands.RSET, b"RSET\r\n"),
        (commands.NOOP, b"NOOP\r\n"),
        (commands.QUIT, b"QUIT\r\n"),
    ],
)
def test_the_exact_bytes(command: Command, line: bytes) -> None:
    assert bytes(command) == line


@pytest.mark.parametrize("character", ["\r", "\n", "\r\n", "\0", "\x1b", "\x7f", "\t"])
@pytest.mark.parametrize("make", [commands.mail_from, commands.rcpt_to])
def test_no_control_character_gets_into_a_line(make: object, character: str) -> None:
    with pytest.raises(InvalidMessage, match="no control character"):
        make(f"a{character}RCPT TO:<evil@x>")  # type: ignore[operator]


@given(st.text())
def test_a_command_is_one_line_or_an_error(text: str) -> None:
    try:
        line = bytes(commands.rcpt_to(text))
    except (InvalidMessage, UnicodeEncodeError):
        return
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert line.endswith(b"\r\n")


def test_secrets_are_masked_in_repr_and_in_errors() -> None:
    assert repr(commands.auth("PLAIN", b"\0u\0hunter2")) == "<Command AUTH PLAIN ***>"
    assert repr(commands.auth_response(b"hunter2")) == "<Command ***>"
    with pytest.raises(InvalidMessage) as caught:
        Command(b"hunter2\r", "auth", secret=True)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "command", [commands.ehlo("x"), commands.STARTTLS, commands.DATA, commands.NOOP, commands.QUIT]
)
def test_what_ends_a_group(command: Command) -> None:
    """RFC 2920 section 3.1."""
    assert command.ends_group


def test_what_may_be_pipelined() -> None:
    assert not any(
        c.ends_group
        for c in (commands.RSET, commands.mail_from("a@x.example"), commands.rcpt_to("b@y.example"))
    )
