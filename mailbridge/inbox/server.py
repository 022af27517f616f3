"""`InboxServer`: a receiving server whose mails go into an `Inbox`, and the page that shows them.

For development. The mail side is `mailbridge.server`, the page is `web`; this only joins them.
"""

import threading
from types import TracebackType
from typing import Any, Self

from mailbridge.errors import ConfigurationError
from mailbridge.inbox.store import Inbox
from mailbridge.server import MailServer, ReceivedEnvelope, Session


class InboxServer:
    """A context manager: within it mail is received, and with `http_port` (0: a free one) there is a page.

    `options` are those of `MailServer`, without `on_message`. The page listens on `http_host`. Raises
    ConfigurationError where Flask is missing, OSError where an address is taken.
    """

    def __init__(
        self,
        inbox: Inbox,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        http_host: str = "127.0.0.1",
        http_port: int | None = None,
        **options: Any,
    ) -> None:
        self.inbox = inbox
        self._server = MailServer(host, port, on_message=self._keep, **options)
        self._page = _Page(inbox, http_host, http_port) if http_port is not None else None

    @property
    def host(self) -> str:
        return self._server.host

    @property
    def port(self) -> int:
        """Where mail is received."""
        return self._server.port

    @property
    def page_url(self) -> str | None:
        """Where the page is, if there is one."""
        return self._page.url if self._page is not None else None

    def start(self) -> None:
        try:
            self._server.start()
        except BaseException:
            if self._page is not None:
                self._page.close()
            raise
        if self._page is not None:
            self._page.start()

    def stop(self) -> None:
        """Receive nothing more, and let everyone go who waits for a mail."""
        self._server.stop()
        self.inbox.close()
        if self._page is not None:
            self._page.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _keep(self, session: Session, envelope: ReceivedEnvelope, content: bytes) -> None:
        self.inbox.add(
            content,
            sender=envelope.sender,
            recipients=envelope.recipients,
            client=f"{session.remote_address}:{session.remote_port}",
            user=session.user or "",
            is_encrypted=session.tls is not None,
        )


class _Page:
    """The page on a server of its own, in a thread of its own."""

    def __init__(self, inbox: Inbox, host: str, port: int) -> None:
        try:
            from werkzeug.serving import WSGIRequestHandler, make_server

            from mailbridge.inbox.web import create_app
        except ImportError as error:
            raise ConfigurationError(
                "The inbox page needs Flask",
                stage="config",
                hint="Install the extra: pip install 'mailbridge-smtp[inbox]'.",
            ) from error

        class Quiet(WSGIRequestHandler):
            def log_request(self, *_: object) -> None:
                """A line for each request tells nobody anything."""

        shown = f"[{host}]" if ":" in host else host
        app = create_app(inbox, hosts=[shown])
        self._server = make_server(host, port, app, threaded=True, request_handler=Quiet)
        self._server.daemon_threads = True  # type: ignore[attr-defined]  # what threaded=True makes has it
        self.url = f"http://{shown}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="inbox-page", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self.close()

    def close(self) -> None:
        """Give up the address of a page that was never started, or has stopped."""
        self._server.server_close()
