"""Many threads and one mailer: few sessions, each message once, an answer for each caller, no thread of ours.

How many sessions there are at a time is asked where it is certain: at the server between a message and
its reply, or by the number of connections in all.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailbridge import AuthenticationFailed, Mailer, NobodyListens, PoolClosed, close_all, mailer_for
from mailbridge.delivery.breakers import FIRST_COOLDOWN
from mailbridge.registry import MOST_MAILERS
from mailbridge.testing import Fault, ReceivedMessage, ScriptedServer
from tests.acceptance.crowd import SECONDS, in_threads
from tests.acceptance.programs import (
    CHANNELS,
    disturbances,
    goodbyes,
    messages_by_connection,
    options_for,
    run,
    server_over,
)
from tests.acceptance.sending import (
    PASSWORD,
    USER,
    ShiftedClock,
    committed,
    config_for,
    envelope,
    message,
    number_of,
)
from tests.servers.certificates import Certificates


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


class Crowd:
    """Counts how many messages wait for their replies at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.never = threading.Event()

    def __call__(self, received: ReceivedMessage) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.never.wait(0.002)  # so that the others have a chance to be too many
        with self.lock:
            self.now -= 1


def test_fifty_threads_on_five_sessions() -> None:
    crowd = Crowd()
    with ScriptedServer(final_replies=crowd) as server, Mailer(config_for(server)) as mailer:

        def send(first: int) -> None:
            for number in range(first, first + 4):
                mailer.send(message(number), envelope=envelope())

        in_threads([lambda n=n: send(4 * n) for n in range(50)])
        assert committed(server) == dict.fromkeys(range(200), 1)
        assert crowd.most == len(server.connections) == 5
        stats = mailer.stats()
        assert (stats.idle, stats.lent, stats.waiting, stats.size) == (5, 0, 0, 5)
        assert (stats.opened_total, stats.reused_total) == (5, 195)


def outcomes_of(act: Callable[[int], object], count: int) -> Counter[str]:
    """Runs `act` in that many threads at once; how often each ended well, or with which error."""
    outcomes: list[str] = []

    def run(number: int) -> None:
        try:
            act(number)
        except Exception as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("sent")

    in_threads([lambda n=n: run(n) for n in range(count)])
    return Counter(outcomes)


def test_refused_credentials_are_tried_once_by_fifty_threads() -> None:
    all_come = Fault("auth", "late", delay=0.2, occurrence=None, connection=None)
    with ScriptedServer(users={USER: PASSWORD}, faults=[all_come]) as server:
        config = config_for(server, username=USER, password="wrong")
        with Mailer(config) as mailer:
            outcomes = outcomes_of(lambda n: mailer.send(message(n), envelope=envelope()), 50)
        assert outcomes == {AuthenticationFailed.__name__: 50}
        logins = [verb for one in server.connections for verb in one.verbs if verb == "AUTH"]
        assert len(logins) == 1
        assert len(server.connections) <= 5
        assert not server.messages


def test_a_herd_comes_back_in_good_order(server: ScriptedServer) -> None:
    """Down: each caller is told so. Up again: all get through, by no more sessions than allowed."""
    clock = ShiftedClock()
    mailer = Mailer(config_for(server), clock=clock)
    server.refuse()
    outcomes = outcomes_of(lambda n: mailer.send(message(n), envelope=envelope()), 50)
    assert outcomes == {NobodyListens.__name__: 50}
    assert mailer.stats().size == 0
    server.resume()
    clock.ahead += FIRST_COOLDOWN
    in_threads([lambda n=n: mailer.send(message(n), envelope=envelope()) for n in range(50)])
    assert committed(server) == dict.fromkeys(range(50), 1)
    assert len(server.connections) <= 5
    mailer.close()


def test_a_herd_that_tries_again_meets_the_server_as_it_comes_up(server: ScriptedServer) -> None:
    """All fifty have failed once, or have waited for that, and come back in the same moment."""
    everybody_waits = threading.Barrier(51)

    def pause(_: float) -> None:
        everybody_waits.wait(SECONDS)
        is_up.wait(SECONDS)

    def come_up() -> None:
        everybody_waits.wait(SECONDS)
        server.resume()
        clock.ahead += FIRST_COOLDOWN
        is_up.set()

    is_up = threading.Event()
    attempts: list[int] = []
    clock = ShiftedClock()
    mailer = Mailer(config_for(server, retry={"attempts": 2}), sleep=pause, clock=clock)
    server.refuse()

    def send(number: int) -> None:
        attempts.append(mailer.send(message(number), envelope=envelope()).attempts)

    in_threads([come_up, *(lambda n=n: send(n) for n in range(50))])
    assert len(attempts) == 50
    assert set(attempts) <= {1, 2}
    assert committed(server) == dict.fromkeys(range(50), 1)
    assert len(server.connections) <= 5
    mailer.close()


