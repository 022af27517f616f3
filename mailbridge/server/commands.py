"""What the commands of SMTP do here: EHLO's keywords, who may log in, MAIL, RCPT and DATA, and the hooks.

aiosmtpd has HELO, RSET, NOOP and the mechanisms of AUTH. A mail is acknowledged when the hook
`on_message` has returned, and not before. How a conversation ends is said in `line`.
"""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mailbridge.secret import Secret, clear_locals
from mailbridge.server.arguments import parse_path
from mailbridge.server.budget import Budget
from mailbridge.server.connection import Line
from mailbridge.server.hooks import Hooks
from mailbridge.server.login import Logins
from mailbridge.server.logs import Journal
from mailbridge.server.options import Policy
from mailbridge.server.reader import Farewell
from mailbridge.server.reject import Reject
from mailbridge.server.session import ReceivedEnvelope, Session

if TYPE_CHECKING:
    from aiosmtpd.smtp import AuthResult
else:
    try:
        from aiosmtpd.smtp import AuthResult
    except ModuleNotFoundError:  # the extra is not installed; MailServer refuses to be built then
        AuthResult = None

_MAX_NAME = 255  # bytes of a name in EHLO (RFC 5321 section 4.5.3.1.2)
_MAX_FAILED_LOGINS = 3


class Greetings:
    """aiosmtpd's hooks for EHLO and HELO."""

    async def handle_EHLO(  # noqa: N802  # aiosmtpd's name
        self, dialogue: "Dialogue", facts: Any, _: Any, name: str, replies: list[str]
    ) -> list[str]:
        dialogue.take_name(name)
        words = [dialogue.hostname, *dialogue.keywords()]
        return [f"250-{word}" for word in words[:-1]] + [f"250 {words[-1]}"]

    async def handle_HELO(self, dialogue: "Dialogue", facts: Any, _: Any, name: str) -> str:  # noqa: N802
        dialogue.take_name(name)
        return f"250 {dialogue.hostname}"


