"""A WSGI application: a request for /7 sends message 7 and answers with the pid of its worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from tests.acceptance.apps import FIRST, send

if "SEND_AT_IMPORT" in os.environ:
    send(FIRST)


def application(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    send(int(environ["PATH_INFO"].removeprefix("/")))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
