"""Several servers in Django's settings: what counts beside them, failover, checks, verify_smtp."""

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.mail import EmailMessage, get_connection, send_mail

from mailbridge import Secret, SMTPConfig
from mailbridge.testing import ScriptedServer
from mailbridge_django import EmailBackend
from mailbridge_django.checks import check_mailers
from mailbridge_django.compat import MailerMisconfigured
from mailbridge_django.handler import mailers
from mailbridge_django.options import flags_decide, given, layered
from tests.django.commands import STAGES, run, run_json
from tests.django.conftest import BACKEND, KNOWS_MAILERS, Use, overridden


@pytest.fixture
def other() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def entry(server: ScriptedServer, **options: Any) -> dict[str, Any]:
    return {"host": server.host, "port": server.port, "security": "none", **options}


def config() -> SMTPConfig:
    backend = mailers["default"]
    assert isinstance(backend, EmailBackend)
    return backend.config


def test_the_second_server_gets_the_mail_while_the_first_is_down(
    use: Use, server: ScriptedServer, other: ScriptedServer
) -> None:
    use(servers=[entry(server), entry(other, priority=2)])
    server.refuse()
    message = EmailMessage("Hi", "x", "a@x.example", ["b@y.example"])
    assert message.send() == 1
    result = vars(message)["mailbridge_result"]
    assert result.server == f"{other.host}:{other.port}"
    assert list(result.failed_servers) == [f"{server.host}:{server.port}"]
    server.resume()
    assert send_mail("Hi", "x", "a@x.example", ["b@y.example"]) == 1
    assert (len(server.messages), len(other.messages)) == (1, 1)


@pytest.mark.skipif(KNOWS_MAILERS, reason="EMAIL_* with a warning for each there")
def test_nothing_of_djangos_own_settings_is_mixed_in() -> None:
    """EMAIL_HOST is "localhost" and EMAIL_PORT 25 where nobody has set them; and here somebody has."""
    with overridden(
        EMAIL_BACKEND=BACKEND,
        EMAIL_HOST="elsewhere.example",
        EMAIL_PORT=2525,
        EMAIL_HOST_USER="user",
        EMAIL_HOST_PASSWORD="not for these",
        EMAIL_USE_SSL=True,
        EMAIL_TIMEOUT=3,
        MAILBRIDGE={"servers": [{"host": "one.example"}, "smtps://two.example"], "timeout": 9},
    ):
        assert config() == SMTPConfig(servers=[{"host": "one.example"}, "smtps://two.example"], timeout=9)


def test_without_a_flag_starttls_is_required_of_each(use: Use) -> None:
    use(servers=[{"host": "one.example"}, {"host": "two.example", "security": "tls"}])
    assert [(each.config.security, each.config.port) for each in config().endpoints] == [
        ("starttls", 587),
        ("tls", 465),
    ]


def test_a_flag_beside_them_is_the_default_for_each(use: Use) -> None:
    use(use_ssl=True, servers=[{"host": "one.example"}, {"host": "two.example", "security": "starttls"}])
    assert [each.config.security for each in config().endpoints] == ["tls", "starttls"]


def test_a_host_beside_them_is_a_mistake(use: Use) -> None:
    use(host="three.example", servers=[{"host": "one.example"}])
    [error] = check_mailers()
    assert error.id == "mailbridge.E001"
    assert "'host' can't stand beside 'servers'" in error.msg


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({"host": "x", "priorty": 2}, "servers[0]: Unknown option 'priorty'"),
        ({"host": "x", "use_tls": True}, "servers[0]: Unknown option 'use_tls'"),
        ({"host": "x", "username": "u"}, "servers[0]: Option 'username' is given without password"),
        (7, "servers[0]"),
    ],
)
def test_mistakes_in_one_of_them_are_found_by_the_checks(use: Use, server: Any, problem: str) -> None:
    use(servers=[server])
    [error] = check_mailers()
    assert (error.id, problem in error.msg) == ("mailbridge.E001", True), error.msg


def test_each_of_them_is_checked(use: Use) -> None:
    login = {"username": "u", "password": "p"}
    use(
        servers=[
            {"host": "one.example", "security": "none", **login},
            {"host": "two.example", "tls": {"verify": False}, **login},
        ]
    )
    found = check_mailers()
    assert [str(each.id) for each in found] == ["mailbridge.W001", "mailbridge.W002"]
    assert ("one.example" in found[0].msg, "two.example" in found[1].msg) == (True, True)


