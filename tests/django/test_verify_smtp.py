"""`manage.py verify_smtp`: what it prints, what it asks, and its exit status."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test.utils import setup_test_environment, teardown_test_environment

from mailbridge.testing import Fault, ScriptedServer
from tests.django.commands import STAGES, run, run_json
from tests.django.conftest import BACKEND, Use, overridden

ROOT = Path(__file__).parent.parent.parent


def test_all_is_well(use: Use, server: ScriptedServer) -> None:
    use(server)
    status, output = run()
    assert status == 0
    assert output.startswith(f"default: 127.0.0.1:{server.port}\n")
    assert [line.split()[0] for line in output.splitlines()[1:]] == STAGES
    assert server.messages == ()
    assert "MAIL" not in server.connections[0].verbs


def test_json(use: Use, server: ScriptedServer) -> None:
    use(server)
    status, answer = run_json()
    assert status == 0
    assert answer["ok"] is True
    [mailer] = answer["mailers"]
    assert mailer["alias"] == "default"
    assert mailer["backend"] == "mailbridge_django.backend.EmailBackend"
    assert mailer["server"] == f"127.0.0.1:{server.port}"
    assert [stage["name"] for stage in mailer["stages"]] == STAGES
    assert {"name", "status", "seconds", "detail", "hint"} == set(mailer["stages"][0])


def test_a_server_that_is_not_there(use: Use, server: ScriptedServer) -> None:
    server.refuse()
    use(server)
    status, output = run()
    assert status == 1
    assert "tcp        failed" in output
    assert "hint:" in output
    assert output.endswith("Not in order: default.")


def test_wrong_credentials(use: Use) -> None:
    with ScriptedServer(users={"u": "p"}) as server:
        use(server, username="u", password="hunter2")
        status, output = run()
    assert status == 1
    assert "auth       failed" in output
    assert "hunter2" not in output


def test_addresses_are_asked_about_and_nothing_is_sent(use: Use) -> None:
    with ScriptedServer(rcpt_replies={"bad@y.example": "550 5.1.1 No such user"}) as server:
        use(server)
        assert run("--from", "a@x.example", "--to", "b@y.example")[0] == 0
        status, output = run("--to", "b@y.example", "bad@y.example")
        assert status == 1
        assert "No such user" in output
        assert server.messages == ()
        assert b"MAIL FROM:<a@x.example>" in server.connections[0].commands[1]
        assert b"MAIL FROM:<shop@example.com>" in server.connections[1].commands[1]


def test_a_test_mail_is_sent_on_demand(use: Use, server: ScriptedServer) -> None:
    use(server)
    status, output = run("--send", "--to", "b@y.example")
    assert status == 0
    assert output.splitlines()[-1].split()[:2] == ["send", "ok"]
    [received] = server.messages
    assert (received.sender, received.recipients) == ("shop@example.com", ("b@y.example",))
    assert b"Subject: Test mail from mailbridge" in received.content


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_test_mail_that_is_refused(use: Use, is_silent: bool) -> None:
    with ScriptedServer(final_replies="554 5.6.0 Looks like a test") as server:
        use(server, fail_silently=is_silent)
        status, output = run("--send", "--to", "b@y.example")
    assert status == 1
    assert "send       failed" in output
    assert "Looks like a test" in output


def test_the_time_limit(use: Use) -> None:
    with ScriptedServer(faults=[Fault("greeting", "silence")]) as server:
        use(server, timeout=60)
        status, output = run("--timeout", "0.2")
    assert status == 1
    assert "greeting   failed" in output


def test_several_mailers(server: ScriptedServer) -> None:
    here = {"OPTIONS": {"host": server.host, "port": server.port, "timeout": 5}}
    broken = {"OPTIONS": {"host": "h", "pool_sise": 3}}
    with overridden(MAILBRIDGE={"MAILERS": {"bulk": here, "broken": broken}}, **settings_for_locmem()):
        assert run("--using", "bulk")[0] == 0
        status, answer = run_json("--using", "bulk", "broken")
        assert (status, answer["ok"]) == (1, False)
        assert [(one["alias"], one["ok"]) for one in answer["mailers"]] == [("bulk", True), ("broken", False)]
        assert answer["mailers"][1]["stages"][0]["status"] == "failed"
        assert "'pool_sise'" in answer["mailers"][1]["stages"][0]["detail"]
        assert [one["alias"] for one in run_json("--all")[1]["mailers"]] == ["default", "bulk", "broken"]


def settings_for_locmem() -> dict[str, Any]:
    return {"EMAIL_BACKEND": "django.core.mail.backends.locmem.EmailBackend"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--using", "nowhere"], "No such mailer: nowhere. Configured: default."),
        (["--send"], "--send needs --to"),
        (["--to", "no address"], "Invalid address"),
        (["--from", "a@x.example\r\nQUIT"], "Invalid address"),
        (["--timeout", "0"], "above 0"),
        (["--timeout", "soon"], "invalid"),
        (["--all", "--using", "default"], "not allowed with"),
        (["--format", "yaml"], "invalid choice"),
    ],
)
def test_wrong_usage(use: Use, server: ScriptedServer, arguments: list[str], problem: str) -> None:
    use(server)
    status, output = run(*arguments)
    assert problem in output
    # From the command line argparse leaves with 2 itself; for call_command Django makes its errors a 1.
    assert status in ((2,) if arguments[0] in ("--using", "--send") else (1, 2))
    assert server.connections == ()


def test_a_default_sender_that_is_no_address(use: Use, server: ScriptedServer) -> None:
    use(server)
    with overridden(DEFAULT_FROM_EMAIL="nobody"):
        status, output = run("--to", "b@y.example")
    assert (status, "DEFAULT_FROM_EMAIL" in output) == (2, True)


def test_under_django_s_test_runner_it_explains_itself(use: Use, server: ScriptedServer) -> None:
    use(server)
    setup_test_environment()
    try:
        status, output = run()
        assert status == 1
        assert (
            "The alias 'default' uses django.core.mail.backends.locmem.EmailBackend, not mailbridge" in output
        )
        assert "test runner" in output
        status, answer = run_json("--allow-other")
        assert (status, answer["ok"], answer["mailers"][0]["stages"]) == (0, True, [])
    finally:
        teardown_test_environment()


def test_a_resolver_is_pointed_out(use: Use, server: ScriptedServer) -> None:
    use(server, config_resolver=lambda message, alias: None)
    assert "What config_resolver chooses for single messages is not checked." in run()[1]


def test_no_pooled_session_is_used(use: Use, server: ScriptedServer) -> None:
    from django.core.mail import send_mail

    use(server)
    send_mail("s", "text", "a@x.example", ["b@y.example"])
    assert run()[0] == 0
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    ("arguments", "status"),
    [([], 0), (["--using", "nowhere"], 2), (["--format", "yaml"], 2), (["--to", "no address"], 2)],
)
def test_the_exit_status_of_the_site_s_manage_py(
    server: ScriptedServer, arguments: list[str], status: int
) -> None:
    url = f"smtp://{server.host}:{server.port}/?security=none"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "testproject" / "manage.py"), "verify_smtp", *arguments],
        env={**os.environ, "MAILBRIDGE_URL": url},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert BACKEND.split(".")[0] not in done.stderr
