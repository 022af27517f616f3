"""OAuth2 from settings only: a Django project, a Flask application and the command line, as processes.

Tokens are kept in files, so that the processes of one site share them: the second one asks for none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mailbridge.verify import STAGE_NAMES
from tests.django.conftest import KNOWS_MAILERS, MODES, settings_for
from tests.integration.mails import INBOX, SENDER
from tests.servers.certificates import Certificates
from tests.servers.dovecot import USERNAME, Dovecot
from tests.servers.token_server import TokenServer

ROOT = Path(__file__).parents[2]
SECONDS = 40.0  # an interpreter with Django or Flask, on a busy machine
CLIENT_SECRET, REFRESH_TOKEN = "the-cl1ent-s3cret-of-the-site", "first-refresh-token"
FIRST_TOKEN = "access-token-1.of.the-token-server"
SECRETS = (CLIENT_SECRET, REFRESH_TOKEN, FIRST_TOKEN)


@dataclass(frozen=True, slots=True)
class Site:
    """A folder with an application in it, and what its mail goes through."""

    folder: Path
    dovecot: Dovecot
    tokens: TokenServer
    ca_file: str

    @property
    def oauth2_in_url(self) -> dict[str, str]:
        return {
            "token_url": self.tokens.url,
            "client_id": "the-client",
            "client_secret": CLIENT_SECRET,
            "refresh_token": REFRESH_TOKEN,
            "scope": "mail",
        }

    @property
    def token_store(self) -> str:
        return f"file:{self.folder / 'tokens'}"

    @property
    def oauth2(self) -> dict[str, Any]:
        beside = {"token_store": self.token_store, "tls": {"ca_file": self.ca_file}}
        return {**self.oauth2_in_url, **beside}

    @property
    def options(self) -> dict[str, Any]:
        return {
            "host": "localhost",
            "port": self.dovecot.submission.port,
            "security": "starttls",
            "username": USERNAME,
            "tls": {"ca_file": self.ca_file},
            "timeout": 10,
            "oauth2": self.oauth2,
        }

    def write(self, name: str, values: Mapping[str, object], more: str = "") -> None:
        lines = [f"{key} = {value!r}" for key, value in values.items()]
        (self.folder / name).write_text("\n".join([*lines, more, ""]))

    def run(self, *command: str, status: int = 0, settings: str = "") -> str:
        """What it prints; it tells no secret, neither there nor in its warnings."""
        paths = os.pathsep.join([str(self.folder), str(ROOT)])
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths, "DJANGO_SETTINGS_MODULE": settings},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == status, done
        for secret in SECRETS:
            assert secret not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, certificates: Certificates) -> Iterator[Site]:
    dovecot.introspection.accept(FIRST_TOKEN, USERNAME)
    with TokenServer(identity=certificates.good, rotates=True) as tokens:
        yield Site(tmp_path, dovecot, tokens, str(certificates.ca_file))


def check_stages(stages: Sequence[Mapping[str, Any]], tokens: TokenServer) -> None:
    """All is well, with the facts of the stages token and auth."""
    found = {stage["name"]: stage for stage in stages}
    assert list(found) == list(STAGE_NAMES)
    assert (found["token"]["status"], found["auth"]["status"]) == ("ok", "ok")
    told = found["token"]["detail"]
    assert told.startswith(f"refresh_token at localhost:{tokens.port}, scope mail, expires in 3")
    assert found["auth"]["detail"].startswith(
        ("OAUTHBEARER accepted; offered: ", "XOAUTH2 accepted; offered: ")
    )


def subjects(dovecot: Dovecot) -> list[str]:
    lines = b"\n".join(message.content for message in dovecot.messages()).splitlines()
    return [line.decode()[9:] for line in lines if line.startswith(b"Subject: ")]


def django_settings(site: Site, way: str) -> dict[str, Any]:
    if way != "Django's own names":
        return settings_for(way, **site.options)
    return {
        "EMAIL_BACKEND": "mailbridge_django.EmailBackend",
        "EMAIL_HOST": "localhost",
        "EMAIL_PORT": site.dovecot.submission.port,
        "EMAIL_USE_TLS": True,
        "EMAIL_HOST_USER": USERNAME,
        "EMAIL_TIMEOUT": 10,
        "MAILBRIDGE": {"oauth2": site.oauth2, "tls": {"ca_file": site.ca_file}},
    }


@pytest.mark.parametrize("way", [*MODES, *(() if KNOWS_MAILERS else ("Django's own names",))])
def test_a_django_project(site: Site, way: str) -> None:
    """`sendtestemail` is Django's: it knows nothing but the settings."""
    own = {"SECRET_KEY": "x", "INSTALLED_APPS": ["mailbridge_django"], "DEFAULT_FROM_EMAIL": SENDER}
    site.write("site_settings.py", own | django_settings(site, way))
    already = len(site.dovecot.messages())
    project = "site_settings"
    answer = json.loads(site.run("-m", "django", "verify_smtp", "--format", "json", settings=project))
    assert answer["ok"] is True
    check_stages(answer["mailers"][0]["stages"], site.tokens)
    site.run("-m", "django", "sendtestemail", INBOX, settings=project)
    assert len(site.dovecot.messages()) == already + 1
    assert subjects(site.dovecot)[-1].startswith("Test email from ")
    assert len(site.tokens.requests) == 1
    site.dovecot.introspection.revoke(FIRST_TOKEN)
    site.tokens.answer = "invalid_grant"
    answer = json.loads(
        site.run("-m", "django", "verify_smtp", "--format", "json", status=1, settings=project)
    )
    [failed] = [stage for stage in answer["mailers"][0]["stages"] if stage["status"] == "failed"]
    assert failed["name"] == "token"
    assert "invalid_grant" in failed["detail"]
    assert "consent again" in failed["hint"]


