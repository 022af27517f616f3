"""Each kind of fault does on the wire what it says."""

from __future__ import annotations

import socket
import ssl
import threading
import time

import pytest

from mailbridge.testing import Fault, ScriptedServer, wire
from mailbridge.testing.faults import Stage

from .conftest import Certificate, Dial, RawClient

# What a client says up to each stage, the last line being the one that the fault answers.
WAY = {
    "ehlo": [b"EHLO c"],
    "auth": [b"EHLO c", b"AUTH PLAIN AHUAcA=="],
    "mail": [b"EHLO c", b"MAIL FROM:<a@x>"],
    "rcpt": [b"EHLO c", b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>"],
    "data": [b"EHLO c", b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA"],
    "final": [b"EHLO c", b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>", b"DATA", b"text\r\n."],
    "rset": [b"EHLO c", b"RSET"],
    "noop": [b"EHLO c", b"NOOP"],
    "quit": [b"EHLO c", b"QUIT"],
}
REGULAR = {
    "greeting": b"220 mx.test.example ESMTP\r\n",
    "ehlo": b"250-mx.test.example\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n",
    "auth": b"235 2.7.0 Authentication successful\r\n",
    "mail": b"250 2.1.0 Ok\r\n",
    "rcpt": b"250 2.1.5 Ok\r\n",
    "data": b"354 End data with <CR><LF>.<CR><LF>\r\n",
    "final": b"250 2.0.0 Ok: queued as 000100004\r\n",
    "rset": b"250 2.0.0 Ok\r\n",
    "noop": b"250 2.0.0 Ok\r\n",
    "quit": b"221 2.0.0 Bye\r\n",
}
STAGES = list(REGULAR)


def reach(client: RawClient, stage: str) -> None:
    """Send everything up to the stage, and do not read the answer there."""
    if stage == "greeting":
        return
    assert client.read_reply().startswith(b"220")
    *before, last = WAY[stage]
    client.say(*before)
    client.send(last + b"\r\n")


def serving(fault: Fault) -> ScriptedServer:
    users = {"u": "p"} if fault.stage in ("auth", "ehlo") else None
    return ScriptedServer(
        faults=[fault], keywords=["ENHANCEDSTATUSCODES"], users=users, require_auth=False, strict=False
    )


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return request.param  # type: ignore[no-any-return]


def assert_healthy(server: ScriptedServer, dial: Dial) -> None:
    """The next connection is served as if nothing had been."""
    client = dial(server).greet()
    before = len(server.messages)
    assert client.say(b"MAIL FROM:<n@x>", b"RCPT TO:<m@y>", b"DATA", b"next\r\n.").startswith(b"250")
    assert len(server.messages) == before + 1


def test_healthy_replies(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "close", connection=2)) as server:
        client = dial(server)
        reach(client, stage)
        assert client.read_reply() == REGULAR[stage]


def test_close_is_an_end_of_file(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "close")) as server:
        client = dial(server)
        reach(client, stage)
        assert client.read_to_end() == b""
        assert server.connections[0].closed_by == "fault"
        assert not server.unfired
        assert_healthy(server, dial)


def test_close_with_unread_input_is_still_an_end_of_file(dial: Dial) -> None:
    with serving(Fault("mail", "close")) as server:
        client = dial(server).greet()
        client.send(b"MAIL FROM:<a@x>\r\n" + b"RCPT TO:<b@y>\r\n" * 5000)
        assert client.read_to_end() == b""


def test_after_its_end_of_file_it_still_reads(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LINGER", 30.0)
    with serving(Fault("mail", "close")) as server:
        client = dial(server)
        reach(client, "mail")
        assert client.read_to_end() == b""
        [thread] = [one for one in threading.enumerate() if one.name == "scripted-smtp-1"]
        thread.join(timeout=0.2)
        assert thread.is_alive()  # had it closed the socket, it would have ended and not read this:
        client.send(b"RSET\r\n")
        client.close()
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_replies_before_the_fault_go_out_first(dial: Dial) -> None:
    with serving(Fault("rcpt", "close", occurrence=2)) as server:
        client = dial(server).greet()
        client.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n")
        assert client.read_to_end() == REGULAR["mail"] + REGULAR["rcpt"]


def test_reset_is_a_reset(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "reset")) as server:
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - at the greeting, connecting may meet it
            client = dial(server)
            reach(client, stage)
            client.read_to_end()
        server.wait_for(lambda: server.connections and server.connections[0].closed_by == "fault")
        assert_healthy(server, dial)


def test_silence_reads_and_says_nothing(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "silence")) as server:
        client = dial(server)
        reach(client, stage)
        client.send(b"NOOP\r\n")
        assert client.is_silent()
        server.wait_for(lambda: server.connections[0].ignored == b"NOOP\r\n")
        assert_healthy(server, dial)
        client.close()
        server.wait_for(lambda: server.connections[0].closed_by == "client")


