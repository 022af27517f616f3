"""mailbridge_django.options: which of several sources of an option counts."""

from typing import Any

import pytest
from django.test.utils import override_settings

import mailbridge
from mailbridge import Secret, Timeouts, TLSOptions
from mailbridge.config.parsing import KNOWN
from mailbridge_django.compat import MailerMisconfigured
from mailbridge_django.options import (
    DJANGO_NAMES,
    OWN_NAMES,
    build_config,
    config_for,
    did_you_mean,
    flags_decide,
    forget_mailers,
    given,
    layered,
    package_options,
    security_of,
)


def test_the_names_are_those_of_the_core_and_django_and_the_resolver() -> None:
    of_django_alone = {"use_tls", "use_ssl", "ssl_keyfile", "ssl_certfile"}
    assert {*OWN_NAMES, *DJANGO_NAMES} == {*KNOWN, *of_django_alone, "config_resolver"}


def test_none_is_not_given_and_what_is_secret_is_sealed() -> None:
    options = given(host=None, password="hunter2", url="smtp://u:hunter2@h/", username="u")
    assert options == {"password": Secret("hunter2"), "url": Secret("smtp://u:hunter2@h/"), "username": "u"}
    assert "hunter2" not in repr(options)


@pytest.mark.parametrize(
    ("above", "beneath", "together"),
    [
        ({"host": "a"}, {"host": "b", "port": 2}, {"host": "a", "port": 2}),
        ({"host": "a"}, {"url": "u"}, {"host": "a", "url": "u"}),
        ({"timeout": 3}, {"timeouts": {"final": 9}}, {"timeout": 3}),
        # The credentials beneath were meant for another host than the URL's.
        (
            {"url": "u"},
            {"host": "b", "port": 2, "username": "n", "password": "p", "security": "tls", "use_tls": True},
            {"url": "u"},
        ),
        ({"url": "u"}, {"pool": {"max_size": 2}}, {"url": "u", "pool": {"max_size": 2}}),
    ],
)
def test_layers(above: dict[str, Any], beneath: dict[str, Any], together: dict[str, Any]) -> None:
    assert layered(above, beneath) == together


@pytest.mark.parametrize(
    ("layers", "decide"),
    [
        ([{}, {}], True),
        ([{"use_tls": True}, {"security": "none"}], True),
        ([{"use_tls": True}, {"url": "smtps://h"}], True),
        ([{"use_tls": False}, {"security": "tls"}], False),
        ([{"use_ssl": False}, {"url": "smtps://h"}], False),
        ([{"security": "tls", "use_tls": True}, {}], False),
        ([{"url": "smtps://h", "use_tls": True}, {}], False),
        ([{}, {"url": "smtps://h"}], False),
        ([{}, {"use_ssl": True}], True),
    ],
)
def test_where_the_flags_tell_the_security(layers: list[dict[str, Any]], decide: bool) -> None:
    assert flags_decide(layers) is decide


def test_what_the_flags_mean() -> None:
    assert security_of({"use_ssl": True}) == "tls"
    assert security_of({"use_tls": True}) == "starttls"
    assert security_of({"use_tls": False, "use_ssl": None}) == security_of({}) == "none"


def test_certificates_go_into_the_tls_group_which_wins() -> None:
    files = {"ssl_certfile": "c.pem", "ssl_keyfile": "k.pem"}
    assert build_config({"host": "h", **files}, None).tls == TLSOptions(cert_file="c.pem", key_file="k.pem")
    mine = {"cert_file": "mine.pem", "ca_file": "ca.pem"}
    wanted = TLSOptions(cert_file="mine.pem", key_file="k.pem", ca_file="ca.pem")
    assert build_config({"host": "h", **files, "tls": mine}, None).tls == wanted
    assert build_config({"host": "h", **files, "tls": TLSOptions(**mine)}, None).tls == wanted
    assert build_config({"host": "h", "ssl_certfile": "", "tls": mine}, None).tls == TLSOptions(**mine)


