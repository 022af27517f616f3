"""BDAT and LMTP on the server's side: who is committed, what is refused, and what is a violation."""

from __future__ import annotations

from mailbridge.testing import DEFAULT_KEYWORDS, Fault, ScriptedServer

from .conftest import Dial

CHUNKING = (*DEFAULT_KEYWORDS, "CHUNKING", "BINARYMIME")


def test_chunks_are_one_message_as_it_was_sent(dial: Dial) -> None:
    with ScriptedServer(keywords=CHUNKING) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x> BODY=BINARYMIME", b"RCPT TO:<b@y>")
        client.send(b"BDAT 5\r\n.\r\n\0\r")
        assert client.read_reply() == b"250 2.0.0 5 octets received\r\n"
        client.send(b"BDAT 1 LAST\r\n\n")
        assert client.read_reply().startswith(b"250 2.0.0 Ok: queued")
        [message] = server.messages
        assert message.content == message.raw == b".\r\n\0\r\n"
        assert message.chunks == (5, 1)


def test_bdat_without_recipients_is_refused_and_read_all_the_same(dial: Dial) -> None:
    with ScriptedServer(keywords=CHUNKING) as server:
        client = dial(server).greet()
        client.send(b"BDAT 6 LAST\r\nQUIT\r\n")
        assert client.read_reply().startswith(b"503")
        assert client.say(b"NOOP").startswith(b"250")
        assert server.messages == ()


def test_a_refused_chunk_refuses_the_rest_until_rset(dial: Dial) -> None:
    fault = Fault("chunk", "reply", reply="452 4.3.1 no room")
    with ScriptedServer(keywords=CHUNKING, faults=[fault]) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>")
        client.send(b"BDAT 3\r\nabc")
        assert client.read_reply().startswith(b"452")
        client.send(b"BDAT 3 LAST\r\nabc")
        assert client.read_reply().startswith(b"503")
        assert client.say(b"MAIL FROM:<a@x>").startswith(b"503")
        assert client.say(b"RSET", b"MAIL FROM:<a@x>").startswith(b"250")
        assert server.messages == ()


def test_a_fault_in_the_content_of_chunks(dial: Dial) -> None:
    fault = Fault("content", "early", after=4)
    with ScriptedServer(keywords=CHUNKING, faults=[fault]) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>")
        client.send(b"BDAT 3\r\nabc")
        assert client.read_reply().startswith(b"250")
        client.send(b"BDAT 3 LAST\r\nde")
        assert client.read_reply().startswith(b"552")
        client.send(b"f")
        assert client.say(b"RSET").startswith(b"250")
        assert server.messages == ()


def test_what_a_client_must_not_do(dial: Dial) -> None:
    with ScriptedServer(keywords=("CHUNKING", "BINARYMIME"), strict=False) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x> BODY=BINARYMIME", b"RCPT TO:<b@y>")
        assert client.say(b"DATA").startswith(b"503")
        client.send(b"BDAT 1\r\naBDAT 1 LAST\r\nb")
        client.read_reply()
        client.read_reply()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>")
        client.send(b"BDAT 4 LAST\r\na\rb\n")
        client.read_reply()
        assert server.violations == (
            "connection 1: DATA for content that is binary or has begun with BDAT",
            "connection 1: bytes sent before the reply to a chunk",
            "connection 1: the content has a bare CR or LF",
        )


def test_bdat_that_was_not_offered(dial: Dial) -> None:
    with ScriptedServer(strict=False) as server:
        client = dial(server).greet()
        client.say(b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>")
        client.send(b"BDAT 1 LAST\r\na")
        assert client.read_reply().startswith(b"501")
        assert len(server.violations) == 1


def test_lmtp_has_an_answer_and_a_message_for_each_recipient(dial: Dial) -> None:
    with ScriptedServer(lmtp=True, final_replies={"c@y": "452 4.2.2 over quota"}) as server:
        client = dial(server)
        assert client.read_reply() == b"220 mx.test.example LMTP\r\n"
        assert client.say(b"EHLO me").startswith(b"500")
        assert client.say(b"LHLO me").startswith(b"250")
        client.say(b"MAIL FROM:<a@x>", *(b"RCPT TO:<%c@y>" % name for name in b"bcd"), b"DATA")
        client.send(b"text\r\n.\r\n")
        assert [client.read_reply()[:3] for _ in range(3)] == [b"250", b"452", b"250"]
        assert [m.recipients for m in server.messages] == [("b@y",), ("d@y",)]
        assert client.say(b"NOOP").startswith(b"250")


def test_lmtp_without_recipients(dial: Dial) -> None:
    """RFC 2033 section 4.2."""
    with ScriptedServer(lmtp=True, rcpt_replies="550 5.1.1 nobody") as server:
        client = dial(server)
        client.read_reply()
        assert client.say(b"LHLO me", b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA").startswith(b"503")


def test_faults_between_the_answers_of_lmtp(dial: Dial) -> None:
    faults = [Fault("final", "close", occurrence=2, commit=True)]
    with ScriptedServer(lmtp=True, keywords=(*CHUNKING,), faults=faults) as server:
        client = dial(server)
        client.read_reply()
        client.say(b"LHLO me", b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"RCPT TO:<c@y>", b"RCPT TO:<d@y>")
        client.send(b"BDAT 1 LAST\r\na")
        assert client.read_reply().startswith(b"250")
        assert client.read_to_end() == b""
        assert [m.recipients for m in server.messages] == [("b@y",), ("c@y",)]