def test_stall_does_not_even_read(dial: Dial) -> None:
    with serving(Fault("content", "stall")) as server:
        client = dial(server).greet()
        client.say(*WAY["data"][1:])
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(b"x" * 78 + b"\r\n" + b"y" * 50_000_000)


def test_stall_ends_when_the_client_leaves(dial: Dial) -> None:
    with serving(Fault("mail", "stall")) as server:
        client = dial(server)
        reach(client, "mail")
        client.send(b"NOOP\r\n")
        client.close()
        server.wait_for(lambda: server.connections[0].closed_by == "client")
        assert server.connections[0].ignored == b""


def test_half_a_reply_then_silence(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "half")) as server:
        client = dial(server)
        reach(client, stage)
        expected = REGULAR[stage][: len(REGULAR[stage]) // 2]
        while len(client.unread) < len(expected):
            client.unread += client.sock.recv(100)
        assert client.unread == expected
        assert client.is_silent()


def test_half_a_reply_cut_anywhere_then_close(dial: Dial) -> None:
    with serving(Fault("mail", "half", at=5, then="close")) as server:
        client = dial(server)
        reach(client, "mail")
        assert client.read_to_end() == b"250 2"


def test_garbage(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "garbage", then="close")) as server:
        client = dial(server)
        reach(client, stage)
        found = client.read_to_end()
        assert found
        assert not found[:3].isdigit()
        assert server.messages == ()


@pytest.mark.parametrize("kind", ["endless", "endless_line"])
def test_endless_replies(kind: str, stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, kind)) as server:  # type: ignore[arg-type]
        client = dial(server)
        reach(client, stage)
        found = b""
        while len(found) < 200_000:
            found += client.sock.recv(65536)
        code = REGULAR[stage][:3]
        if kind == "endless":
            assert all(line.startswith(code + b"-") for line in found.split(b"\r\n")[:-1])
        else:
            assert found.startswith(code + b" ")
            assert b"\n" not in found
        client.close()
        server.wait_for(lambda: server.connections[0].is_closed)


def test_drip_never_comes_to_an_end(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "drip", interval=0.01)) as server:
        client = dial(server)
        reach(client, stage)
        code = REGULAR[stage][:3]
        assert {client.read_line() for _ in range(5)} == {code + b"-still here\r\n"}


@pytest.mark.parametrize(("interval", "seconds"), [(None, 0.2), (3.0, 3.0)])
def test_drip_takes_its_time(interval: float | None, seconds: float, pauses: list[float], dial: Dial) -> None:
    with serving(Fault("greeting", "drip", interval=interval)) as server:
        client = dial(server)
        client.read_line()
        client.read_line()
        assert set(pauses) == {seconds}


def test_double(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "double")) as server:
        client = dial(server)
        reach(client, stage)
        assert [client.read_reply(), client.read_reply()] == [REGULAR[stage]] * 2
        assert len(server.messages) == (1 if stage == "final" else 0)


