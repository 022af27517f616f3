"""The line to one client: what keeps an SMTP conversation alive, and every way in which it ends.

aiosmtpd's protocol class, whose loop of commands stays in charge, with our own input, replies that are
waited for only so long, TLS that starts with the client's first byte of it, and an end that lets the last
reply arrive. What the commands mean is said in `dialogue`.
"""

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NoReturn, cast

from mailbridge.server.logs import Journal
from mailbridge.server.options import Policy
from mailbridge.server.reader import MAX_LINE, Farewell, Input
from mailbridge.server.reject import Reject
from mailbridge.server.session import Session
from mailbridge.server.tls import HANDSHAKE_SECONDS, tls_session

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope
    from aiosmtpd.smtp import Session as Facts
else:
    try:
        from aiosmtpd.smtp import SMTP
    except ModuleNotFoundError:  # the extra is not installed; MailServer refuses to be built then
        SMTP = object

_MAX_COMMAND = 4096  # bytes but for AUTH; RFC 5321 section 4.5.3.1.4 asks for 512, extensions for more
LINGER = 1.0  # seconds in which a client may take the last reply and hang up itself
# What a client may cost between two mails: each reply 1, one that refuses for good 20.
_PATIENCE = 1000
_COST_OF_REFUSAL = 20
_LAST_REPLIES = ("221", "421", "521")  # RFC 5321 section 3.8, RFC 7504
_NEVER = 7 * 24 * 3600.0  # seconds; aiosmtpd's own timer would end connections within hooks too


