"""mailbridge.config.untrusted: what somebody who is not trusted may say of a server, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from mailbridge import ConfigurationError, Secret, SMTPConfig
from mailbridge.config.parsing import KNOWN
from mailbridge.config.untrusted import ALLOWED

ROW: dict[str, Any] = {"host": "smtp.example.com", "username": "u", "password": "hunter2"}


@pytest.mark.parametrize(
    "source",
    [
        ROW,
        ROW | {"timeout": None, "proxy": None},
        ROW | {"password": Secret("hunter2")},
        "smtp://u:hunter2@smtp.example.com",
        Secret("smtp://u:hunter2@smtp.example.com/"),
    ],
)
def test_a_server_and_a_login_are_taken(source: Any) -> None:
    config = SMTPConfig.from_untrusted(source)
    assert config == SMTPConfig(**ROW, allow_internal_networks=False)


def test_the_rest_that_may_be_given() -> None:
    config = SMTPConfig.from_untrusted("smtps://u:p@h.example:4465/?timeouts.command=20&timeout=60")
    assert (config.security, config.port) == ("tls", 4465)
    assert (config.timeouts.command, config.timeouts.data) == (20, 60)
    assert SMTPConfig.from_untrusted({"service": "gmail"}).host == "smtp.gmail.com"
    assert SMTPConfig.from_untrusted(ROW | {"security": "none", "port": "25"}).port == 25


@pytest.mark.parametrize("name", sorted({*KNOWN, "servers", "nonsense", "BACKEND"} - {*ALLOWED}))
def test_every_other_option_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}' can't be set") as caught:
        SMTPConfig.from_untrusted(ROW | {name: "os.system"})
    assert "os.system" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "tls.verify=false",
        "tls.ca_file=/etc/passwd",
        "oauth2=os.system",
        "oauth2.token_store=file:/tmp",
        "auth=os.path.Own",
        "proxy=http://127.0.0.1:3128",
        "proxy.handler=os.system",
        "dkim.key_file=/etc/ssl/private/key.pem",
        "rate=os.system",
        "logger=root",
        "allow_insecure_auth=true",
        "allow_internal_networks=true",
        "guard_names=proxy",
        "pool.max_size=100000",
        "debug=true",
    ],
)
def test_a_url_says_no_more_than_a_mapping(query: str) -> None:
    with pytest.raises(ConfigurationError, match=r"can't be set by somebody|can't stand in a URL"):
        SMTPConfig.from_untrusted(f"smtp://u:hunter2@h.example/?{query}")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"username": "u", "password": "hunter2"}, "name the server"),
        ("smtp://u:hunter2@", "name the server"),
        (ROW | {"host": "unix:/run/smtp"}, "UNIX socket"),
        (ROW | {"password": lambda: "hunter2"}, "text or a number"),
        (ROW | {"service": object()}, "text or a number"),
        (ROW | {"port": True}, "text or a number"),
        (ROW | {"timeout": 121}, "at most 120 seconds"),
        (ROW | {"timeout": "inf"}, "number of seconds"),
        (ROW | {"timeouts": {"data": 1e9}}, "at most 120 seconds"),
        (ROW | {"timeouts": "hunter2"}, "must be a mapping"),
        ("lmtp://u:hunter2@h.example", "'protocol' can't be set"),
        (["hunter2"], "a URL or a mapping"),
        (None, "a URL or a mapping"),
    ],
)
def test_what_makes_no_sense_is_refused_without_being_shown(source: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        SMTPConfig.from_untrusted(source)
    assert "hunter2" not in str(caught.value)
