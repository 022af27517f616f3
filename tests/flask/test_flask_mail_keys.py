"""Flask-Mail's MAIL_* keys: what they mean here, what beats them, and whose defaults hold."""

import logging
from typing import Any

import pytest
from flask import Flask

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge_flask.settings import Settings, read_settings


def settings_of(**config: Any) -> Settings:
    app = Flask("testapp")
    app.config.from_mapping(config)
    return read_settings(app)


def config_of(**config: Any) -> SMTPConfig:
    return settings_of(**config).mailers["default"].config


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, SMTPConfig(port=25, security="none")),
        ({"MAIL_DEFAULT_SENDER": "a@b.example"}, SMTPConfig(port=25, security="none")),
        ({"MAIL_SERVER": "mx.example"}, SMTPConfig(host="mx.example", port=25, security="none")),
        ({"MAIL_SERVER": None, "MAIL_PORT": None}, SMTPConfig(port=25, security="none")),
        ({"MAIL_SERVER": "", "MAIL_PORT": ""}, SMTPConfig(port=25, security="none")),
        ({"MAIL_PORT": "2525"}, SMTPConfig(port=2525, security="none")),
        ({"MAIL_USE_TLS": True}, SMTPConfig(port=25, security="starttls")),
        ({"MAIL_USE_TLS": True, "MAIL_PORT": 587}, SMTPConfig(port=587, security="starttls")),
        ({"MAIL_USE_SSL": True}, SMTPConfig(port=465, security="tls")),
        ({"MAIL_USE_SSL": True, "MAIL_PORT": 4650}, SMTPConfig(port=4650, security="tls")),
        ({"MAIL_PORT": 465}, SMTPConfig(port=465, security="tls")),
        ({"MAIL_USE_TLS": "True", "MAIL_USE_SSL": "False"}, SMTPConfig(port=25, security="starttls")),
        ({"MAIL_USE_TLS": 1}, SMTPConfig(port=25, security="starttls")),
        ({"MAIL_USE_TLS": 0, "MAIL_USE_SSL": 0}, SMTPConfig(port=25, security="none")),
        (
            {"MAIL_USERNAME": "u", "MAIL_PASSWORD": "p"},
            SMTPConfig(port=25, security="none", username="u", password="p"),
        ),
        ({"MAIL_USERNAME": None, "MAIL_PASSWORD": None}, SMTPConfig(port=25, security="none")),
        ({"MAIL_TIMEOUT": 9}, SMTPConfig(port=25, security="none", timeout=9)),
        ({"MAIL_MAX_EMAILS": 3}, SMTPConfig(port=25, security="none", pool={"max_messages": 3})),
        ({"MAIL_MAX_EMAILS": None}, SMTPConfig(port=25, security="none")),
        ({"MAIL_MAX_EMAILS": 0}, SMTPConfig(port=25, security="none")),
        ({"MAIL_DEBUG": True}, SMTPConfig(port=25, security="none", debug=True)),
        ({"MAIL_DEBUG": 2}, SMTPConfig(port=25, security="none", debug=True)),
        (
            {"MAIL_SSL_CERTFILE": "/c.pem", "MAIL_SSL_KEYFILE": "/k.pem"},
            SMTPConfig(port=25, security="none", tls={"cert_file": "/c.pem", "key_file": "/k.pem"}),
        ),
    ],
)
def test_what_they_mean(config: dict[str, Any], expected: SMTPConfig) -> None:
    assert config_of(**config) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Each key of mailbridge beats its counterpart alone.
        (
            {"MAIL_SERVER": "a.example", "MAILBRIDGE_HOST": "b.example"},
            SMTPConfig(host="b.example"),
        ),
        (
            {"MAIL_SERVER": "a.example", "MAILBRIDGE_SECURITY": "starttls"},
            SMTPConfig(host="a.example", security="starttls"),
        ),
        (
            {"MAIL_SERVER": "a.example", "MAILBRIDGE_PORT": 587},
            SMTPConfig(host="a.example", port=587, security="starttls"),
        ),
        (
            {"MAIL_USE_SSL": True, "MAILBRIDGE_HOST": "b.example"},
            SMTPConfig(host="b.example", security="tls"),
        ),
        (
            {"MAIL_USERNAME": "u", "MAIL_PASSWORD": "p", "MAILBRIDGE_HOST": "b.example"},
            SMTPConfig(host="b.example", username="u", password="p"),
        ),
        (
            {"MAIL_USERNAME": "u", "MAIL_PASSWORD": "p", "MAILBRIDGE_PASSWORD": "q"},
            SMTPConfig(port=25, security="none", username="u", password="q"),
        ),
        # Groups are merged.
        (
            {"MAIL_SERVER": "a.example", "MAIL_MAX_EMAILS": 3, "MAILBRIDGE_POOL": {"max_size": 2}},
            SMTPConfig(host="a.example", port=25, security="none", pool={"max_size": 2, "max_messages": 3}),
        ),
        (
            {"MAIL_MAX_EMAILS": 3, "MAILBRIDGE_POOL": {"max_messages": 2}},
            SMTPConfig(port=25, security="none", pool={"max_messages": 2}),
        ),
        ({"MAIL_MAX_EMAILS": 3, "MAILBRIDGE_POOL": False}, SMTPConfig(port=25, security="none", pool=False)),
        # A URL says where to go and who one is; the rest goes on.
        (
            {
                "MAILBRIDGE_URL": "smtp://b.example",
                "MAIL_SERVER": "a.example",
                "MAIL_PORT": 25,
                "MAIL_USE_SSL": True,
                "MAIL_USERNAME": "u",
                "MAIL_PASSWORD": "p",
                "MAIL_TIMEOUT": 9,
            },
            SMTPConfig(host="b.example", timeout=9),
        ),
    ],
)
def test_keys_of_mailbridge_win(config: dict[str, Any], expected: SMTPConfig) -> None:
    assert config_of(**config) == expected


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"MAIL_USE_TLS": True, "MAIL_USE_SSL": True}, "exclude each other"),
        ({"MAIL_USE_TLS": "perhaps"}, "MAIL_USE_TLS must be true or false, not this str"),
        ({"MAIL_PORT": "smtp"}, "'port' must be a whole number"),
        ({"MAILBRIDGE_USERNAME": "u", "MAIL_SERVER": "a.example"}, "'username' is given without password"),
    ],
)
def test_mistakes(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        config_of(**config)


@pytest.mark.parametrize(
    ("key", "missing"), [("MAIL_USERNAME", "MAIL_PASSWORD"), ("MAIL_PASSWORD", "MAIL_USERNAME")]
)
def test_half_of_the_credentials_is_none_as_in_flask_mail_but_not_silently(
    key: str, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not config_of(**{key: "sesame"}).has_credentials
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{missing} is not set" in caplog.text
    assert "sesame" not in caplog.text


def test_keys_of_others_are_left_alone() -> None:
    assert config_of(MAIL_SERVER="a.example", MAIL_MONITOR_URL="x", MAILER="y").host == "a.example"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"MAIL_DEFAULT_SENDER": "a@b.example"}, "a@b.example"),
        ({"MAIL_DEFAULT_SENDER": ("A", "a@b.example")}, ("A", "a@b.example")),
        ({"MAIL_DEFAULT_SENDER": "a@b.example", "MAILBRIDGE_DEFAULT_SENDER": "c@d.example"}, "c@d.example"),
        ({"MAIL_DEFAULT_SENDER": "a@b.example", "MAILBRIDGE_DEFAULT_SENDER": ""}, "a@b.example"),
    ],
)
def test_the_default_sender(config: dict[str, Any], expected: object) -> None:
    assert settings_of(**config).default_sender == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, False),
        ({"MAIL_ASCII_ATTACHMENTS": True}, True),
        ({"MAIL_ASCII_ATTACHMENTS": True, "MAILBRIDGE_ASCII_ATTACHMENTS": False}, False),
        ({"MAILBRIDGE_ASCII_ATTACHMENTS": "yes"}, True),
    ],
)
def test_ascii_attachments(config: dict[str, Any], expected: bool) -> None:
    assert settings_of(**config).ascii_attachments is expected


def test_a_service_stands_in_for_the_endpoint() -> None:
    old = {"MAIL_SERVER": "old.example", "MAIL_PORT": 26, "MAIL_USE_TLS": True}
    config = config_of(**old, MAILBRIDGE_SERVICE="gmail", MAIL_USERNAME="u", MAIL_PASSWORD="p")
    assert config == SMTPConfig(service="gmail", username="u", password="p")
    config = config_of(**old, MAILBRIDGE_SERVICE="gmail", MAILBRIDGE_PORT=587)
    assert (config.server, config.security) == ("smtp.gmail.com:587", "starttls")
    assert config_of(MAILBRIDGE_SERVICE="resend", MAIL_PASSWORD="key").username == "resend"


def test_a_mechanism_that_needs_no_password_keeps_the_user() -> None:
    config = config_of(MAIL_USERNAME="u", MAILBRIDGE_AUTH="EXTERNAL")
    assert (config.username, config.password, config.has_credentials) == ("u", None, True)
    with pytest.raises(ConfigurationError, match="without password"):
        config_of(MAIL_USERNAME="u", MAILBRIDGE_AUTH="PLAIN")
