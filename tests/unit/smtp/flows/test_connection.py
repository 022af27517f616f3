"""Opening and login: what is decided between the greeting and a connection that is ready to send."""

from base64 import b64encode
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from mailbridge.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    GreetingRefused,
    MailbridgeError,
    NotSupported,
    ProxyFailed,
)
from mailbridge.reply import Reply
from mailbridge.secret import Secret
from mailbridge.smtp.capabilities import Capabilities
from mailbridge.smtp.flows.connection import (
    ConnectionState,
    Login,
    Opening,
    login,
    opening,
    usable_mechanisms,
)
from mailbridge.smtp.flows.steps import AskCredentials, DropToken, FetchToken, Token
from mailbridge.smtp.sasl import Credentials
from mailbridge.smtp.wire import WINDOW_BYTES
from tests.unit.smtp.flows.dialogue import Dialogue, Performers

# ---- opening

EHLO = "C: EHLO me.example\n"
GREETING = "S: 220 mx.example\n"
OFFERS = "S: 250-mx\nS: 250-PIPELINING\nS: 250 STARTTLS\n"
UNDER_TLS = EHLO + "S: 250-mx\nS: 250 SIZE 1000\n"


def opened(text: str, **wanted: Any) -> tuple[ConnectionState, Dialogue]:
    state, dialogue = ConnectionState(), Dialogue(text)

    async def flow(wire: Any) -> None:
        state.__init__()  # type: ignore[misc]  # anew for each run
        await opening(wire, state, Opening(**{"name": "me.example", "security": "starttls"} | wanted))

    dialogue.run(flow)
    return state, dialogue


def test_starttls_and_ehlo_again() -> None:
    """What was offered in clear text counts for nothing (RFC 3207 section 4.2)."""
    state, dialogue = opened(GREETING + EHLO + OFFERS + "C: STARTTLS\nS: 220 go\n--TLS--\n" + UNDER_TLS)
    assert (state.is_encrypted, "PIPELINING" in state.capabilities, "SIZE" in state.capabilities) == (
        True,
        False,
        True,
    )
    assert dialogue.wire.window == 0


def test_tls_from_the_start() -> None:
    state, _ = opened("--TLS--\n" + GREETING + UNDER_TLS, security="tls")
    assert state.is_encrypted
    assert str(state.greeting) == "220 mx.example"


@pytest.mark.parametrize(
    ("security", "offers", "goes_on"),
    [
        ("none", OFFERS, False),
        ("opportunistic", OFFERS, True),
        ("opportunistic", "S: 250 mx\n", False),
    ],
)
def test_whether_starttls_is_used(security: str, offers: str, goes_on: bool) -> None:
    rest = "C: STARTTLS\nS: 220 go\n--TLS--\n" + UNDER_TLS if goes_on else ""
    assert opened(GREETING + EHLO + offers + rest, security=security)[0].is_encrypted is goes_on


def test_starttls_that_is_required_and_not_offered() -> None:
    with pytest.raises(NotSupported, match="STARTTLS"):
        opened(GREETING + EHLO + "S: 250 mx\n")


@pytest.mark.parametrize(
    ("options", "window"),
    [({}, WINDOW_BYTES), ({"may_pipeline": False}, 0), ({"disable": ["PIPELINING"]}, 0)],
)
def test_pipelining(options: dict[str, Any], window: int) -> None:
    assert opened(GREETING + EHLO + OFFERS, security="none", **options)[1].wire.window == window


def test_a_refusal_shows_how_far_it_got() -> None:
    state = ConnectionState()
    with pytest.raises(GreetingRefused):
        Dialogue(GREETING + EHLO + "S: 550 no").run(
            lambda wire: opening(wire, state, Opening(name="me.example", security="none"))
        )
    assert str(state.greeting) == "220 mx.example"


@pytest.mark.parametrize(("proxies", "kind"), [("", ConnectionLost), ("socks5://p:1080", ProxyFailed)])
def test_no_greeting(proxies: str, kind: type[MailbridgeError]) -> None:
    with pytest.raises(kind) as caught:
        opened("S: 220-mx\nS: <eof>", proxies=proxies)
    assert (type(caught.value), caught.value.stage) == (kind, "greeting")


# ---- login


def offering(*mechanisms: str) -> Capabilities:
    return Capabilities.parse(Reply(code=250, lines=("mx.example", f"AUTH {' '.join(mechanisms)}")))


class Tokens:
    """Gives these tokens, in this order; `said` is what it was asked."""

    def __init__(self, *tokens: str, is_cached: bool = True) -> None:
        self.tokens, self.is_cached = tokens, is_cached
        self.said: list[str] = []

    def performers(self) -> Performers:
        self.said = []
        left = iter(self.tokens)

        def fetch(step: FetchToken) -> Token:
            self.said.append("fresh" if step.fresh else "token")
            return Token(Secret(next(left)), self.is_cached and not step.fresh, "from a test")

        return {
            FetchToken: fetch,
            DropToken: lambda _: self.said.append("drop"),
            AskCredentials: lambda step: Credentials("user", token=step.token),
        }