def test_a_flask_application(site: Site) -> None:
    names = {f"MAILBRIDGE_{name.upper()}": value for name, value in site.options.items()}
    config = names | {"MAILBRIDGE_DEFAULT_SENDER": SENDER}
    site.write("config.py", config)
    app = "app = Flask('shop')\napp.config.from_pyfile('config.py')\nMail(app)"
    code = f"from flask import Flask\nfrom mailbridge_flask import Mail\n{app}"
    site.write("shop.py", {}, code)
    already = len(site.dovecot.messages())
    flask = ("-m", "flask", "--app", "shop", "mail")
    answer = json.loads(site.run(*flask, "verify", "--json"))
    assert answer["ok"] is True
    check_stages(answer["stages"], site.tokens)
    site.run(*flask, "send-test", INBOX)
    assert len(site.dovecot.messages()) == already + 1
    assert subjects(site.dovecot)[-1] == "Test mail from shop"
    assert len(site.tokens.requests) == 1
    site.dovecot.introspection.revoke(FIRST_TOKEN)
    site.tokens.answer = "unauthorized_client"
    shown = site.run(*flask, "verify", status=1)
    assert "token      failed" in shown
    assert "SMTP.SendAsApp" in shown


def test_the_command_line(site: Site) -> None:
    """A URL has options with dots for groups; files are named beside it."""
    oauth2 = "&".join(f"oauth2.{name}={quote(value, safe='')}" for name, value in site.oauth2_in_url.items())
    server = f"{USERNAME}@localhost:{site.dovecot.submission.port}"
    url = f"smtp://{server}/?timeout=10&{oauth2}"
    files = (f"tls.ca_file={site.ca_file}", f"oauth2.tls.ca_file={site.ca_file}")
    beside = [
        word for option in (*files, f"oauth2.token_store={site.token_store}") for word in ("--option", option)
    ]
    answer = json.loads(site.run("-m", "mailbridge", "verify", "--json", url, *beside))
    assert answer["ok"] is True
    check_stages(answer["stages"], site.tokens)
    shown = site.run("-m", "mailbridge", "verify", "--debug", url, *beside)
    assert "token      ok" in shown
    already = len(site.dovecot.messages())
    mail = ("--from", SENDER, "--to", INBOX, "--subject", "From the command line", "--text", "hello")
    site.run("-m", "mailbridge", "send", url, *beside, *mail)
    assert len(site.dovecot.messages()) == already + 1
    assert len(site.tokens.requests) == 1
