"""AUTH as a dialogue: each mechanism, refusals, fall-through, challenges that make no sense."""

from base64 import b64encode

import pytest

from mailbridge.errors import AuthenticationFailed, ConnectionLost, MailbridgeError, ProtocolViolation
from mailbridge.flows.authentication import authentication
from mailbridge.protocol.sasl import Credentials, mechanism
from mailbridge.protocol.wire import Wire
from mailbridge.secret import Secret
from tests.unit.flows.dialogue import CUTS, Dialogue

PLAIN = b64encode(b"\0tim\0tanstaaftanstaaf").decode()
USER, PASSWORD = b64encode(b"tim").decode(), b64encode(b"tanstaaftanstaaf").decode()


def log_in(text: str, *names: str, cut: str = "whole", wire: Wire | None = None) -> str:
    credentials = Credentials("tim", Secret("tanstaaftanstaaf"))
    makers = [lambda name=name: mechanism(name, credentials) for name in names]
    accepted: str = Dialogue(text, cut).run(authentication(wire or Wire(), makers))
    return accepted


@pytest.mark.parametrize("cut", CUTS)
def test_plain_in_one_step(cut: str) -> None:
    assert log_in(f"C: AUTH PLAIN {PLAIN}\nS: 235 2.7.0 welcome", "PLAIN", cut=cut) == "PLAIN"


@pytest.mark.parametrize("cut", CUTS)
def test_login_in_three(cut: str) -> None:
    text = f"""
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: {USER}
        S: 334 UGFzc3dvcmQ6
        C: {PASSWORD}
        S: 235 welcome
    """
    assert log_in(text, "LOGIN", cut=cut) == "LOGIN"


def test_cram_md5_with_the_vector_of_rfc_2195() -> None:
    text = """
        C: AUTH CRAM-MD5
        S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
        C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
        S: 235 welcome
    """
    assert log_in(text, "CRAM-MD5") == "CRAM-MD5"


@pytest.mark.parametrize(
    "refusal", ["535 5.7.8 wrong", "530 5.7.0 no", "454 4.7.0 later", "503 5.5.1 twice", "250 ok"]
)
def test_wrong_credentials_are_not_tried_under_another_mechanism(refusal: str) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        log_in(f"C: AUTH PLAIN {PLAIN}\nS: {refusal}", "PLAIN", "LOGIN")
    assert (caught.value.mechanism, str(caught.value.reply)) == ("PLAIN", refusal)


def test_a_later_refusal_is_transient_and_a_wrong_password_is_not() -> None:
    for refusal, is_transient in (("454 4.7.0 later", True), ("535 5.7.8 wrong", False)):
        with pytest.raises(AuthenticationFailed) as caught:
            log_in(f"C: AUTH PLAIN {PLAIN}\nS: {refusal}", "PLAIN")
        assert caught.value.is_transient is is_transient


@pytest.mark.parametrize("refusal", ["504 5.5.4 unknown", "534 5.7.9 too weak"])
def test_the_next_mechanism_where_this_one_is_not_taken(refusal: str) -> None:
    text = f"""
        C: AUTH CRAM-MD5
        S: {refusal}
        C: AUTH PLAIN {PLAIN}
        S: 235 welcome
    """
    assert log_in(text, "CRAM-MD5", "PLAIN") == "PLAIN"


@pytest.mark.parametrize("end", ["S: 421 bye", "S: <eof>"])
def test_a_server_that_leaves(end: str) -> None:
    with pytest.raises(ConnectionLost):
        log_in(f"C: AUTH PLAIN {PLAIN}\n{end}", "PLAIN")


def test_a_challenge_that_is_no_base64_ends_the_exchange_in_step() -> None:
    wire = Wire()
    with pytest.raises(ProtocolViolation):
        log_in("C: AUTH LOGIN\nS: 334 Username:\nC: *\nS: 501 5.7.0 cancelled", "LOGIN", wire=wire)
    assert wire.is_quiet


def test_a_challenge_too_many() -> None:
    with pytest.raises(ProtocolViolation):
        log_in(f"C: AUTH PLAIN {PLAIN}\nS: 334 bW9yZQ==\nC: *\nS: 501 cancelled", "PLAIN")


@pytest.mark.parametrize(
    "echo", [f"535 5.7.8 unknown: AUTH PLAIN {PLAIN}", "535 5.7.8 wrong password tanstaaftanstaaf"]
)
def test_what_the_server_quotes_of_the_secret_is_masked(echo: str) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        log_in(f"C: AUTH PLAIN {PLAIN}\nS: {echo}", "PLAIN")
    assert "tanstaaf" not in str(caught.value)
    assert PLAIN not in str(caught.value)


def test_no_mechanism_at_all() -> None:
    with pytest.raises(MailbridgeError):
        log_in("")
