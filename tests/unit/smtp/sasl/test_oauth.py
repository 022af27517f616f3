"""OAUTHBEARER and XOAUTH2: what goes out, and how an error is answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import ConfigurationError, ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.sasl import Credentials, mechanism
from mailbridge.testing.sasl import EXCHANGES

# RFC 7628 section 4.1.
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
RFC = Credentials("user@example.com", token=Secret(TOKEN), host="server.example.com", port=143)


def test_the_example_of_rfc_7628():
    assert mechanism("OAUTHBEARER", RFC).initial() == (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )


def test_what_has_a_meaning_in_the_header_is_escaped():
    """RFC 5801 section 4: saslname."""
    initial = mechanism("OAUTHBEARER", Credentials("a=b,c", token=Secret("t"))).initial()
    assert initial == b"n,a=a=3Db=2Cc,\x01auth=Bearer t\x01\x01"


def test_the_example_of_google():
    token = Secret("ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    exchange = mechanism("XOAUTH2", Credentials("someuser@example.com", token=token))
    assert exchange.initial() == (
        b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01"
    )


@pytest.mark.parametrize(("name", "answer"), [("XOAUTH2", b""), ("OAUTHBEARER", b"\x01")])
def test_an_error_is_answered_once_and_kept(name, answer):
    exchange = mechanism(name, RFC)
    assert (exchange.refusal, exchange.is_unsuitable) == ("", False)
    assert exchange.step(b'{"status":"400"}') == answer
    assert exchange.refusal == '{"status":"400"}'
    with pytest.raises(ProtocolViolation):
        exchange.step(b"")


def test_an_error_that_is_no_text():
    exchange = mechanism("XOAUTH2", RFC)
    exchange.step(b"\xff\x00")
    assert exchange.refusal == "\N{REPLACEMENT CHARACTER}\0"


@pytest.mark.parametrize("token", ["", "to ken", "tok\x01en", "token\r\n", "t\x00", "tök", "tok\x7f"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token):
    with pytest.raises(ConfigurationError, match="access token") as caught:
        Credentials("user", token=Secret(token))
    assert caught.value.__context__ is None
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("username", ["", "us\x01er", "user\r\n"])
def test_a_user_name_that_cannot_be_sent(username):
    with pytest.raises(ConfigurationError, match="user name"):
        Credentials(username, token=Secret("token"))


@pytest.mark.parametrize("name", ["XOAUTH2", "OAUTHBEARER"])
def test_there_must_be_a_token(name):
    with pytest.raises(ConfigurationError, match="nothing to prove"):
        mechanism(name, Credentials("user", Secret("password"))).initial()


def test_credentials_with_a_token_are_masked():
    assert TOKEN not in repr(RFC)
    assert Credentials("user@example.com", token=Secret("other"), host=RFC.host, port=RFC.port) != RFC


TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)


@pytest.mark.parametrize("name", ["XOAUTH2", "OAUTHBEARER"])
@given(username=NAMES, token=TOKENS)
def test_the_server_reads_what_was_meant(name, username, token):
    credentials = Credentials(username, token=Secret(token), host="h", port=587)
    exchange = EXCHANGES[name]({username: token}, mechanism(name, credentials).initial(), b"")
    with pytest.raises(StopIteration) as end:
        next(exchange)
    assert end.value.value == username