def auth(token: str) -> str:
    response = f"user=user\x01auth=Bearer {token}\x01\x01"
    return f"C: AUTH XOAUTH2 {b64encode(response.encode()).decode()}\n"


def logged_in(text: str, performers: Callable[[], Performers], **wanted: Any) -> str | None:
    state = ConnectionState(capabilities=offering("XOAUTH2", "PLAIN"))
    options = {"names": "auto", "is_safe": True, "has_token": True} | wanted
    Dialogue(text, others=performers).run(lambda wire: login(wire, state, Login(**options)))
    return state.mechanism


def test_a_token_logs_in() -> None:
    tokens = Tokens("one")
    assert logged_in(auth("one") + "S: 235 ok", tokens.performers) == "XOAUTH2"
    assert tokens.said == ["token"]


REFUSED = auth("one") + "S: 535 5.7.8 no\n"


def test_a_cached_token_that_is_refused_is_replaced_once() -> None:
    tokens = Tokens("one", "two")
    assert logged_in(REFUSED + auth("two") + "S: 235 ok", tokens.performers) == "XOAUTH2"
    assert tokens.said == ["token", "drop", "fresh"]
    with pytest.raises(AuthenticationFailed):
        logged_in(REFUSED + auth("two") + "S: 535 no", tokens.performers)


@pytest.mark.parametrize(
    ("text", "tokens", "said", "kind"),
    [
        (REFUSED, Tokens("one", is_cached=False), ["token"], AuthenticationFailed),
        (auth("one") + "S: 454 4.7.0 later", Tokens("one"), ["token"], AuthenticationFailed),
        (REFUSED, Tokens("one", "one"), ["token", "drop", "fresh"], AuthenticationFailed),
        (auth("one") + "S: 421 bye", Tokens("one"), ["token"], ConnectionLost),
        (REFUSED + "S: 421 bye", Tokens("one", "two"), ["token", "drop"], ConnectionLost),
    ],
    ids=["fresh already", "later", "no other token", "gone", "refused and gone"],
)
def test_when_there_is_no_second_login(
    text: str, tokens: Tokens, said: list[str], kind: type[MailbridgeError]
) -> None:
    with pytest.raises(kind):
        logged_in(text, tokens.performers)
    assert tokens.said == said


def password() -> Performers:
    return {AskCredentials: lambda _: Credentials("user", Secret("pencil"))}


def test_a_password_needs_no_token() -> None:
    plain = b64encode(b"\0user\0pencil").decode()
    assert logged_in(f"C: AUTH PLAIN {plain}\nS: 235 ok", password, has_token=False) == "PLAIN"


def test_nothing_is_even_asked_where_somebody_could_listen() -> None:
    with pytest.raises(ConfigurationError, match="clear text"):
        logged_in("", dict, is_safe=False)


def test_a_server_without_auth() -> None:
    with pytest.raises(NotSupported, match="AUTH"):
        Dialogue("").run(lambda wire: login(wire, ConnectionState(), Login(names="auto", is_safe=True)))


# ---- which mechanisms

PASSWORD = Credentials("user", Secret("pencil"))
with_scram = pytest.mark.skipif(find_spec("scramp") is None, reason="the extra scram is not installed")


def mechanisms(names: Any, credentials: Credentials, *offered: str) -> list[Any]:
    return [make() for make in usable_mechanisms(Login(names=names, is_safe=True), offered, credentials)]


def test_mechanisms_for_a_password() -> None:
    made = mechanisms("auto", PASSWORD, "LOGIN", "PLAIN", "XOAUTH2")
    assert [mechanism.name for mechanism in made] == ["PLAIN", "LOGIN"]


def test_neither_user_nor_password() -> None:
    (made,) = mechanisms(["PLAIN", "EXTERNAL"], Credentials(""), "PLAIN", "EXTERNAL")
    assert made.name == "EXTERNAL"


def test_a_token_names_the_server_that_it_is_for() -> None:
    credentials = Credentials("user", token=Secret("token"), host="mx.example", port=587)
    made = mechanisms("auto", credentials, "PLAIN", "XOAUTH2", "OAUTHBEARER")
    assert [mechanism.name for mechanism in made] == ["OAUTHBEARER", "XOAUTH2"]
    assert b"\x01host=mx.example\x01port=587\x01" in (made[0].initial() or b"")


def test_nothing_that_fits_is_told_with_what_would() -> None:
    with pytest.raises(AuthenticationFailed, match=r"offers XOAUTH2; usable are .*PLAIN, LOGIN") as caught:
        mechanisms("auto", PASSWORD, "XOAUTH2")
    assert "OAUTHBEARER" not in caught.value.message
    assert "-PLUS" not in caught.value.message


@with_scram
def test_what_the_server_offers_is_told_back_to_it() -> None:
    """Without a binding although one is offered: "n", since "y" would say that none was seen."""
    credentials = Credentials("user", Secret("pencil"), bindings={"tls-unique": b"x"})
    made = mechanisms("auto", credentials, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN")
    began = [(mechanism.name, (mechanism.initial() or b"").split(b",")[0]) for mechanism in made[:2]]
    assert began == [("SCRAM-SHA-256-PLUS", b"p=tls-unique"), ("SCRAM-SHA-256", b"n")]
