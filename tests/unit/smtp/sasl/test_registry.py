"""Which mechanisms there are, and which are tried, in which order."""

from importlib.util import find_spec

import pytest

from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret
from mailbridge.smtp import sasl
from mailbridge.smtp.sasl import AVAILABLE, RANKING, Credentials, candidates, mechanism, registry

with_scram = pytest.mark.skipif(find_spec("scramp") is None, reason="the extra scram is not installed")
BINDINGS = {"tls-server-end-point": b"hash"}
PASSWORD = Credentials("user", Secret("hunter2"))
BOUND = Credentials("user", Secret("hunter2"), bindings=BINDINGS)
TOKEN = Credentials("user", token=Secret("hunter2"))
NOTHING = Credentials("")
EVERYTHING = sorted(AVAILABLE)


class Own:
    name = "x-own"

    def __init__(self, credentials):
        self.credentials = credentials

    def initial(self):
        return None

    def step(self, challenge):
        return challenge


@pytest.mark.parametrize(
    ("wanted", "offered", "tried"),
    [
        ("auto", ["LOGIN", "PLAIN", "CRAM-MD5"], ["CRAM-MD5", "PLAIN", "LOGIN"]),
        ("AUTO", ["LOGIN", "PLAIN"], ["PLAIN", "LOGIN"]),
        ("auto", ["login", "plain"], ["PLAIN", "LOGIN"]),
        ("auto", ["XOAUTH2", "ANONYMOUS", "EXTERNAL", "GSSAPI", "NTLM", "X-NEW"], []),
        ("auto", [], []),
        ("plain", ["PLAIN", "CRAM-MD5"], ["PLAIN"]),
        ("CRAM-MD5", ["PLAIN"], []),
        (["LOGIN", "PLAIN", "login"], ["PLAIN", "LOGIN", "CRAM-MD5"], ["LOGIN", "PLAIN"]),
        (["EXTERNAL", "ANONYMOUS"], ["ANONYMOUS", "EXTERNAL"], ["EXTERNAL", "ANONYMOUS"]),
        ([], ["PLAIN"], []),
    ],
)
def test_candidates(wanted, offered, tried):
    assert candidates(wanted, offered, PASSWORD) == tried


@with_scram
@pytest.mark.parametrize(
    ("wanted", "offered", "tried"),
    [
        ("auto", ["SCRAM-SHA-1", "CRAM-MD5", "SCRAM-SHA-256"], ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5"]),
        (["PLAIN", "SCRAM-SHA-256"], ["SCRAM-SHA-256", "PLAIN"], ["PLAIN", "SCRAM-SHA-256"]),
        ("SCRAM-SHA-256-PLUS", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], []),
    ],
)
def test_candidates_with_scram(wanted, offered, tried):
    assert candidates(wanted, offered, PASSWORD) == tried


@with_scram
def test_what_can_be_bound_to_the_channel_comes_first():
    strongest = candidates("auto", EVERYTHING, BOUND)
    assert strongest == [*RANKING[:7], "PLAIN", "LOGIN"]
    assert [name for name in strongest if name.endswith("-PLUS")] == strongest[:3]
    assert not any(name.endswith("-PLUS") for name in candidates("auto", EVERYTHING, PASSWORD))


def test_a_token_goes_to_no_mechanism_of_passwords_and_a_password_to_none_of_tokens():
    assert candidates("auto", EVERYTHING, TOKEN) == ["OAUTHBEARER", "XOAUTH2"]
    assert candidates("auto", ["PLAIN", "XOAUTH2"], TOKEN) == ["XOAUTH2"]
    assert candidates(["XOAUTH2", "OAUTHBEARER", "PLAIN"], EVERYTHING, TOKEN) == ["XOAUTH2", "OAUTHBEARER"]
    assert candidates(["XOAUTH2", "OAUTHBEARER"], EVERYTHING, PASSWORD) == []


def test_without_anything_to_prove():
    assert candidates("auto", EVERYTHING, NOTHING) == []
    assert candidates(["PLAIN", "NTLM", "EXTERNAL"], EVERYTHING, NOTHING) == ["EXTERNAL"]


def test_cram_md5_is_passed_over_where_md5_is_refused(monkeypatch):
    monkeypatch.setattr(sasl, "md5_is_allowed", lambda: False)
    assert candidates("auto", ["CRAM-MD5", "LOGIN"], PASSWORD) == ["LOGIN"]
    assert candidates("CRAM-MD5", ["CRAM-MD5", "LOGIN"], PASSWORD) == []


def test_scram_is_left_out_without_its_library(monkeypatch):
    monkeypatch.setattr(registry, "is_installed", lambda name: not name.startswith("SCRAM"))
    assert candidates("auto", EVERYTHING, BOUND) == ["CRAM-MD5", "PLAIN", "LOGIN"]


@with_scram
def test_scram_is_left_out_for_a_password_that_it_cannot_prepare():
    """SASLprep knows Unicode 3.2 only; a password with an emoji still works with the others."""
    young = Credentials("user", Secret("pass\N{PILE OF POO}word"))
    assert candidates("auto", ["SCRAM-SHA-256", "PLAIN"], young) == ["PLAIN"]
    assert candidates("SCRAM-SHA-256", ["SCRAM-SHA-256", "PLAIN"], young) == ["SCRAM-SHA-256"]
    with pytest.raises(ConfigurationError, match="SCRAM-SHA-256 can't be used here"):
        mechanism("SCRAM-SHA-256", young)


@with_scram
@pytest.mark.parametrize("name", RANKING)
def test_each_ranked_mechanism_can_be_had_and_shows_no_secret(name):
    credentials = Credentials("user", Secret("hunter2"), token=Secret("hunter2"), bindings=BINDINGS)
    exchange = mechanism(name.lower(), credentials)
    assert exchange.name == name
    assert "hunter2" not in repr(exchange)


def test_every_name_that_can_be_configured_can_be_had():
    assert registry.EXTRAS.keys() == AVAILABLE
    assert set(RANKING) < AVAILABLE


def test_one_of_the_users_own_is_tried_where_it_is_named(monkeypatch):
    monkeypatch.setattr(registry, "registered", {})
    registry.register_sasl("x-own", Own)
    assert candidates("auto", ["X-OWN", "PLAIN"], PASSWORD) == ["PLAIN"]
    assert candidates(["X-OWN", "PLAIN"], ["PLAIN", "x-own"], TOKEN) == ["X-OWN"]
    assert mechanism("X-Own", PASSWORD).name == "X-OWN"


def test_a_dotted_path_is_offered_by_the_name_it_leads_to():
    path = f"{__name__}.Own"
    assert candidates([path, "PLAIN"], ["X-OWN", "PLAIN"], PASSWORD) == [path, "PLAIN"]
    assert candidates([path, "PLAIN"], ["PLAIN"], PASSWORD) == ["PLAIN"]
    assert mechanism(path, PASSWORD).name == "X-OWN"


def test_a_registered_one_takes_the_place_of_a_built_in_one(monkeypatch):
    monkeypatch.setattr(registry, "registered", {})
    registry.register_sasl("PLAIN", Own)
    assert type(mechanism("PLAIN", PASSWORD)).__name__ == "Custom"


def test_a_mechanism_that_cannot_be_had_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="'PLAN' is unknown") as caught:
        mechanism("PLAN", PASSWORD)
    assert "CRAM-MD5" in str(caught.value)
