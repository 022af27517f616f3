"""The secrets of OAuth2 that the acceptance tests look for, a server that is told them, and where to look.

Secret are the client's secret, refresh tokens, access tokens and signing keys: as they are, in base64,
URL-encoded, escaped, cut short.
"""

from __future__ import annotations

import base64
import json
import logging
import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.servers.token_server import JSON, Reply, TokenServer

TESTS = str(Path(__file__).parent)  # frames of the tests themselves hold what they look for
# With everything in them that quoting and escaping change.
CLIENT_SECRET = "Cl1ent Sentinel/S3cret+Wert=&?~'\"\\42"
REFRESH_TOKEN = "1//0Refresh-Sentinel_Words~42+7/x=="
ROTATED_TOKEN = "1//0Rotated-Sentinel_Words~43+8/y=="
ACCESS_TOKEN = "ya29.Acc3ss-Sentinel_Words~44+9/z=="
HEADER = "gateway-k3y Sentinel/Header+45"
SECRETS = [CLIENT_SECRET, REFRESH_TOKEN, ROTATED_TOKEN, ACCESS_TOKEN, HEADER]


def spelled(data: bytes) -> str:
    return base64.b64encode(data).decode()


# By name: how a server may write what it was sent.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "URL-encoded": lambda secret: quote(secret, safe=""),
    "as in a form": quote_plus,
    "URL-encoded but for slashes": quote,
    "in base64": lambda secret: spelled(secret.encode()),
    "in Basic credentials": lambda secret: spelled(f"the-client:{secret}".encode()),
    "in URL-safe base64": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "escaped": lambda secret: json.dumps(secret)[1:-1],
    "as Python writes it": lambda secret: repr(secret)[1:-1],
    "cut short": lambda secret: f"{secret[:20]}...",
    "without its beginning": lambda secret: f"...{secret[4:]}",
    "URL-encoded in small letters": lambda secret: re.sub(
        "%..", lambda found: found[0].lower(), quote(secret, safe="")
    ),
}
# The client's id is no secret, and fills the first 16 characters of Basic credentials.
FORMS = [
    spell(secret)[16 * (name == "in Basic credentials") :]
    for secret in SECRETS
    for name, spell in SPELLINGS.items()
]
# So much of a secret in a row is a leak, even if the rest is cut off.
TELLING = 12
RUNS = {form[i : i + TELLING] for form in FORMS for i in range(len(form) - TELLING + 1)}


def leaks(text: str) -> list[str]:
    return sorted(run for run in RUNS if run in text)


Log = pytest.LogCaptureFixture


def linked(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, shown or suppressed, and the errors of earlier attempts."""
    found: list[BaseException | None] = [error]
    seen = set()
    while found:
        one = found.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            found += [one.__cause__, one.__context__, *getattr(one, "attempts", ())]
            yield one


def views_of_error(error: BaseException) -> Iterator[str]:
    for one in linked(error):
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)), repr(one.__reduce__()))
        stack = traceback.TracebackException.from_exception(one, capture_locals=True).stack
        yield from (f"{frame.line} {frame.locals}" for frame in stack if TESTS not in frame.filename)
    yield from pickled(error)


def pickled(value: object) -> Iterator[str]:
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        data = pickle.dumps(value, protocol)
        yield from (data.decode("latin-1"), repr(pickle.loads(data)))


def views_of_log(log: Log) -> Iterator[str]:
    for record in log.records:
        yield from (record.getMessage(), repr(record.args), repr(vars(record)))
        assert record.levelno < logging.ERROR, record


def assert_hidden(*groups: Iterator[str]) -> None:
    for group in groups:
        for text in group:
            assert not leaks(text), f"{leaks(text)} in {text}"


class Telling(TokenServer):
    """Gives ACCESS_TOKEN and ROTATED_TOKEN, or else `reply`."""

    def __init__(self, reply: Reply | None = None, **options: Any) -> None:
        self.reply = reply
        super().__init__(**options)

    def reply_to(self, form: dict[str, str], head: dict[str, str]) -> Reply:
        answer = super().reply_to(form, head)
        if self.reply is not None or self.answer is not None:
            return self.reply or answer
        said = {
            "access_token": ACCESS_TOKEN,
            "refresh_token": ROTATED_TOKEN,
            "token_type": "Bearer",
            "expires_in": 3600,
        }
        return 200, JSON, json.dumps(said).encode()


def oauth2_at(tokens: TokenServer) -> dict[str, Any]:
    return {
        "token_url": tokens.url,
        "client_id": "the-client",
        "client_secret": CLIENT_SECRET,
        "refresh_token": REFRESH_TOKEN,
        "extra_headers": {"X-Gateway": HEADER},
        "allow_insecure_token_url": True,
    }
