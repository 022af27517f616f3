"""The Django site in testproject: its pages send mail through mailbridge."""

import email
import email.policy
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client

from mailbridge.testing import ScriptedServer
from tests.django.conftest import Use

ROOT = Path(__file__).parent.parent.parent
WRITTEN = {"name": "Ann", "email": "ann@x.example", "subject": "Open on\r\nSunday?", "text": "Are you?"}


@pytest.fixture
def client(use: Use, server: ScriptedServer) -> Client:
    use(server)
    return Client(headers={"host": "localhost"}, raise_request_exception=True)


@pytest.fixture(scope="module")
def database() -> Iterator[None]:
    from django.db import connection

    call_command("migrate", verbosity=0)
    yield
    connection.close()


def parsed(content: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)


def test_the_contact_form_sends(client: Client, server: ScriptedServer) -> None:
    assert client.get("/").status_code == 200
    response = client.post("/", WRITTEN)
    assert (response.status_code, response.headers["Location"]) == (302, "/thanks/")
    assert "on its way" in client.get("/thanks/").content.decode()
    [received] = server.messages
    assert (received.sender, received.recipients) == ("shop@example.com", ("inbox@example.com",))
    arrived = parsed(received.content)
    assert arrived["Subject"] == "[Contact] Open on Sunday?"
    assert arrived["Reply-To"] == "ann@x.example"
    assert "Ann <ann@x.example> writes:" in arrived.get_content()


def test_the_form_says_what_is_missing(client: Client, server: ScriptedServer) -> None:
    response = client.post("/", {**WRITTEN, "email": "nobody"})
    assert response.status_code == 200
    assert "valid email address" in response.content.decode()
    assert server.connections == ()


def test_the_form_wants_its_token(use: Use, server: ScriptedServer) -> None:
    use(server)
    strict = Client(headers={"host": "localhost"}, enforce_csrf_checks=True)
    assert strict.post("/", WRITTEN).status_code == 403
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', strict.get("/").content.decode())
    assert token is not None
    assert strict.post("/", {**WRITTEN, "csrfmiddlewaretoken": token[1]}).status_code == 302
    assert len(server.messages) == 1


def test_a_server_that_is_down_is_told_kindly(client: Client, server: ScriptedServer) -> None:
    server.refuse()
    response = client.post("/", WRITTEN)
    assert response.status_code == 503
    assert "try again" in response.content.decode()
    assert "Open on" in response.content.decode()


@pytest.mark.usefixtures("database")
def test_a_password_is_reset_by_mail(client: Client, server: ScriptedServer) -> None:
    users = get_user_model().objects
    users.filter(username="ann").delete()
    users.create_user("ann", "ann@x.example", "forgotten")
    assert client.get("/account/login/").status_code == 200
    assert client.get("/account/password_reset/").status_code == 200
    response = client.post("/account/password_reset/", {"email": "ann@x.example"}, follow=True)
    assert "Look into your inbox" in response.content.decode()

    [received] = server.messages
    assert received.recipients == ("ann@x.example",)
    arrived = parsed(received.content)
    assert arrived["Subject"] == "Reset your password for the Corner Shop"
    link = re.search(r"http://localhost(/account/reset/\S+)", arrived.get_content())
    assert link is not None
    page = client.get(link[1], follow=True)
    passwords = {"new_password1": "corner shop 7", "new_password2": "corner shop 7"}
    done = client.post(page.redirect_chain[-1][0], passwords, follow=True)
    assert "new password is set" in done.content.decode()
    assert users.get(username="ann").check_password("corner shop 7")
    assert "no longer good" in client.get(link[1], follow=True).content.decode()


@pytest.mark.usefixtures("database")
def test_many_visitors_share_one_connection(client: Client, server: ScriptedServer) -> None:
    for _ in range(10):
        client.post("/", WRITTEN)
    assert len(server.messages) == 10
    assert len(server.connections) == 1


@pytest.mark.parametrize("command", [["check"], ["check", "--tag", "mail"], ["makemigrations", "--check"]])
def test_its_own_settings_are_in_order(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "testproject" / "manage.py"), *command],
        env={**os.environ, "WEBSITE_DATABASE": str(tmp_path / "site.sqlite3")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_it_can_be_served(kind: str, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", f"from testproject.website.{kind} import application"],
        cwd=ROOT,
        env={**os.environ, "WEBSITE_DATABASE": str(tmp_path / "site.sqlite3")},
        check=True,
        timeout=30,
    )
