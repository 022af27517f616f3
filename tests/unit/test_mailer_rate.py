"""The front door under a rate: what counts, who goes first, and what servers that throttle bring about."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from mailbridge import (
    ConfigurationError,
    DeadlineExceeded,
    Envelope,
    InvalidMessage,
    MailbridgeError,
    Mailer,
    Message,
    PoolTimeout,
    RateUnavailable,
    SendResult,
    SMTPConfig,
)
from mailbridge.ratelimit.permits import QueueingLimiter
from mailbridge.testing import Fault, ReceivedMessage, ScriptedServer

PATIENCE = 20.0


def mail(name: str = "x", **more: Any) -> Message:
    return Message(name, f"{name}@x.example", ["b@y.example"], text="x", **more)


def mailer_to(server: ScriptedServer, **options: Any) -> Mailer:
    settings = {"host": "127.0.0.1", "port": server.port, "security": "none", "timeout": PATIENCE, **options}
    return Mailer(SMTPConfig.from_mapping(settings), sleep=lambda _: None)


def limiter_of(mailer: Mailer) -> QueueingLimiter:
    limiter = mailer._router.upstreams[0].limiter
    assert isinstance(limiter, QueueingLimiter)
    return limiter


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Barrier:
    """A limiter that lets one go for each permit."""

    def __init__(self, permits: int = 0) -> None:
        self.permits = permits
        self.given = 0
        self.lock = threading.Lock()

    def __call__(self) -> float:
        with self.lock:
            if self.given < self.permits:
                self.given += 1
                return 0.0
            return 0.005


@contextmanager
def sending(mailer: Mailer) -> Iterator[Callable[..., None]]:
    """Starts sends in threads of their own, each in line when this returns, and joins them at the end."""
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def send(message: Message, **more: Any) -> None:
        try:
            mailer.send(message, **more)
        except BaseException as error:
            failures.append(error)

    def start(message: Message, **more: Any) -> None:
        before = len(limiter_of(mailer).queue.waiters)
        thread = threading.Thread(target=send, args=(message,), kwargs=more, daemon=True)
        thread.start()
        threads.append(thread)
        until(lambda: len(limiter_of(mailer).queue.waiters) == before + 1)

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert failures == []


def senders(server: ScriptedServer) -> list[str]:
    return [message.sender.partition("@")[0] for message in server.messages]


class TestRate:
    def test_bursts_go_and_the_rest_waits(self) -> None:
        with ScriptedServer() as server, mailer_to(server, rate={"limit": 2, "per": 1.0}) as mailer:
            began = time.monotonic()
            results = [mailer.send(mail()) for _ in range(5)]
            assert time.monotonic() - began >= 2.0
        waits = [result.timings["queue"] for result in results]
        assert all(wait < 0.8 for wait in waits[:2])
        assert waits[2] > 0.01
        assert waits[4] > 0.01

    def test_nobody_waits_with_a_session(self) -> None:
        with (
            ScriptedServer() as server,
            mailer_to(server, rate={"limit": 1, "per": 1.0}, pool={"max_size": 1}) as mailer,
        ):
            mailer.send(mail("first"))
            with sending(mailer) as start:
                for number in range(2):
                    start(mail(f"bulk{number}"))
                stats = mailer.stats()
                assert (stats.lent, stats.waiting, stats.idle) == (0, 0, 1)
        assert len(server.messages) == 3
        assert len(server.connections) == 1

    def test_the_deadline_is_over_before_a_byte_is_sent(self) -> None:
        with ScriptedServer() as server, mailer_to(server, rate={"limit": 1, "per": 3600}) as mailer:
            mailer.send(mail())
            with pytest.raises(DeadlineExceeded, match="before the rate 1 per 3600 s let it go") as caught:
                mailer.send(mail(), deadline=0.05)
            assert not caught.value.outcome_unknown
            assert caught.value.is_transient
            assert mailer.stats().lent == 0
        assert server.connections[0].verbs.count("MAIL") == 1

    def test_many_on_one_session_keep_the_rate_and_give_it_back_meanwhile(self) -> None:
        with ScriptedServer() as server, mailer_to(server, rate={"limit": 1, "per": 0.1}) as mailer:
            began = time.monotonic()
            outcomes = mailer.send_many([mail() for _ in range(4)])
            assert time.monotonic() - began >= 0.3
        assert all(isinstance(outcome, SendResult) for outcome in outcomes)
        assert len(server.connections) == 1

    def test_a_batch_that_waits_holds_no_session(self) -> None:
        with (
            ScriptedServer() as server,
            mailer_to(server, rate={"limit": 1, "per": 1.0}, pool={"max_size": 1}) as mailer,
        ):
            batch = threading.Thread(target=mailer.send_many, args=([mail(), mail()],))
            batch.start()
            server.wait_for(lambda: server.messages)
            until(lambda: limiter_of(mailer).queue.waiters and not mailer.stats().lent)
            assert mailer.stats().idle == 1
            assert len(server.messages) == 1
            batch.join(PATIENCE)
        assert len(server.messages) == 2

    def test_the_answer_to_the_dot_is_not_waited_for(self) -> None:
        """The message has left when its last byte is written; a slow server does not slow down the rate."""
        release = threading.Event()

        def held(message: ReceivedMessage) -> None:
            if message.sender.startswith("slow"):
                release.wait(PATIENCE)

        with (
            ScriptedServer(final_replies=held) as server,
            mailer_to(server, rate={"limit": 1, "per": 0.05}, pool={"max_size": 2}, timeout=60) as mailer,
            sending(mailer) as start,
        ):
            limit = limiter_of(mailer).queue.limit
            thread = threading.Thread(target=lambda: mailer.send(mail("slow")), daemon=True)
            thread.start()
            until(lambda: getattr(limit, "departures", ()))
            assert mailer.send(mail("quick"), deadline=10).accepted
            release.set()
            thread.join(PATIENCE)
            del start
        assert senders(server) == ["quick", "slow"]

    def test_each_transaction_counts(self) -> None:
        limiter = Barrier(permits=100)
        recipients = [f"r{number}@y.example" for number in range(5)]
        with ScriptedServer(max_recipients=2) as server, mailer_to(server, rate=limiter) as mailer:
            result = mailer.send(mail(), envelope=Envelope("a@x.example", recipients))
        assert result.accepted == tuple(recipients)
        assert (len(server.messages), limiter.given) == (3, 3)

    def test_recipients_without_permission_in_time_keep_their_answer(self) -> None:
        limiter = Barrier(permits=1)
        recipients = [f"r{number}@y.example" for number in range(3)]
        with ScriptedServer(max_recipients=2) as server, mailer_to(server, rate=limiter) as mailer:
            result = mailer.send(mail(), envelope=Envelope("a@x.example", recipients), deadline=1.0)
        assert result.accepted == tuple(recipients[:2])
        assert result.rejected["r2@y.example"].code == 452

    def test_a_replay_on_a_fresh_session_counts_too(self) -> None:
        limiter = Barrier(permits=100)
        with ScriptedServer() as server, mailer_to(server, rate=limiter) as mailer:
            mailer.send(mail())
            server.connections[0].reset()
            with mailer.session() as session:
                session.send(mail())
                server.connections[-1].hang_up()
                session.send(mail())
        assert len(server.messages) == 3
        assert limiter.given >= 3

    def test_a_refused_message_counts(self) -> None:
        limiter = Barrier(permits=2)
        server = ScriptedServer(mail_replies={"x@x.example": "550 5.7.1 no"})
        with server, mailer_to(server, rate=limiter) as mailer:
            for _ in range(2):
                with pytest.raises(MailbridgeError, match="550"):
                    mailer.send(mail())
            with pytest.raises(DeadlineExceeded):
                mailer.send(mail(), deadline=0.05)

    def test_mailers_of_one_account_share_it(self) -> None:
        with ScriptedServer() as server:
            with mailer_to(server, rate={"limit": 1, "per": 3600}) as mailer:
                mailer.send(mail())
            del mailer
            with (
                mailer_to(server, rate={"limit": 1, "per": 3600}, pool=False) as other,
                pytest.raises(DeadlineExceeded),
            ):
                other.send(mail(), deadline=0.05)
            with mailer_to(server, rate={"limit": 2, "per": 3600}) as another_rate:
                another_rate.send(mail())

    def test_each_server_has_its_own(self) -> None:
        with ScriptedServer() as first, ScriptedServer() as second:
            servers = [
                {"host": "127.0.0.1", "port": each.port, "security": "none"} for each in (first, second)
            ]
            config = SMTPConfig(servers=servers, rate={"limit": 1, "per": 3600})
            first.refuse()
            with Mailer(config) as mailer:
                assert mailer.send(mail()).server.endswith(str(second.port))
                first.resume()
                mailer._router.upstreams[0].reset()
                mailer._router.upstreams[1].breaker.reset()
            assert len(second.messages) == 1


class TestLimiterThatFails:
    def test_it_is_the_error_of_this_send(self) -> None:
        answers: list[Callable[[], float]] = [lambda: {}["redis"], lambda: 0.0]  # type: ignore[index]
        with ScriptedServer() as server, mailer_to(server, rate=lambda: answers.pop(0)()) as mailer:
            with pytest.raises(RateUnavailable, match="KeyError: 'redis'"):
                mailer.send(mail("lost"))
            assert mailer.stats().lent == 0
            assert mailer.send(mail("sent"))
        assert senders(server) == ["sent"]

    def test_it_is_tried_again_as_retry_says(self) -> None:
        answers: list[Callable[[], float]] = [lambda: 1 / 0, lambda: 0.0]
        with ScriptedServer() as server, mailer_to(server, rate=lambda: answers.pop(0)(), retry=2) as mailer:
            assert mailer.send(mail()).attempts == 2

    def test_another_server_may_have_the_message(self) -> None:
        def fail() -> float:
            raise TimeoutError

        with ScriptedServer() as first, ScriptedServer() as second:
            servers = [
                {"host": "127.0.0.1", "port": first.port, "security": "none", "rate": fail, "priority": 1},
                {"host": "127.0.0.1", "port": second.port, "security": "none", "priority": 2},
            ]
            with Mailer(SMTPConfig(servers=servers)) as mailer:
                result = mailer.send(mail())
                assert [stats.failures for stats in mailer.server_stats()] == [0, 0]
            assert result.server.endswith(str(second.port))
            (error,) = result.failed_servers.values()
            assert isinstance(error, RateUnavailable)

    def test_the_others_of_a_batch_are_tried(self) -> None:
        answers: list[Callable[[], float]] = [lambda: 0.0, lambda: 1 / 0, lambda: 0.0]
        with ScriptedServer() as server, mailer_to(server, rate=lambda: answers.pop(0)()) as mailer:
            outcomes = mailer.send_many([mail(str(number)) for number in range(3)])
        assert [type(outcome) for outcome in outcomes] == [SendResult, RateUnavailable, SendResult]


class TestPriority:
    def test_a_high_one_overtakes_twenty_that_wait_for_the_rate(self) -> None:
        barrier = Barrier()
        with (
            ScriptedServer() as server,
            mailer_to(server, rate=barrier, pool={"max_size": 2}) as mailer,
            sending(mailer) as start,
        ):
            for number in range(20):
                start(mail(f"bulk{number}"))
            start(mail("high"), priority="high")
            barrier.permits = 1
            server.wait_for(lambda: server.messages)
            assert senders(server) == ["high"]
            barrier.permits = 21
        assert sorted(senders(server)[1:]) == sorted(f"bulk{number}" for number in range(20))

    def test_lanes_and_within_each_the_order_of_coming(self) -> None:
        barrier = Barrier()
        with (
            ScriptedServer() as server,
            mailer_to(server, rate=barrier, pool={"max_size": 1}) as mailer,
            sending(mailer) as start,
        ):
            start(mail("low1", priority="low"))
            start(mail("normal1"))
            start(mail("high1", priority="high"))
            start(mail("normal2", priority="high"), priority="normal")
            start(mail("high2"), priority="high")
            start(mail("low2", priority="low"))
            barrier.permits = 6
        assert senders(server) == ["high1", "high2", "normal1", "normal2", "low1", "low2"]

    def test_the_default_priority_is_that_of_messages_without_one(self) -> None:
        barrier = Barrier()
        with (
            ScriptedServer() as server,
            mailer_to(server, rate=barrier, pool={"max_size": 1}, defaults={"priority": "low"}) as mailer,
            sending(mailer) as start,
        ):
            start(mail("bulk"))
            start(mail("normal", priority="normal"))
            barrier.permits = 2
        assert senders(server) == ["normal", "bulk"]

    def test_a_high_one_overtakes_those_that_wait_for_a_connection(self) -> None:
        with ScriptedServer() as server, mailer_to(server, pool={"max_size": 1}) as mailer:
            with mailer.session() as session:
                session.send(mail("holder"))
                threads = []
                for number in range(20):
                    threads.append(threading.Thread(target=mailer.send, args=(mail(f"bulk{number}"),)))
                    threads[-1].start()
                until(lambda: mailer.stats().waiting == 20)
                threads.append(threading.Thread(target=mailer.send, args=(mail("high", priority="high"),)))
                threads[-1].start()
                until(lambda: mailer.stats().waiting == 21)
            for thread in threads:
                thread.join(PATIENCE)
        assert senders(server)[:2] == ["holder", "high"]
        assert len(server.messages) == 22

    @pytest.mark.parametrize(("priority", "place"), [("high", 1), ("normal", 3), ("low", 3)])
    def test_a_session_hands_its_connection_to_what_is_more_urgent(self, priority: Any, place: int) -> None:
        release = threading.Event()

        def held(message: ReceivedMessage) -> None:
            release.wait(PATIENCE)

        with (
            ScriptedServer(final_replies=held) as server,
            mailer_to(server, pool={"max_size": 1}, timeout=60) as mailer,
        ):

            def send_three() -> None:
                with mailer.session() as session:
                    for number in range(3):
                        session.send(mail(f"bulk{number}"))

            batch = threading.Thread(target=send_three)
            other = threading.Thread(target=mailer.send, args=(mail("other", priority=priority),))
            batch.start()
            until(lambda: mailer.stats().lent == 1)
            other.start()
            until(lambda: mailer.stats().waiting == 1)
            release.set()
            for thread in (batch, other):
                thread.join(PATIENCE)
        assert senders(server).index("other") == place
        assert len(server.messages) == 4
        assert len(server.connections) == 1

    def test_a_batch_has_one_priority(self) -> None:
        barrier = Barrier()
        with (
            ScriptedServer() as server,
            mailer_to(server, rate=barrier) as mailer,
            sending(mailer) as start,
        ):
            start(mail("normal"))
            batch = threading.Thread(
                target=mailer.send_many, args=([mail("a"), mail("b")],), kwargs={"priority": "high"}
            )
            batch.start()
            until(lambda: len(limiter_of(mailer).queue.waiters) == 2)
            barrier.permits = 1
            server.wait_for(lambda: server.messages)
            assert senders(server) == ["a"]
            barrier.permits = 3
            batch.join(PATIENCE)

    def test_what_is_no_priority_is_refused(self) -> None:
        with ScriptedServer() as server, mailer_to(server) as mailer:
            with pytest.raises(InvalidMessage, match="high, normal, low, not 'urgent'"):
                mailer.send(mail(), priority="urgent")  # type: ignore[arg-type]
            (outcome,) = mailer.send_many([mail()], priority="urgent")  # type: ignore[arg-type]
            assert isinstance(outcome, InvalidMessage)
            assert server.connections == ()


class TestThrottling:
    def sizes(self, mailer: Mailer) -> tuple[int | None, int]:
        stats = mailer.stats()
        return stats.effective_size, stats.reductions_total

    def test_a_server_that_ends_the_session_for_too_much(self) -> None:
        server = ScriptedServer(faults=[Fault("mail", "reply", reply="421 4.7.0 Too much mail")])
        with server, mailer_to(server) as mailer:
            with pytest.raises(MailbridgeError, match="421"):
                mailer.send(mail())
            assert self.sizes(mailer) == (1, 1)
            assert "reduced to 1" in repr(mailer)
            mailer.send(mail())

    def test_too_many_connections_at_once(self) -> None:
        """Four open, the fifth is told to go away: its message takes one of the four, and half a minute later
        there may be five again.
        """
        server = ScriptedServer(
            faults=[Fault("greeting", "reply", reply="421 Too many connections", connection=5)]
        )
        now = [time.monotonic()]
        config = SMTPConfig(host="127.0.0.1", port=server.start().port, security="none")
        with server, Mailer(config, clock=lambda: now[0]) as mailer:
            sessions = [mailer.session() for _ in range(5)]
            for each in sessions[:4]:
                each.__enter__().send(mail())
            with ThreadPoolExecutor() as threads:
                fifth = threads.submit(sessions[4].__enter__().send, mail())
                until(lambda: self.sizes(mailer) == (4, 1))
                assert not fifth.done()
                sessions[0].__exit__(None, None, None)
                fifth.result(PATIENCE)
            for each in sessions[1:]:
                each.__exit__(None, None, None)
            assert mailer.stats().idle == 4
            now[0] += 30
            assert self.sizes(mailer) == (5, 1)

    def test_too_many_logins_where_no_other_is_logged_in(self) -> None:
        """That says nothing of the number of connections."""
        server = ScriptedServer(
            users={"u": "p"},
            auth_in_clear=True,
            faults=[Fault("auth", "reply", reply="454 4.7.0 Too many login attempts")],
        )
        with server, mailer_to(server, username="u", password="p", auth="PLAIN") as mailer:
            with pytest.raises(MailbridgeError, match="454"):
                mailer.send(mail())
            assert self.sizes(mailer) == (5, 0)
            mailer.send(mail())

    @pytest.mark.parametrize(
        ("stage", "reply"),
        [
            ("rcpt", "450 4.2.0 Greylisted"),
            ("rcpt", "451 4.7.1 Greylisted"),
            ("mail", "421 4.4.2 Idle"),
            ("final", "550 5.7.1 Spam"),
        ],
    )
    def test_what_is_about_one_message_changes_nothing(self, stage: Any, reply: str) -> None:
        server = ScriptedServer(faults=[Fault(stage, "reply", reply=reply)])
        with server, mailer_to(server) as mailer:
            with pytest.raises(MailbridgeError):
                mailer.send(mail())
            assert self.sizes(mailer) == (5, 0)

    def test_the_end_of_an_idle_session_changes_nothing(self) -> None:
        server = ScriptedServer(faults=[Fault("mail", "reply", reply="421 Goodbye", occurrence=2)])
        with server, mailer_to(server) as mailer:
            mailer.send(mail())
            mailer.send(mail())
            assert self.sizes(mailer) == (5, 0)
        assert len(server.connections) == 2

    def test_who_waits_for_one_of_few_is_told_why(self) -> None:
        server = ScriptedServer(faults=[Fault("mail", "reply", reply="421 4.7.0 Too much mail")])
        with server, mailer_to(server, pool={"max_size": 2, "acquire_timeout": 0.05}) as mailer:
            with pytest.raises(MailbridgeError, match="421"):
                mailer.send(mail())
            with mailer.session() as session:
                session.send(mail())
                with pytest.raises(PoolTimeout, match="2 before the server asked for less"):
                    mailer.send(mail())


def test_a_rate_that_cannot_be_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"rate\.limit"):
        SMTPConfig(rate={"limit": "many"})