@pytest.mark.parametrize("at", [None, 1, 4])
def test_split(at: int | None, stage: Stage, pieces: list[bytes], dial: Dial) -> None:
    with serving(Fault(stage, "split", at=at)) as server:
        client = dial(server)
        reach(client, stage)
        regular = REGULAR[stage]
        assert client.read_reply() == regular
        expected = [bytes([byte]) for byte in regular] if at is None else [regular[:at], regular[at:]]
        assert pieces[-len(expected) :] == expected


def test_split_changes_nothing_else(dial: Dial) -> None:
    with ScriptedServer(faults=[Fault("data", "split"), Fault("final", "split")]) as server:
        client = dial(server).greet()
        client.say(*WAY["data"][1:])
        assert client.say(b"text\r\n.").startswith(b"250")
        assert [message.content for message in server.messages] == [b"text\r\n"]


def test_late_is_the_regular_reply(stage: Stage, pauses: list[float], dial: Dial) -> None:
    with serving(Fault(stage, "late", delay=7.0)) as server:
        client = dial(server)
        reach(client, stage)
        assert client.read_reply() == REGULAR[stage]
        assert pauses == [7.0]


def test_a_delay_is_really_waited_for(dial: Dial) -> None:
    with serving(Fault("greeting", "late", delay=0.1)) as server:
        start = time.monotonic()
        dial(server).read_reply()
        assert time.monotonic() - start >= 0.1


def test_extra_comes_in_the_same_segment(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "extra", reply="250 surprise")) as server:
        client = dial(server)
        reach(client, stage)
        assert client.sock.recv(65536) == REGULAR[stage] + b"250 surprise\r\n"


def test_reply(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "reply", reply="451 4.3.0 Later")) as server:
        client = dial(server)
        reach(client, stage)
        assert client.read_reply() == b"451 4.3.0 Later\r\n"
        if stage != "quit":
            assert client.say(b"NOOP").startswith(b"250")
        assert server.messages == ()


def test_421_closes(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "reply", reply="421 4.3.2 Shutting down")) as server:
        client = dial(server)
        reach(client, stage)
        assert client.read_to_end() == b"421 4.3.2 Shutting down\r\n"


def test_421_that_stays(dial: Dial) -> None:
    with serving(Fault("mail", "reply", reply="421 4.3.2 So what", then="continue")) as server:
        client = dial(server)
        reach(client, "mail")
        assert client.read_reply().startswith(b"421")
        assert client.say(b"NOOP").startswith(b"250")


def test_raw_bytes_as_reply(dial: Dial) -> None:
    with serving(Fault("mail", "reply", reply=b"250 \xff\x00 ok\n", then="close")) as server:
        client = dial(server)
        reach(client, "mail")
        assert client.read_to_end() == b"250 \xff\x00 ok\n"


def test_mixed_codes(stage: Stage, dial: Dial) -> None:
    with serving(Fault(stage, "mixed")) as server:
        client = dial(server)
        reach(client, stage)
        first, second = client.read_line(), client.read_line()
        assert first[3:4] == b"-"
        assert second[3:4] == b" "
        assert first[:3] != second[:3]


@pytest.mark.parametrize(("kind", "start"), [("wrong_code", b"999 "), ("four_digits", b"2500 ")])
def test_codes_that_are_none(kind: str, start: bytes, dial: Dial) -> None:
    with serving(Fault("mail", kind)) as server:  # type: ignore[arg-type]
        client = dial(server)
        reach(client, "mail")
        assert client.read_line().startswith(start)


@pytest.mark.parametrize("kind", ["close", "silence"])
def test_at_connect(kind: str, dial: Dial) -> None:
    with serving(Fault("connect", kind)) as server:  # type: ignore[arg-type]
        client = dial(server)
        if kind == "close":
            assert client.read_to_end() == b""
        else:
            assert client.is_silent()
        assert_healthy(server, dial)