class Dialogue(Line):
    """The conversation with one client. Methods called smtp_X are the commands, as aiosmtpd finds them."""

    AuthLoginUsernameChallenge = "Username:"  # some clients look at the words
    AuthLoginPasswordChallenge = "Password:"

    def __init__(
        self,
        policy: Policy,
        caller: Session,
        journal: Journal,
        hooks: Hooks,
        budget: Budget,
        *,
        is_ignored: bool,
    ) -> None:
        super().__init__(Greetings(), policy, caller, journal)
        self.hooks = hooks
        self._budget = budget
        self._is_ignored = is_ignored
        self._logins = Logins(policy, hooks)
        self._failed_logins = 0
        self._credentials: tuple[bytes, Secret] | None = None
        self._parameters: dict[str, str] = {}

    async def welcome(self) -> None:
        """Ask the application whether this client is wanted at all."""
        await self._ask("on_connect")

    def take_name(self, name: str) -> None:
        """The name in EHLO or HELO. Raises Reject for one that can't be a name."""
        if len(name.encode("utf-8", "replace")) > _MAX_NAME or " " in name or not name.isprintable():
            raise Reject(501, "5.5.4 Not a host name")
        self.session.host_name = self.caller.client_hostname = name

    def keywords(self) -> list[str]:
        """What is offered now (RFC 5321 section 4.1.1.1)."""
        policy, is_encrypted = self.policy, self.caller.tls is not None
        words = ["PIPELINING", f"SIZE {policy.max_message_size}", "8BITMIME", "SMTPUTF8"]
        if policy.tls is not None and not is_encrypted:
            words.append("STARTTLS")
        if policy.offers_auth and (is_encrypted or policy.allow_insecure_auth):
            words.append("AUTH PLAIN LOGIN")
        return words

    async def smtp_STARTTLS(self, arg: str | None) -> None:  # noqa: N802
        if self.caller.tls is not None:
            raise Reject(503, "5.5.1 TLS is already on")
        if self.policy.tls is None:
            raise Reject(502, "5.5.1 STARTTLS is not offered")
        if arg:
            raise Reject(501, "5.5.4 STARTTLS has no argument")
        await self.start_tls()

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        if not self.policy.offers_auth or self._is_ignored:
            raise Reject(502, "5.5.1 AUTH is not offered")
        self._require_name()
        self._require_starttls()
        if self.caller.tls is None and not self.policy.allow_insecure_auth:
            raise Reject(538, "5.7.11 Encryption required for authentication")
        if self.caller.user is not None or self._has_sender():
            raise Reject(503, "5.5.1 AUTH is not possible now")
        mechanism, _, rest = (arg or "").partition(" ")
        self._credentials = None
        await super().smtp_AUTH(f"{mechanism.upper()} {rest}".strip())
        if self._credentials is not None:
            await self._log_in(*self._credentials)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        self._require_name()
        self._require_starttls()
        if self._is_ignored:
            raise Reject(550, "5.7.1 No mail is taken from this host")
        if self.policy.offers_auth and self.policy.require_auth and self.caller.user is None:
            raise Reject(530, "5.7.0 Authentication required")
        if self._has_sender():
            raise Reject(503, "5.5.1 Nested MAIL command")
        sender, parameters = parse_path(arg, "FROM:")
        self._check_parameters(parameters)
        self._check_charset(sender, "SMTPUTF8" in parameters)
        await self._ask("on_mail_from", sender, dict(parameters))
        self.envelope.mail_from = sender
        self.envelope.smtp_utf8 = "SMTPUTF8" in parameters
        self._parameters = parameters
        await self.push("250 2.1.0 OK")

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        if not self._has_sender():
            raise Reject(503, "5.5.1 MAIL comes first")
        recipient, parameters = parse_path(arg, "TO:")
        if not recipient:
            raise Reject(501, "5.1.3 The empty path is no recipient")
        if parameters:
            raise Reject(555, "5.5.4 No parameters of RCPT are known here")
        self._check_charset(recipient, self.envelope.smtp_utf8)
        if len(self.envelope.rcpt_tos) >= self.policy.max_recipients:
            raise Reject(452, "4.5.3 Too many recipients")
        await self._ask("on_rcpt_to", recipient)
        self.envelope.rcpt_tos.append(recipient)
        await self.push("250 2.1.5 OK")

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        if arg:
            raise Reject(501, "5.5.4 DATA has no argument")
        if not self._has_sender():
            raise Reject(503, "5.5.1 MAIL comes first")
        if not self.envelope.rcpt_tos:
            raise Reject(554, "5.5.1 No valid recipients")
        with ExitStack() as loan:
            borrow = loan.enter_context(self._budget.share())
            await self.push("354 End data with <CRLF>.<CRLF>")
            envelope = ReceivedEnvelope(
                sender=self.envelope.mail_from or "",
                recipients=tuple(self.envelope.rcpt_tos),
                parameters=self._parameters,
            )
            self.envelope = self._create_envelope()  # whatever comes of it, this transaction is over
            content = await self.input.content(self.policy.max_message_size, borrow)
            await self.hooks.finish(self._take(envelope, content, loan.pop_all()))
        self.be_patient()
        await self.push(f"250 2.0.0 OK: queued as {self.caller.id}.{self.caller.transactions}")

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: N802
        await self.push("252 2.1.5 Not verified; send some mail")

    async def smtp_HELP(self, arg: str | None) -> None:  # noqa: N802
        await self.push("214 2.0.0 See RFC 5321")

    async def smtp_QUIT(self, arg: str | None) -> None:  # noqa: N802
        raise Farewell("221 2.0.0 Bye", "QUIT")

    async def _refuse_http(self, arg: str | None) -> None:
        """A web page can make browsers send these, with commands of SMTP in the body."""
        raise Farewell("421 4.7.0 This is no web server, closing connection", "HTTP")

    smtp_GET = smtp_HEAD = smtp_POST = smtp_PUT = smtp_PATCH = _refuse_http  # noqa: N815
    smtp_DELETE = smtp_OPTIONS = smtp_CONNECT = _refuse_http  # noqa: N815

    async def _take(self, envelope: ReceivedEnvelope, content: bytes, loan: ExitStack) -> None:
        """Also if the client has gone meanwhile; as long as it lasts, the memory counts."""
        with loan:
            await self._ask("on_message", envelope, content)
            self.caller.transactions += 1
            self.journal.message(envelope, len(content))

    async def _ask(self, name: str, *arguments: object) -> None:
        """Call a hook. Raises Reject if it says no, or fails."""
        hook = self.policy.hooks.get(name)
        if hook is None or self._is_ignored:
            return
        try:
            await self.hooks.call(hook, self.caller, *arguments)
        except Reject:
            raise
        except Exception as error:
            self.journal.failure(name, error)
            raise Reject(451, "4.3.0 Something failed here, try again later") from None

    async def _log_in(self, name: bytes, password: Secret) -> None:
        try:
            user = await self._logins.user_of(name, password)
        except Exception as error:
            clear_locals(error, outer=None)  # the password stands in the frames
            self.journal.failure("auth", error)
            raise Reject(454, "4.7.0 Logins are not possible at the moment") from None
        if user is None:
            self._failed_logins += 1
            if self._failed_logins >= _MAX_FAILED_LOGINS:
                raise Farewell("421 4.7.0 Too many failed logins, closing connection", "failed logins")
            raise Reject(535, "5.7.8 User name or password is wrong")
        await self._ask("on_auth", user)
        self.session.authenticated = True
        self.caller.user = user
        await self.push("235 2.7.0 Authentication successful")

    def _keep_credentials(self, *given: Any) -> Any:
        """aiosmtpd asks here, and can't wait: the answer is given by `_log_in`."""
        login = given[-1]
        self._credentials = (login.login, Secret(login.password.decode("utf-8", "surrogateescape")))
        return AuthResult(success=False, handled=True)

    def _has_sender(self) -> bool:
        return self.envelope.mail_from is not None

    def _require_name(self) -> None:
        if not self.session.host_name:
            raise Reject(503, "5.5.1 EHLO or HELO comes first")

    def _require_starttls(self) -> None:
        if self.policy.require_starttls and self.caller.tls is None:
            raise Reject(530, "5.7.0 STARTTLS comes first")

    def _check_parameters(self, parameters: dict[str, str]) -> None:
        for name, value in parameters.items():
            match name:
                case "SIZE" if value.isdecimal() and len(value) <= 20:  # RFC 1870 section 4
                    if int(value) > self.policy.max_message_size:
                        limit = self.policy.max_message_size
                        raise Reject(552, f"5.3.4 Message too big, the limit is {limit} bytes")
                case "BODY" if value.upper() in ("7BIT", "8BITMIME"):
                    pass
                case "SMTPUTF8" if not value:
                    pass
                case "AUTH" if self.policy.offers_auth:  # RFC 4954 section 5: taken, and not believed
                    pass
                case _:
                    raise Reject(555, f"5.5.4 Parameter {name} is unknown here, or wrong")

    def _check_charset(self, address: str, has_smtputf8: bool) -> None:
        if not address.isascii() and not has_smtputf8:
            raise Reject(553, "5.6.7 An address beyond ASCII needs SMTPUTF8")
