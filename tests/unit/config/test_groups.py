"""mailbridge.config.groups: each group is checked when it is made, and says what is wrong with it."""

import copy
import re
import ssl
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from mailbridge import SMTPConfig
from mailbridge.config.groups import PoolOptions, RetryOptions, Timeouts, TLSOptions
from mailbridge.config.values import (
    as_count,
    as_seconds,
    as_secret,
    as_switch,
    as_text,
    build_group,
    unknown_option,
)
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret

GROUPS: list[type] = [TLSOptions, Timeouts, PoolOptions, RetryOptions]


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.5, 0.5), ("2", 2.0), ("1e1", 10.0)])
def test_seconds(value: object, seconds: float) -> None:
    assert as_seconds("x", value) == seconds


@pytest.mark.parametrize(
    "value", [0, -1, "0", "x", "", None, True, False, float("nan"), float("inf"), "inf", [], "1 s"]
)
def test_what_is_no_number_of_seconds(value: object) -> None:
    with pytest.raises(ConfigurationError, match="'x' must be a number of seconds above 0"):
        as_seconds("x", value)


def test_seconds_may_be_zero_where_that_means_something() -> None:
    assert as_seconds("x", 0, zero=True) == 0
    with pytest.raises(ConfigurationError, match="0 or more"):
        as_seconds("x", -1, zero=True)


@pytest.mark.parametrize(("value", "count"), [(1, 1), ("5", 5), (" 7 ", 7)])
def test_counts(value: object, count: int) -> None:
    assert as_count("x", value) == count


@pytest.mark.parametrize("value", [0, -1, "0", "-1", "1.0", 1.0, "x", "", None, True, "²"])
def test_what_is_no_count(value: object) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        as_count("x", value)


@pytest.mark.parametrize("value", [True, "true", "TRUE", " yes ", "on", "1", 1])
def test_on(value: object) -> None:
    assert as_switch("x", value) is True


@pytest.mark.parametrize("value", [False, "false", "No", "off", "0", 0])
def test_off(value: object) -> None:
    assert as_switch("x", value) is False


@pytest.mark.parametrize("value", [None, "", "maybe", 2, "truee"])
def test_neither(value: object) -> None:
    with pytest.raises(ConfigurationError, match="true or false"):
        as_switch("x", value)


@pytest.mark.parametrize("value", [None, 1, b"x", "a\nb", "a\x00", "\x7f", "\t"])
def test_what_is_no_text(value: object) -> None:
    with pytest.raises(ConfigurationError, match="control characters"):
        as_text("x", value)


def test_paths_are_texts() -> None:
    assert as_text("x", Path("/a/b")) == "/a/b"


def test_secrets_are_not_shown_when_they_are_wrong() -> None:
    assert as_secret("x", "s") == Secret("s") == as_secret("x", Secret("s"))
    with pytest.raises(ConfigurationError) as caught:
        as_secret("x", b"sentinel")
    assert "sentinel" not in str(caught.value)


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_values(group: type) -> None:
    assert group() == group() == copy.deepcopy(group())
    assert hash(group()) == hash(group())
    assert build_group(group, "g", {}) == group()
    assert build_group(group, "g", group()) == group()
    with pytest.raises(FrozenInstanceError):
        setattr(group(), fields(group)[0].name, 1)
    with pytest.raises(TypeError):
        group(1)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("value", [None, 1, "x", [("a", 1)]])
def test_a_group_comes_from_a_mapping(group: type, value: object) -> None:
    with pytest.raises(ConfigurationError, match="'g' must be a mapping"):
        build_group(group, "g", value)


