"""TLS sessions kept for a later connection to the same server, which then costs less.

Nothing here decides whether a session may be resumed: the server does, and a refused one costs
nothing but a full handshake.
"""

import os
import ssl

# A session is a few kilobytes; this bounds the memory of a process with many servers.
MOST_SESSIONS = 256

# A context, and what it asked of a certificate when it was looked at: it may be changed at any time.
Trust = tuple[ssl.SSLContext, tuple[object, ...]]
_Key = tuple[Trust, str, str]


def trust_of(context: ssl.SSLContext) -> Trust:
    """`context` with its settings of this moment that decide which certificates pass."""
    settings = (
        context.verify_mode,
        context.check_hostname,
        context.hostname_checks_common_name,
        context.verify_flags,
        context.security_level,
        *context.cert_store_stats().values(),
    )
    return context, settings


class SessionStore:
    """At most `limit` sessions, the oldest out first. Safe for several threads.

    A session stands under the context that verified its certificate and its settings at that time
    (`trust_of`), the name that was verified and the server's host:port: resuming skips the certificate,
    so none of them may differ.

    There is no lock, which a forked child could inherit held: each step on the dict is atomic.
    """

    def __init__(self, limit: int = MOST_SESSIONS) -> None:
        self._limit = limit
        self._sessions: dict[_Key, ssl.SSLSession] = {}

    def remember(self, trust: Trust, name: str | None, server: str, session: ssl.SSLSession | None) -> None:
        """Keep `session` (`Stream.tls_session`), in place of an earlier one.

        To be called once something was received or the stream is being closed: under TLS 1.3 the
        server sends what can be resumed after the handshake (RFC 8446 section 4.6.1).
        """
        if session is None or not (session.has_ticket or session.id):
            return
        self._sessions.pop(key := (trust, name or "", server), None)
        self._sessions[key] = session
        for oldest in list(self._sessions)[: -self._limit]:
            self._sessions.pop(oldest, None)

    def recall(self, trust: Trust, name: str | None, server: str) -> ssl.SSLSession | None:
        """The session to resume, which is given out once (RFC 8446 appendix C.4); or None."""
        return self._sessions.pop((trust, name or "", server), None)

    def forget(self) -> None:
        """Keep nothing."""
        self._sessions.clear()


sessions = SessionStore()
os.register_at_fork(after_in_child=sessions.forget)
