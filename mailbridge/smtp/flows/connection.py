"""One connection from the greeting to the login: what is wanted of it, and what is known of it.

Opening: greeting, EHLO, STARTTLS as wanted, EHLO again. Login: AUTH, and once more with a fresh access token
where a cached one is refused.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mailbridge.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    ConnectTimeout,
    NotSupported,
    ProxyFailed,
    ReplyTimeout,
)
from mailbridge.reply import Reply, printable
from mailbridge.secret import Secret
from mailbridge.smtp import sasl
from mailbridge.smtp.capabilities import EMPTY, Capabilities
from mailbridge.smtp.flows.answers import NO_ANSWER, nothing_is_there
from mailbridge.smtp.flows.authentication import authentication
from mailbridge.smtp.flows.opening import greeting, introduction, start_tls
from mailbridge.smtp.flows.steps import AskCredentials, DropToken, FetchToken, StartTls
from mailbridge.smtp.wire import WINDOW_BYTES, Wire


@dataclass(slots=True)
class ConnectionState:
    """What is known of a connection. Each finding is kept as it is made: a failure shows how far it got.

    `mechanism`: the SASL mechanism that was accepted. `token_facts` says where the access token came from,
    and how long it is good; never the token. `transactions`: how many were begun. `needs_reset`: the next
    one must begin with RSET.
    """

    greeting: Reply | None = None
    is_encrypted: bool = False
    capabilities: Capabilities = EMPTY
    token_facts: str = ""
    mechanism: str | None = None
    transactions: int = 0
    needs_reset: bool = False

    @property
    def is_worn(self) -> bool:
        """Whether the server takes no further transaction on this connection (RFC 9422 section 4.1)."""
        most = self.capabilities.limits.get("MAILMAX")
        return most is not None and self.transactions >= most


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a connection is to be opened. `security` and `disable` mean what the options do.

    `name` is said in EHLO. `proxies` names those on the way, "" if there is none. `may_pipeline`: PIPELINING
    is used where it is offered. `may_be_helo`: nothing is needed that only EHLO offers.
    """

    name: str
    security: str
    proxies: str = ""
    lmtp: bool = False
    disable: Collection[str] = ()
    may_pipeline: bool = True
    may_be_helo: bool = False


async def opening(wire: Wire, state: ConnectionState, wanted: Opening) -> None:
    """Open the connection; `state` tells what was found.

    Raises `GreetingRefused`, `TLSFailed` and its kinds, `NotSupported` (STARTTLS is required and not
    offered), `ConnectionLost`, `ProtocolViolation`; `ProxyFailed` or `ConnectTimeout` if no greeting
    comes through proxies.
    """
    if wanted.security == "tls" and not state.is_encrypted:
        await StartTls(is_first=True)
        state.is_encrypted = True
    state.greeting = await _greeting(wire, wanted)
    await _introduction(wire, state, wanted)
    if _wants_starttls(state, wanted):
        await start_tls(wire)
        state.is_encrypted, state.capabilities = True, EMPTY
        await _introduction(wire, state, wanted)


async def _greeting(wire: Wire, wanted: Opening) -> Reply:
    """If none comes through proxies, no connection came to be, whoever is to blame."""
    try:
        return await greeting(wire)
    except ConnectionLost as error:
        if not wanted.proxies:
            raise
        is_late = isinstance(error, ReplyTimeout)
    if is_late:
        message = f"No greeting came through {wanted.proxies} within the time limit"
        raise ConnectTimeout(message, stage="greeting")
    raise ProxyFailed(
        f"The connection through {wanted.proxies} ended before the greeting",
        stage="greeting",
        hint="Either the proxy or the server hung up; the proxy's log tells which.",
    )


async def _introduction(wire: Wire, state: ConnectionState, wanted: Opening) -> None:
    offered = await introduction(wire, wanted.name, may_be_helo=wanted.may_be_helo, lmtp=wanted.lmtp)
    state.capabilities = offered.without(wanted.disable)
    pipelines = wanted.may_pipeline and "PIPELINING" in state.capabilities
    wire.window = WINDOW_BYTES if pipelines else 0