@pytest.mark.parametrize("empty", [("", "p"), ("u", ""), ("", "")])
def test_an_empty_user_name_or_password_is_none_as_in_django(empty: tuple[str, str]) -> None:
    config = build_config(given(host="h", username=empty[0], password=empty[1]), None)
    assert not config.has_credentials


@pytest.mark.parametrize("auth", ["external", ["GSSAPI", "PLAIN"], "PLAIN,ANONYMOUS"])
@pytest.mark.parametrize("username", ["", "u"])
def test_djangos_empty_password_is_none_where_none_is_needed(auth: object, username: str) -> None:
    config = build_config(given(host="h", username=username, password="", auth=auth), None)
    assert (config.username, config.password) == (username or None, None)
    assert config.has_credentials


def test_a_mechanism_of_ones_own_by_its_path() -> None:
    options = given(host="h", username="u", password="p", auth=f"{__name__}.Own")
    assert build_config(options, None).auth == (f"{__name__}.Own",)
    with pytest.raises(MailerMisconfigured, match="can't be imported"):
        build_config({**options, "auth": f"{__name__}.Missing"}, None)


class Own:
    """No mechanism that works, but one that can be named."""

    name = "X-OWN"


def test_a_user_name_without_any_password_is_refused() -> None:
    with pytest.raises(MailerMisconfigured, match="'username' is given without password"):
        build_config(given(host="h", username="u"), None)


def test_the_shorthand_for_time_limits_beats_those_of_a_url() -> None:
    url = Secret("smtp://h/?timeouts.connect=60&timeouts.total=90")
    limits = build_config({"url": url, "timeout": 7}, None).timeouts
    assert limits == Timeouts(connect=7, greeting=7, command=7, data=7, final=7, total=90)
    spelt = build_config({"host": "h", "timeout": 7, "timeouts": {"final": 600}}, None).timeouts
    assert (spelt.connect, spelt.final) == (7, 600)


def test_equal_options_give_equal_configurations() -> None:
    options = {"host": "h", "tls": {"ca_file": "ca.pem"}, "pool": {"max_size": 2}, "username": "u"}
    one, other = (build_config(given(**options, password="p"), None) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


def test_a_configuration_is_built_once_for_equal_options_of_an_alias() -> None:
    options = given(host="h", username="u", password="p", tls={"ca_file": "ca.pem"}, disable=["DSN"])
    config = config_for(options, "bulk")
    assert config_for(given(**{**options, "password": "p", "tls": {"ca_file": "ca.pem"}}), "bulk") is config
    assert config_for(options, "other") == config
    options["tls"]["ca_file"] = "other.pem"
    assert config_for(options, "bulk").tls.ca_file == "other.pem"
    options["disable"].append("SIZE")
    assert config_for(options, "bulk").disable == ("DSN", "SIZE")
    assert config_for({**options, "password": Secret("q")}, "bulk").password == Secret("q")


def test_options_that_cannot_work_are_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(MailerMisconfigured, match=r"Unknown option 'pool.max_sise'"):
            config_for(given(host="h", pool={"max_sise": 3}), "bulk")


@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        ({"pool": {"max_sise": 3}}, r"MAILERS\['bulk'\]: Unknown option 'pool.max_sise'", "'pool.max_size'"),
        ({"url": Secret("smtp://u:hunter2@h/?tmeout=3")}, "Unknown option 'tmeout'", "'timeout'"),
        (
            {"username": "u", "oauth2": {"provider": "google", "client_secret": "hunter2", "secrt": "x"}},
            "Unknown option 'oauth2.secrt'",
            "'oauth2.client_secret'",
        ),
    ],
)
def test_what_cannot_work_names_the_mailer(options: dict[str, Any], problem: str, hint: str) -> None:
    with pytest.raises(MailerMisconfigured, match=problem) as caught:
        build_config({"host": "h", **options} if "url" not in options else options, "bulk")
    assert hint in str(caught.value)
    assert caught.value.__context__ is None
    assert "hunter2" not in str(caught.value)