class Line(SMTP):
    """The protocol of one connection. `finished` is set when that is gone."""

    command_size_limit = _MAX_COMMAND
    # There once there is a connection, and so before anything here is called.
    session: "Facts"
    envelope: "Envelope"
    transport: asyncio.Transport | None

    def __init__(self, handler: object, policy: Policy, caller: Session, journal: Journal) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            handler,
            data_size_limit=None,
            enable_SMTPUTF8=True,
            hostname=policy.name,
            ident="ESMTP",
            timeout=_NEVER,
            auth_require_tls=False,
            authenticator=self._keep_credentials,
            loop=loop,
        )
        # aiosmtpd has one for all connections of a process, which grows with every EHLO.
        self.command_size_limits = defaultdict(lambda: _MAX_COMMAND, {"AUTH": MAX_LINE})
        self.policy = policy
        self.caller = caller
        self.journal = journal
        self.finished = asyncio.Event()
        self.why_it_ended = "client hung up"
        self.input = Input(seconds=policy.idle_timeout, pause=self._pause, resume=self._resume)
        self._reason = ""
        self._is_parting = False
        self._is_hasty = False
        self.be_patient()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Kept: streams complain, or close the connection, when theirs are gone.
        self._unused: list[object] = [self._reader, self._writer]
        self._reader = cast(Any, self.input)
        self.caller.tls = tls_session(transport)

    def data_received(self, data: bytes) -> None:
        self.input.feed(data)

    def eof_received(self) -> bool:
        """A client may stop sending and still wait for replies, but not within TLS."""
        self.input.feed_eof()
        return self.caller.tls is None

    def connection_lost(self, error: Exception | None) -> None:
        self.input.feed_eof()
        super().connection_lost(error)
        self.finished.set()

    # The conversation.

    async def _handle_client(self) -> None:
        try:
            try:
                await self.welcome()
            except Reject as rejection:
                self._is_parting = True
                await self.push(str(rejection))
            await super()._handle_client()
        finally:
            self._end()

    async def welcome(self) -> None:
        """What happens before the greeting. Raises Reject for a client that gets none."""

    async def push(self, status: str | bytes) -> None:
        """Send one line of a reply. Does not return after the last of a conversation."""
        text = status if isinstance(status, str) else status.decode()
        if text[:1] in ("4", "5"):
            self.journal.refuse(text, self._reason)
        if text[3:4] != "-":  # the last line of this reply
            self._patience -= _COST_OF_REFUSAL if text.startswith("5") else 1
        self._reason = ""
        await self._send(text)
        if self._patience < 0 and not self._is_parting:
            await self._send("421 4.7.0 Too many commands or refusals, closing connection")
            self.why_it_ended = "patience exhausted"
            self._is_parting = True
        if self._is_parting or text.startswith(_LAST_REPLIES):
            await self._part()

    async def handle_exception(self, error: Exception) -> str:
        """The reply to a command that has raised this."""
        if isinstance(error, Farewell):
            self._is_parting = True
            self._is_hasty = error.is_hasty
            self._reason = self.why_it_ended = error.reason
            return error.reply
        if isinstance(error, Reject):
            return str(error)
        self.journal.failure("conversation", error)
        return "451 4.3.0 Something failed here, try again later"

    def be_patient(self) -> None:
        """Let the client begin anew; it has delivered something."""
        self._patience = _PATIENCE + self.policy.max_recipients

    async def start_tls(self) -> None:
        """Answer STARTTLS and go on in TLS; what was said before is forgotten (RFC 3207 section 4.2)."""
        transport, context = self.transport, self.policy.tls
        if transport is None or context is None:
            self._give_up("connection lost")
        # From here on what was sent in clear text stays in the socket, and is no TLS.
        transport.pause_reading()
        if not self.input.is_empty:
            reply = "421 4.7.0 Commands behind STARTTLS, closing connection"
            raise Farewell(reply, "clear text behind STARTTLS")
        await self.push("220 2.0.0 Ready to start TLS")
        try:
            seconds = min(HANDSHAKE_SECONDS, self.policy.idle_timeout)
            encrypted = await self.loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=seconds
            )
        except OSError as error:  # ssl.SSLError is one
            self._give_up("TLS handshake failed", str(error))
        if encrypted is None:
            self._give_up("TLS handshake failed", "connection lost")
        self.transport = encrypted
        self._writer = asyncio.StreamWriter(encrypted, self, None, self.loop)
        self.session.host_name, self.session.extended_smtp, self.session.authenticated = None, False, None
        self.envelope = self._create_envelope()
        self.caller.tls = tls_session(encrypted)
        self.caller.client_hostname = self.caller.user = None

    # The end.

    async def _send(self, text: str) -> None:
        self._writer.write(text.encode("utf-8", "backslashreplace") + b"\r\n")
        try:
            async with asyncio.timeout(self.policy.idle_timeout):
                await self._writer.drain()
        except TimeoutError:
            self._give_up("replies not read")
        except OSError:
            self._give_up("connection lost")

    async def _part(self) -> NoReturn:
        """Say no more; let the client read and hang up (else what it still sends would reset the line)."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._is_hasty:
            raise asyncio.CancelledError
        if transport.can_write_eof():  # not within TLS
            transport.write_eof()
            await self.input.drain(LINGER)
        raise asyncio.CancelledError

    def _give_up(self, why: str, reason: str = "") -> NoReturn:
        """End at once: aiosmtpd's loop ends by cancellation, and by nothing else."""
        self.why_it_ended = why
        if reason:
            self.journal.refuse("", f"{why}: {reason}")
        if self.transport is not None:
            self.transport.abort()
        raise asyncio.CancelledError

    def abort_unless_finished(self) -> None:
        """Cut the line, whatever is going on."""
        if self.finished.is_set():
            return
        if self.transport is not None:
            self.transport.abort()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    def _end(self) -> None:
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        if self.transport is not None:
            transport = self.transport
            transport.close()
            # A client that reads nothing, or does not end TLS from its side, is not waited for.
            self.loop.call_later(0 if self._is_hasty else LINGER, self._cut, transport)

    def _cut(self, transport: asyncio.Transport) -> None:
        transport.abort()
        self.finished.set()  # after a handshake that has failed nobody else says so

    def _pause(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def _keep_credentials(self, *_: Any) -> Any:
        """What a client logs in with: `dialogue` knows."""
        raise NotImplementedError
