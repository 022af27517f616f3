"""CRAM-MD5 against RFC 2195."""

import pytest

from mailbridge.errors import ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.sasl import Credentials, cram_md5, decode_challenge, encode_response, mechanism


def test_the_example_of_rfc_2195():
    exchange = mechanism("CRAM-MD5", Credentials("tim", Secret("tanstaaftanstaaf")))
    assert exchange.initial() is None
    challenge = decode_challenge("PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
    assert challenge == b"<1896.697170952@postoffice.reston.mci.net>"
    response = exchange.step(challenge)
    assert response == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert encode_response(response) == b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"


def test_utf_8_and_long_keys():
    """RFC 2104: a key above 64 bytes is hashed first."""
    exchange = mechanism("CRAM-MD5", Credentials("jürgen", Secret("ä" * 40)))
    name, digest = exchange.step(b"<1@x>").rsplit(b" ", 1)
    assert name == "jürgen".encode()
    assert len(bytes.fromhex(digest.decode())) == 16


def test_there_is_one_challenge():
    exchange = mechanism("CRAM-MD5", Credentials("tim", Secret("pw")))
    exchange.step(b"<1@x>")
    with pytest.raises(ProtocolViolation, match="CRAM-MD5"):
        exchange.step(b"<2@x>")


def test_md5_refused(monkeypatch):
    def refuse(*_args: object) -> bytes:
        raise ValueError("[digital envelope routines] unsupported")

    assert cram_md5.md5_is_allowed()
    monkeypatch.setattr(cram_md5.hmac, "digest", refuse)
    assert not cram_md5.md5_is_allowed()
