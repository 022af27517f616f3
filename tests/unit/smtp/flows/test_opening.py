"""Opening: greeting, EHLO or HELO, STARTTLS."""

import pytest

from mailbridge.errors import (
    ConnectionLost,
    GreetingRefused,
    NotSupported,
    ProtocolViolation,
    TLSModeMismatch,
)
from mailbridge.smtp.flows.opening import greeting, introduction, start_tls
from tests.unit.smtp.flows.dialogue import Dialogue


def test_greeting_in_several_lines() -> None:
    reply = Dialogue("S: 220-mx.example ESMTP\nS: 220 no spam").run(greeting)
    assert (reply.code, reply.lines) == (220, ("mx.example ESMTP", "no spam"))


@pytest.mark.parametrize("said", ["554 go away", "421 too busy", "250 what", "354 go on"])
def test_greeting_that_is_not_220_is_a_refusal(said: str) -> None:
    with pytest.raises(GreetingRefused) as caught:
        Dialogue(f"S: {said}").run(greeting)
    assert (caught.value.stage, str(caught.value.reply)) == ("greeting", said)


def test_a_busy_server_is_a_transient_refusal() -> None:
    with pytest.raises(GreetingRefused) as caught:
        Dialogue("S: 421 too busy").run(greeting)
    assert caught.value.is_transient


@pytest.mark.parametrize("said", ["S: <eof>", "S: 220-mx.example\nS: <eof>"])
def test_end_of_file_before_the_greeting_is_whole(said: str) -> None:
    with pytest.raises(ConnectionLost) as caught:
        Dialogue(said).run(greeting)
    assert caught.value.stage == "greeting"


@pytest.mark.parametrize("first", ["\x15\x03\x01", "\x16\x03\x03"])
def test_a_port_that_speaks_tls_is_named_as_such(first: str) -> None:
    with pytest.raises(TLSModeMismatch, match="security='tls'"):
        Dialogue(f"S: {first}").run(greeting)


def test_garbage_for_a_greeting() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        Dialogue("S: HTTP/1.1 400 Bad Request").run(greeting)
    assert caught.value.stage == "greeting"


def test_ehlo() -> None:
    capabilities = Dialogue("C: EHLO me.example\nS: 250-mx\nS: 250-SIZE 1000\nS: 250 PIPELINING").run(
        lambda wire: introduction(wire, "me.example", may_be_helo=False)
    )
    assert "PIPELINING" in capabilities
    assert capabilities.size_limit == 1000


def test_helo_where_ehlo_is_unknown_and_nothing_of_it_is_needed() -> None:
    text = "C: EHLO me.example\nS: 502 what\nC: HELO me.example\nS: 250 hello"
    capabilities = Dialogue(text).run(lambda wire: introduction(wire, "me.example", may_be_helo=True))
    assert "PIPELINING" not in capabilities


def test_no_helo_where_extensions_are_needed() -> None:
    with pytest.raises(GreetingRefused) as caught:
        Dialogue("C: EHLO me.example\nS: 502 what").run(
            lambda wire: introduction(wire, "me.example", may_be_helo=False)
        )
    assert caught.value.stage == "ehlo"


def test_a_transient_refusal_of_ehlo_is_not_answered_with_helo() -> None:
    with pytest.raises(GreetingRefused) as caught:
        Dialogue("C: EHLO me.example\nS: 451 later").run(
            lambda wire: introduction(wire, "me.example", may_be_helo=True)
        )
    assert caught.value.is_transient


def test_lhlo() -> None:
    text = "C: LHLO me.example\nS: 250-mx\nS: 250 PIPELINING"
    assert "PIPELINING" in Dialogue(text).run(lambda wire: introduction(wire, "me.example", lmtp=True))


def test_nothing_takes_the_place_of_lhlo() -> None:
    """RFC 2033 section 4.1: HELO and EHLO are not LMTP."""
    with pytest.raises(GreetingRefused, match="LHLO") as caught:
        Dialogue("C: LHLO me.example\nS: 502 what").run(
            lambda wire: introduction(wire, "me.example", may_be_helo=True, lmtp=True)
        )
    assert "SMTP" in caught.value.hint


# What servers were seen to say, or may say within the grammar, and what is to be made of it.
@pytest.mark.parametrize(
    "offer",
    [
        "250-mx\nS: 250-PIPELINING\nS: 250-\nS: 250 SIZE 1000",
        "250-\nS: 250-PIPELINING\nS: 250-SIZE 1000\nS: 250 ",
        "250-mx\nS: 250-PIPELINING\nS: 250-SIZE 1000\nS: 250",
        "250-mx\nS: 250-pipelining\nS: 250 size 1000",
        "250-mx\nS: 250- PIPELINING \nS: 250   SIZE   1000  ",
        "250-mx\nS: 250-X_ODD\nS: 250-=\nS: 250-PIPELINING\nS: 250 SIZE 1000",
    ],
    ids=["empty", "no name", "bare last", "lower case", "spaces", "odd keywords"],
)
def test_odd_offers(offer: str) -> None:
    text = f"C: EHLO me.example\nS: {offer}"
    capabilities = Dialogue(text).run(lambda wire: introduction(wire, "me.example"))
    assert "PIPELINING" in capabilities
    assert capabilities.size_limit == 1000


def test_helo_answered_without_a_word() -> None:
    text = "C: EHLO me\nS: 500\nC: HELO me\nS: 250"
    Dialogue(text).run(lambda wire: introduction(wire, "me", may_be_helo=True))


def test_ehlo_with_256_keywords_and_not_one_more() -> None:
    def text(count: int) -> str:
        return "C: EHLO me\nS: 250-mx\n" + "S: 250-X\n" * (count - 1) + "S: 250 X"

    Dialogue(text(256)).run(lambda wire: introduction(wire, "me", may_be_helo=False))
    with pytest.raises(ProtocolViolation):
        Dialogue(text(257)).run(lambda wire: introduction(wire, "me", may_be_helo=False))


def test_starttls() -> None:
    Dialogue("C: STARTTLS\nS: 220 go ahead\n--TLS--").run(start_tls)


@pytest.mark.parametrize("said", ["454 not now", "502 what", "250 fine", "503 no", "354 go"])
def test_a_starttls_that_is_not_answered_by_220_never_starts(said: str) -> None:
    with pytest.raises(NotSupported) as caught:
        Dialogue(f"C: STARTTLS\nS: {said}").run(start_tls)
    assert caught.value.extension == "STARTTLS"


@pytest.mark.parametrize(
    "tail",
    ["250 AUTH PLAIN", "250-AUTH=", "x", ""],
    ids=["whole reply", "half a reply", "a byte", "an empty line"],
)
def test_anything_behind_the_220_ends_the_session_before_the_handshake(tail: str) -> None:
    """RFC 3207 section 6; CVE-2011-0411 and its kin. `--TLS--` is never reached."""
    dialogue = Dialogue(f"C: STARTTLS\nS: 220 go ahead\nS: {tail}")
    with pytest.raises(ProtocolViolation):
        dialogue.run(start_tls)
    assert dialogue.written == [b"STARTTLS\r\n"]
