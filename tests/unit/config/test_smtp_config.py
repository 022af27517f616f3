"""SMTPConfig: the vocabulary, its defaults, what is refused, and that equal options are equal values."""

import copy
import pickle
import ssl
from typing import Any

import pytest

from mailbridge import DSN, ConfigurationError, SMTPConfig
from mailbridge.config.groups import PoolOptions, RetryOptions, Timeouts, TLSOptions
from mailbridge.secret import Secret


def test_defaults() -> None:
    config = SMTPConfig()
    assert (config.host, config.port, config.security) == ("localhost", 587, "starttls")
    assert config.timeouts == Timeouts(
        dns=30, connect=30, greeting=30, command=60, data=300, final=600, total=None
    )
    assert config.pool == PoolOptions(
        max_size=5, max_messages=100, max_idle=120, max_lifetime=600, acquire_timeout=30
    )
    assert config.retry.attempts == 1
    assert config.tls == TLSOptions(verify=True, min_version="TLSv1.2")
    assert (config.partial, config.pipelining, config.family) == ("deliver", "auto", "any")
    assert not config.has_credentials
    assert not config.allow_insecure_auth


@pytest.mark.parametrize(
    ("options", "security", "port"),
    [
        ({"security": "tls"}, "tls", 465),
        ({"security": "starttls"}, "starttls", 587),
        ({"security": "opportunistic"}, "opportunistic", 587),
        ({"security": "none"}, "none", 25),
        ({"port": 465}, "tls", 465),
        ({"port": 465, "security": "starttls"}, "starttls", 465),
        ({"port": "2525"}, "starttls", 2525),
        ({"host": "unix:/run/smtp"}, "none", 25),
    ],
)
def test_security_and_port_complete_each_other(options: dict[str, object], security: str, port: int) -> None:
    config = SMTPConfig.from_mapping(options)
    assert (config.security, config.port) == (security, port)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"hots": "x"}, "Unknown option 'hots'.*Did you mean 'host'"),
        ({"HOST": "x"}, "Did you mean 'host'"),
        ({"pool": {"max_sise": 3}}, r"'pool\.max_sise'.*'pool\.max_size'"),
        ({"timeouts": {"conect": 3}}, r"'timeouts\.connect'"),
        ({"host": ""}, "host name or an IP address"),
        ({"host": "a b"}, "host name or an IP address"),
        ({"host": "user@x"}, "host name or an IP address"),
        ({"host": "a\r\nb"}, "control characters"),
        ({"host": "1:2:3:zz"}, "IP address"),
        ({"host": "unix:relative"}, "absolute"),
        ({"host": "unix:/run/smtp", "security": "starttls"}, "tls.server_hostname"),
        ({"port": 0}, "at least 1"),
        ({"port": 65536}, "65535"),
        ({"port": True}, "whole number"),
        ({"port": "smtp"}, "whole number"),
        ({"security": "ssl"}, "one of tls, starttls"),
        ({"username": "u"}, "without password"),
        ({"password": "p"}, "without username"),
        ({"username": "u\n", "password": "p"}, "control characters"),
        ({"username": "u", "password": 3}, "must be a string"),
        ({"auth": "GUESS"}, "CRAM-MD5, PLAIN, LOGIN"),
        ({"auth": 7}, "a name or a list"),
        ({"tls": {"min_version": "SSLv3"}}, "TLSv1.2"),
        ({"tls": {"key_file": "k"}}, "tls.cert_file"),
        ({"tls": {"context": "x"}}, "ssl.SSLContext"),
        ({"tls": {"verify": "maybe"}}, "true or false"),
        ({"tls": 1}, "mapping"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": -1}, "above 0"),
        ({"timeout": "nan"}, "above 0"),
        ({"timeout": "inf"}, "above 0"),
        ({"timeout": True}, "above 0"),
        ({"timeouts": {"final": "soon"}}, "above 0"),
        ({"local_hostname": "a b"}, "address literal"),
        ({"local_hostname": "a\r\nRCPT TO:<x>"}, "control characters"),
        ({"local_hostname": "x" * 300}, "address literal"),
        ({"local_hostname": "a" * 200 + "-"}, "address literal"),
        ({"source_address": "example.com"}, "IP address"),
        ({"source_address": "::1", "family": "ipv4"}, "ipv4"),
        ({"family": "ipv5"}, "one of any"),
        ({"guard_names": "dns"}, "one of local, proxy"),
        ({"guard_names": True}, "one of local, proxy"),
        ({"pool": {"max_size": 0}}, "at least 1"),
        ({"pool": {"max_idle": 0}}, "above 0"),
        ({"retry": {"jitter": 2}}, "between 0 and 1"),
        ({"retry": {"factor": 0.5}}, "at least 1"),
        ({"retry": 0}, "at least 1"),
        ({"pipelining": "eager"}, "not available yet"),
        ({"pipelining": "fast"}, "one of auto"),
        ({"partial": "some"}, "one of deliver"),
        ({"debug": "perhaps"}, "true or false"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        SMTPConfig.from_mapping(options)
    assert caught.value.stage == "config"


def test_none_means_not_given() -> None:
    assert SMTPConfig(host=None, port=None, username=None, password=None, timeout=None) == SMTPConfig()


def test_frameworks_empty_strings_are_no_credentials() -> None:
    assert not SMTPConfig(username="", password="").has_credentials


def test_equal_options_are_equal_values() -> None:
    def build() -> SMTPConfig:
        return SMTPConfig.from_mapping(
            {
                "host": "x",
                "username": "u",
                "password": "p",
                "pool": {"max_size": 3},
                "timeouts": {"command": 5},
                "tls": {"ca_file": "/ca.pem"},
                "auth": ["plain", "login"],
                "disable": ["chunking", "size"],
            }
        )

    assert build() == build()
    assert hash(build()) == hash(build())
    assert {build(): 1}[build()] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"host": "y"},
        {"port": 26},
        {"security": "none"},
        {"username": "other", "password": "p"},
        {"username": "u", "password": "other"},
        {"auth": "login"},
        {"allow_insecure_auth": True},
        {"tls": {"verify": False}},
        {"tls": {"server_hostname": "z"}},
        {"timeouts": {"command": 1}},
        {"local_hostname": "me.example"},
        {"source_address": "127.0.0.2"},
        {"family": "ipv4"},
        {"allow_internal_networks": False},
        {"guard_names": "proxy"},
        {"pool": {"max_size": 2}},
        {"retry": 2},
        {"pipelining": "off"},
        {"disable": "size"},
        {"partial": "all-or-none"},
        {"debug": True},
        {"proxy": "http://p"},
        {"proxy": "http://u:p@p"},
        {"proxy_protocol": 1},
        {"proxy_protocol": 2},
    ],
)
def test_every_option_is_part_of_the_key(change: dict[str, object]) -> None:
    base = {"host": "x", "username": "u", "password": "p"}
    assert SMTPConfig.from_mapping(base) != SMTPConfig.from_mapping({**base, **change})