def test_reset_at_connect(dial: Dial) -> None:
    with serving(Fault("connect", "reset")) as server:
        with pytest.raises(ConnectionResetError):
            dial(server).read_to_end()
        server.wait_for(lambda: server.fired)
        assert_healthy(server, dial)


# -- after the dot ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["close", "reset", "silence", "half", "garbage", "endless", "drip", "mixed"])
@pytest.mark.parametrize("commit", [True, False, None])
def test_commit_is_as_the_fault_says(kind: str, commit: bool | None, dial: Dial) -> None:
    with serving(Fault("final", kind, commit=commit)) as server:  # type: ignore[arg-type]
        client = dial(server)
        reach(client, "final")
        server.wait_for(lambda: server.fired)
        assert [message.content for message in server.messages] == ([b"text\r\n"] if commit else [])


@pytest.mark.parametrize(
    ("reply", "commit", "committed"),
    [
        ("250 ok", None, 1),
        ("250 ok", False, 0),
        ("451 no", None, 0),
        ("451 no", True, 1),
        ("554 no", None, 0),
    ],
)
def test_commit_and_reply(reply: str, commit: bool | None, committed: int, dial: Dial) -> None:
    with serving(Fault("final", "reply", reply=reply, commit=commit)) as server:
        client = dial(server)
        reach(client, "final")
        assert client.read_reply() == reply.encode() + b"\r\n"
        assert len(server.messages) == committed


# -- idle and in the content --------------------------------------------------------------------------------


def test_idle_fault_comes_behind_the_final_reply(dial: Dial) -> None:
    with serving(Fault("idle", "reply", reply="421 4.4.2 Bye")) as server:
        client = dial(server)
        reach(client, "final")
        assert client.read_to_end() == REGULAR["final"] + b"421 4.4.2 Bye\r\n"
        assert len(server.messages) == 1


@pytest.mark.parametrize(("kind", "error"), [("close", None), ("reset", ConnectionResetError)])
def test_content_fault_after_n_bytes(kind: str, error: type[Exception] | None, dial: Dial) -> None:
    with serving(Fault("content", kind, after=1000)) as server:  # type: ignore[arg-type]
        client = dial(server)
        reach(client, "data")
        assert client.read_reply().startswith(b"354")
        client.send(b"x" * 999)
        assert client.is_silent()
        assert server.fired == ()
        client.send(b"x")
        if error is None:
            assert client.read_to_end() == b""
        else:
            with pytest.raises(error):
                client.read_to_end()
        assert server.messages == ()


def test_early_answer_counts_for_the_dot(dial: Dial) -> None:
    with serving(Fault("content", "early", after=10)) as server:
        client = dial(server)
        reach(client, "data")
        assert client.read_reply().startswith(b"354")
        client.send(b"x" * 10)
        assert client.read_reply() == b"552 5.3.4 Message too big\r\n"
        client.send(b"more\r\n.\r\nNOOP\r\n")
        assert client.read_reply() == b"250 2.0.0 Ok\r\n"
        assert client.is_silent()
        assert server.messages == ()
        assert_healthy(server, dial)


def test_pause_in_the_content(dial: Dial) -> None:
    with serving(Fault("content", "late", delay=0.05)) as server:
        client = dial(server)
        reach(client, "data")
        assert client.read_reply().startswith(b"354")
        assert client.say(b"text\r\n.").startswith(b"250")
        assert len(server.messages) == 1


def test_content_that_ends_before_the_fault(dial: Dial) -> None:
    with serving(Fault("content", "close", after=1000)) as server:
        client = dial(server)
        reach(client, "final")
        assert client.read_reply().startswith(b"250")
        assert len(server.unfired) == 1


# -- TLS ----------------------------------------------------------------------------------------------------


def upgrading(certificate: Certificate, *faults: Fault) -> ScriptedServer:
    return ScriptedServer(
        faults=faults,
        tls="starttls",
        certfile=certificate.certfile,
        keyfile=certificate.keyfile,
        strict=False,
    )


