"""The option `servers`: what stands for a server, what is said beside them, and what is refused."""

import copy
import pickle
from typing import Any

import pytest

from mailbridge import ConfigurationError, Secret, ServerOptions, SMTPConfig
from mailbridge.config.groups import RetryOptions, Timeouts


def servers_of(*servers: Any, **beside: Any) -> tuple[ServerOptions, ...]:
    return SMTPConfig.from_mapping({"servers": list(servers), **beside}).servers


ONE = SMTPConfig(host="one.example", username="u", password="p")


@pytest.mark.parametrize(
    "server",
    [
        {"host": "one.example", "username": "u", "password": "p"},
        {"url": "smtp://u:p@one.example"},
        "smtp://u:p@one.example",
        Secret("smtp://u:p@one.example"),
        {"config": {"host": "one.example", "username": "u", "password": Secret("p")}},
        {"config": "smtp://u:p@one.example", "weight": 1},
        {"config": ONE, "priority": 1},
        {"host": "one.example", "username": "u", "password": "p", "port": None, "weight": None},
        ONE,
        ServerOptions(config=ONE),
    ],
)
def test_what_may_stand_for_a_server(server: object) -> None:
    assert servers_of(server) == (ServerOptions(config=ONE, priority=1, weight=1),)


def test_they_stand_in_the_order_of_their_priorities_and_else_as_given() -> None:
    servers = servers_of(
        {"host": "d", "priority": 7}, {"host": "b"}, {"host": "a", "priority": 0}, {"host": "c", "weight": 5}
    )
    assert [(each.config.host, each.priority, each.weight) for each in servers] == [
        ("a", 0, 1),
        ("b", 1, 1),
        ("c", 1, 5),
        ("d", 7, 1),
    ]


def test_one_server_is_its_own_only_endpoint() -> None:
    config = SMTPConfig(host="x", retry=3)
    assert config.servers == ()
    assert config.endpoints == (ServerOptions(config=config),)


def test_with_several_host_and_login_are_those_of_the_first() -> None:
    config = SMTPConfig(
        servers=[{"host": "late", "priority": 2}, {"host": "early", "username": "u", "password": "p"}]
    )
    assert (config.host, config.username, config.has_credentials) == ("early", "u", True)
    assert config.server == "early:587, late:587"


def test_what_is_said_beside_them_holds_for_each_that_does_not_say_it() -> None:
    first, second, third = servers_of(
        {"host": "a"},
        {"host": "b", "security": "tls", "pool": {"max_size": 9}, "tls": {"server_hostname": "x"}},
        "smtp://c:25/?security=none&timeouts.command=4",
        security="starttls",
        tls={"ca_file": "/ca.pem"},
        pool={"max_size": 2, "max_idle": 3},
        timeouts={"command": 6},
    )
    assert first.config == SMTPConfig(
        host="a", tls={"ca_file": "/ca.pem"}, pool={"max_size": 2, "max_idle": 3}, timeouts={"command": 6}
    )
    assert second.config == SMTPConfig(
        host="b",
        security="tls",
        tls={"ca_file": "/ca.pem", "server_hostname": "x"},
        pool={"max_size": 9, "max_idle": 3},
        timeouts={"command": 6},
    )
    assert (third.config.security, third.config.timeouts.command) == ("none", 4)


def test_a_ready_configuration_stays_as_it_is() -> None:
    assert servers_of(ONE, timeout=3, security="none")[0].config == ONE


@pytest.mark.parametrize(
    ("beside", "own", "expected"),
    [
        ({"timeout": 10}, {}, Timeouts(connect=10, greeting=10, command=10, data=10, final=10)),
        (
            {"timeout": 10},
            {"timeouts": {"connect": 2}},
            Timeouts(connect=2, greeting=10, command=10, data=10, final=10),
        ),
        (
            {"timeouts": {"connect": 2}},
            {"timeout": 10},
            Timeouts(connect=10, greeting=10, command=10, data=10, final=10),
        ),
        (
            {"timeout": 10, "timeouts": {"connect": 2}},
            {"timeouts": {"final": 50}},
            Timeouts(connect=2, greeting=10, command=10, data=10, final=50),
        ),
        ({"timeouts": {"total": 9}}, {"timeouts": {"total": 4}}, Timeouts(total=4)),
    ],
)
def test_time_limits_of_both_layers(beside: dict[str, Any], own: dict[str, Any], expected: Timeouts) -> None:
    assert servers_of({"host": "a", **own}, **beside)[0].config.timeouts == expected


