"""The option `proxy`: what its values mean, what is refused, and that no error shows credentials."""

import copy
import importlib.util
import pickle
import socket
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailbridge.config.proxies
from mailbridge import ConfigurationError, ProxyURL, Secret, SMTPConfig, TLSOptions, register_proxy
from mailbridge.config.proxies import parse_proxies

SENTINEL = "Sentinel"


def parse(value: object, host: str = "mx.example") -> tuple[ProxyURL, ...]:
    return parse_proxies(value, host=host)


def one(value: object) -> ProxyURL:
    (proxy,) = parse(value)
    return proxy


def connect_to_nobody(proxy: ProxyURL, target: tuple[str, int], deadline: object) -> socket.socket:
    raise ConnectionError("nobody is there")


def nobody_else(proxy: ProxyURL, target: tuple[str, int], deadline: object) -> socket.socket:
    raise ConnectionError("nobody is there")


@pytest.fixture(autouse=True)
def _own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbridge.config.proxies, "_registered", {})


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# ---- URLs


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("http://proxy.example", "http", "proxy.example", 80),
        ("https://proxy.example", "https", "proxy.example", 443),
        ("socks4://proxy.example", "socks4", "proxy.example", 1080),
        ("socks4a://proxy.example", "socks4a", "proxy.example", 1080),
        ("socks5://proxy.example", "socks5", "proxy.example", 1080),
        ("socks5h://proxy.example", "socks5", "proxy.example", 1080),
        ("socks://proxy.example", "socks5", "proxy.example", 1080),
        ("HTTP://Proxy.Example:3128/", "http", "proxy.example", 3128),
        ("socks5://[::1]", "socks5", "::1", 1080),
        ("http://[2001:db8::1]:3128", "http", "2001:db8::1", 3128),
        ("http://192.0.2.1:65535", "http", "192.0.2.1", 65535),
    ],
)
@pytest.mark.needs("socks")
def test_schemes_hosts_and_default_ports(url: str, scheme: str, host: str, port: int) -> None:
    proxy = one(url)
    assert (proxy.scheme, proxy.host, proxy.port) == (scheme, host, port)
    assert (proxy.username, proxy.password, proxy.handler) == (None, None, None)


@pytest.mark.needs("socks")
def test_three_spellings_of_socks5_are_one_value() -> None:
    assert one("socks://p:1") == one("socks5://p:1") == one("socks5h://p:1")
    assert one("socks4://p:1") != one("socks4a://p:1")


@pytest.mark.parametrize(
    ("credentials", "username", "password"),
    [
        ("user:password", "user", "password"),
        ("us%40er:pass%3Aword%2F%23", "us@er", "pass:word/#"),
        ("user:100%2525", "user", "100%25"),  # decoded once, not twice
        ("user:a+b", "user", "a+b"),
        ("user:p%20w", "user", "p w"),
        ("w%C3%B6:%E2%82%AC", "w\u00f6", "\u20ac"),
        ("user:p@ss", "user", "p@ss"),
        ("user:a:b", "user", "a:b"),
    ],
)
def test_credentials_are_percent_decoded_once(credentials: str, username: str, password: str) -> None:
    proxy = one(f"http://{credentials}@proxy.example")
    assert proxy.username == username
    assert proxy.password == Secret(password)
    assert proxy.host == "proxy.example"


@pytest.mark.needs("socks")
def test_a_user_alone() -> None:
    assert (one("http://user@p").username, one("http://user@p").password) == ("user", None)
    assert one("http://user:@p").password == Secret("")
    assert one("socks4://user@p").username == "user"


def test_a_secret_may_hold_the_url() -> None:
    assert one(Secret("http://user:password@p:1")) == one("http://user:password@p:1")


def test_the_text_of_a_proxy_is_where_it_is_and_nothing_else() -> None:
    assert str(one(f"http://u{SENTINEL}:p{SENTINEL}@[::1]:3128")) == "http://[::1]:3128"


