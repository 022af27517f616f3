"""`deadline=` and `timeouts.total` bound all of a send: queue, dialing, TLS, login, content, retries.

Wall time is an upper bound here; that a stage ends at its own limit is the fault matrix's business.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from mailbridge import ConnectTimeout, DeadlineExceeded, MailbridgeError, Mailer, SMTPConfig
from mailbridge.testing import Fault, ScriptedServer
from tests.acceptance.sending import MARGIN, PASSWORD, USER, committed, config_for, envelope, message
from tests.servers.certificates import Certificates

pytestmark = pytest.mark.campaign

SECONDS = 0.3
BIG = 8 << 20  # more than the buffers of both sides hold


def by_argument(config: SMTPConfig, seconds: float = SECONDS) -> tuple[Mailer, dict[str, Any]]:
    return Mailer(config), {"deadline": seconds}


def by_option(config: SMTPConfig, seconds: float = SECONDS) -> tuple[Mailer, dict[str, Any]]:
    options = {name: getattr(config, name) for name in SMTPConfig.__slots__}
    return Mailer(SMTPConfig.from_mapping(options | {"timeouts": {"total": seconds}})), {}


Way = Callable[..., tuple[Mailer, dict[str, Any]]]
both_ways = pytest.mark.parametrize("way", [by_argument, by_option])


@contextmanager
def in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS + MARGIN


STAGES: dict[str, tuple[type[MailbridgeError], ...]] = {
    "greeting": (DeadlineExceeded,),
    "ehlo": (DeadlineExceeded,),
    "starttls": (DeadlineExceeded,),
    "tls": (DeadlineExceeded, ConnectTimeout),
    "ehlo_tls": (DeadlineExceeded,),
    "auth": (DeadlineExceeded,),
    "mail": (DeadlineExceeded,),
    "rcpt": (DeadlineExceeded,),
    "data": (DeadlineExceeded,),
    "content": (DeadlineExceeded,),
    "final": (DeadlineExceeded,),
}


@both_ways
@pytest.mark.parametrize("how", ["silence", "drip"])
@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage(certificates: Certificates, stage: Any, how: Any, way: Way) -> None:
    kind: Any = "stall" if (stage, how) == ("content", "silence") else how
    fault = Fault(stage, kind, interval=SECONDS / 10)
    with ScriptedServer(
        faults=[fault],
        tls="starttls",
        certfile=certificates.good.cert_file,
        keyfile=certificates.good.key_file,
        users={USER: PASSWORD},
    ) as server:
        config = config_for(
            server,
            security="starttls",
            username=USER,
            password=PASSWORD,
            tls={"ca_file": str(certificates.ca_file)},
            retry=5,
        )
        # On a busy machine a message of this size takes a while to prepare, which counts.
        mailer, options = way(config, 4 * SECONDS if stage == "content" else SECONDS)
        with mailer:
            with in_time(), pytest.raises(STAGES[stage]) as caught:
                mailer.send(message(1, size=BIG if stage == "content" else 0), envelope=envelope(), **options)
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.outcome_unknown is (stage == "final")
            assert caught.value.is_transient is (stage != "final")
            assert server.unfired == ()
        with Mailer(config) as patient:
            patient.send(message(2), envelope=envelope())
        assert committed(server)[2] == 1


@both_ways
def test_in_the_queue(way: Way) -> None:
    with ScriptedServer() as server:
        mailer, options = way(config_for(server, pool={"max_size": 1}))
        with mailer, mailer.session() as session:
            session.send(message(1), envelope=envelope())
            with in_time(), pytest.raises(DeadlineExceeded) as caught:
                mailer.send(message(2), envelope=envelope(), **options)
            assert not caught.value.outcome_unknown
            assert mailer.stats().waiting == 0
        assert committed(server) == {1: 1}


@both_ways
def test_while_another_login_is_under_way(way: Way) -> None:
    """Until a connection is open, one at a time is tried. The first may end a moment before the second has
    to, which then begins in vain.
    """
    fault = Fault("auth", "silence", connection=None, occurrence=None)
    with ScriptedServer(faults=[fault], users={USER: PASSWORD}) as server:
        mailer, options = way(config_for(server, username=USER, password=PASSWORD))
        with mailer:
            first = threading.Thread(target=lambda: outcome_of(mailer, 1, {"deadline": SECONDS * 3}))
            first.start()
            server.wait_for(lambda: not server.unfired)
            with in_time(), pytest.raises((DeadlineExceeded, ConnectTimeout)):
                mailer.send(message(2), envelope=envelope(), **options)
            first.join(5)
            assert not first.is_alive()
        assert committed(server) == {}


def outcome_of(mailer: Mailer, number: int, options: dict[str, Any]) -> object:
    return mailer.send_many([(message(number), envelope())], **options)


@both_ways
def test_while_dialing(way: Way) -> None:
    """A listener whose queue is full: the kernel drops what comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        mailer, options = way(SMTPConfig(host=host, port=port, security="none"))
        with mailer, in_time(), pytest.raises((DeadlineExceeded, ConnectTimeout)):
            mailer.send(message(1), envelope=envelope(), **options)


@both_ways
def test_no_nap_beyond_the_deadline(way: Way) -> None:
    """The error is told at once if there is no time for another attempt."""
    with ScriptedServer(mail_replies="450 4.7.1 Later") as server:
        mailer, options = way(config_for(server, retry={"attempts": 5, "first_delay": 60}))
        with mailer, in_time(), pytest.raises(MailbridgeError) as caught:
            mailer.send(message(1), envelope=envelope(), **options)
        assert (caught.value.smtp_code, caught.value.attempts) == (450, ())


def test_the_replay_of_a_dead_session_has_no_time_of_its_own() -> None:
    faults = [Fault("mail", "close", occurrence=2), Fault("greeting", "silence", connection=2)]
    with ScriptedServer(faults=faults) as server, Mailer(config_for(server)) as mailer:
        mailer.send(message(1), envelope=envelope())
        with in_time(), pytest.raises(DeadlineExceeded):
            mailer.send(message(2), envelope=envelope(), deadline=SECONDS)
        assert (server.unfired, committed(server)) == ((), {1: 1})


def test_each_message_of_a_batch_has_its_own_deadline() -> None:
    fault = Fault("mail", "silence", occurrence=2)
    with ScriptedServer(faults=[fault]) as server, Mailer(config_for(server)) as mailer:
        with in_time():
            outcomes = mailer.send_many([(message(n), envelope()) for n in (1, 2, 3)], deadline=SECONDS)
        assert [isinstance(outcome, DeadlineExceeded) for outcome in outcomes] == [False, True, False]
        assert committed(server) == {1: 1, 3: 1}


@pytest.mark.parametrize("deadline", [0.0, -1.0])
def test_a_deadline_that_is_over_already(deadline: float) -> None:
    with ScriptedServer() as server, Mailer(config_for(server)) as mailer:
        with in_time(), pytest.raises(MailbridgeError) as caught:
            mailer.send(message(1), envelope=envelope(), deadline=deadline)
        assert isinstance(caught.value, TimeoutError)
        assert not caught.value.outcome_unknown
        assert committed(server) == {}
