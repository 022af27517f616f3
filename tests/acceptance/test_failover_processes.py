"""Several servers where a process forks, ends, or has many threads, and in what is shown of a mailer."""

from __future__ import annotations

import logging
import pickle
import threading
from collections import Counter
from contextlib import contextmanager
from typing import Any

import pytest

from mailbridge import Mailer, NobodyListens, PoolClosed, SendResult, SMTPConfig
from mailbridge.delivery.breakers import FIRST_COOLDOWN
from mailbridge.testing import Fault, ScriptedServer
from tests.acceptance.crowd import in_threads
from tests.acceptance.pairs import address, entry, pair
from tests.acceptance.programs import THREADS_AND_FORK, goodbyes, messages_by_connection, run
from tests.acceptance.sending import PASSWORD, USER, ShiftedClock, committed, envelope, message

both_forks = pytest.mark.parametrize("fork", ["python", "c"])


def options(*servers: ScriptedServer) -> dict[str, Any]:
    listed = [entry(server, priority=number) for number, server in enumerate(servers)]
    return {"security": "none", "timeout": 10, "servers": listed}


@both_forks
def test_a_child_has_its_own_sessions_with_each_server(fork: str) -> None:
    """The first server is full for a moment at message 2, so both pools have sessions at the fork."""
    program = """
        logging.getLogger("mailbridge").setLevel(logging.ERROR)
        send(1)
        send(2)
        in_child(lambda: (send(3), send(4)), FORKS[sys.argv[1]])
        send(5)
        in_child(mailbridge.close_all, FORKS[sys.argv[1]])
        send(6)
    """
    fault = Fault("mail", "close", connection=2)
    full = Fault("data", "reply", reply="452 4.3.1 Full", occurrence=2)
    with ScriptedServer(faults=[full, fault]) as one, ScriptedServer() as other:
        run(program, options(one, other), fork)
        assert messages_by_connection(other) == {1: [2], 2: [3]}
        assert messages_by_connection(one) == {1: [1, 5, 6], 2: [], 3: [4]}
        assert goodbyes(other)[0] == 1


@both_forks
def test_a_child_does_not_wait_for_the_lock_of_a_breaker(fork: str) -> None:
    """A thread that the child does not have held it at the fork; and the child knows nothing yet."""
    program = """
        logging.getLogger("mailbridge").setLevel(logging.ERROR)
        mailer = mailer_for(CONFIG)
        for number in (1, 2, 3):
            send(number)
        breaker = mailer._router.upstreams[0].breaker
        assert breaker.is_open
        held, may_end = threading.Event(), threading.Event()

        def hold():
            with breaker._records.get().lock:
                held.set()
                may_end.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()

        def child():
            for number in (4, 5, 6, 7):
                send(number)
            assert breaker.is_open and breaker.failures == 3

        in_child(child, FORKS[sys.argv[1]])
        may_end.set()
        thread.join()
        assert breaker.failures == 3
        send(8)
    """
    with ScriptedServer() as one, ScriptedServer() as other:
        one.refuse()
        run(program, options(one, other), fork, flags=THREADS_AND_FORK)
        assert committed(other) == dict.fromkeys(range(1, 9), 1)


def test_both_servers_are_told_goodbye_at_exit() -> None:
    program = """
        logging.getLogger("mailbridge").setLevel(logging.ERROR)
        send(1)
        send(2)
    """
    fault = Fault("data", "reply", reply="452 4.3.1 Full", occurrence=2)
    with ScriptedServer(faults=[fault]) as one, ScriptedServer() as other:
        run(program, options(one, other))
        assert (goodbyes(one), goodbyes(other)) == ([1], [1])
        assert (committed(one), committed(other)) == ({1: 1}, {2: 1})


def test_closing_closes_both() -> None:
    with pair(Fault("data", "reply", reply="452 4.3.1 Full", occurrence=2)) as both:
        both.send(1)
        both.send(2)
        assert [stats.pool.idle for stats in both.mailer.server_stats()] == [1, 1]
        assert (both.mailer.stats().idle, both.mailer.stats().max_size) == (2, 10)
        both.mailer.close()
        assert both.mailer.closed
        assert (goodbyes(both.first), goodbyes(both.second)) == ([1], [1])
        with pytest.raises(PoolClosed):
            both.send(3)


def test_a_retired_mailer_keeps_no_session_with_either() -> None:
    with pair(Fault("data", "reply", reply="452 4.3.1 Full", occurrence=2, connection=None)) as both:
        both.mailer.retire()
        both.send(1)
        both.send(2)
        assert both.mailer.stats().idle == 0
        assert (goodbyes(both.first), goodbyes(both.second)) == ([1, 1], [1])


def test_connect_finds_the_server_that_works() -> None:
    with pair() as both:
        both.first.refuse()
        assert both.mailer.connect() is True
        assert both.mailer.connect() is False
        assert [stats.pool.idle for stats in both.mailer.server_stats()] == [0, 1]
        both.second.refuse()
        both.mailer.close()
        with Mailer(both.mailer.config) as mailer, pytest.raises(NobodyListens) as caught:
            mailer.connect()
        assert [each.server for each in caught.value.attempts] == [both.names[0]]


