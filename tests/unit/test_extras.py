"""The core does without extras, and who needs one that is missing is told its name.

Each case runs in an interpreter of its own in which the optional libraries cannot be imported, so it proves
the same in every environment. The core session (noxfile.py) shows that the package installs without them.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import mailbridge

OPTIONAL = [
    "aiosmtpd",
    "asn1crypto",
    "blinker",
    "celery",
    "cryptography",
    "dkim",
    "django",
    "flask",
    "idna",
    "jwt",
    "nacl",
    "oauthlib",
    "redis",
    "scramp",
    "socks",
    "spnego",
    "werkzeug",
]
# These are their library's side of a seam, and imported by nothing but what asks for it.
NEED_ONE = ["mailbridge.inbox.web", "mailbridge.inbox.certificate"]
BLOCK = f"import sys\nfor name in {OPTIONAL!r}: sys.modules[name] = None\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_every_core_module_imports_without_extras() -> None:
    names = [found.name for found in pkgutil.walk_packages(mailbridge.__path__, "mailbridge.")]
    assert "mailbridge.config.smtp_config" in names
    names = [name for name in names if not name.endswith("__main__")]  # importing it would run the program
    names = [name for name in names if name not in NEED_ONE]
    result = run(BLOCK + f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert result.returncode == 0, result.stderr


def test_importing_mailbridge_loads_no_optional_library_even_where_it_is_installed() -> None:
    result = run(f"import mailbridge, sys\nprint(sorted(set({OPTIONAL!r}) & set(sys.modules)))")
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("idna", "from mailbridge import Envelope\nEnvelope('a@x.example', ['b@b\\u00fccher.example'])"),
        (
            "oauth2",
            "from mailbridge import SMTPConfig\n"
            "SMTPConfig(username='u', oauth2={'provider': 'google', 'client_id': 'c', 'refresh_token': 'r'})",
        ),
        (
            "dkim",
            "from mailbridge import SMTPConfig\n"
            "SMTPConfig(dkim={'domain': 'x.example', 'selector': 's', 'private_key': 'AAAA'})",
        ),
        ("scram", "from mailbridge import SMTPConfig\nSMTPConfig(auth='SCRAM-SHA-256')"),
        ("gssapi", "from mailbridge import SMTPConfig\nSMTPConfig(auth=['PLAIN', 'NTLM'])"),
        ("server", "from mailbridge.server import MailServer\nMailServer(on_message=print)"),
        ("inbox", "from mailbridge.inbox.server import _Page\n_Page(None, '127.0.0.1', 0)"),
        (
            "redis",
            "from mailbridge.ratelimit import RedisRateLimiter\n"
            "RedisRateLimiter('redis://localhost', 'k', limit=1)",
        ),
        ("django", "from mailbridge_django import EmailBackend"),
        ("flask", "from mailbridge_flask import Mail"),
    ],
)
def test_a_missing_extra_is_named(extra: str, code: str) -> None:
    result = run(BLOCK + code)
    assert result.returncode == 1
    assert f"mailbridge-smtp[{extra}]" in result.stderr.splitlines()[-1]


def test_a_login_without_the_extra_for_scram_takes_what_is_there() -> None:
    code = (
        "from mailbridge.smtp.sasl import Credentials, candidates\n"
        "from mailbridge.secret import Secret\n"
        "offered = ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256', 'PLAIN']\n"
        "credentials = Credentials('u', Secret('p'), bindings={'tls-unique': b'x'})\n"
        "print(candidates('auto', offered, credentials))"
    )
    result = run(BLOCK + code)
    assert (result.stdout.strip(), result.stderr) == ("['PLAIN']", "")
