"""Connection URLs: decoded once, nested options, and no password in any error."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge.secret import Secret


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
        ("smtp://u:hunter2@x/?pol.max_size=1", "Did you mean 'pool'"),
        ("smtp://u:hunter2@x/?pool.max_sise=1", r"pool\.max_size"),
        ("smtp://u:hunter2@x/?port=1&port=2", "twice"),
        ("smtp://u:hunter2@x/?pool=no&pool.max_size=1", "twice"),
        ("smtp://u:hunter2@x/?port", "malformed query"),
        ("smtp://u:%ff@x/", "not UTF-8"),
        ("smtp://u:hunter2@x/?url=smtp://y", "Unknown option 'url'"),
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


@pytest.mark.parametrize(
    "query",
    [
        "auth=os.path.Own",
        "auth=PLAIN,os.path.Own",
        "oauth2=os.getcwd",
        "oauth2.provider=os.getcwd",
        "oauth2.on_refresh=os.remove",
        "oauth2.token_store=os.environ",
        "oauth2.token_store=os",
        "proxy.handler=os.system",
        "rate=os.getcwd",
        # Without a dot, and as file:, which names a folder in oauth2.token_store and nothing elsewhere.
        "rate=os",
        "rate=file:os.getcwd",
        "oauth2=file:os.getcwd",
        "oauth2.on_refresh=file:os.remove",
        "oauth2.provider=file:os.getcwd",
        "proxy.handler=file:os.system",
        "auth=file:os.path.Own",
    ],
)
def test_a_url_names_no_code(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, value = query.partition("=")
    with pytest.raises(ConfigurationError, match=f"names code in the option '{name}'") as caught:
        SMTPConfig.from_url(f"smtp://u:p@h/?{query}")
    assert value not in str(caught.value)
    with pytest.raises(ConfigurationError, match="names code"):
        SMTPConfig(servers=[f"smtp://u:p@h/?{query}"])
