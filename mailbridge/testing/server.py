"""`ScriptedServer`: listens, gives every connection its thread, and answers what was seen.

Loopback only by default, a free port, daemon threads that `close()` ends and joins at once whatever a fault
is doing. It depends on the standard library alone and shares no code with mailbridge, whose judge it is. It
is no mail server: what it commits is kept in memory.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from mailbridge.testing.expectations import Expectations
from mailbridge.testing.faults import Fault, FaultPlan
from mailbridge.testing.listener import Listener, Path, bound_socket, server_context
from mailbridge.testing.options import DEFAULT_KEYWORDS, Behaviour, Replies
from mailbridge.testing.records import Connection, Journal, ReceivedMessage
from mailbridge.testing.responder import Speaker
from mailbridge.testing.script import Dialogue, Performance
from mailbridge.testing.session import Session
from mailbridge.testing.wire import Channel, Over

__all__ = ["ScriptedServer"]

# Seconds in which all threads must have ended after close(); they are woken, so this is an alarm, not a wait.
JOIN_TIMEOUT = 3.0


class ScriptedServer(Expectations):
    """An SMTP server for tests that follows a script, or behaves well but for the faults it is given.

    With `dialogues` the first connection plays the first one, and so on; a further connection is a failure,
    or is served (`after_dialogues="serve"`). Without, every connection is served by a small SMTP server with
    `faults`.

    Listening: `host` "127.0.0.1" or "::1", `port` 0 for a free one, or `unix_path`. `tls`: None, "starttls"
    or "implicit", with `certfile` and `keyfile` (PEM) or an `ssl_context`; `client_ca` (PEM file) demands
    client certificates. `keywords` are the EHLO lines; STARTTLS and AUTH are added by themselves. `users`
    maps names to passwords and makes AUTH offered (after TLS; in clear where there is none or with
    `auth_in_clear`) and, unless `require_auth=False`, needed. `require_tls`: MAIL before STARTTLS is answered
    530. `max_recipients`: 452 4.5.3 from the next one on.

    `lmtp`: LHLO instead of EHLO, and an answer for each recipient (RFC 2033); `final_replies` are then by
    recipient, and each recipient's copy is a message. With CHUNKING among the keywords BDAT is taken.

    Replies other than the regular ones: `mail_replies` and `data_reply` (by sender), `rcpt_replies` (by
    recipient), `final_replies` (by sender; a callable gets the ReceivedMessage). Each is one reply for all, a
    mapping from addresses, or a callable; None means the regular reply. A message is committed if its final
    reply is 2yz.

    `strict`: what a client must not do (`violations`) fails `check()`. Raises ValueError for options that
    contradict each other, OSError where it cannot listen.

    Use it as a context manager, or `start()` and `close()`. Leaving the context closes it and calls
    `check()`.
    """

    def __init__(
        self,
        dialogues: Iterable[Dialogue | str] = (),
        *,
        after_dialogues: Literal["fail", "serve"] = "fail",
        faults: Iterable[Fault] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: Path | None = None,
        tls: Literal["starttls", "implicit"] | None = None,
        certfile: Path | None = None,
        keyfile: Path | None = None,
        client_ca: Path | None = None,
        ssl_context: ssl.SSLContext | None = None,
        lmtp: bool = False,
        hostname: str = "mx.test.example",
        keywords: Sequence[str] = DEFAULT_KEYWORDS,
        users: Mapping[str, str] | None = None,
        auth: Sequence[str] = ("PLAIN", "LOGIN", "CRAM-MD5"),
        auth_in_clear: bool = False,
        require_auth: bool | None = None,
        require_tls: bool = False,
        max_recipients: int | None = None,
        mail_replies: Replies[str] = None,
        rcpt_replies: Replies[str] = None,
        data_reply: Replies[str] = None,
        final_replies: Replies[ReceivedMessage] = None,
        strict: bool = True,
    ) -> None:
        self._dialogues = tuple(d if isinstance(d, Dialogue) else Dialogue(d) for d in dialogues)
        self._after_dialogues = after_dialogues
        self._plan = FaultPlan(faults)
        self._unix_path = None if unix_path is None else os.fspath(unix_path)
        self._host, self._port = host, port
        self._strict = strict
        self._behaviour = Behaviour(
            tls=tls,
            context=server_context(tls, ssl_context, certfile, keyfile, client_ca),
            lmtp=lmtp,
            hostname=hostname,
            keywords=tuple(keywords),
            users=dict(users or {}),
            auth=tuple(name.upper() for name in auth),
            auth_in_clear=auth_in_clear,
            require_auth=bool(users) if require_auth is None else require_auth,
            require_tls=require_tls,
            max_recipients=max_recipients,
            mail_replies=mail_replies,
            rcpt_replies=rcpt_replies,
            data_reply=data_reply,
            final_replies=final_replies,
        )
        #: What a client has to trust, where it is known: the option tls.ca_file.
        self.ca_file: Path | None = certfile
        self._journal = Journal(unsettled=len(self._dialogues))
        self._listener: Listener | None = None
        self._reserved: socket.socket | None = None
        self._lock = threading.Lock()
        self._live: dict[threading.Thread, Channel] = {}

    # -- life -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen and accept."""
        if self._journal.stop.is_set():
            raise RuntimeError("a closed server cannot be started again")
        bound = self._reserved or bound_socket(self.address)
        self._reserved = None
        if self._unix_path is None:
            self._port = bound.getsockname()[1]
        self._listener = Listener(bound, self._accepted)
        return self

    def refuse(self) -> None:
        """Stop listening, so that new connections are refused; those under way go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._unix_path is None and not self._journal.stop.is_set():
                self._reserved = bound_socket(self.address)  # else another process might get the port
        if self._unix_path is not None and os.path.exists(self._unix_path):
            os.unlink(self._unix_path)

    def resume(self) -> None:
        """Listen again at the same address after `refuse()`."""
        self.start()

    def close(self) -> None:
        """End the listener and every connection, and join their threads. May be called twice."""
        self._journal.stop.set()
        self.refuse()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        with self._lock:
            live = dict(self._live)
        for channel in live.values():
            channel.abort()
        deadline = time.monotonic() + JOIN_TIMEOUT
        for thread in live:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in live):
            raise RuntimeError(f"connection threads did not end within {JOIN_TIMEOUT:g} s")

    def __enter__(self) -> Self:
        return self if self._listener is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self.check()
            finally:
                self.close()
            return
        self.close()
        # The test's own error comes first; what the server saw is often its cause.
        error.add_note("\n".join(["The scripted server saw:", self._journal.describe(), *self._complaints()]))

    # -- where ------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address it listens at."""
        return self._host

    @property
    def port(self) -> int:
        """The port it listens at, also while `refuse()` holds."""
        return self._port

    @property
    def address(self) -> tuple[str, int] | str:
        """(host, port), or the path of the UNIX socket."""
        return self._unix_path if self._unix_path is not None else (self._host, self._port)

    @property
    def options(self) -> dict[str, Any]:
        """The options of mailbridge for it: its `url`, and `ca_file` to trust if there is one."""
        return {"url": self.url, **({"tls": {"ca_file": os.fspath(self.ca_file)}} if self.ca_file else {})}

    @property
    def url(self) -> str:
        """Where it is, and with which security; logins are added. Whom to trust is in `options`."""
        where = f"[{self._host}]" if ":" in self._host else self._host
        security = {None: "none", "starttls": "starttls", "implicit": "tls"}[self._behaviour.tls]
        scheme = "lmtp" if self._behaviour.lmtp else "smtp"
        if self._unix_path is not None:
            raise ValueError("a UNIX socket has no URL: use host='unix:/path'")
        return f"{scheme}://{where}:{self._port}/?security={security}"

    # -- what it saw ------------------------------------------------------------------------------------

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Every connection accepted so far, in order."""
        with self._journal.changed:
            return tuple(self._journal.connections)

    @property
    def messages(self) -> tuple[ReceivedMessage, ...]:
        """Every message committed so far, in order."""
        with self._journal.changed:
            return tuple(self._journal.messages)

    @property
    def round_trips(self) -> int:
        """Those of all connections together; see `Connection.round_trips`."""
        return sum(one.round_trips for one in self.connections)

    def assert_connections(self, count: int) -> None:
        """Exactly so many connections were opened; AssertionError shows what was said on them."""
        if len(self.connections) != count:
            raise AssertionError(f"not {count} connections: {self._journal.describe()}")

    def assert_round_trips(self, *, at_most: int) -> None:
        """The clients waited no more often; AssertionError shows what was said."""
        if self.round_trips > at_most:
            seen = f"{self.round_trips} round trips, at most {at_most} were expected"
            raise AssertionError(f"{seen}: {self._journal.describe()}")

    @property
    def violations(self) -> tuple[str, ...]:
        """What clients did that they must not do."""
        with self._journal.changed:
            return tuple(
                f"connection {one.number}: {text}"
                for one in self._journal.connections
                for text in one.violations
            )

    @property
    def fired(self) -> tuple[Fault, ...]:
        """The faults that happened, in order."""
        return self._plan.fired

    @property
    def unfired(self) -> tuple[Fault, ...]:
        """The faults that never happened: their stage was not reached."""
        return self._plan.unfired

    def wait_for(self, predicate: Callable[[], object], timeout: float = 5.0) -> bool:
        """Wait until `predicate()` is true, looking again whenever something is recorded; returns True.

        Raises AssertionError with what the server saw after `timeout` seconds.
        """
        return self._journal.wait_for(predicate, timeout)

    def check(self, timeout: float = 1.0) -> None:
        """AssertionError if a dialogue went otherwise, or did not get to its end within `timeout` seconds, a
        client did what it must not (where `strict`), or the server itself failed.
        """
        journal = self._journal
        with journal.changed:
            journal.changed.wait_for(lambda: journal.unsettled <= 0 or journal.failures, timeout)
        complaints = self._complaints()
        if complaints:
            raise AssertionError("\n".join(complaints))

    def _complaints(self) -> list[str]:
        with self._journal.changed:
            found = list(self._journal.failures)
            begun, unsettled = len(self._journal.connections), self._journal.unsettled
        if not found and unsettled > 0:
            missing = len(self._dialogues) - begun
            found.append(
                f"{missing} of {len(self._dialogues)} dialogues never began"
                if missing > 0
                else f"a dialogue did not get to its end:\n{self._journal.describe()}"
            )
        return found + list(self.violations if self._strict else ())

    # -- connections ------------------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        record = self._journal.new_connection(peer)
        channel = Channel(sock, record, self._journal)
        thread = threading.Thread(
            target=self._serve, args=(channel, record), name=f"scripted-smtp-{record.number}", daemon=True
        )
        with self._lock:
            self._live[thread] = channel
        thread.start()

    def _serve(self, channel: Channel, record: Connection) -> None:
        over = Over("server")
        try:
            self._run(channel, record)
        except Over as reached:
            over = reached
        except Exception:  # a callable of the test's, or a mistake of ours: the test must see it
            self._journal.fail(
                f"connection {record.number}: the server itself failed\n{traceback.format_exc()}"
            )
        finally:
            channel.end(over)
            with self._lock:
                del self._live[threading.current_thread()]

    def _run(self, channel: Channel, record: Connection) -> None:
        if record.number <= len(self._dialogues):
            context = self._behaviour.context
            if self._behaviour.tls == "implicit" and context is not None:
                channel.start_tls(context)
            Performance(self._dialogues[record.number - 1], channel, record, self._journal, context).run()
        elif self._dialogues and self._after_dialogues == "fail":
            self._journal.fail(f"connection {record.number}: there are {len(self._dialogues)} dialogues only")
        else:
            Session(Speaker(channel, record, self._journal, self._behaviour, self._plan)).run()