BAD_URLS = {
    "": "needs a scheme",
    "proxy.example": "needs a scheme",
    "proxy.example:3128": "needs a scheme",
    "//proxy.example": "needs a scheme",
    "http://": "needs a scheme, a host",
    "http://:3128": "needs a scheme, a host",
    "http://user:{s}@": "needs a scheme, a host",
    "http://user:{s}@p:0": "sound port",
    "http://user:{s}@p:65536": "sound port",
    "http://user:{s}@p:-1": "sound port",
    "http://user:{s}@p:x": "sound port",
    "http://user:{s}/x@p": "sound port",
    "http://user:{s}@[::1": "needs a scheme, a host",
    "http://user:{s}@[zz::1]": "needs a scheme, a host",
    "http://user:{s}@p/path": "after host and port",
    "http://user:{s}@p?query": "after host and port",
    "http://user:{s}@p?": "after host and port",
    "http://user:{s}@p#fragment": "after host and port",
    "http://user:{s}@p#": "after host and port",
    "http://user:{s} @p": "without spaces",
    " http://user:{s}@p": "without spaces",
    "http://user:{s}@p\r\nX: y": "without spaces",
    "http://user:{s}\0@p": "without spaces",
    "http://user:{s}\x7f@p": "without spaces",
    "http://user:{s}%0d%0aX@p": "control characters",
    "http://us%00er:{s}@p": "control characters",
    "http://user:{s}%7f@p": "control characters",
    "http://user:{s}%ff@p": "UTF-8",
    "http://us%3Aer:{s}@p": "colon in the user",
    "http://:{s}@p": "no user",
    "socks5://:{s}@p": "no user",
    "socks5://{s}@p": "a user but no password",
    "socks5://{s}:@p": "a user but no password",
    "socks5://u:{s}%0a@p": "control characters",
    "socks4://u%00:{s}@p": "control characters",
    "socks4://u:{s}@p": "SOCKS4 can't carry",
    "socks4a://u:{s}@p": "SOCKS4 can't carry",
    "ftp://user:{s}@p": "scheme 'ftp'.*known are",
    "sock5://user:{s}@p": "scheme 'sock5'",
    "http://user:{s}@pro<xy": "host",
    "http://user:{s}@pro%0d%0axy": "host",
    "http://user:{s}@pro%25xy": "host",
    "http://user:{s}@pro\\xy": "host",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_refused_with_the_problem_and_without_credentials(url: str) -> None:
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]) as caught:
        SMTPConfig(host="mx.example", proxy=url.format(s=SENTINEL))
    assert caught.value.stage == "config"
    everything = f"{caught.value!r} {caught.value.hint} {caught.value.__dict__}"
    shown: BaseException | None = caught.value
    while shown is not None:
        everything += f"{shown!r} {shown.args}"
        stack = traceback.TracebackException.from_exception(shown, capture_locals=True).stack
        everything += " ".join(str(frame.locals) for frame in stack if frame.filename != __file__)
        shown = shown.__cause__ or shown.__context__
    assert SENTINEL not in everything


