"""Beginning TLS on a stream with the options' context, name and a remembered session."""

from mailbridge.net.deadline import Deadline
from mailbridge.net.streams import Stream
from mailbridge.net.tls import context_for
from mailbridge.net.tls_errors import tls_error
from mailbridge.net.tls_sessions import sessions
from mailbridge.options import TLSOptions


def begin_tls(
    stream: Stream, options: TLSOptions, *, host: str, server: str, mode: str, deadline: Deadline
) -> None:
    """The handshake. Raises `TLSFailed` and its kinds, `ConnectTimeout`, `ConfigurationError`."""
    context = context_for(options)
    name = options.server_hostname or host
    session = sessions.recall(context, name, server)
    try:
        stream.start_tls(context, name, deadline, session=session)
    except OSError as error:
        raise tls_error(
            error, server=server, host=name, first_bytes=stream.handshake_bytes, mode=mode
        ) from error


def remember_session(stream: Stream, options: TLSOptions, *, host: str, server: str) -> None:
    """Keep what a later connection can resume; to be called before the stream is closed."""
    if stream.tls is not None and stream.is_open:
        sessions.remember(context_for(options), options.server_hostname or host, server, stream.tls_session)


def handshake_round_trips(stream: Stream) -> int:
    """How often the two sides wait for each other (RFC 8446 section 2, RFC 5246 section 7.3)."""
    facts = stream.tls
    if facts is None:
        return 0
    return 1 if facts.version == "TLSv1.3" or facts.resumed else 2
