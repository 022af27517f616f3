"""The mail server of the demo: on loopback, with STARTTLS and a login, behind a relay that counts.

The server is that of `mailbridge serve`, with its page. The relay puts it a little way off, so that waiting
shows, and sees what really passes: a count that no client can talk itself into.
"""

from __future__ import annotations

import ssl
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from mailbridge.inbox import Inbox, ReceivedMail
from mailbridge.inbox.server import InboxServer
from tests.servers.certificates import make_certificates
from tests.servers.relay import Relay

USERNAME, PASSWORD = "corner-shop", "open sesame"
DELAY = 0.01  # seconds each way: a server in the same country
# The TCP handshake, which the relay does not see, and the greeting, which answers nothing that was sent.
UNSEEN_ROUND_TRIPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What has passed over the relay so far, or between two readings."""

    connections: int
    round_trips: int

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(
            connections=self.connections - earlier.connections,
            round_trips=self.round_trips - earlier.round_trips,
        )


class DemoServer:
    """A context; everything it started is gone at its end."""

    def __init__(self) -> None:
        self.inbox = Inbox()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailbridge-demo-")))
            certificates = make_certificates(folder)
            self.ca_file = certificates.ca_file
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.good.cert_file, certificates.good.key_file)
            context.num_tickets = 0  # they pass at a moment of their own, and would blur the count
            server = InboxServer(
                self.inbox, http_port=0, tls=context, require_starttls=True, auth={USERNAME: PASSWORD}
            )
            stack.enter_context(server)
            self.page_url = server.page_url
            self._relay = stack.enter_context(Relay((server.host, server.port), delay=DELAY))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def host(self) -> str:
        return self._relay.host

    @property
    def port(self) -> int:
        return self._relay.port

    @property
    def url(self) -> str:
        """Where it is and who logs in; whose certificates to trust is `ca_file`."""
        return f"smtp://{quote(USERNAME)}:{quote(PASSWORD)}@{self.host}:{self.port}/"

    @property
    def messages(self) -> tuple[ReceivedMail, ...]:
        """What has arrived so far."""
        return tuple(reversed(self.inbox.mails()))

    def cost(self) -> Cost:
        """What it has taken so far."""
        seen = self._relay.connections
        return Cost(
            connections=len(seen),
            round_trips=sum(one.round_trips for one in seen) + UNSEEN_ROUND_TRIPS * len(seen),
        )

    def wait_until_all_have_left(self, seconds: float = 2.0) -> None:
        """Until no connection is open, so that no late answer falls into the next reading."""
        end = time.monotonic() + seconds
        while any(one.is_open for one in self._relay.connections) and time.monotonic() < end:
            time.sleep(DELAY)
