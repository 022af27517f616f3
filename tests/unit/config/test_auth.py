"""The names in the option `auth`: built in, registered, imported; extras that are missing."""

import pytest

from mailbridge import ConfigurationError, SMTPConfig, register_sasl
from mailbridge.config import auth as auth_options
from mailbridge.smtp.sasl import registry

LOGIN = {"username": "u", "password": "p"}


class Own:
    name = "x-own"

    def __init__(self, credentials):
        pass


def nameless(credentials, challenge):
    return b""


not_callable = 7


@pytest.fixture(autouse=True)
def nothing_registered_and_every_extra_there(monkeypatch):
    monkeypatch.setattr(registry, "registered", {})
    monkeypatch.setattr(registry, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("auth", "parsed"),
    [
        ("auto", ()),
        ("scram-sha-256", ("SCRAM-SHA-256",)),
        ("xoauth2, OAUTHBEARER", ("XOAUTH2", "OAUTHBEARER")),
        (["plain", "PLAIN", " login "], ("PLAIN", "LOGIN")),
        (f"{__name__}.Own", (f"{__name__}.Own",)),
    ],
)
def test_names(auth, parsed):
    assert auth_options.parse_mechanisms(auth) == parsed


@pytest.mark.parametrize(
    ("auth", "complaint"),
    [
        ("PLIAN", "must be auto or name some of .*SCRAM-SHA-256"),
        (["auto", "PLAIN"], "must be auto or name some of"),
        (7, "must be a name or a list of names"),
        ([7], "auth"),
        ("no.such.module", "can't be imported"),
        (f"{__name__}.missing", "can't be imported"),
        (f"{__name__}.nameless", "is no mechanism"),
        (f"{__name__}.not_callable", "is no mechanism"),
    ],
)
def test_what_is_no_mechanism(auth, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        SMTPConfig(auth=auth, **LOGIN)


@pytest.mark.parametrize(("auth", "extra"), [("SCRAM-SHA-1-PLUS", "scram"), (["PLAIN", "ntlm"], "gssapi")])
def test_a_missing_extra_is_named(monkeypatch, auth, extra):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=rf"mailbridge-smtp\[{extra}\]"):
        SMTPConfig(auth=auth, **LOGIN)
    assert SMTPConfig(auth="auto", **LOGIN).auth == ()


OAUTH2 = {"grant": "static", "access_token": "t"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"auth": "XOAUTH2", **LOGIN}, "XOAUTH2, which needs the option oauth2"),
        ({"auth": ["PLAIN", "OAUTHBEARER"], **LOGIN}, "OAUTHBEARER, which needs the option oauth2"),
        ({"auth": "PLAIN", "username": "u", "oauth2": OAUTH2}, "can't send the token"),
    ],
)
def test_mechanisms_that_do_not_fit_what_is_configured(options, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        SMTPConfig(**options)


def test_mechanisms_of_tokens_and_of_ones_own_fit_a_token():
    for auth in ("auto", "XOAUTH2", ["OAUTHBEARER", "XOAUTH2"], f"{__name__}.Own"):
        assert SMTPConfig(auth=auth, username="u", oauth2=OAUTH2).has_credentials


def test_a_registered_name_can_be_configured():
    with pytest.raises(ConfigurationError, match="must be auto or name some of"):
        SMTPConfig(auth="x-own", **LOGIN)
    register_sasl("x-own", Own)
    assert SMTPConfig(auth="x-own", **LOGIN).auth == ("X-OWN",)


@pytest.mark.parametrize("name", ["", "A B", "A\r\nB", "ä", "a.b"])
def test_a_name_that_cannot_stand_in_the_command(name):
    with pytest.raises(ConfigurationError, match="can't name a mechanism"):
        register_sasl(name, Own)


def test_a_mechanism_that_cannot_be_called():
    with pytest.raises(ConfigurationError, match="must be a class or callable"):
        register_sasl("X-OWN", not_callable)


class TestWithoutPassword:
    @pytest.mark.parametrize("auth", ["EXTERNAL", "ANONYMOUS", "GSSAPI", f"{__name__}.Own"])
    def test_a_mechanism_that_needs_none_is_a_login_by_itself(self, auth):
        assert SMTPConfig(auth=auth).has_credentials
        assert SMTPConfig(auth=auth, username="u").has_credentials
        assert SMTPConfig(auth=auth, **LOGIN).has_credentials

    @pytest.mark.parametrize("auth", ["auto", "PLAIN", "NTLM", "SCRAM-SHA-256"])
    def test_the_others_want_both_or_neither(self, auth):
        assert not SMTPConfig(auth=auth).has_credentials
        with pytest.raises(ConfigurationError, match=r"username.*is given without password"):
            SMTPConfig(auth=auth, username="u")

    def test_a_password_always_wants_a_name(self):
        with pytest.raises(ConfigurationError, match=r"password.*is given without username"):
            SMTPConfig(auth="EXTERNAL", password="p")
