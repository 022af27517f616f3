"""A token endpoint that fails while mail is being sent: the error, the time it takes, what is left behind.

What each answer means is the business of the unit tests; here it is the whole way of a send. Clocks of the
token source are set forward by the test where a pause has to end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mailbridge import ConnectionLost, DeadlineExceeded, Mailer, TokenUnavailable
from mailbridge.oauth2.shared import forget_sources, source_for
from mailbridge.oauth2.source import LONGEST_PAUSE
from mailbridge.testing import Fault, ScriptedServer
from tests.acceptance.crowd import in_threads
from tests.acceptance.sending import MARGIN, USER, ShiftedClock, committed, config_for, envelope, message
from tests.servers.certificates import Certificates
from tests.servers.token_server import TokenServer

pytestmark = [pytest.mark.campaign, pytest.mark.needs("oauthlib")]

# What the token server gives to its first and to its second request, though the first may not arrive.
TOKENS = [f"access-token-{number}.of.the-token-server" for number in (1, 2)]
SECONDS = 0.6  # for a send whose token endpoint is slow
SENDS, CONNECTIONS = 50, 5


@pytest.fixture(autouse=True)
def no_tokens_of_others() -> Iterator[None]:
    forget_sources()
    yield
    forget_sources()


def client(
    server: ScriptedServer,
    tokens: TokenServer,
    clock: ShiftedClock,
    *,
    trust: dict[str, Any] | None = None,
    **options: Any,
) -> Mailer:
    """It asks at `tokens`, trusting them as `trust` (`oauth2.tls`) says.

    `clock` is the one of its pool, its breaker and its token source.
    """
    oauth2 = {
        "token_url": tokens.url,
        "client_id": "the-client",
        "client_secret": "the-client-secret",
        "refresh_token": "first-refresh-token",
        "allow_insecure_token_url": True,
        "tls": trust or {},
    }
    config = config_for(server, username=USER, oauth2=oauth2, **({"timeout": 5} | options))
    source_for(config)._clock = clock
    return Mailer(config, clock=clock)


def smtp_server(token: str = TOKENS[0]) -> ScriptedServer:
    return ScriptedServer(users={USER: token}, auth=["XOAUTH2"])


@dataclass(frozen=True, slots=True)
class Failure:
    """What the endpoint answers, and what the caller is told: words of the message, and of the hint."""

    answer: str
    message: str
    hint: str = ""
    passes: bool = False
    is_spent: bool = False  # a token was issued, and went nowhere


FAILURES = [
    Failure("html", "text/html instead of JSON", "token_url"),
    Failure("html 502", "status 502", "trouble of its own", passes=True),
    Failure("empty", "empty body", "token_url"),
    Failure("invalid_grant", "status 400: invalid_grant", "consent again"),
    Failure("unauthorized", "status 401: invalid_client", "client_secret"),
    Failure("unauthorized_client", "status 401: unauthorized_client", "SMTP.SendAsApp"),
    Failure("bare 401", "status 401", "client_secret"),
    Failure("clock", "invalid_grant", "clock"),
    Failure("too many", "status 429: slow_down", "17 s", passes=True),
    Failure("500", "status 500", "trouble of its own", passes=True),
    Failure("redirect", "status 302", "Redirects are not followed"),
    Failure("2 MiB", "larger than 1 MiB"),
    Failure("half", "broke off", passes=True, is_spent=True),
    Failure("closed", "broke off", passes=True, is_spent=True),
    Failure("mac token", "not Bearer", "token_url"),
]


def check_unsent(
    error: TokenUnavailable, mailer: Mailer, server: ScriptedServer, tokens: TokenServer
) -> None:
    """Nothing was sent, the session ended before AUTH, and its place in the pool is free."""
    assert type(error) is TokenUnavailable
    assert (error.stage, error.outcome_unknown) == ("token", False)
    assert error.server in (f"localhost:{tokens.port}", f"127.0.0.1:{tokens.port}")
    assert (mailer.stats().size, mailer.stats().waiting) == (0, 0)
    assert committed(server) == {}
    [connection] = server.connections
    server.wait_for(lambda: connection.closed_by is not None)
    assert connection.closed_by == "client"
    assert not {"AUTH", "MAIL"} & set(connection.verbs)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.answer)
def test_the_endpoint_fails_and_recovers(failure: Failure) -> None:
    clock = ShiftedClock()
    with (
        smtp_server(TOKENS[failure.is_spent]) as server,
        TokenServer(answer=failure.answer) as tokens,
        client(server, tokens, clock, pool={"max_size": 1}) as mailer,
    ):
        began = time.monotonic()
        with pytest.raises(TokenUnavailable) as caught:
            mailer.send(message(1), envelope=envelope(), deadline=5)
        assert time.monotonic() - began < 5
        assert failure.message in caught.value.message
        assert failure.hint in caught.value.hint
        assert caught.value.is_transient is failure.passes
        check_unsent(caught.value, mailer, server, tokens)
        check_pause(mailer, tokens, failure)
        tokens.answer = None
        clock.ahead += LONGEST_PAUSE
        assert mailer.send(message(2), envelope=envelope()).accepted
        assert committed(server) == {2: 1}
    assert len(tokens.requests) == 2


def check_pause(mailer: Mailer, tokens: TokenServer, failure: Failure) -> None:
    """In the pause that follows a failure nobody asks, and everybody is told the same."""
    for _ in range(3):
        with pytest.raises(TokenUnavailable) as again:
            mailer.send(message(1), envelope=envelope())
        assert failure.message in again.value.message
        assert failure.hint in again.value.hint
        assert "next try is in" in again.value.hint
    assert len(tokens.requests) == 1


@pytest.mark.parametrize("answer", ["silent", "drip"])
def test_a_slow_endpoint_costs_no_more_than_the_send_may_take(answer: str) -> None:
    clock = ShiftedClock()
    with (
        smtp_server(TOKENS[1]) as server,
        TokenServer(answer=answer) as tokens,
        client(server, tokens, clock, pool={"max_size": 1}) as mailer,
    ):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            mailer.send(message(1), envelope=envelope(), deadline=SECONDS)
        assert time.monotonic() - began < SECONDS + MARGIN
        assert caught.value.stage == "token"
        assert not caught.value.outcome_unknown
        assert (mailer.stats().size, committed(server)) == (0, {})
        tokens.answer = None
        assert mailer.send(message(2), envelope=envelope()).accepted
        assert committed(server) == {2: 1}


@pytest.mark.parametrize("answer", ["silent", "drip"])
def test_a_slow_endpoint_without_a_deadline(answer: str) -> None:
    """The request has the time limit of a command."""
    clock = ShiftedClock()
    with (
        smtp_server(TOKENS[1]) as server,
        TokenServer(answer=answer) as tokens,
        client(server, tokens, clock, timeout=None, timeouts={"command": SECONDS}) as mailer,
    ):
        began = time.monotonic()
        with pytest.raises(TokenUnavailable, match="did not answer within the time limit") as caught:
            mailer.send(message(1), envelope=envelope())
        assert time.monotonic() - began < SECONDS + MARGIN
        assert caught.value.is_transient
        check_unsent(caught.value, mailer, server, tokens)
        tokens.answer = None
        clock.ahead += LONGEST_PAUSE
        assert mailer.send(message(2), envelope=envelope()).accepted


@pytest.mark.parametrize("kind", ["self_signed", "expired", "wrong_host"])
def test_a_bad_certificate_gets_no_secret(kind: str, certificates: Certificates) -> None:
    clock, trust = ShiftedClock(), {"ca_file": str(certificates.ca_file)}
    with (
        smtp_server() as server,
        TokenServer(identity=getattr(certificates, kind)) as tokens,
        client(server, tokens, clock, trust=trust) as mailer,
    ):
        with pytest.raises(TokenUnavailable, match="certificate") as caught:
            mailer.send(message(1), envelope=envelope())
        check_unsent(caught.value, mailer, server, tokens)
        assert tokens.requests == []
    with (
        smtp_server() as server,
        TokenServer(identity=certificates.good) as tokens,
        client(server, tokens, clock, trust=trust) as mailer,
    ):
        assert mailer.send(message(2), envelope=envelope()).accepted


def test_no_endpoint_at_all() -> None:
    clock, tokens = ShiftedClock(), TokenServer()
    tokens.close()
    with smtp_server() as server, client(server, tokens, clock) as mailer:
        with pytest.raises(TokenUnavailable) as caught:
            mailer.send(message(1), envelope=envelope())
        assert caught.value.is_transient
        check_unsent(caught.value, mailer, server, tokens)


@pytest.mark.parametrize("farewell", [b"", b"421 4.7.0 Bye\r\n"])
def test_a_server_that_refuses_a_cached_token_and_hangs_up(farewell: bytes) -> None:
    """There is no session left for a fresh token; the next login takes one, and not the refused one again."""
    refusal = Fault("auth", "garbage", reply=b"535 5.7.8 no\r\n" + farewell, then="close", connection=2)
    server = ScriptedServer(users={USER: TOKENS[0]}, auth=["XOAUTH2"], faults=[refusal])
    with server, TokenServer() as tokens, client(server, tokens, ShiftedClock(), pool=False) as mailer:
        mailer.send(message(1), envelope=envelope())
        server._behaviour.users[USER] = TOKENS[1]  # type: ignore[index]  # a dict, whatever it is declared as
        with pytest.raises(ConnectionLost):
            mailer.send(message(2), envelope=envelope())
        assert mailer.send(message(3), envelope=envelope()).accepted
        assert server.connections[2].verbs.count("AUTH") == 1
    assert len(tokens.requests) == 2


def test_send_many_tells_each_message() -> None:
    with (
        smtp_server() as server,
        TokenServer(answer="invalid_grant") as tokens,
        client(server, tokens, ShiftedClock()) as mailer,
    ):
        outcomes = mailer.send_many((message(number), envelope()) for number in range(5))
        assert [type(outcome) for outcome in outcomes] == [TokenUnavailable] * 5
        assert (len(tokens.requests), len(server.connections)) == (1, 1)


def test_a_passing_failure_is_tried_again_if_so_configured() -> None:
    """The retry's own wait is where the endpoint recovers."""
    clock = ShiftedClock()
    with smtp_server() as server, TokenServer(answer="500") as tokens:
        config = client(server, tokens, clock, retry={"attempts": 2}).config

        def pause(seconds: float) -> None:
            assert seconds > 0
            tokens.answer = None
            clock.ahead += LONGEST_PAUSE

        with Mailer(config, clock=clock, sleep=pause) as mailer:
            result = mailer.send(message(1), envelope=envelope())
        assert result.attempts == 2
        assert committed(server) == {1: 1}