def test_a_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        SMTPConfig().host = "other"  # type: ignore[misc]


def test_the_password_shows_nowhere() -> None:
    config = SMTPConfig(host="x", username="u", password="hunter2")
    assert "hunter2" not in f"{config!r} {config} {config.password}"
    assert b"hunter2" not in pickle.dumps(config)
    assert isinstance(config.password, Secret)
    assert copy.deepcopy(config) == config


def test_credentials_may_be_callables() -> None:
    def rotating() -> str:
        return "p"

    config = SMTPConfig(username="u", password=rotating)
    assert config.password is rotating
    assert config == SMTPConfig(username="u", password=rotating)


def test_the_shorthand_timeout_sets_five_stages_and_single_ones_win() -> None:
    limits = SMTPConfig(timeout=7, timeouts={"final": 9, "data": None}).timeouts
    assert limits == Timeouts(dns=30, connect=7, greeting=7, command=7, data=None, final=9)


def test_groups_may_be_given_as_values() -> None:
    config = SMTPConfig(
        tls=TLSOptions(verify=False), pool=PoolOptions(max_size=1), retry=RetryOptions(attempts=3)
    )
    assert config == SMTPConfig(tls={"verify": False}, pool={"max_size": 1}, retry=3)


def test_pool_false_is_a_fresh_connection_per_send() -> None:
    assert SMTPConfig(pool=False).pool == PoolOptions(enabled=False)
    assert SMTPConfig(pool=True) == SMTPConfig()


def test_a_context_of_ones_own_stands_alone() -> None:
    context = ssl.create_default_context()
    assert SMTPConfig(tls={"context": context, "server_hostname": "x"}).tls.context is context
    with pytest.raises(ConfigurationError, match="beside tls"):
        SMTPConfig(tls={"context": context, "verify": False})


def test_auth_names_keep_their_order_and_disable_does_not_matter_in_order() -> None:
    assert SMTPConfig(auth="login, plain").auth == ("LOGIN", "PLAIN")
    assert SMTPConfig(disable=["size", "CHUNKING"]) == SMTPConfig(disable="chunking,size")


@pytest.mark.parametrize(
    ("host", "server"),
    [("mx.example", "mx.example:587"), ("[::1]", "[::1]:587"), ("unix:/run/smtp", "unix:/run/smtp")],
)
def test_the_servers_name_in_messages(host: str, server: str) -> None:
    assert SMTPConfig(host=host).server == server


def test_reports_for_messages_that_do_not_say_it_themselves() -> None:
    given = {"ret": "HDRS", "notify": ["FAILURE", "DELAY"], "envid": "message-id"}
    config = SMTPConfig(dsn=given)
    assert config.dsn == DSN(ret="HDRS", notify="FAILURE,DELAY", envid="message-id")
    url = "smtp://localhost/?dsn.ret=hdrs&dsn.notify=failure,delay&dsn.envid=message-id"
    assert config == SMTPConfig.from_url(url) == SMTPConfig(dsn=config.dsn)
    assert hash(config) == hash(SMTPConfig.from_url(url, dsn={"ret": "HDRS"}))
    assert SMTPConfig(dsn={}) == SMTPConfig(dsn=DSN()) == SMTPConfig()
    assert SMTPConfig().dsn is None


@pytest.mark.parametrize(
    ("dsn", "complaint"),
    [
        ({"ret": "some"}, "HDRS or FULL"),
        ({"notfy": "NEVER"}, r"Did you mean 'dsn\.notify'"),
        ({"orcpt": "a@b"}, "of one recipient"),
        ("NEVER", "a mapping, not str"),
    ],
)
def test_bad_reports(dsn: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        SMTPConfig(dsn=dsn)