@pytest.mark.parametrize("value", [b"http://p", 5, True, {}, {"url": None}, [["http://p"]], [None], object()])
def test_what_is_no_url(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a string"):
        parse(value)


@pytest.mark.parametrize(("size", "is_fine"), [(127, True), (128, False)])
@pytest.mark.parametrize("letters", ["a", "%C3%B6"])
@pytest.mark.needs("socks")
def test_socks5_has_room_for_127_bytes(size: int, is_fine: bool, letters: str) -> None:
    width = 2 if "%" in letters else 1
    text = "x" * (size % width) + letters * (size // width)
    for url in (f"socks5://{text}:p@p", f"socks5://u:{text}@p"):
        if is_fine:
            assert one(url)
        else:
            with pytest.raises(ConfigurationError, match="more than 127 bytes"):
                parse(url)


@given(st.text(min_size=1).filter(lambda t: all(ord(c) >= 32 and ord(c) != 127 for c in t)))
def test_whatever_was_percent_encoded_comes_out_as_it_was(password: str) -> None:
    try:
        encoded = quote(password, safe="")
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    if "\ufffd" in password:
        return
    found = one(f"http://user:{encoded}@p").password
    assert found is not None
    assert found.reveal() == password


@given(st.text())
def test_no_text_makes_anything_but_a_proxy_or_a_configuration_error(text: str) -> None:
    problem = None
    try:
        assert all(proxy.host for proxy in parse(text))
    except ConfigurationError as error:
        problem = error
    assert problem is None or (problem.__cause__, problem.__context__) == (None, None)


# ---- mappings, lists, handlers


def test_a_mapping_adds_tls_to_an_https_proxy() -> None:
    proxy = one({"url": "https://p", "tls": {"ca_file": "/ca.pem", "server_hostname": "other"}})
    assert proxy.tls == TLSOptions(ca_file="/ca.pem", server_hostname="other")
    assert one({"url": "https://p", "tls": TLSOptions(verify=False)}).tls == TLSOptions(verify=False)
    assert one({"url": "https://p", "tls": None}) == one("https://p")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"url": "http://p", "tls": {}}, r"proxy\.tls.*https"),
        ({"url": "socks5://p", "tls": {"verify": False}}, r"proxy\.tls.*https"),
        ({"url": "https://p", "tsl": {}}, r"'proxy\.tsl'.*'proxy\.tls'"),
        ({"url": "https://p", "tls": {"cafile": "x"}}, r"'proxy\.tls\.cafile'.*'proxy\.tls\.ca_file'"),
        ({"url": "https://p", "tls": 5}, r"proxy\.tls"),
        ({"tls": {}}, "must be a string"),
        ({"url": "http://p", "handler": 5}, r"proxy\.handler"),
        ({"url": "http://p", "handler": "nowhere_to_be_found.x"}, r"proxy\.handler.*can't be imported"),
        ({"url": "http://p", "handler": "socket.no_such_name"}, r"proxy\.handler.*can't be imported"),
        ({"url": "http://p", "handler": "nodots"}, r"proxy\.handler.*can't be imported"),
        ({"url": "http://p", "handler": "socket.AF_INET"}, r"proxy\.handler.*not callable"),
        ({"url": "gate://p", "handler": connect_to_nobody}, "no port"),
        ({"url": "https://p", "handler": connect_to_nobody, "tls": {}}, r"proxy\.tls.*https"),
    ],
)
@pytest.mark.needs("socks")
def test_a_bad_mapping(value: object, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        parse(value)


def test_a_handler_is_a_callable_or_the_path_of_one() -> None:
    by_value = one({"url": "gate://u:p@g:7", "handler": connect_to_nobody})
    by_path = one({"url": "gate://u:p@g:7", "handler": "socket.create_connection"})
    assert by_value.handler is connect_to_nobody
    assert by_path.handler is socket.create_connection
    assert (by_value.scheme, by_value.port, by_value.username) == ("gate", 7, "u")
    assert by_value == one({"url": "gate://u:p@g:7", "handler": connect_to_nobody})
    assert by_value != by_path


@pytest.mark.needs("socks")
def test_a_list_is_a_chain_in_its_order() -> None:
    chain = parse(["socks5://a", {"url": "https://b", "tls": {"verify": False}}, one("http://c")])
    assert [proxy.host for proxy in chain] == ["a", "b", "c"]
    assert parse(("http://a",)) == parse("http://a")
    assert parse([]) == ()


def test_a_handler_stands_first_in_a_chain() -> None:
    gate = {"url": "gate://g:7", "handler": connect_to_nobody}
    assert len(parse([gate, "http://b"])) == 2
    with pytest.raises(ConfigurationError, match=r"gate://g:7 .*first of a chain"):
        parse(["http://b", gate])


def test_a_registered_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="scheme 'gate'"):
        parse("gate://g:7")
    register_proxy("Gate", connect_to_nobody)
    assert one("gate://g:7").handler is connect_to_nobody
    with pytest.raises(ConfigurationError, match="known are gate, http,"):
        parse("gat://g:7")


@pytest.mark.needs("socks")
def test_a_registered_scheme_may_replace_a_built_in_one() -> None:
    before = one("socks5://p")
    register_proxy("socks5", connect_to_nobody)
    after = one("socks5://user-only@p")  # its rules are the handler's
    assert (before.handler, after.handler) == (None, connect_to_nobody)
    assert after.port == 1080
    assert one("http://p").handler is None


@pytest.mark.needs("socks")
@pytest.mark.parametrize("spelling", ["socks", "socks5h", "socks5"])
def test_a_handler_for_socks5_has_all_its_spellings(spelling: str) -> None:
    register_proxy("socks5", connect_to_nobody)
    proxy = one(f"{spelling}://user-only@p")
    assert (proxy.scheme, proxy.handler) == ("socks5", connect_to_nobody)
    register_proxy("socks", nobody_else)  # one spelling may have another handler
    assert (one("socks://p").scheme, one("socks://p").handler) == ("socks", nobody_else)
    assert one("socks5h://p").handler is connect_to_nobody


@pytest.mark.parametrize("scheme", ["", "a b", "1a", "a/b", "a:b", "a_b", "\u00e9", "-", "a\r\n"])
def test_what_is_no_scheme_cannot_be_registered(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match="scheme of a URL"):
        register_proxy(scheme, connect_to_nobody)


def test_what_is_no_handler_cannot_be_registered() -> None:
    with pytest.raises(ConfigurationError, match="must be callable"):
        register_proxy("gate", "socket.create_connection")  # type: ignore[arg-type]