@pytest.mark.parametrize("answer", [None, "invalid_grant", "500"])
def test_fifty_threads_ask_once(answer: str | None) -> None:
    """On five connections, while the endpoint takes its time."""
    with (
        smtp_server() as server,
        TokenServer(answer=answer) as tokens,
        client(server, tokens, ShiftedClock(), pool={"max_size": CONNECTIONS}) as mailer,
    ):
        tokens.gate = threading.Event()
        told: list[str] = []

        def send(number: int) -> None:
            try:
                mailer.send(message(number), envelope=envelope())
                told.append("sent")
            except TokenUnavailable as error:
                told.append(error.message)

        opener = threading.Thread(target=open_gate, args=(tokens, mailer))
        opener.start()
        in_threads([lambda number=number: send(number) for number in range(SENDS)])  # type: ignore[misc]
        opener.join(10)
        assert len(tokens.requests) == 1
        assert len(told) == SENDS
        assert len(set(told)) == 1
        assert len(committed(server)) == (SENDS if answer is None else 0)
        assert mailer.stats().lent == 0
        if answer is None:
            assert len(server.connections) <= CONNECTIONS


def open_gate(tokens: TokenServer, mailer: Mailer) -> None:
    """Once all that may connect do, and the others queue; after ten seconds at most."""
    ends = time.monotonic() + 10
    while mailer.stats().opening + mailer.stats().waiting < SENDS and time.monotonic() < ends:
        time.sleep(0.01)
    assert tokens.gate is not None
    tokens.gate.set()


def test_an_expired_token_is_renewed_once_for_fifty_threads() -> None:
    """No session serves more than one message, so that all fifty log in."""
    with (
        smtp_server() as server,
        TokenServer(rotates=True, lifetime=0.001) as tokens,
        client(server, tokens, ShiftedClock(), pool={"max_size": CONNECTIONS, "max_messages": 1}) as mailer,
    ):
        mailer.send(message(0), envelope=envelope())
        tokens.lifetime = 3600
        server._behaviour.users[USER] = TOKENS[1]  # type: ignore[index]  # a dict, whatever it is declared as
        in_threads(
            [
                lambda number=number: mailer.send(message(number), envelope=envelope())  # type: ignore[misc]
                for number in range(1, SENDS + 1)
            ]
        )
        assert len(committed(server)) == len(server.connections) == SENDS + 1
        assert len(tokens.requests) == 2
        assert not tokens.is_revoked
