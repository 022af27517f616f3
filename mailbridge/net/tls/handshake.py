"""Beginning TLS on a stream with the options' context and name, and resuming an earlier session."""

from mailbridge.config.groups import TLSOptions
from mailbridge.deadline import Deadline
from mailbridge.errors import MailbridgeError
from mailbridge.net.stream import Stream
from mailbridge.net.tls.context import context_for
from mailbridge.net.tls.errors import tls_error
from mailbridge.net.tls.sessions import sessions, trust_of
from mailbridge.net.tls.strength import is_lowered, require_usual_strength


class Handshake:
    """TLS to `server` (host:port) on one stream. Raises `ConfigurationError` for unusable options."""

    def __init__(self, stream: Stream, options: TLSOptions, *, host: str, server: str) -> None:
        self._stream = stream
        self._options = options
        self._context = context_for(options)
        self._trust = trust_of(self._context)
        self._name = options.server_hostname or host
        self._server = server

    def perform(self, *, mode: str, deadline: Deadline, to_proxy: bool = False) -> None:
        """Raises `TLSFailed` and its kinds, `ConnectTimeout`, `ProtocolViolation`; `mode` is `security`."""
        self._trust = trust_of(self._context)
        session = sessions.recall(self._trust, self._name, self._server)
        try:
            self._stream.start_tls(self._context, self._name, deadline, session=session, to_proxy=to_proxy)
            if self._options.verify and is_lowered(self._options) and self._stream.ssl_object is not None:
                require_usual_strength(self._stream.ssl_object)
        except MailbridgeError:
            raise
        except OSError as error:
            first_bytes = self._stream.handshake_bytes
            raise tls_error(
                error, server=self._server, host=self._name, first_bytes=first_bytes, mode=mode
            ) from error

    def remember_session(self) -> None:
        """Keep what a later connection can resume; to be called before the stream is closed."""
        if self._stream.tls is not None and self._stream.is_open:
            sessions.remember(self._trust, self._name, self._server, self._stream.tls_session)

    @property
    def round_trips(self) -> int:
        """How often the two sides waited for each other (RFC 8446 section 2, RFC 5246 section 7.3)."""
        facts = self._stream.tls
        if facts is None:
            return 0
        return 1 if facts.version == "TLSv1.3" or facts.resumed else 2
