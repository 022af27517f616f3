"""Where connections come in: accepted, counted, named by a PROXY header, and handed to a dialogue.

Runs in one event loop from its start to its end; `server` has the thread around it. Whether a header
is due depends on the peer's address and on nothing that it sends.
"""

import asyncio
import logging
import secrets
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from mailbridge import logs
from mailbridge.proxy_protocol.header import InvalidProxyHeader, ProxyHeader
from mailbridge.reply import printable
from mailbridge.server.budget import Budget
from mailbridge.server.commands import Dialogue
from mailbridge.server.connection import LINGER
from mailbridge.server.hooks import Hooks
from mailbridge.server.logs import Journal
from mailbridge.server.networks import client_of, plain
from mailbridge.server.options import Policy
from mailbridge.server.proxy_header import read_header
from mailbridge.server.reader import Farewell
from mailbridge.server.session import ProxyTlvs, Session
from mailbridge.server.tls import HANDSHAKE_SECONDS

_PAUSE_SECONDS = 0.1  # before the next accept, where the system has no descriptors left
_FULL = "421 4.3.2 Too many connections, try again later"
_FULL_FOR_CLIENT = "421 4.7.0 Too many connections from your address, try again later"
_NO_HEADER = "421 4.7.0 PROXY header missing or wrong, closing connection"
_STOPPING = Farewell("421 4.3.2 Shutting down, closing connection", "server stopped", is_hasty=True)