def test_verify_tries_each_and_a_good_one_is_used_again_at_once() -> None:
    with pair() as both:
        both.first.refuse()
        for number in range(3):
            both.send(number)
        report = both.mailer.verify()
        assert (report.ok, [each.ok for each in report.servers]) == (False, [False, True])
        assert [each.server for each in report.servers] == list(both.names)
        assert report.servers[0]["tcp"].status == "failed"
        both.first.resume()
        assert both.mailer.verify().ok
        assert both.send(3).server == both.names[0]


def test_many_threads_while_the_first_server_comes_and_goes() -> None:
    """No message is lost or doubled, whoever takes it, and each result names the server that has it."""
    lost = [Fault("mail", "close", occurrence=n, connection=None) for n in range(10, 200, 3)]
    with pair(*lost, options={"pool": {"max_size": 3}}) as both:
        # Only the breaker's time is set forward: what is under way has its time limits.
        clock = ShiftedClock()
        both.mailer._router.upstreams[0].breaker._clock = clock
        results: dict[int, SendResult] = {}
        numbers = iter(range(240))
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:  # which also keeps the server's comings and goings in their order
                    number = next(numbers, None)
                    if number is None:
                        return
                    if number % 60 == 20:
                        both.first.refuse()
                    if number % 60 == 50:
                        both.first.resume()
                        clock.ahead += 400
                results[number] = both.send(number)

        in_threads([work] * 8)
        first, second = both.taken
        assert first + second == dict.fromkeys(range(240), 1)
        assert Counter(result.server for result in results.values()) == {
            both.names[0]: sum(first.values()),
            both.names[1]: sum(second.values()),
        }
        assert all(result.server == both.names[0] for n, result in results.items() if first[n])
        assert second


def test_the_same_server_twice_has_two_names() -> None:
    """Two accounts with one provider."""
    with ScriptedServer(users={USER: PASSWORD}, auth_in_clear=True) as server:
        config = SMTPConfig(
            security="none",
            servers=[
                entry(server, username=USER, password="wrong"),
                entry(server, username=USER, password=PASSWORD, priority=2),
            ],
        )
        with Mailer(config) as mailer:
            result = mailer.send(message(1), envelope=envelope())
            assert list(result.failed_servers) == [address(server)]
            assert [stats.server for stats in mailer.server_stats()] == [
                address(server),
                f"{address(server)} #2",
            ]


@contextmanager
def interrupted_once(mailer: Mailer) -> Any:
    """The second server's pool raises KeyboardInterrupt instead of lending."""
    pool = mailer._router.upstreams[1].pool
    original, raised = pool.acquire, []

    def acquire(*args: Any, **kwargs: Any) -> Any:
        if not raised:
            raised.append(True)
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    pool.acquire = acquire  # type: ignore[method-assign]
    yield


def test_an_interrupt_between_two_servers_leaves_everything_usable() -> None:
    with pair() as both, interrupted_once(both.mailer):
        both.first.refuse()
        with pytest.raises(KeyboardInterrupt) as caught:
            both.send(1)
        assert not hasattr(caught.value, "outcome_unknown")
        assert both.send(2).server == both.names[1]
        assert both.mailer.stats().lent == 0
        assert both.taken == ({}, {2: 1})


class Interrupting(logging.Handler):
    """As if somebody pressed Ctrl-C while the application's handler works."""

    def emit(self, record: logging.LogRecord) -> None:
        if "works again" in record.getMessage():
            raise KeyboardInterrupt


def test_an_interrupt_while_a_recovery_is_logged_tells_that_the_message_may_be_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Interrupting()
    with pair() as both, caplog.at_level("INFO", logger="mailbridge"):
        both.first.refuse()
        for number in range(3):
            both.send(number)
        both.first.resume()
        both.wait(FIRST_COOLDOWN)
        logging.getLogger("mailbridge").addHandler(handler)
        try:
            with pytest.raises(KeyboardInterrupt) as caught:
                both.send(9)
        finally:
            logging.getLogger("mailbridge").removeHandler(handler)
        assert vars(caught.value)["outcome_unknown"] is True
        assert both.taken[0] == {9: 1}


def test_no_secret_of_any_server_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with (
        ScriptedServer(users={USER: "another"}, auth_in_clear=True) as one,
        ScriptedServer(users={USER: PASSWORD}, auth_in_clear=True) as other,
        caplog.at_level("DEBUG"),
    ):
        login = {"username": USER, "password": PASSWORD}
        config = SMTPConfig(
            security="none",
            debug=True,
            servers=[
                entry(one, **login),
                {"config": f"smtp://{USER.replace('@', '%40')}:correct%20horse@{address(other)}"},
            ],
        )
        with Mailer(config, random=lambda: 0.0) as mailer:
            result = mailer.send(message(1), envelope=envelope())
            shown = [repr(mailer), repr(config), repr(mailer.server_stats()), repr(result), caplog.text]
            shown += [str(error) + repr(vars(error)) for error in result.failed_servers.values()]
            shown += [
                pickle.dumps(connection).decode("latin-1")
                for connection in (config, result, mailer.server_stats())
            ]
    for text in shown:
        assert PASSWORD not in text
        assert "horse" not in text