def test_plain_text_behind_the_220(certificate: Certificate, dial: Dial) -> None:
    with upgrading(certificate, Fault("starttls", "extra", reply="250 injected")) as server:
        client = dial(server).greet()
        client.send(b"STARTTLS\r\n")
        assert client.sock.recv(1000) == b"220 2.0.0 Ready to start TLS\r\n250 injected\r\n"
        client.start_tls(certificate.client_context())
        assert client.say(b"EHLO c").startswith(b"250")


@pytest.mark.parametrize("kind", ["garbage", "reply", "endless", "mixed"])
def test_no_server_hello(kind: str, certificate: Certificate, dial: Dial) -> None:
    fault = Fault("tls", kind, reply="454 4.7.0 No TLS today" if kind == "reply" else None)  # type: ignore[arg-type]
    with upgrading(certificate, fault) as server:
        client = dial(server).greet()
        client.say(b"STARTTLS")
        with pytest.raises(ssl.SSLError):
            client.start_tls(certificate.client_context())
        assert server.fired == (fault,)
        client.close()
        server.wait_for(lambda: server.connections[0].is_closed)
        assert not server.connections[0].used_tls


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("close", (ssl.SSLEOFError, ConnectionError)),
        ("reset", ConnectionResetError),
        ("silence", TimeoutError),
        ("stall", TimeoutError),
        ("half", TimeoutError),
        ("drip", TimeoutError),
    ],
)
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_handshakes_that_break(
    tls: str, kind: str, error: type[Exception], certificate: Certificate, dial: Dial
) -> None:
    with ScriptedServer(
        faults=[Fault("tls", kind)],  # type: ignore[arg-type]
        tls=tls,  # type: ignore[arg-type]
        certfile=certificate.certfile,
        keyfile=certificate.keyfile,
    ) as server:
        client = dial(server)
        if tls == "starttls":
            client.greet().say(b"STARTTLS")
        if error is TimeoutError:
            client.sock.settimeout(0.3)
        with pytest.raises(error):
            client.start_tls(certificate.client_context())
        server.wait_for(lambda: len(server.fired) == 1)


def test_a_split_handshake_succeeds(certificate: Certificate, dial: Dial) -> None:
    with upgrading(certificate, Fault("tls", "split", interval=0.0)) as server:
        client = dial(server).greet()
        client.say(b"STARTTLS")
        client.start_tls(certificate.client_context())
        assert client.say(b"EHLO c").startswith(b"250")


def test_ehlo_after_tls_is_a_stage_of_its_own(certificate: Certificate, dial: Dial) -> None:
    with upgrading(certificate, Fault("ehlo_tls", "close")) as server:
        client = dial(server).greet()
        client.say(b"STARTTLS")
        client.start_tls(certificate.client_context())
        client.send(b"EHLO c\r\n")
        # No close_notify: the end of file is not the peer's own word.
        with pytest.raises(ssl.SSLEOFError):
            client.read_to_end()


@pytest.mark.parametrize("kind", ["reset", "half", "split", "double", "endless", "drip"])
def test_faults_are_encrypted_where_tls_is_on(kind: str, certificate: Certificate, dial: Dial) -> None:
    with upgrading(certificate, Fault("mail", kind, interval=0.001)) as server:  # type: ignore[arg-type]
        client = dial(server).greet()
        client.say(b"STARTTLS")
        client.start_tls(certificate.client_context())
        client.say(b"EHLO c")
        client.send(b"MAIL FROM:<a@x>\r\n")
        if kind == "reset":
            # Below TLS: before Python 3.13 an SSLSocket hides the reset behind an end-of-file.
            with pytest.raises(ConnectionResetError):
                socket.socket.recv(client.sock, 1000)
        else:
            assert client.sock.recv(1).startswith(b"2")