class Reception:
    """A running server. Made within its event loop; `serve` ends after `stop`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._threads = ThreadPoolExecutor(policy.hook_threads, thread_name_prefix="mailbridge-hook")
        self._budget = Budget(policy.max_buffered_size)
        self._visits: dict[asyncio.Task[None], Dialogue | None] = {}
        self._clients: Counter[str] = Counter()  # connections of each, those without a dialogue too
        self._stopping = asyncio.Event()
        self._drain = 0.0

    def stop(self, drain: float) -> None:
        """Take no more connections and end those that are idle; after `drain` seconds, all."""
        self._drain = drain
        self._stopping.set()

    async def serve(self, listening: socket.socket) -> None:
        """Until `stop`."""
        self._listen(listening)
        try:
            await self._stopping.wait()
        finally:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
            await self._wind_up()

    def _listen(self, listening: socket.socket) -> None:
        if not self._stopping.is_set():
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Somebody has knocked. In one go, so that no socket is between two owners when the server stops."""
        loop = asyncio.get_running_loop()
        try:
            sock, address = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return  # whoever it was has gone
        except OSError as error:  # no descriptors left: later there may be
            text = "a connection could not be accepted: %s"
            logs.write(self._policy.logger, logging.WARNING, text, error, action="not_accepted")
            loop.remove_reader(listening)
            loop.call_later(_PAUSE_SECONDS, self._listen, listening)
            return
        sock.setblocking(False)
        visit = loop.create_task(self._receive(sock, address))
        self._visits[visit] = None
        visit.add_done_callback(lambda _: self._visits.pop(visit))
        visit.add_done_callback(lambda _: sock.close())  # here, since a task cancelled early never begins

    async def _receive(self, sock: socket.socket, address: tuple[str, int]) -> None:
        began = asyncio.get_running_loop().time()
        session = _session(sock, address)
        journal = Journal(self._policy.logger, session)
        why = "server stopped"
        try:
            why = await self._converse(sock, session, journal)
        except OSError as error:
            why = f"connection lost: {error.strerror or error}"
        finally:
            journal.close(asyncio.get_running_loop().time() - began, why)

    async def _converse(self, sock: socket.socket, session: Session, journal: Journal) -> str:
        """All that happens on a connection; gives what ended it."""
        policy = self._policy
        if len(self._visits) > policy.max_connections:
            return await self._turn_away(sock, journal, _FULL, "too many connections", linger=0)
        journal.is_silent = session.remote_address in policy.ignored_hosts
        if session.remote_address in policy.proxies:
            try:
                header = await read_header(sock, policy.proxy_header_timeout)
            except (InvalidProxyHeader, TimeoutError) as error:
                reason = str(error) or "no PROXY header in time"
                return await self._turn_away(sock, journal, _NO_HEADER, reason)
            _believe(header, session)
            journal.is_silent = session.remote_address in policy.ignored_hosts
            journal.proxy(header.command if header.version == 2 else header.family, header.version)
        with self._counted(client_of(session.remote_address)) as count:
            if count > policy.max_connections_per_client:
                reason = "too many connections from this address"
                return await self._turn_away(sock, journal, _FULL_FOR_CLIENT, reason, linger=0)
            return await self._talk(sock, session, journal)

    @contextmanager
    def _counted(self, client: str) -> Iterator[int]:
        """While it lasts, one connection more of `client`; how many there are with it."""
        self._clients[client] += 1
        try:
            yield self._clients[client]
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def _talk(self, sock: socket.socket, session: Session, journal: Journal) -> str:
        journal.connect()
        dialogue = Dialogue(
            self._policy, session, journal, Hooks(self._threads), self._budget, is_ignored=journal.is_silent
        )
        await self._connect(sock, dialogue)
        return await self._follow(dialogue)

    async def _connect(self, sock: socket.socket, dialogue: Dialogue) -> None:
        context = self._policy.tls if self._policy.implicit_tls else None
        seconds = min(HANDSHAKE_SECONDS, self._policy.idle_timeout)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: dialogue,
                sock,
                ssl=context,
                ssl_handshake_timeout=seconds if context else None,
            )
        except OSError as error:  # ssl.SSLError is one
            dialogue.journal.refuse("", f"TLS handshake failed: {error}")
            raise

    async def _follow(self, dialogue: Dialogue) -> str:
        if (visit := asyncio.current_task()) is not None:  # it always is
            self._visits[visit] = dialogue
        if self._stopping.is_set():
            dialogue.input.dismiss(_STOPPING)
        try:
            await dialogue.finished.wait()
            await dialogue.hooks.wait()  # one may outlive its client, and counts as long as it runs
        finally:
            dialogue.abort_unless_finished()
            dialogue.hooks.cancel()
        return dialogue.why_it_ended

    async def _turn_away(
        self, sock: socket.socket, journal: Journal, reply: str, reason: str, linger: float = LINGER
    ) -> str:
        """End a connection that has no dialogue; the reply is for who speaks SMTP in clear text."""
        if self._policy.implicit_tls:
            reply = ""
        journal.refuse(reply, reason)
        loop = asyncio.get_running_loop()
        with suppress(OSError), sock:
            sock.send(f"{reply}\r\n".encode() if reply else b"")  # there is room in a socket this young
            sock.shutdown(socket.SHUT_WR)
            with suppress(TimeoutError):
                # What is unread at the end would reset the connection, and the reply with it.
                async with asyncio.timeout(linger):
                    while await loop.sock_recv(sock, 65_536):
                        pass
        return "refused"

    async def _wind_up(self) -> None:
        """First politely, then not."""
        for visit, dialogue in list(self._visits.items()):
            if dialogue is None:
                visit.cancel()
            else:
                dialogue.input.dismiss(_STOPPING)
        if self._visits:
            await asyncio.wait(self._visits, timeout=self._drain)
        for visit in self._visits:
            visit.cancel()
        if self._visits:
            await asyncio.wait(self._visits)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _session(sock: socket.socket, address: tuple[str, int]) -> Session:
    local = sock.getsockname()
    return Session(
        id=secrets.token_hex(8),
        remote_address=plain(address[0]),
        remote_port=address[1],
        local_address=plain(local[0]),
        local_port=local[1],
    )


def _believe(header: ProxyHeader, session: Session) -> None:
    session.proxy_address = session.remote_address
    session.proxy_tlvs = ProxyTlvs.of(header)
    if isinstance(header.source, tuple):
        session.remote_address, session.remote_port = plain(header.source[0]), header.source[1]
    elif isinstance(header.source, str):
        session.remote_address, session.remote_port = f"unix:{printable(header.source)}", 0