@pytest.mark.parametrize(
    ("given", "near"),
    [("max_sise", "'pool.max_size'"), ("MaxSize", "'pool.max_size'"), ("max-idle", "'pool.max_idle'")],
)
def test_an_unknown_name_is_told_with_the_nearest(given: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Unknown option 'pool.{given}'.*Did you mean {near}"):
        build_group(PoolOptions, "pool", {given: 1})


def test_without_a_near_name_all_are_told() -> None:
    assert "Known are: alpha, beta." in str(unknown_option("zzzz", ["alpha", "beta"]))


NOT_NAMES = [
    "hunter2!",
    "correct horse",
    "a" * 41,
    "",
    "3",
    "p\nq",
    "eyJhbGciOi.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4",
]


@pytest.mark.parametrize("name", NOT_NAMES)
@pytest.mark.parametrize(
    ("where", "nest"),
    [
        ("", lambda name: {name: 1}),
        ("pool.", lambda name: {"pool": {name: 1}}),
        ("oauth2.", lambda name: {"oauth2": {name: 1}}),
        ("proxy.", lambda name: {"proxy": {"url": "http://p", name: 1}}),
        ("dsn.", lambda name: {"dsn": {name: 1}}),
        ("", lambda name: {"servers": [{"host": "h", name: 1}]}),
    ],
)
def test_what_is_no_name_may_be_a_secret_and_is_not_told(
    name: str, where: str, nest: Callable[[str], dict[str, Any]]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SMTPConfig.from_mapping(nest(name))
    assert f"option '{where}***'" in str(caught.value)
    assert len(name) < 2 or name not in repr(str(caught.value))


@pytest.mark.parametrize("name", [name for name in NOT_NAMES if name])
def test_of_somebody_not_trusted_and_in_headers_neither(name: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("Option '***' can't be set")):
        SMTPConfig.from_untrusted({"host": "h", name: 1})
    for group in ("extra_headers", "extra_params"):
        with pytest.raises(ConfigurationError, match=rf"'oauth2\.{group}\.\*\*\*' must be a string"):
            SMTPConfig.from_mapping({"username": "u", "oauth2": {group: {name: 1}}})


@pytest.mark.parametrize(
    ("group", "options", "name"),
    [
        (Timeouts, {"dns": 0}, "timeouts.dns"),
        (Timeouts, {"total": "x"}, "timeouts.total"),
        (PoolOptions, {"max_size": 0}, "pool.max_size"),
        (PoolOptions, {"max_messages": 1.5}, "pool.max_messages"),
        (PoolOptions, {"max_idle": -1}, "pool.max_idle"),
        (PoolOptions, {"acquire_timeout": 0}, "pool.acquire_timeout"),
        (PoolOptions, {"enabled": "perhaps"}, "pool.enabled"),
        (RetryOptions, {"attempts": 0}, "retry.attempts"),
        (RetryOptions, {"factor": 0.5}, "retry.factor"),
        (RetryOptions, {"jitter": 1.5}, "retry.jitter"),
        (RetryOptions, {"jitter": -0.1}, "retry.jitter"),
        (RetryOptions, {"max_delay": float("inf")}, "retry.max_delay"),
        (TLSOptions, {"verify": "maybe"}, "tls.verify"),
        (TLSOptions, {"min_version": "SSLv3"}, "tls.min_version"),
        (TLSOptions, {"ca_file": "a\nb"}, "tls.ca_file"),
        (TLSOptions, {"key_file": "k.pem"}, "tls.key_file"),
        (TLSOptions, {"key_password": 3}, "tls.key_password"),
        (TLSOptions, {"context": "x"}, "tls.context"),
    ],
)
def test_bad_values_name_their_option(group: type, options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}'") as caught:
        build_group(group, name.partition(".")[0], options)
    assert caught.value.stage == "config"


def test_values_from_urls_are_read() -> None:
    assert PoolOptions(**{"enabled": "no", "max_size": "3", "max_idle": "1.5"}) == PoolOptions(  # type: ignore[arg-type]
        enabled=False, max_size=3, max_idle=1.5
    )
    assert Timeouts(dns=None).dns is None
    assert RetryOptions(first_delay=0, jitter=0, factor=1).first_delay == 0


def test_tls_is_verified_and_modern_by_default() -> None:
    options = TLSOptions()
    assert (options.verify, options.strict, options.min_version, options.context) == (
        True,
        True,
        "TLSv1.2",
        None,
    )
    assert TLSOptions(ca_file="", cert_file="c.pem", key_file="k.pem").ca_file is None


def test_a_context_of_ones_own_stands_alone_but_for_the_name() -> None:
    context = ssl.create_default_context()
    assert TLSOptions(context=context, server_hostname="mx.example").context is context
    assert TLSOptions(context=context) == TLSOptions(context=context)
    for beside in ({"verify": False}, {"ca_file": "x"}, {"min_version": "TLSv1.3"}, {"ciphers": "ALL"}):
        with pytest.raises(ConfigurationError, match=r"can't stand beside tls\.context"):
            TLSOptions(context=context, **beside)  # type: ignore[arg-type]


def test_the_password_of_a_key_is_masked() -> None:
    options = TLSOptions(cert_file="c", key_password="sentinel")  # type: ignore[arg-type]  # as in a mapping
    assert options.key_password == Secret("sentinel")
    assert "sentinel" not in repr(options)


def test_the_defaults_are_those_that_are_documented() -> None:
    assert Timeouts() == Timeouts(
        dns=30, connect=30, greeting=30, command=60, data=300, final=600, total=None
    )
    assert PoolOptions() == PoolOptions(
        enabled=True, max_size=5, max_messages=100, max_idle=120, max_lifetime=600, acquire_timeout=30
    )
    assert RetryOptions() == RetryOptions(attempts=1, first_delay=1, factor=2, max_delay=30, jitter=0.5)
