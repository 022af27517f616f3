"""MAILBRIDGE_* keys: every option, further mailers, the environment, and errors that help."""

import traceback
from typing import Any

import pytest
from flask import Flask

from mailbridge import ConfigurationError, Secret, SMTPConfig
from mailbridge_flask import Mail
from mailbridge_flask.settings import Settings, read_settings
from tests.flask.apps import config_of, settings_of


@pytest.mark.parametrize("others", [{}, {"MAIL_SERVER": "store.example"}, {"MAIL_USE_TLS": True}])
def test_lmtp_has_a_port_of_its_own(others: dict[str, Any]) -> None:
    """25, Flask-Mail's default, is the one that LMTP must not be spoken to (RFC 2033 section 5)."""
    config = config_of(MAILBRIDGE_PROTOCOL="lmtp", **others)
    assert (config.protocol, config.port) == ("lmtp", 24)
    assert config_of(MAILBRIDGE_PROTOCOL="lmtp", MAIL_PORT=2424).port == 2424


OPTIONS: dict[str, Any] = {
    "host": "smtp.example.com",
    "port": 2525,
    "security": "tls",
    "username": "user",
    "password": "secret",
    "auth": ["PLAIN", "LOGIN"],
    "allow_insecure_auth": True,
    "tls": {"server_hostname": "mail.example.com", "verify": False},
    "timeout": 7,
    "timeouts": {"final": 70},
    "local_hostname": "web.example.com",
    "source_address": "127.0.0.1",
    "family": "ipv4",
    "allow_internal_networks": False,
    "guard_names": "proxy",
    "pool": {"max_size": 2},
    "retry": {"attempts": 3},
    "pipelining": "off",
    "disable": ["CHUNKING"],
    "partial": "all-or-none",
    "debug": True,
}


def test_every_option_has_its_key() -> None:
    keys = {f"MAILBRIDGE_{name.upper()}": value for name, value in OPTIONS.items()}
    assert config_of(**keys) == SMTPConfig.from_mapping(OPTIONS)


def test_a_url_is_one_of_them_and_explicit_options_beside_it_win() -> None:
    config = config_of(
        MAILBRIDGE_URL="smtps://u:p%40w@smtp.example.com/?pool.max_size=2", MAILBRIDGE_PORT=4650
    )
    assert config == SMTPConfig(
        host="smtp.example.com", port=4650, security="tls", username="u", password="p@w", pool={"max_size": 2}
    )


def test_the_defaults_of_the_core_hold_with_any_key_of_mailbridge() -> None:
    assert config_of(MAILBRIDGE_POOL={}) == SMTPConfig()
    assert config_of(MAILBRIDGE_DEFAULT_SENDER="a@b.example").security == "starttls"