def test_what_is_about_the_whole_send_is_said_beside_them() -> None:
    config = SMTPConfig(servers=[{"host": "a", "timeouts": {"total": 4}}], retry=3, timeouts={"total": 9})
    assert config.retry == RetryOptions(attempts=3)
    assert (config.timeouts.total, config.servers[0].config.timeouts.total) == (9, 4)
    assert config.servers[0].config.retry == RetryOptions()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"servers": []}, "must name at least one server"),
        ({"servers": "smtp://a"}, "must be a list, not str.*URL can't hold"),
        ({"servers": {"host": "a"}}, "must be a list, not dict"),
        (
            {"servers": ["smtp://a"], "host": "b"},
            "'host' can't stand beside 'servers'.*Each server has its own",
        ),
        ({"servers": ["smtp://a"], "port": 25}, "'port' can't stand beside"),
        ({"servers": ["smtp://a"], "url": "smtp://b"}, "'url' can't stand beside"),
        ({"servers": ["smtp://a"], "service": "gmail"}, "'service' can't stand beside"),
        ({"servers": ["smtp://a"], "username": "u", "password": "p"}, "'username' can't stand beside"),
        ({"servers": ["smtp://a"], "oauth2": lambda: "t"}, "'oauth2' can't stand beside"),
        ({"url": "smtp://a/?servers=b"}, "'servers' can't stand in a URL"),
        ({"url": "smtp://a/?servers.host=b"}, "Unknown option 'servers.host'"),
        ({"servers": ["smtp://a", {"hots": "b"}]}, r"servers\[1\]: Unknown option 'hots'.*'host'"),
        ({"servers": [{"host": "a", "priorty": 1}]}, r"servers\[0\]: Unknown option 'priorty'.*'priority'"),
        ({"servers": [{"host": "a", "priority": "first"}]}, r"servers\[0\]: Option 'priority'"),
        ({"servers": [{"host": "a", "priority": -1}]}, r"servers\[0\]: Option 'priority'.*at least 0"),
        ({"servers": [{"host": "a", "weight": 0}]}, r"servers\[0\]: Option 'weight'.*at least 1"),
        ({"servers": [{"host": "a", "username": "u"}]}, r"servers\[0\]: Option 'username' is given without"),
        ({"servers": [{"host": "a", "retry": 3}]}, r"servers\[0\]: Option 'retry' belongs beside 'servers'"),
        ({"servers": [SMTPConfig(host="a", retry=3)]}, r"servers\[0\]: Option 'retry' belongs beside"),
        ({"servers": [{"servers": ["smtp://a"]}]}, r"servers\[0\]: Option 'servers' belongs beside"),
        ({"servers": [SMTPConfig(servers=["smtp://a"])]}, r"servers\[0\]: Option 'servers' belongs beside"),
        (
            {"servers": [{"config": ONE, "host": "b"}]},
            r"servers\[0\]: Option 'host' can't stand beside 'config'",
        ),
        ({"servers": [7]}, r"servers\[0\]: The connection URL must be a string"),
        ({"servers": ["http://a"]}, r"servers\[0\]: The connection URL must start with"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        SMTPConfig.from_mapping(options)
    assert caught.value.stage == "config"


def build() -> SMTPConfig:
    return SMTPConfig(
        timeout=3,
        servers=[
            {"host": "a", "username": "u", "password": "correct horse"},
            {"config": "smtps://v:correct%20horse@b", "priority": 2, "weight": 3},
        ],
    )


def test_equal_options_are_equal_values() -> None:
    assert build() == build()
    assert {build(): 1}[build()] == 1
    assert copy.deepcopy(build()) == build()
    assert SMTPConfig(servers=["smtp://a"]) != SMTPConfig(host="a")
    assert SMTPConfig(servers=[{"host": "a"}]) != SMTPConfig(servers=[{"host": "a", "weight": 2}])


def test_secrets_in_them_are_masked() -> None:
    for shown in (repr(build()), str(build()), pickle.dumps(build()).decode("latin-1")):
        assert "correct" not in shown


def test_no_frame_of_an_error_shows_a_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        SMTPConfig(servers=[{"host": "a", "username": "u", "password": "correct horse", "wrong": 1}])
    for frame in caught.traceback[1:]:
        assert "correct" not in repr(frame.frame.f_locals), frame
