"""Credentials that can be sent, and SASL messages as they stand in lines."""

import copy
import pickle
import traceback
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import ConfigurationError, ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.sasl.base import Credentials, decode_challenge, encode_response


@pytest.mark.parametrize("username", ["", "a\0b", "a\r\nb", "a\tb", "a\x7f", "a\x85", "a\ud800"])
def test_user_name_that_cannot_be_sent(username):
    with pytest.raises(ConfigurationError, match="user name"):
        Credentials(username, Secret("pw"))


@pytest.mark.parametrize("password", ["hunter\0two", "hunter\udc80two"])
def test_password_that_cannot_be_sent_is_refused_and_not_shown(password):
    with pytest.raises(ConfigurationError, match="password") as caught:
        Credentials("user", Secret(password))
    assert caught.value.__context__ is None
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # The first frame is the test's own, which was given the password in clear.
    locals_seen = [frame.locals or {} for frame in shown.stack][1:]
    assert locals_seen
    assert "hunter" not in str(locals_seen)
    assert "hunter" not in str(caught.value)


def test_credentials_are_masked():
    credentials = Credentials("user", Secret("hunter2"))
    assert "hunter2" not in repr(credentials)
    assert b"hunter2" not in pickle.dumps(credentials)
    assert copy.deepcopy(credentials) == credentials == Credentials("user", Secret("hunter2"))


@pytest.mark.parametrize(
    ("data", "initial", "line"),
    [(b"", True, b"="), (b"", False, b""), (b"\0", True, b"AA=="), (b"\0a\0b", False, b"AGEAYg==")],
)
def test_response_in_a_line(data, initial, line):
    assert encode_response(data, initial=initial) == line


@given(st.binary(max_size=300))
def test_a_response_is_one_line_that_decodes_to_it(data):
    line = encode_response(data)
    assert b"\n" not in line
    assert decode_challenge(line.decode()) == data


@pytest.mark.parametrize(
    "text", ["=", "a", "abc", "ab=c", "Username:", "go ahead", "YWJj YWJj", "YWJj\n", "ä", "\x1b[0m"]
)
def test_challenge_that_is_no_base64(text):
    with pytest.raises(ProtocolViolation, match="no base64") as caught:
        decode_challenge(text)
    assert caught.value.stage == "auth"
    assert str(caught.value).isprintable()


def test_challenge_is_shown_capped():
    with pytest.raises(ProtocolViolation) as caught:
        decode_challenge("!" * 8000)
    assert len(str(caught.value)) < 400


@given(st.text(max_size=60))
def test_any_challenge_decodes_or_is_a_violation(text):
    with suppress(ProtocolViolation):
        assert isinstance(decode_challenge(text), bytes)