def test_layers() -> None:
    servers: dict[str, Any] = {"servers": ["smtp://x"]}
    beneath = {"host": "b", "port": 2, "username": "n", "password": "p", "url": "u", "timeout": 3}
    assert layered(servers, beneath) == {**servers, "timeout": 3}
    assert layered({"host": "a"}, servers) == {"host": "a"}
    assert layered({"url": "u"}, servers) == {"url": "u"}
    assert not flags_decide([servers, {}])
    assert flags_decide([{**servers, "use_tls": True}])


def test_a_backend_for_one_host_takes_their_place(server: ScriptedServer, other: ScriptedServer) -> None:
    if KNOWS_MAILERS:
        pytest.skip("get_connection() is deprecated there")
    with overridden(EMAIL_BACKEND=BACKEND, MAILBRIDGE={"servers": [entry(server)]}):
        backend = get_connection(host=other.host, port=other.port)
        assert backend.send_messages([EmailMessage("Hi", "x", "a@x.example", ["b@y.example"])]) == 1
        assert (len(server.messages), len(other.messages)) == (0, 1)


SECRET = "hunter2hunter2"


def test_secrets_in_them_are_sealed() -> None:
    servers = [
        f"smtp://u:{SECRET}@h",
        {"host": "h", "username": "u", "password": SECRET, "priority": 2},
        {"config": f"smtp://u:{SECRET}@h"},
        {"config": {"host": "h", "username": "u", "password": SECRET}},
        SMTPConfig(host="h"),
    ]
    sealed = given(servers=servers)["servers"]
    assert SECRET not in repr(sealed)
    assert sealed[0] == Secret(f"smtp://u:{SECRET}@h")
    assert sealed[1]["priority"] == 2
    reference = SMTPConfig(host="h", username="u", password=SECRET, security="starttls")
    assert [each.config for each in SMTPConfig(servers=sealed[:1] + sealed[2:4]).endpoints] == [reference] * 3


def test_no_traceback_of_a_mistake_shows_a_password(use: Use) -> None:
    use(servers=[{"host": "h", "username": "u", "password": SECRET, "wrong": 1}])
    with pytest.raises(MailerMisconfigured) as caught:
        mailers["default"]
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    # The settings are Django's to show, and it masks them; what is ours begins with our own frames.
    ours = [
        frame
        for frame in caught.traceback
        if "mailbridge" in str(frame.path) and "tests" not in str(frame.path)
    ]
    assert ours
    for frame in ours:
        assert SECRET not in repr({k: v for k, v in frame.frame.f_locals.items() if k != "self"}), frame
    assert "servers[0]" in shown


def test_verify_smtp_shows_each(use: Use, server: ScriptedServer, other: ScriptedServer) -> None:
    use(servers=[entry(server), entry(other, priority=2)])
    status, output = run()
    assert status == 0
    lines = [line.strip() for line in output.splitlines()]
    first, second = f"{server.host}:{server.port}", f"{other.host}:{other.port}"
    assert lines[0] == f"default: {first}, {second}"
    assert (lines[1], lines[len(STAGES) + 2]) == (first, second)
    assert [line.split()[0] for line in lines[2 : len(STAGES) + 2]] == STAGES


def test_verify_smtp_fails_if_one_does(use: Use, server: ScriptedServer, other: ScriptedServer) -> None:
    use(servers=[entry(server), entry(other, priority=2)])
    other.refuse()
    status, answer = run_json()
    [mailer] = answer["mailers"]
    assert (status, mailer["ok"]) == (1, False)
    assert [each["ok"] for each in mailer["servers"]] == [True, False]
    assert [stage["name"] for stage in mailer["servers"][1]["stages"]] == STAGES


def test_verify_smtp_sends_through_them(use: Use, server: ScriptedServer, other: ScriptedServer) -> None:
    use(servers=[entry(server), entry(other, priority=2)])
    status, output = run("--from", "a@x.example", "--to", "b@y.example", "--send")
    assert (status, len(server.messages)) == (0, 1)
    assert output.splitlines()[-1].split()[:2] == ["send", "ok"]