# ---- a value made by hand has to keep the same rules


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"host": "a\r\nb"}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": ""}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"scheme": "ftp"}, "scheme"),
        ({"username": "a\r\nb"}, "control characters"),
        ({"scheme": "socks4", "username": "a\0b"}, "control characters"),
        ({"scheme": "socks5", "username": "a" * 128, "password": Secret("p")}, "127"),
    ],
)
def test_a_proxy_url_made_by_hand_is_checked_too(parts: dict[str, Any], problem: str) -> None:
    proxy = ProxyURL(**{"scheme": "http", "host": "p", "port": 3128, **parts})
    with pytest.raises(ConfigurationError, match=problem):
        parse(proxy)


@pytest.mark.needs("socks")
def test_a_proxy_url_made_by_hand() -> None:
    made = ProxyURL(scheme="http", host="p", port=80, username="u", password=Secret("p"))
    assert one(made) == one("http://u:p@p")
    assert one(ProxyURL(scheme="socks5h", host="p", port=1080)) == one("socks5://p")


# ---- what is missing


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h", "socks"])
def test_socks_without_its_library_names_the_extra(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        mailbridge.config.proxies,
        "find_spec",
        lambda name: None if name == "socks" else importlib.util.find_spec(name),
    )
    with pytest.raises(ConfigurationError, match="PySocks") as caught:
        parse(f"{scheme}://p")
    assert "mailbridge-smtp[socks]" in caught.value.hint
    assert one("http://p")
    register_proxy(scheme, connect_to_nobody)
    assert one(f"{scheme}://p")


# ---- as a part of the key


@pytest.mark.needs("socks")
def test_equal_options_are_equal_values() -> None:
    def build() -> SMTPConfig:
        chain = [
            {"url": "gate://g:7", "handler": "socket.create_connection"},
            {"url": "https://u:p@b", "tls": {"ca_file": "/ca.pem"}},
            "socks5h://u:p@c",
        ]
        return SMTPConfig(host="mx.example", proxy=chain)

    assert build() == build()
    assert hash(build()) == hash(build())
    assert build() == SMTPConfig(host="mx.example", proxy=build().proxy)


DIFFERENT: list[Any] = [
    None,
    "http://p",
    "http://p:81",
    "http://q",
    "https://p:80",
    "http://u@p",
    "http://u:1@p",
    "http://u:2@p",
    {"url": "https://p", "tls": {"verify": False}},
    {"url": "http://p", "handler": connect_to_nobody},
    ["http://p", "http://q"],
    ["http://q", "http://p"],
]


def test_every_difference_is_a_difference_of_the_configuration() -> None:
    configs = [SMTPConfig(host="mx.example", proxy=proxy) for proxy in DIFFERENT]
    assert len(set(configs)) == len(DIFFERENT)
    assert len({SMTPConfig(host="x", proxy_protocol=version) for version in (None, 1, 2)}) == 3


def test_credentials_show_in_no_text_and_no_pickle() -> None:
    config = SMTPConfig(host="x", proxy=[f"http://{SENTINEL}:{SENTINEL}@p", f"http://u:{SENTINEL}@q"])
    for text in (repr(config), str(config), repr(config.proxy[0]), f"{config.proxy}"):
        assert "proxy=(ProxyURL" in text or "ProxyURL(" in text
        assert SENTINEL not in text
    assert f"p{SENTINEL}".encode() not in pickle.dumps(SMTPConfig(host="x", proxy=f"http://u:p{SENTINEL}@p"))
    assert copy.deepcopy(config) == config


# ---- beside other options


def test_a_unix_socket_has_no_proxy() -> None:
    with pytest.raises(ConfigurationError, match="UNIX socket"):
        SMTPConfig(host="unix:/run/smtp", proxy="http://p")


@pytest.mark.parametrize("version", [0, 3, "x", True, 1.5])
def test_there_are_two_versions_of_the_proxy_header(version: Any) -> None:
    with pytest.raises(ConfigurationError, match="1 or 2"):
        SMTPConfig(host="x", proxy_protocol=version)


def test_the_version_may_be_text() -> None:
    assert SMTPConfig.from_mapping({"host": "x", "proxy_protocol": "2"}).proxy_protocol == 2


@pytest.mark.needs("socks")
def test_the_url_of_the_server_may_name_the_proxy() -> None:
    config = SMTPConfig.from_url("smtp://mx.example/?proxy=socks5://127.0.0.1:1081&proxy_protocol=1")
    assert str(config.proxy[0]) == "socks5://127.0.0.1:1081"
    assert config.proxy_protocol == 1
