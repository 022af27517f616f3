"""Logging in with access tokens: cached ones are renewed once, fresh ones that are refused are final."""

import threading
import time
from collections.abc import Iterator

import pytest

from mailbridge import AccessToken, AuthenticationFailed, Envelope, Mailer, SMTPConfig, TokenUnavailable
from mailbridge.oauth2.shared import forget_sources
from mailbridge.testing import Fault, ScriptedServer

MESSAGE, ENVELOPE = b"\r\nx\r\n", Envelope("a@x.example", "b@y.example")


class Provider:
    """Gives the tokens in `values`, the last one for ever; each lives an hour."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)
        self.asked = 0

    def __call__(self) -> AccessToken:
        self.asked += 1
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        return AccessToken(value, time.time() + 3600)  # type: ignore[arg-type]  # a string becomes a Secret


@pytest.fixture(autouse=True)
def no_tokens_of_others() -> Iterator[None]:
    forget_sources()
    yield
    forget_sources()


def mailer_to(server: ScriptedServer, provider: object, **options: object) -> Mailer:
    settings = {"host": "127.0.0.1", "port": server.port, "security": "none", "timeout": 10, "username": "u"}
    return Mailer(SMTPConfig.from_mapping({**settings, "oauth2": provider, **options}))


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_logs_in_and_is_shared_by_the_connections(mechanism: str) -> None:
    provider = Provider("one")
    with ScriptedServer(users={"u": "one"}, auth=[mechanism]) as server:
        with mailer_to(server, provider, pool=False) as mailer:
            for _ in range(3):
                mailer.send(MESSAGE, envelope=ENVELOPE)
        assert [connection.user for connection in server.connections] == ["u"] * 3
    assert provider.asked == 1


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_cached_token_that_is_refused_is_replaced_once(mechanism: str) -> None:
    provider, server = Provider("one", "two"), ScriptedServer(users={"u": "one"}, auth=[mechanism])
    with server, mailer_to(server, provider, pool=False) as mailer:
        mailer.send(MESSAGE, envelope=ENVELOPE)
        server_users(server)["u"] = "two"
        mailer.send(MESSAGE, envelope=ENVELOPE)
        assert len(server.connections) == 2
        assert [verb for verb in server.connections[1].verbs if verb == "AUTH"] == ["AUTH", "AUTH"]
        assert len(server.messages) == 2
    assert provider.asked == 2


def test_a_token_refused_by_535_at_once_is_replaced_too() -> None:
    provider = Provider("one", "two")
    refusal = Fault("auth", "reply", reply="535 5.7.3 no", connection=2)
    server = ScriptedServer(users={"u": "one"}, auth=["XOAUTH2"], faults=[refusal])
    with server, mailer_to(server, provider, pool=False) as mailer:
        mailer.send(MESSAGE, envelope=ENVELOPE)
        server_users(server)["u"] = "two"
        mailer.send(MESSAGE, envelope=ENVELOPE)
        assert len(server.messages) == 2
    assert provider.asked == 2


def server_users(server: ScriptedServer) -> dict[str, str]:
    users: dict[str, str] = server._behaviour.users  # type: ignore[assignment]
    return users


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_fresh_token_that_is_refused_is_final_and_tells_the_challenge(mechanism: str) -> None:
    provider = Provider("wrong")
    with (
        ScriptedServer(users={"u": "one"}, auth=[mechanism]) as server,
        mailer_to(server, provider) as mailer,
    ):
        with pytest.raises(AuthenticationFailed) as caught:
            mailer.send(MESSAGE, envelope=ENVELOPE)
        assert len(server.connections) == 1
    assert '"status":"401"' in caught.value.challenge
    assert caught.value.mechanism == mechanism
    assert "wrong" not in repr(caught.value) + str(caught.value)
    assert provider.asked == 2  # whether it has another one; it has not, so the refusal stands


def test_fifty_waiting_sends_make_one_failed_login() -> None:
    provider = Provider("wrong")
    errors: list[Exception] = []
    with (
        ScriptedServer(users={"u": "one"}, auth=["XOAUTH2"]) as server,
        mailer_to(server, provider) as mailer,
    ):

        def send() -> None:
            try:
                mailer.send(MESSAGE, envelope=ENVELOPE)
            except AuthenticationFailed as error:
                errors.append(error)

        threads = [threading.Thread(target=send) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        logins = sum(connection.verbs.count("AUTH") for connection in server.connections)
    assert len(errors) == 50
    assert logins == 1
    assert provider.asked == 2


def test_a_provider_that_fails_is_an_unavailable_token_and_nothing_is_sent() -> None:
    def failing() -> str:
        raise OSError("no network")

    with ScriptedServer(users={"u": "one"}, auth=["XOAUTH2"]) as server, mailer_to(server, failing) as mailer:
        with pytest.raises(TokenUnavailable) as caught:
            mailer.send(MESSAGE, envelope=ENVELOPE)
        assert caught.value.stage == "token"
        assert "AUTH" not in server.connections[0].verbs


def test_a_login_that_ended_in_mid_session_is_renewed_on_a_fresh_one() -> None:
    provider = Provider("one")
    over = Fault("mail", "reply", reply="530 5.7.0 Authentication required", occurrence=2)
    with ScriptedServer(users={"u": "one"}, auth=["XOAUTH2"], faults=[over]) as server:
        with mailer_to(server, provider) as mailer:
            mailer.send(MESSAGE, envelope=ENVELOPE)
            mailer.send(MESSAGE, envelope=ENVELOPE)
        assert (len(server.connections), len(server.messages)) == (2, 2)


def test_verify_tells_the_token_stage_and_never_the_token() -> None:
    with (
        ScriptedServer(users={"u": "one"}, auth=["XOAUTH2"]) as server,
        mailer_to(server, Provider("one")) as mailer,
    ):
        report = mailer.verify()
    assert report.ok
    assert report["token"].status == "ok"
    assert "expires in" in report["token"].detail
    assert "XOAUTH2 accepted" in report["auth"].detail
    with (
        ScriptedServer(users={"u": "one"}, auth=["XOAUTH2"]) as server,
        mailer_to(server, Provider("bad")) as mailer,
    ):
        report = mailer.verify()
    assert (report["token"].status, report["auth"].status) == ("ok", "failed")
    assert '"status":"401"' in report["auth"].detail
    assert "token" in report["auth"].hint


def test_a_server_without_oauth2_is_told_as_such() -> None:
    server = ScriptedServer(users={"u": "one"}, auth=["PLAIN"])
    refused = pytest.raises(AuthenticationFailed, match="offers PLAIN; usable are")
    with server, mailer_to(server, Provider("one")) as mailer, refused:
        mailer.send(MESSAGE, envelope=ENVELOPE)
