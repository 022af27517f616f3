"""Dialogues: read as they are written, played byte for byte, and failures that show what differs."""

from __future__ import annotations

import smtplib

import pytest

from mailbridge.testing import Dialogue, ScriptedServer

from .conftest import Certificate, Dial

OPENING = ("S: 220 hi", "C: (?i)EHLO .*", "S: 250-x\r\n250 PIPELINING")


def steps(dialogue: Dialogue) -> list[tuple[str, bytes]]:
    return [(step.marker, step.data) for step in dialogue.steps]


def test_one_text_or_many_reads_the_same() -> None:
    block = """
        # a remark
        S: 220 hi
        C: EHLO .*

        S: 250-x
        S: 250 PIPELINING
        ! close
    """
    lines = ("S: 220 hi", "C: EHLO .*", "S: 250-x", "S: 250 PIPELINING", "! close")
    expected = [
        ("S:", b"220 hi"), ("C:", b"EHLO .*"), ("S:", b"250-x"), ("S:", b"250 PIPELINING"), ("!", b"close")
    ]  # fmt: skip
    assert steps(Dialogue(block)) == steps(Dialogue(*lines)) == expected


def test_steps_that_hold_line_ends_and_bytes() -> None:
    assert steps(Dialogue("S: 250-x\r\n250 y", b"S- \xff \n", "C= a", "S-  b")) == [
        ("S:", b"250-x\r\n250 y"), ("S-", b"\xff \n"), ("C=", b"a"), ("S-", b" b")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("220 hi", "not a step"),
        ("! explode", "unknown action 'explode'"),
        ("! extra", "needs reply="),
        ("C: ...", "needs another C step"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Dialogue(text)
    with pytest.raises(ValueError, match="unknown feed"):
        Dialogue("S: 220 hi", feed="slowly")  # type: ignore[arg-type]


def test_a_dialogue_with_smtplib() -> None:
    dialogue = Dialogue(
        *OPENING,
        "C: (?i)MAIL FROM:<a@x.example>",
        "S: 250 ok",
        r"C: (?i)RCPT TO:<b\+c@y.example>",
        "S: 250 ok",
        "C: (?i)DATA",
        "S: 354 go",
        "C: ...",
        "C: .",
        "S: 250 queued",
        "C: QUIT",
        "S: 221 bye",
    )
    with ScriptedServer([dialogue]) as server:
        with smtplib.SMTP(server.host, server.port, timeout=5) as client:
            client.sendmail("a@x.example", ["b+c@y.example"], "Subject: s\r\n\r\n.text\r\n")
        [message] = server.messages
        assert (message.sender, message.recipients) == ("a@x.example", ("b+c@y.example",))
        assert message.content == b"Subject: s\r\n\r\n.text\r\n"
        assert server.connections[0].verbs == ("EHLO", "MAIL", "RCPT", "DATA", "QUIT")


@pytest.mark.parametrize("feed", ["whole", "line", "byte"])
def test_how_lines_are_fed(feed: str, pieces: list[bytes], dial: Dial) -> None:
    with ScriptedServer([Dialogue(*OPENING, feed=feed)]) as server:  # type: ignore[arg-type]
        client = dial(server)
        assert client.read_reply() == b"220 hi\r\n"
        pieces.clear()
        reply = b"250-x\r\n250 PIPELINING\r\n"
        assert client.say(b"EHLO me") == reply
        client.close()
        expected = {"whole": [reply], "line": reply.splitlines(True), "byte": [bytes([b]) for b in reply]}
        assert pieces == expected[feed]


def test_another_line_than_expected(dial: Dial) -> None:
    server = ScriptedServer([Dialogue(*OPENING, "C: MAIL FROM:<a@x>", "S: 250 ok")])
    with pytest.raises(AssertionError) as caught, server:  # noqa: PT012 - leaving the server's context raises
        client = dial(server)
        client.read_reply()
        client.say(b"EHLO me")
        client.send(b"MAIL FROM:<b@x> SIZE=10\r\n")
        assert client.read_to_end() == b""
    assert str(caught.value) == "\n".join(
        [
            "connection 1, step 4 of 5: the client said something else",
            "    S: 220 hi",
            "    C: EHLO me",
            "    S: 250-x\\r\\n250 PIPELINING",
            "  - C: MAIL FROM:<a@x>    (expected)",
            "  + C: MAIL FROM:<b@x> SIZE=10    (got)",
        ]
    )


@pytest.mark.parametrize(
    ("steps_of_it", "sent", "words"),
    [
        (("S: 220 hi", "C: EHLO a"), b"", "the connection ended (closed by client)"),
        (("S: 220 hi", "C: EHLO a", "S: 250 x"), b"EHLO a\r\nNOOP\r\n", "said more than the dialogue has"),
        (("S: 220 hi", "C: EHLO a"), b"EHLO a\n", "bare LF"),
        (("S: 220 hi", "! eof"), b"EHLO a\r\n", "said more than the dialogue has"),
        (("S: 220 hi", "C= EHLO .*"), b"EHLO a\r\n", "said something else"),
        (("S: 220 hi", "C: EHLO ("), b"EHLO a\r\n", "said something else"),
    ],
)
def test_failures(steps_of_it: tuple[str, ...], sent: bytes, words: str, dial: Dial) -> None:
    server = ScriptedServer([Dialogue(*steps_of_it)])
    with pytest.raises(AssertionError) as caught, server:  # noqa: PT012 - leaving the server's context raises
        client = dial(server)
        client.read_reply()
        client.send(sent)
        if sent:
            client.read_to_end()
        client.close()
        server.wait_for(lambda: server.connections[0].is_closed)
    assert words in str(caught.value)


def test_a_dialogue_that_waits_for_ever(dial: Dial) -> None:
    server = ScriptedServer([Dialogue("S: 220 hi", "C: EHLO a")]).start()
    dial(server).read_reply()
    with pytest.raises(AssertionError, match="did not get to its end"):
        server.check(timeout=0.05)
    server.close()


def test_a_dialogue_that_never_began() -> None:
    server = ScriptedServer([Dialogue("S: 220 hi")]).start()
    with pytest.raises(AssertionError, match="1 of 1 dialogues never began"):
        server.check(timeout=0.05)
    server.close()


def test_one_connection_too_many(dial: Dial) -> None:
    server = ScriptedServer(["S: 220 hi"])
    with pytest.raises(AssertionError, match="there are 1 dialogues only"), server:  # noqa: PT012 - leaving the server's context raises
        dial(server).read_reply()
        assert dial(server).read_to_end() == b""


def test_healthy_after_the_dialogues(dial: Dial) -> None:
    with ScriptedServer(["S: 554 go away\n! close"], after_dialogues="serve") as server:
        assert dial(server).read_to_end() == b"554 go away\r\n"
        dial(server).greet()


@pytest.mark.parametrize(
    ("action", "seen"),
    [
        ("! close", b""),
        ("S- 250 hal\n! close", b"250 hal"),
        ("! double\n! close", b"250 Ok\r\n250 Ok\r\n"),
        ("! extra 250 more\n! close", b"250 Ok\r\n250 more\r\n"),
        ("! mixed\n! close", b"250-one thing\r\n451 and another\r\n"),
        ("! reply 421 bye", b"421 bye\r\n"),
        ("S: 250 a\n! pause 0.01\nS: 250 b\n! close", b"250 a\r\n250 b\r\n"),
    ],
)
def test_actions(action: str, seen: bytes, dial: Dial) -> None:
    with ScriptedServer([Dialogue("S: 220 hi", "C= NOOP", action)]) as server:
        client = dial(server)
        client.read_reply()
        client.send(b"NOOP\r\n")
        assert client.read_to_end() == seen


def test_actions_that_do_not_end(dial: Dial) -> None:
    with ScriptedServer([Dialogue("S: 220 hi", "! silence"), Dialogue("! reset")]) as server:
        client = dial(server)
        client.read_reply()
        assert client.is_silent()
        with pytest.raises(ConnectionResetError):
            dial(server).read_to_end()


@pytest.mark.parametrize(("last", "committed"), [("! commit\n! close", 1), ("! close", 0), ("S: 451 no", 0)])
def test_commits(last: str, committed: int, dial: Dial) -> None:
    script = f"S: 220 hi\nC: MAIL FROM:<a@x>\nC: RCPT TO:<b@y>\nC: DATA\nS: 354 go\nC: ...\nC: .\n{last}"
    with ScriptedServer([script]) as server:
        client = dial(server)
        client.read_reply()
        client.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n")
        client.read_reply()
        client.send(b"..text\r\n.\r\n")
        client.sock.recv(100)
        assert len(server.messages) == committed
        if committed:
            assert server.messages[0].content == b".text\r\n"
            assert server.messages[0].raw == b"..text\r\n.\r\n"


def test_a_commit_out_of_place(dial: Dial) -> None:
    server = ScriptedServer(["S: 220 hi\n! commit"])
    with pytest.raises(AssertionError, match="no content was read up to its dot"), server:
        dial(server).read_to_end()


def test_tls_in_a_dialogue(certificate: Certificate, dial: Dial) -> None:
    script = "S: 220 hi\nC: STARTTLS\nS: 220 go\n! tls\nC: EHLO a\nS: 250 x\nC: QUIT\nS: 221 bye"
    with ScriptedServer([script], certfile=certificate.certfile, keyfile=certificate.keyfile) as server:
        client = dial(server)
        client.read_reply()
        client.say(b"STARTTLS")
        client.start_tls(certificate.client_context())
        assert client.say(b"EHLO a", b"QUIT") == b"221 bye\r\n"
        assert client.sock.recv(100) == b""
        assert server.connections[0].used_tls


def test_a_dialogue_behind_implicit_tls(certificate: Certificate, dial: Dial) -> None:
    with ScriptedServer(
        ["S: 220 hi"], tls="implicit", certfile=certificate.certfile, keyfile=certificate.keyfile
    ) as server:
        client = dial(server)
        client.start_tls(certificate.client_context())
        assert client.read_reply() == b"220 hi\r\n"
