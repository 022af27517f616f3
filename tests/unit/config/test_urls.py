"""Connection URLs: decoded once, nested options, and no password in any error."""

from dataclasses import fields
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge.config.groups import TLSOptions
from mailbridge.config.layers import _GROUPS
from mailbridge.config.parsing import KNOWN
from mailbridge.config.urls import IN_URLS, SETTINGS_ONLY
from mailbridge.message.delivery_options import DSN
from mailbridge.secret import Secret
from tests.documents import GROUPS


def test_everything_in_one_url() -> None:
    config = SMTPConfig.from_url(
        "smtps://u%40x.example:p%2Fw%25@[::1]:2465/?pool.max_size=3&timeouts.command=5&auth=plain,login&debug=yes"
    )
    assert (config.host, config.port, config.security, config.username) == ("::1", 2465, "tls", "u@x.example")
    assert config.password == Secret("p/w%")
    assert (config.pool.max_size, config.timeouts.command) == (3, 5.0)
    assert config.auth == ("PLAIN", "LOGIN")
    assert config.debug


def test_options_beside_the_url_win_and_groups_are_merged() -> None:
    config = SMTPConfig.from_url(
        "smtp://u:p@a.example:25/?pool.max_size=3&pool.max_idle=9", host="b.example", pool={"max_size": 4}
    )
    assert (config.host, config.port) == ("b.example", 25)
    assert (config.pool.max_size, config.pool.max_idle) == (4, 9.0)


def test_the_url_is_an_option_like_others() -> None:
    url = "smtp://a.example:25/?security=none"
    assert SMTPConfig(url=url) == SMTPConfig.from_url(url) == SMTPConfig.from_mapping({"url": url})


def test_lmtp() -> None:
    assert SMTPConfig(url="lmtp://a.example") == SMTPConfig(host="a.example", protocol="lmtp")
    assert SMTPConfig(url="lmtp://a.example").port == 24
    over_a_socket = SMTPConfig(url="lmtp://", host="unix:/run/lmtp")
    assert (over_a_socket.protocol, over_a_socket.security) == ("lmtp", "none")


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_lmtp_is_never_spoken_to_port_25(security: str) -> None:
    """RFC 2033 section 5."""
    with pytest.raises(ConfigurationError, match="RFC 2033"):
        SMTPConfig(url=f"lmtp://a.example:25/?security={security}")
    assert SMTPConfig(url=f"lmtp://a.example:2525/?security={security}").security == security


def test_a_protocol_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="'protocol' must be one of smtp, lmtp"):
        SMTPConfig(url="smtp://a.example/?protocol=uucp")


