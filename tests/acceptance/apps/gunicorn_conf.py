"""gunicorn's settings: nothing outside the test's folder, and one last mail from the master."""

from __future__ import annotations

import os
from typing import Any

control_socket_disable = True  # newer versions put a socket into the home folder; older ignore this


def on_exit(server: Any) -> None:
    """In the master, once its workers are gone."""
    if "SEND_AT_IMPORT" in os.environ:
        from tests.acceptance.apps import LAST, send

        send(LAST)
