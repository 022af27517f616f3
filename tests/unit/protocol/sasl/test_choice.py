"""Which mechanisms there are, and which are tried."""

import pytest

from mailbridge.errors import ConfigurationError
from mailbridge.protocol import sasl
from mailbridge.protocol.sasl import AVAILABLE, KNOWN_LATER, RANKING, Credentials, candidates, mechanism
from mailbridge.secret import Secret

CREDENTIALS = Credentials("user", Secret("hunter2"))


@pytest.mark.parametrize(
    ("wanted", "offered", "tried"),
    [
        ("auto", ["LOGIN", "PLAIN", "CRAM-MD5"], ["CRAM-MD5", "PLAIN", "LOGIN"]),
        ("AUTO", ["LOGIN", "PLAIN"], ["PLAIN", "LOGIN"]),
        ("auto", ["login", "plain"], ["PLAIN", "LOGIN"]),
        ("auto", ["SCRAM-SHA-256", "XOAUTH2", "ANONYMOUS"], []),
        ("auto", [], []),
        ("plain", ["PLAIN", "CRAM-MD5"], ["PLAIN"]),
        ("CRAM-MD5", ["PLAIN"], []),
        (["LOGIN", "PLAIN", "login"], ["PLAIN", "LOGIN", "CRAM-MD5"], ["LOGIN", "PLAIN"]),
        (("SCRAM-SHA-256", "PLAIN"), ["SCRAM-SHA-256", "PLAIN"], ["PLAIN"]),
        ([], ["PLAIN"], []),
    ],
)
def test_candidates(wanted, offered, tried):
    assert candidates(wanted, offered) == tried


def test_cram_md5_is_passed_over_where_md5_is_refused(monkeypatch):
    monkeypatch.setattr(sasl, "md5_is_allowed", lambda: False)
    assert candidates("auto", ["CRAM-MD5", "LOGIN"]) == ["LOGIN"]
    assert candidates("CRAM-MD5", ["CRAM-MD5", "LOGIN"]) == []


@pytest.mark.parametrize("name", RANKING)
def test_each_ranked_mechanism_can_be_had_and_shows_no_secret(name):
    exchange = mechanism(name.lower(), CREDENTIALS)
    assert exchange.name == name
    assert "hunter2" not in repr(exchange)


def test_ranking_and_later_ones_agree_with_what_there_is():
    assert set(RANKING) == set(AVAILABLE)
    assert not KNOWN_LATER & AVAILABLE.keys()


@pytest.mark.parametrize(("name", "why"), [("scram-sha-256", "not available yet"), ("PLAN", "unknown")])
def test_a_mechanism_that_cannot_be_had_is_a_configuration_error(name, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        mechanism(name, CREDENTIALS)
    assert "CRAM-MD5, PLAIN, LOGIN" in str(caught.value)
