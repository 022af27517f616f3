"""Transactions: who is accepted, what is committed, and replies that a test chooses."""

from __future__ import annotations

import smtplib

import pytest

from mailbridge.testing import ReceivedMessage, ScriptedServer

from .conftest import Dial


def test_what_is_committed(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x> BODY=8BITMIME SIZE=20", b"RCPT TO:<b@y>", b"RCPT TO:<c@z>", b"DATA")
        reply = client.say("..dot\r\nä\r\n.".encode())
        assert reply == b"250 2.0.0 Ok: queued as 000100005\r\n"
        assert server.messages == (
            ReceivedMessage(
                sender="a@x",
                recipients=("b@y", "c@z"),
                content=".dot\r\nä\r\n".encode(),
                raw="..dot\r\nä\r\n.\r\n".encode(),
                connection=1,
                mail_parameters=("BODY=8BITMIME", "SIZE=20"),
            ),
        )


def test_content_in_single_bytes(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA")
        [record] = server.connections
        for byte in b"..\r\n...a\r\n\r\n..\r\n.\r\n":
            due = len(record.clear_text) + 1
            client.send(bytes([byte]))
            server.wait_for(lambda due=due: len(record.clear_text) == due)  # type: ignore[misc]
        client.read_reply()
        assert server.messages[0].content == b".\r\n..a\r\n\r\n.\r\n"


def test_smtplib_with_dots_and_a_large_message() -> None:
    body = "Subject: dots\r\n\r\n" + ".a\r\n..b\r\nc.\r\n.\r\n" * 200_000
    with (
        ScriptedServer() as server,
        smtplib.SMTP(server.host, server.port, timeout=20) as client,
    ):
        client.sendmail("a@x", ["b@y"], body)
        assert server.messages[0].content == body.encode()


def test_committed_before_it_is_said_and_once(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        for number in range(1, 4):
            client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA", b"text\r\n.")
            assert len(server.messages) == number


def test_client_leaves_in_the_content(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA")
        client.send(b"half a mess")
        client.close()
        server.wait_for(lambda: server.connections[0].closed_by == "client")
        assert server.messages == ()


def test_client_leaves_behind_the_dot(dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA")
        client.send(b"text\r\n.\r\n")
        client.close()
        server.wait_for(lambda: server.messages)


def test_replies_by_recipient(dial: Dial) -> None:
    with ScriptedServer(rcpt_replies={"gone@x": "550 5.1.1 no"}) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>")
        assert client.say(b"RCPT TO:<gone@x>") == b"550 5.1.1 no\r\n"
        assert client.say(b"RCPT TO:<here@x>").startswith(b"250")
        client.say(b"DATA", b"text\r\n.")
        assert server.messages[0].recipients == ("here@x",)


def test_replies_by_callable(dial: Dial) -> None:
    with ScriptedServer(
        mail_replies=lambda sender: "550 5.7.1 no" if sender == "spam@x" else None,
        rcpt_replies=lambda recipient: b"450 4.2.0 later\r\n" if recipient.startswith("b") else None,
        final_replies=lambda message: "554 5.6.0 no" if b"virus" in message.content else None,
    ) as server:
        client = dial(server).greet()
        assert client.say(b"MAIL FROM:<spam@x>") == b"550 5.7.1 no\r\n"
        assert client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>") == b"450 4.2.0 later\r\n"
        assert client.say(b"RCPT TO:<c@y>", b"DATA", b"a virus\r\n.") == b"554 5.6.0 no\r\n"
        assert client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<c@y>", b"DATA", b"text\r\n.").startswith(b"250")
        assert [message.content for message in server.messages] == [b"text\r\n"]


def test_one_reply_for_all(dial: Dial) -> None:
    with ScriptedServer(final_replies="451 4.3.0 later") as server:
        client = dial(server).greet()
        assert client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA", b"t\r\n.") == b"451 4.3.0 later\r\n"
        assert server.messages == ()


def test_a_nested_mail_that_is_accepted_begins_anew(dial: Dial) -> None:
    with ScriptedServer(mail_replies="250 fine") as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<old@y>", b"MAIL FROM:<b@x>", b"RCPT TO:<new@y>")
        client.say(b"DATA", b"t\r\n.")
        [message] = server.messages
        assert (message.sender, message.recipients) == ("b@x", ("new@y",))


def test_a_421_closes(dial: Dial) -> None:
    with ScriptedServer(mail_replies="421 4.3.2 bye") as server:
        client = dial(server).greet()
        client.send(b"MAIL FROM:<a@x>\r\n")
        assert client.read_to_end() == b"421 4.3.2 bye\r\n"


def test_limit_of_recipients(dial: Dial) -> None:
    with ScriptedServer(max_recipients=2) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>")
        replies = [client.say(b"RCPT TO:<%d@y>" % number)[:9] for number in range(4)]
        assert replies == [b"250 2.1.5", b"250 2.1.5", b"452 4.5.3", b"452 4.5.3"]
        client.say(b"DATA", b"t\r\n.")
        assert client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<3@y>").startswith(b"250")


def test_354_although_nobody_was_accepted(dial: Dial) -> None:
    with ScriptedServer(rcpt_replies="550 no", data_reply="354 go on") as server:
        client = dial(server).greet()
        assert client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA") == b"354 go on\r\n"
        assert client.say(b".").startswith(b"554 5.5.1")
        assert server.messages == ()


def test_no_data_without_recipients(dial: Dial) -> None:
    with ScriptedServer(rcpt_replies="550 no") as server:
        client = dial(server).greet()
        assert client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA").startswith(b"554 5.5.1")


def test_refused_data_leaves_the_transaction_open(dial: Dial) -> None:
    with ScriptedServer(data_reply={"a@x": "451 4.3.0 later"}) as server:
        client = dial(server).greet()
        assert client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA").startswith(b"451")
        assert client.say(b"MAIL FROM:<c@x>").startswith(b"503 5.5.1 Nested")
        assert client.say(b"RSET", b"MAIL FROM:<c@x>", b"RCPT TO:<b@y>", b"DATA").startswith(b"354")
        client.say(b"t\r\n.")
        assert server.messages[0].sender == "c@x"


@pytest.mark.parametrize("between", [b"RSET", b"EHLO c", b"HELO c"])
def test_what_ends_a_transaction(between: bytes, dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", between)
        assert client.say(b"RCPT TO:<b@y>").startswith(b"503")
        assert client.say(b"DATA").startswith(b"503")


def test_sizes(dial: Dial) -> None:
    with ScriptedServer(keywords=["SIZE 100"]) as server:
        client = dial(server).greet()
        assert client.say(b"MAIL FROM:<a@x> SIZE=101").startswith(b"552")
        assert client.say(b"MAIL FROM:<a@x> SIZE=100").startswith(b"250")
        assert client.say(b"RCPT TO:<b@y>", b"DATA", b"x" * 100 + b"\r\n.").startswith(b"552")
        assert server.messages == ()


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (b"<>", ""),
        (b'<"a>b"@x>', '"a>b"@x'),
        (b'<"a\\"b"@x>', '"a\\"b"@x'),
        ("<jürgen@x>".encode(), "jürgen@x"),
    ],
)
def test_addresses(path: bytes, address: str, dial: Dial) -> None:
    with ScriptedServer() as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:" + path + b" SMTPUTF8", b"RCPT TO:<b@y>", b"DATA", b"t\r\n.")
        assert server.messages[0].sender == address


@pytest.mark.parametrize("rest", [b"FROM:a@x", b"FROM: <a@x>", b"TO:<a@x>", b"FROM:<a@x>x", b"FROM:<a>b@x>"])
def test_malformed_paths(rest: bytes, dial: Dial) -> None:
    with ScriptedServer(strict=False) as server:
        assert dial(server).greet().say(b"MAIL " + rest).startswith(b"501")
        assert "malformed path" in server.violations[0]


def test_parameters_of_known_extensions(dial: Dial) -> None:
    with ScriptedServer(keywords=["DSN", "REQUIRETLS"], strict=False) as server:
        client = dial(server).greet()
        assert client.say(b"MAIL FROM:<a@x> RET=HDRS ENVID=q REQUIRETLS").startswith(b"250")
        assert client.say(b"RCPT TO:<b@y> NOTIFY=NEVER ORCPT=rfc822;b@y").startswith(b"250")
        assert client.say(b"RCPT TO:<b@y> XYZ=1").startswith(b"555")


def test_violations_in_content(dial: Dial) -> None:
    with ScriptedServer(strict=False) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA", b"bare\nline\r\n.")
        assert "bare CR or LF" in server.violations[0]


def test_commands_behind_the_dot_need_pipelining(dial: Dial) -> None:
    with ScriptedServer(keywords=[], strict=False) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA")
        client.send(b"t\r\n.\r\nRSET\r\n")
        assert client.read_reply().startswith(b"250")
        assert client.read_reply().startswith(b"250")
        assert "reply to the final dot" in server.violations[0]
