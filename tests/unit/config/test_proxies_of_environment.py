"""`proxy="env"`: which variable counts, and whom NO_PROXY exempts."""

from typing import Any

import pytest

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge.config.proxies import parse_proxies

SENTINEL = "Sentinel"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


SetEnv = Any


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> SetEnv:
    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def hosts(host: str = "mx.example") -> list[str]:
    return [proxy.host for proxy in parse_proxies("env", host=host)]


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, []),
        ({"ALL_PROXY": ""}, []),
        ({"ALL_PROXY": "http://a"}, ["a"]),
        ({"all_proxy": "http://a"}, ["a"]),
        ({"HTTPS_PROXY": "http://a"}, ["a"]),
        ({"https_proxy": "http://a"}, ["a"]),
        ({"HTTP_PROXY": "http://a", "http_proxy": "http://a"}, []),
        ({"ALL_PROXY": "http://upper", "all_proxy": "http://lower"}, ["lower"]),
        ({"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"}, ["lower"]),
        ({"ALL_PROXY": "http://all", "https_proxy": "http://https"}, ["all"]),
        ({"ALL_PROXY": "", "all_proxy": "", "HTTPS_PROXY": "http://https"}, ["https"]),
        ({"ALL_PROXY": "http://upper", "all_proxy": ""}, ["upper"]),
    ],
)
def test_which_variable_counts(variables: dict[str, str], found: list[str], environment: SetEnv) -> None:
    environment(**variables)
    assert hosts() == found


def test_the_environment_counts_only_if_asked_for(environment: SetEnv) -> None:
    environment(ALL_PROXY="http://a", HTTPS_PROXY="http://a")
    assert SMTPConfig(host="mx.example").proxy == ()
    assert [proxy.host for proxy in SMTPConfig(host="mx.example", proxy="env").proxy] == ["a"]


def test_a_bad_entry_is_an_error_without_credentials(environment: SetEnv) -> None:
    environment(ALL_PROXY=f"user:{SENTINEL}@proxy:3128")
    with pytest.raises(ConfigurationError, match="ALL_PROXY") as caught:
        hosts()
    assert SENTINEL not in f"{caught.value!r}{caught.value.hint}{caught.value.__context__!r}"


@pytest.mark.parametrize(
    ("exempt", "host", "is_exempt"),
    [
        ("mx.example", "mx.example", True),
        ("mx.example", "MX.Example.", True),
        ("MX.EXAMPLE.", "mx.example", True),
        ("other.example", "mx.example", False),
        ("example", "mx.example", True),
        (".example", "mx.example", True),
        ("*.example", "mx.example", True),
        ("ample", "mx.example", False),
        ("x.example", "mx.example", False),
        ("mx.example.com", "mx.example", False),
        ("*", "mx.example", True),
        ("*", "192.0.2.1", True),
        ("a , mx.example ,b", "mx.example", True),
        ("", "mx.example", False),
        (",,", "mx.example", False),
        (".", "mx.example", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.10", False),
        ("2.1", "192.0.2.1", False),
        ("192.0.2.0/24", "192.0.2.77", True),
        ("192.0.2.77/24", "192.0.2.1", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.0/24", "2001:db8::1", False),
        ("192.0.2.0/24", "mx.example", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8:0::1", "2001:db8::1", True),
        ("[2001:db8::1]", "2001:db8::1", True),
        ("192.0.2.0/33", "192.0.2.1", False),
        ("192.0.2.0/x,mx.example", "mx.example", True),
        ("/", "192.0.2.1", False),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy(name: str, exempt: str, host: str, is_exempt: bool, environment: SetEnv) -> None:
    environment(ALL_PROXY="http://a", **{name: exempt})
    assert hosts(host) == ([] if is_exempt else ["a"])


@pytest.mark.parametrize(
    ("exempt", "host", "port", "is_exempt"),
    [
        ("mx.example:25", "mx.example", 25, True),
        ("mx.example:25", "mx.example", 587, False),
        (".example:25", "mx.example", 25, True),
        ("mx.example:", "mx.example", 25, False),
        ("*:25", "mx.example", 25, True),
        ("*:25", "mx.example", 587, False),
        ("192.0.2.1:25", "192.0.2.1", 25, True),
        ("192.0.2.1:25", "192.0.2.1", 26, False),
        ("[2001:db8::1]:25", "2001:db8::1", 25, True),
        ("[2001:db8::1]:25", "2001:db8::1", 26, False),
        ("2001:db8::25", "2001:db8::25", 587, True),
        ("mx.example:99999999999", "mx.example", 25, False),
        (":25", "mx.example", 25, False),
        ("a mx.example", "mx.example", 25, True),
        ("a\tmx.example:25  b", "mx.example", 25, True),
        ("a,\n mx.example , b", "mx.example", 25, True),
    ],
)
def test_no_proxy_with_ports_and_spaces(
    exempt: str, host: str, port: int, is_exempt: bool, environment: SetEnv
) -> None:
    environment(ALL_PROXY="http://a", NO_PROXY=exempt)
    config = SMTPConfig(host=host, port=port, proxy="env")
    assert (config.proxy == ()) is is_exempt


def test_lower_case_no_proxy_comes_first(environment: SetEnv) -> None:
    environment(ALL_PROXY="http://a", NO_PROXY="mx.example", no_proxy="other.example")
    assert hosts() == ["a"]


def test_a_unix_socket_is_reached_without_the_proxy_of_the_environment(environment: SetEnv) -> None:
    environment(ALL_PROXY="http://a")
    assert hosts("unix:/run/smtp") == []