GOOGLE = {"provider": "google", "client_id": "c", "client_secret": "hunter2", "refresh_token": "hunter3"}


def test_oauth2_takes_the_place_of_a_password_beneath() -> None:
    django = given(host="h", username="u@x.example", password="hunter2")
    config = build_config(layered(given(oauth2=GOOGLE), django), None)
    assert (config.username, config.password) == ("u@x.example", None)
    assert config.oauth2 is not None
    # Django's own defaults are empty strings.
    empty = given(host="h", username="u@x.example", password="")
    assert build_config(layered(given(oauth2=GOOGLE), empty), None).oauth2 == config.oauth2


def test_a_password_takes_the_place_of_oauth2_beneath() -> None:
    package = given(host="h", oauth2=GOOGLE)
    config = build_config(layered(given(username="u", password="p"), package), None)
    assert (config.password, config.oauth2) == (Secret("p"), None)
    assert build_config(layered(given(url="smtp://other/"), package), None).oauth2 is None


def test_the_secrets_of_oauth2_are_sealed() -> None:
    account = {"client_email": "a@b", "private_key": "hunter4"}
    shown = repr(given(oauth2={**GOOGLE, "service_account": account}))
    assert "hunter" not in shown


def test_the_nearest_name_is_the_hint() -> None:
    assert did_you_mean(["pool_sise"]) == "Did you mean 'pool'?" or "pool" in did_you_mean(["pool_sise"])
    assert did_you_mean(["user_name"]) == "Did you mean 'username'?"
    assert did_you_mean(["qqqq"]).startswith("Known are: allow_insecure_auth, ")


def test_the_setting_without_its_mailers() -> None:
    with override_settings(MAILBRIDGE={"pool": {"max_size": 2}, "MAILERS": {"bulk": {}}}):
        assert package_options() == {"pool": {"max_size": 2}}
    assert package_options() == {}
    with override_settings(MAILBRIDGE=["pool"]), pytest.raises(MailerMisconfigured, match="must be a dict"):
        package_options()


@pytest.mark.parametrize("setting", ["MAILBRIDGE", "MAILERS", "EMAIL_HOST", "EMAIL_TIMEOUT"])
def test_settings_that_change_close_the_pools(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(mailbridge, "close_all", lambda: closed.append(True))
    forget_mailers(setting=setting, value=None, enter=True)
    forget_mailers(setting="DEBUG", value=None, enter=True)
    assert closed == [True]


SERVICE = given(service="gmail")


def test_a_service_stands_in_for_an_endpoint_beneath() -> None:
    beneath = given(host="old", port=2525, use_tls=True, username="u@gmail.com", password="p")
    config = build_config(layered(SERVICE, beneath), None)
    assert (config.server, config.security, config.username) == ("smtp.gmail.com:465", "tls", "u@gmail.com")
    assert build_config(layered(SERVICE, given(url="smtp://u:p@old")), None).username is None
    # And the other way round.
    assert build_config(layered(given(host="new"), SERVICE), None).server == "new:587"
    assert build_config(layered(given(url="smtp://new"), SERVICE), None).server == "new:587"


def test_flags_beneath_a_service_decide_nothing() -> None:
    assert not flags_decide([SERVICE, given(use_tls=True)])
    assert flags_decide([given(use_tls=True), SERVICE])


@pytest.mark.parametrize("many", [False, True])
def test_keys_of_dkim_are_sealed(many: bool) -> None:
    key = {"domain": "x.example", "selector": "s", "private_key": "hunter2"}
    options = given(dkim=[key] if many else key)
    assert "hunter2" not in repr(options)
    sealed = options["dkim"][0] if many else options["dkim"]
    assert sealed["private_key"] == Secret("hunter2")
