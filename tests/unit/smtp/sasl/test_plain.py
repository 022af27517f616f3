"""PLAIN against RFC 4616."""

import pytest

from mailbridge.errors import ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.sasl import Credentials, mechanism


def test_the_example_of_rfc_4616():
    assert (
        mechanism("PLAIN", Credentials("tim", Secret("tanstaaftanstaaf"))).initial()
        == b"\0tim\0tanstaaftanstaaf"
    )


def test_utf_8():
    assert mechanism("PLAIN", Credentials("jürgen", Secret("pä§s"))).initial() == "\0jürgen\0pä§s".encode()


@pytest.mark.parametrize("challenge", [b"", b"more"])
def test_there_is_no_second_message(challenge):
    exchange = mechanism("PLAIN", Credentials("tim", Secret("pw")))
    exchange.initial()
    with pytest.raises(ProtocolViolation, match="PLAIN"):
        exchange.step(challenge)