@pytest.mark.parametrize("close", ["mailer.close()", "mailer.close(drain=5)", "close_all(drain=5)"])
def test_closing_answers_everybody(close: str, server: ScriptedServer) -> None:
    """Twenty threads send as three others close: each send is answered, and what was sent is there."""
    config = config_for(server, pool={"max_size": 2})
    mailer = mailer_for(config)
    some_are_sent = threading.Event()
    told_sent: list[int] = []
    others: list[str] = []

    def keep_sending(first: int) -> None:
        for number in range(first, first + 50):
            try:
                mailer.send(message(number), envelope=envelope())
            except PoolClosed:
                others.append("closed")
                return
            told_sent.append(number)
            if len(told_sent) > 20:
                some_are_sent.set()

    def shut() -> None:
        assert some_are_sent.wait(SECONDS)
        if close.startswith("mailer"):
            eval(close, {"mailer": mailer})
        else:
            eval(close, {"close_all": close_all})

    in_threads([*[lambda n=n: keep_sending(100 * n) for n in range(20)], shut, shut, shut])
    assert committed(server) == dict.fromkeys(told_sent, 1)
    assert len(others) == 20
    assert goodbyes(server) == [1] * len(server.connections)
    assert mailer.stats().size == 0
    close_all()


def test_many_tenants_leave_a_bounded_number_of_sessions(server: ScriptedServer) -> None:
    tenants = MOST_MAILERS + 40
    configs = [config_for(server, local_hostname=f"tenant{n}.example") for n in range(tenants)]

    def send(numbers: range) -> None:
        for n in numbers:
            mailer_for(configs[n]).send(message(n), envelope=envelope())

    in_threads([lambda s=s: send(range(s, tenants, 8)) for s in range(8)])
    assert committed(server) == dict.fromkeys(range(tenants), 1)
    server.wait_for(lambda: sum(not one.is_closed for one in server.connections) <= MOST_MAILERS)
    close_all()
    assert goodbyes(server) == [1] * tenants


@pytest.mark.matrix
def test_no_thread_is_left_and_a_fork_warns_of_none(server: ScriptedServer) -> None:
    """A hundred sends to a host with a name, each on a session of its own, for which a thread asks DNS."""
    program = """
        config = SMTPConfig.from_mapping({**json.loads(os.environ["MAIL_OPTIONS"]), "pool": False})
        for number in range(100):
            mailer_for(config).send(message(number), envelope=envelope())
            assert threading.enumerate() == [threading.main_thread()]
        in_child(lambda: send(100))
    """
    run(program, options_for(server, host="localhost", family="ipv4"))
    assert committed(server) == dict.fromkeys(range(101), 1)


# gevent


GEVENT = "from gevent import monkey; monkey.patch_all(); import gevent"


@pytest.mark.parametrize("channel", CHANNELS)
def test_twenty_greenlets_on_two_sessions(channel: str, certificates: Certificates) -> None:
    program = """
        greenlets = [gevent.spawn(send, number) for number in range(20)]
        gevent.joinall(greenlets, timeout=SECONDS, raise_error=True)
        assert mailer_for(CONFIG).stats().waits_total == 19, "they did meet"
    """
    with server_over(channel, certificates) as server:
        options = options_for(server, certificates, host="localhost", family="ipv4", pool={"max_size": 2})
        run(program, options, before=GEVENT)
        assert committed(server) == dict.fromkeys(range(20), 1)
        assert goodbyes(server) == [1, 1]
        assert disturbances(server) == []


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("end", ["kill", "timeout"])
def test_a_greenlet_that_ends_in_the_middle_of_a_send_ruins_its_session(
    end: str, channel: str, certificates: Certificates, tmp_path: Path
) -> None:
    """The session is closed without a word and never lent again; the place is free at once."""
    program = """
        def killed():
            sending = gevent.spawn(send, 2)
            until_it_is_sent()
            sending.kill(timeout=SECONDS)
            assert isinstance(sending.value, gevent.GreenletExit)

        def timed_out():
            with gevent.Timeout(0.2, False):
                send(2)
                raise AssertionError("the server never answers this one")

        def until_it_is_sent():
            while not os.path.exists(sys.argv[2]):
                time.sleep(0.001)

        send(1)
        {"kill": killed, "timeout": timed_out}[sys.argv[1]]()
        stats = mailer_for(CONFIG).stats()
        assert (stats.size, stats.waiting) == (0, 0)
        send(3)
        send(4)
    """
    is_sent = tmp_path / "the message is sent"

    def tell(received: ReceivedMessage) -> None:
        if number_of(received.content) == 2:
            is_sent.touch()

    never = Fault("final", "silence", occurrence=2)
    with server_over(channel, certificates, final_replies=tell, faults=[never]) as server:
        run(
            program, options_for(server, certificates, pool={"max_size": 1}), end, str(is_sent), before=GEVENT
        )
        assert messages_by_connection(server)[1][0] == 1
        assert messages_by_connection(server)[2] == [3, 4]
        assert goodbyes(server) == [0, 1]
        assert disturbances(server) == []