def test_equal_applications_have_equal_configurations_and_share_a_pool() -> None:
    keys = {f"MAILBRIDGE_{name.upper()}": value for name, value in OPTIONS.items()}
    first, second = Flask("one"), Flask("two")
    first.config.from_mapping(keys)
    second.config.from_mapping(keys)
    assert Mail(first).state_of(first).mailer() is Mail(second).state_of(second).mailer()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("MAILBRIDGE_HOTS", "MAILBRIDGE_HOST"),
        ("MAILBRIDGE_DEFAULT_SENDR", "MAILBRIDGE_DEFAULT_SENDER"),
        ("MAILBRIDGE_SUPPRESS", "MAILBRIDGE_SUPPRESS_SEND"),
        ("MAILBRIDGE_MAILER", "MAILBRIDGE_MAILERS"),
        ("MAILBRIDGE_USE_TLS", "MAILBRIDGE_TLS"),
        ("MAILBRIDGE_TIME_OUT", "MAILBRIDGE_TIMEOUT"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(key: str, nearest: str) -> None:
    app = Flask("testapp")
    app.config[key] = "x"
    with pytest.raises(ConfigurationError) as caught:
        Mail(app)
    assert f"Unknown configuration key {key!r}" in str(caught.value)
    assert f"Did you mean {nearest!r}?" in str(caught.value)


def test_an_unknown_key_like_no_other_lists_all() -> None:
    with pytest.raises(ConfigurationError, match=r"Known are: .*MAILBRIDGE_HOST.*MAILBRIDGE_MAILERS"):
        config_of(MAILBRIDGE_QQQQ=1)


def test_the_name_of_the_package_alone_is_no_key() -> None:
    with pytest.raises(ConfigurationError, match="MAILBRIDGE_URL"):
        config_of(MAILBRIDGE={"host": "smtp.example.com"})


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"MAILBRIDGE_PORT": 70000}, "'port' must lie between"),
        ({"MAILBRIDGE_POOL": {"max_sise": 3}}, "Did you mean 'pool.max_size'"),
        ({"MAILBRIDGE_OAUTH2": {"token_url": "x"}}, "names no refresh_token"),
        ({"MAILBRIDGE_MAILERS": {"bulk": {"hots": "x"}}}, r"MAILERS\['bulk'\]: Unknown option 'hots'"),
        ({"MAILBRIDGE_MAILERS": {"bulk": 5}}, r"MAILERS\['bulk'\] is neither a dict of options nor a URL"),
        ({"MAILBRIDGE_MAILERS": "smtp://localhost"}, "neither a dict of options nor a URL"),
        ({"MAILBRIDGE_DEFAULT_SENDER": "nobody"}, "MAILBRIDGE_DEFAULT_SENDER is no sender"),
        ({"MAIL_DEFAULT_SENDER": "a@b.example, c@d.example"}, "MAIL_DEFAULT_SENDER is no sender"),
        ({"MAILBRIDGE_DEFAULT_SENDER": ("a", "b", "c")}, "pair of name and address"),
        ({"MAILBRIDGE_DEFAULT_SENDER": 7}, "MAILBRIDGE_DEFAULT_SENDER is no sender"),
        ({"MAILBRIDGE_ASCII_ATTACHMENTS": "perhaps"}, "MAILBRIDGE_ASCII_ATTACHMENTS must be true or false"),
        (
            {"MAILBRIDGE_HOST": "a.example", "MAILBRIDGE_MAILERS": {"default": {"host": "b.example"}}},
            "configured in MAILBRIDGE_MAILERS, and by MAILBRIDGE_HOST too",
        ),
    ],
)
def test_a_bad_value_is_found_at_init(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        settings_of(**config)


def test_further_mailers_stand_alone() -> None:
    settings = settings_of(
        MAILBRIDGE_HOST="main.example",
        MAILBRIDGE_PASSWORD="main",
        MAILBRIDGE_USERNAME="main",
        MAILBRIDGE_DEFAULT_SENDER="app@example.com",
        MAILBRIDGE_MAILERS={
            "bulk": {"host": "bulk.example", "default_sender": ["News", "news@example.com"]},
            "audit": "smtp://audit.example/?security=none",
        },
    )
    assert list(settings.mailers) == ["bulk", "audit", "default"]
    assert settings.mailers["bulk"].config == SMTPConfig(host="bulk.example")
    assert settings.mailers["bulk"].default_sender == ("News", "news@example.com")
    assert settings.mailers["audit"].config == SMTPConfig(host="audit.example", security="none")
    assert settings.mailers["audit"].default_sender is None
    assert settings.default_sender == "app@example.com"


def test_the_default_mailer_may_stand_among_them() -> None:
    settings = settings_of(MAILBRIDGE_MAILERS={"default": {"host": "a.example"}})
    assert settings.mailers["default"].config.host == "a.example"


ENVIRONMENT = {
    "FLASK_MAILBRIDGE_HOST": "smtp.example.com",
    "FLASK_MAILBRIDGE_PORT": "2525",
    "FLASK_MAILBRIDGE_USERNAME": "1234",
    "FLASK_MAILBRIDGE_PASSWORD": "5678",
    "FLASK_MAILBRIDGE_POOL__max_size": "7",
    "FLASK_MAILBRIDGE_POOL__MAX_IDLE": "30",
    "FLASK_MAILBRIDGE_TIMEOUTS__final": "90.5",
    "FLASK_MAILBRIDGE_ALLOW_INSECURE_AUTH": "true",
    "FLASK_MAILBRIDGE_SERVICE": "",
    "FLASK_MAILBRIDGE_DEFAULT_SENDER": '["Shop", "shop@example.com"]',
    "FLASK_MAILBRIDGE_MAILERS__bulk__HOST": "bulk.example",
    "FLASK_MAILBRIDGE_MAILERS__audit": "smtp://audit.example",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    app = Flask("testapp")
    app.config.from_prefixed_env()
    return read_settings(app)


def test_the_environment_can_say_all_of_it(environment: Settings) -> None:
    assert environment.mailers["default"].config == SMTPConfig(
        host="smtp.example.com",
        port=2525,
        username="1234",
        password="5678",
        pool={"max_size": 7, "max_idle": 30},
        timeouts={"final": 90.5},
        allow_insecure_auth=True,
    )
    assert environment.default_sender == ("Shop", "shop@example.com")
    assert environment.mailers["bulk"].config.host == "bulk.example"
    assert environment.mailers["audit"].config.host == "audit.example"


SECRET = "hunter2-sesame"
MISTAKES: list[dict[str, Any]] = [
    {"MAILBRIDGE_PASSWORD": SECRET, "MAILBRIDGE_USERNAME": "u", "MAILBRIDGE_HOTS": "x"},
    {"MAILBRIDGE_PASSWORD": SECRET, "MAILBRIDGE_USERNAME": "u", "MAILBRIDGE_PORT": "x"},
    {"MAILBRIDGE_PASSWORD": SECRET},
    {"MAILBRIDGE_TLS": {"key_password": SECRET, "key_file": "/key.pem"}},
    {"MAILBRIDGE_URL": f"smtp://u:{SECRET}@localhost/?hots=1"},
    {"MAILBRIDGE_MAILERS": {"a": f"smtp://u:{SECRET}@localhost:x"}},
    {"MAILBRIDGE_MAILERS": {"a": {"password": SECRET}, "b": 5}},
    {"MAILBRIDGE_MAILERS": f"smtp://u:{SECRET}@localhost"},
    {"MAIL_PASSWORD": SECRET, "MAIL_USERNAME": "u", "MAIL_PORT": "x"},
    {"MAIL_PASSWORD": SECRET, "MAIL_USERNAME": "u", "MAIL_USE_TLS": True, "MAIL_USE_SSL": True},
    {"MAIL_PASSWORD": SECRET, "MAIL_USERNAME": "u", "MAIL_DEFAULT_SENDER": "x"},
]


@pytest.mark.parametrize("config", MISTAKES)
def test_no_frame_of_a_traceback_shows_a_password(config: dict[str, Any]) -> None:
    app = Flask("testapp")
    app.config.from_mapping(config)
    with pytest.raises(ConfigurationError) as caught:
        Mail(app)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # The first frame is this test's own, which has put the password there.
    shown.stack = traceback.StackSummary.from_list(shown.stack[1:])
    text = "".join(shown.format())
    assert "app = <Flask 'testapp'>" in text  # the locals are there
    assert SECRET not in text


def test_oauth2_takes_the_place_of_the_password() -> None:
    app = Flask(__name__)
    app.config["MAIL_USERNAME"] = "u@x.example"
    app.config["MAILBRIDGE_OAUTH2"] = {
        "provider": "google",
        "client_id": "c",
        "client_secret": "hunter2",
        "refresh_token": "hunter3",
    }
    config = read_settings(app).mailers["default"].config
    assert (config.username, config.password) == ("u@x.example", None)
    assert config.oauth2 is not None
    assert config.oauth2.refresh_token == Secret("hunter3")
    assert "hunter" not in repr(config)


def test_mechanisms_are_named_as_everywhere_one_of_ones_own_by_its_path() -> None:
    login = {"MAILBRIDGE_USERNAME": "u", "MAILBRIDGE_PASSWORD": "p"}
    path = "mailbridge.smtp.sasl.plain.Plain"  # stands for one: a class with a name
    assert config_of(MAILBRIDGE_AUTH=["external", path], **login).auth == ("EXTERNAL", path)
    assert config_of(MAILBRIDGE_AUTH="EXTERNAL").has_credentials
    with pytest.raises(ConfigurationError, match="can't be imported"):
        config_of(MAILBRIDGE_AUTH="mailbridge.nowhere.Mechanism", **login)
