"""`manage.py verify_smtp`, as the tests call it."""

import io
import json
from typing import Any

from django.core.management import CommandError, call_command

STAGES = [
    *("config", "dns", "proxy", "tcp", "greeting", "tls", "ehlo", "token", "auth"),
    *("mail_from", "rcpt_to", "quit"),
]


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and output, as the command line gives them."""
    output = io.StringIO()
    try:
        call_command("verify_smtp", *arguments, stdout=output, no_color=True)
    except CommandError as error:
        return error.returncode, output.getvalue() + str(error)
    return 0, output.getvalue()


def run_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    output = io.StringIO()
    status = 0
    try:
        call_command("verify_smtp", "--format", "json", *arguments, stdout=output)
    except CommandError as error:
        status = error.returncode
    return status, json.loads(output.getvalue())