def test_a_url_may_be_a_secret() -> None:
    url = "smtp://u:p@a.example:25/?security=none"
    assert SMTPConfig(url=Secret(url)) == SMTPConfig(url=url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://x", "must start with smtp"),
        ("smtp.example.com", "must start with smtp"),
        ("smtp://u:hunter2@x y", "without spaces"),
        ("smtp://u:hunter2@x\r\n/", "without spaces"),
        ("smtp://u:hunter2@x:port/", "malformed host or port"),
        ("smtp://u:hunter2@[::1/", "malformed host or port"),
        ("smtp://u:hunter2@x:99999/", "malformed host or port"),
        ("smtp://u:hunter2@x/path", "no option"),
        ("smtp://u:hunter2#x", "malformed host or port"),
        ("smtp://u:hunter2@x#y", "no option"),
        ("smtp://u:hunt/er2@x", "malformed host or port|no option"),
        ("smtp://u:hunter2@x/?pol.max_size=1", r"Did you mean 'pool\.max_size'"),
        ("smtp://u:hunter2@x/?pool.max_sise=1", r"pool\.max_size"),
        ("smtp://u:hunter2@x/?port=1&port=2", "twice"),
        ("smtp://u:hunter2@x/?pool=no&pool.max_size=1", "twice"),
        ("smtp://u:hunter2@x/?port", "malformed query"),
        ("smtp://u:%ff@x/", "not UTF-8"),
        ("smtp://u:hunter2@x/?url=smtp://y", "'url' can't stand in a URL"),
        (b"smtp://x", "must be a string"),
    ],
)
def test_a_bad_url_is_refused_without_showing_it(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        SMTPConfig(url=url)
    assert "hunter2" not in str(caught.value)


@given(
    st.text(min_size=1).filter(lambda t: t.isprintable()),
    st.text(min_size=1).filter(lambda t: t.isprintable()),
)
def test_any_user_and_password_survive_quoting(user: str, password: str) -> None:
    config = SMTPConfig.from_url(f"smtp://{quote(user, safe='')}:{quote(password, safe='')}@mx.example/")
    assert (config.username, config.password) == (user, Secret(password))


# Not options, but what options come to; and those that are no field.
_NO_OPTIONS = {"oauth2.supplier", "dsn.orcpt"}
_WITHOUT_FIELD = {"dkim.key_file", "proxy.url", "proxy.tls", "proxy.handler"}


def every_option() -> set[str]:
    groups = {**GROUPS, "dsn": DSN}
    assert set(_GROUPS) == groups.keys()
    nested = {f"{name}.{each.name}" for name, group in groups.items() for each in fields(group)}
    return {*KNOWN, *nested, *_WITHOUT_FIELD} - _NO_OPTIONS


def test_each_option_is_either_for_urls_or_for_settings_only() -> None:
    """A new option has to be put on one of the two lists."""
    assert every_option() == IN_URLS | SETTINGS_ONLY
    assert not IN_URLS & SETTINGS_ONLY


@pytest.mark.parametrize(
    "name",
    [
        # code
        *("oauth2", "oauth2.on_refresh", "oauth2.token_store", "proxy.handler", "rate"),
        # files
        *("tls.ca_file", "tls.ca_path", "tls.cert_file", "tls.key_file", "dkim.key_file"),
        *("oauth2.private_key", "oauth2.service_account"),
        # what is checked, and who sees it
        *("tls.verify", "tls.strict", "tls.allow_common_name", "tls.min_version", "tls.ciphers"),
        *("allow_insecure_auth", "allow_internal_networks", "oauth2.allow_insecure_token_url", "logger"),
    ],
)
def test_what_reaches_beyond_the_server_is_for_settings_only(name: str) -> None:
    assert name in SETTINGS_ONLY


@pytest.mark.parametrize("value", ["os.getcwd", "os", "file:/tmp", "false", "PLAIN,os.path.Own"])
@pytest.mark.parametrize("name", [*sorted(SETTINGS_ONLY), "oauth2.tls.ca_file", "oauth2.tls.verify"])
def test_a_url_is_data(name: str, value: str) -> None:
    url = f"smtp://u:p@h/?{name}={value}"
    problem = f"'{name}' can't stand in a URL"
    with pytest.raises(ConfigurationError, match=problem) as caught:
        SMTPConfig.from_url(url)
    assert f"={value}" not in str(caught.value)
    assert "mapping of settings" in str(caught.value)
    for options in ({"url": url}, {"servers": [url]}, {"servers": [{"url": url, "weight": 2}]}):
        with pytest.raises(ConfigurationError, match=problem):
            SMTPConfig.from_mapping(options)
    with pytest.raises(ConfigurationError, match=problem):
        SMTPConfig.from_untrusted(url)


@pytest.mark.parametrize(
    "query",
    ["auth=os.path.Own", "auth=PLAIN,os.path.Own", "auth=file:os.path.Own", "oauth2.provider=os.getcwd"],
)
def test_a_url_names_no_code(query: str) -> None:
    name, _, value = query.partition("=")
    with pytest.raises(ConfigurationError, match=f"dotted path in '{name}' can't stand in a URL") as caught:
        SMTPConfig.from_url(f"smtp://u:p@h/?{query}")
    assert value not in str(caught.value)
    with pytest.raises(ConfigurationError, match="can't stand in a URL"):
        SMTPConfig(servers=[f"smtp://u:p@h/?{query}"])


@pytest.mark.parametrize("rest", ["unix%3A%2Frun%2Fsmtp", "h/?host=unix:/run/smtp", "?host=unix%3A/run/smtp"])
def test_a_url_names_no_unix_socket(rest: str) -> None:
    with pytest.raises(ConfigurationError, match="UNIX socket can't stand in a URL"):
        SMTPConfig.from_url(f"smtp://{rest}")


def test_what_a_url_may_not_say_stands_beside_it() -> None:
    config = SMTPConfig(url="smtp://u:p@h/?tls.server_hostname=x.example", tls={"ca_file": "/etc/ca.pem"})
    assert config.tls == TLSOptions(server_hostname="x.example", ca_file="/etc/ca.pem")