def _wants_starttls(state: ConnectionState, wanted: Opening) -> bool:
    if state.is_encrypted or wanted.security == "none":
        return False
    if "STARTTLS" in state.capabilities:
        return True
    if wanted.security == "opportunistic":
        return False
    raise NotSupported(
        "STARTTLS extension not supported by server",
        extension="STARTTLS",
        stage="tls",
        hint="Nothing was sent in clear text. Use security='tls' if the port speaks TLS from the start.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to log in. `names`: the mechanisms in order, or "auto".

    `is_safe`: credentials may be sent, since nobody can listen, or the user took the risk. `has_token`: an
    access token is needed, which is fetched. `make` begins an exchange of a mechanism with credentials; its
    last argument is what the server offers.
    """

    names: str | Sequence[str]
    is_safe: bool
    has_token: bool = False
    make: Callable[[str, sasl.Credentials, Sequence[str]], sasl.Mechanism] = sasl.mechanism


async def login(wire: Wire, state: ConnectionState, wanted: Login) -> None:
    """Log in. With a token: with the one that is there; if that is refused, once more with a fresh one.

    Raises `AuthenticationFailed`, `TokenUnavailable`, `NotSupported` (AUTH is not offered),
    `ConfigurationError` (the password would travel in clear text), and what ends a connection.
    """
    if not wanted.is_safe:
        raise ConfigurationError(
            "The password would travel in clear text",
            stage="auth",
            hint="Use security='starttls' or 'tls'; allow_insecure_auth=True takes the risk.",
        )
    if not wanted.has_token:
        return await _authenticate(wire, state, wanted, None)
    token = await FetchToken(fresh=False)
    state.token_facts = token.facts
    try:
        return await _authenticate(wire, state, wanted, token.value)
    except AuthenticationFailed as error:
        if not token.is_cached or error.is_transient or error.reply is None:
            raise
        refusal = error
    await DropToken()
    try:
        await nothing_is_there(wire, "auth")
    except NO_ANSWER as error:
        message = "The server refused a cached access token and hung up; the next login takes a fresh one"
        raise ConnectionLost(message, stage="auth") from error
    fresh = await FetchToken(fresh=True)
    state.token_facts = fresh.facts
    if fresh.value == token.value:  # a provider of the user's own may have no other
        raise refusal
    return await _authenticate(wire, state, wanted, fresh.value)


async def _authenticate(wire: Wire, state: ConnectionState, wanted: Login, token: Secret | None) -> None:
    if "AUTH" not in state.capabilities:  # a send without the login would be another mail than was asked for
        raise NotSupported(
            "SMTP AUTH extension not supported by server",
            extension="AUTH",
            stage="auth",
            hint="Remove username and password if this server takes mail without.",
        )
    credentials = await AskCredentials(token)
    for secret in (credentials.password, credentials.token):
        if secret is not None:
            wire.redactor.remember_secret(secret)  # replies may quote it from here on
    mechanisms = usable_mechanisms(wanted, state.capabilities.auth_mechanisms, credentials)
    state.mechanism = await authentication(wire, mechanisms)


def usable_mechanisms(
    wanted: Login, offered: Sequence[str], credentials: sasl.Credentials
) -> list[Callable[[], sasl.Mechanism]]:
    """The mechanisms to try, strongest first or as `wanted` orders them.

    Raises `AuthenticationFailed` if none of those offered fits.
    """
    names = sasl.candidates(wanted.names, offered, credentials)
    if not names:
        shown = printable(", ".join(offered)) or "no mechanism"
        usable = sasl.candidates(wanted.names, sorted(sasl.AVAILABLE), credentials)
        allowed = ", ".join(usable if wanted.names == "auto" else wanted.names)
        raise AuthenticationFailed(f"The server offers {shown}; usable are {allowed}", stage="auth")
    return [lambda name=name: wanted.make(name, credentials, offered) for name in names]  # type: ignore[misc]
