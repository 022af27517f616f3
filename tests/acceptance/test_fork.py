"""A forked child has its own sessions, says no byte on its parent's, and nothing of the parent's stops it.

The server is the judge: on which connection each message came, how often each said QUIT, and what
arrived there that is no SMTP. Python's fork runs the hooks of `os.register_at_fork`; fork in C, as
uWSGI calls it, runs none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mailbridge.testing import Fault, ReceivedMessage, ScriptedServer
from tests.acceptance.programs import (
    SECONDS,
    THREADS_AND_FORK,
    disturbances,
    goodbyes,
    messages_by_connection,
    options_for,
    run,
    server_over,
)
from tests.acceptance.sending import PASSWORD, USER, committed, number_of
from tests.servers.certificates import Certificates

both_forks = pytest.mark.parametrize("fork", ["python", "c"])
# In clear text by both; which fork it was makes no difference to TLS, nor the version of TLS to a fork.
each_way = pytest.mark.parametrize(
    ("channel", "fork"), [("clear", "python"), ("clear", "c"), ("tls1.2", "python"), ("tls1.3", "c")]
)
# What a child may do with what it has inherited.
ACTS = (
    "mailer_for(CONFIG).close()",
    "mailbridge.close_all(drain=1)",
    "mailer_for(CONFIG).connect()",
    "mailer_for(CONFIG).verify()",
    "held.close()",
    "held.stats(), repr(held), held.closed",
    "session.release()",
    "connection.close()",
    "connection.abandon()",
    "connection.noop()",
    "connection.unusable_reason()",
)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.mark.matrix
@each_way
def test_the_parents_session_outlives_its_children(
    channel: str, fork: str, certificates: Certificates
) -> None:
    """Children that end by sys.exit, by an exception and by os._exit, each after a send of its own."""
    program = """
        def child(number, end):
            pid = FORKS[sys.argv[1]]()
            if pid == 0:
                signal.alarm(SECONDS)
                sys.excepthook = lambda *_: None
                send(number)
                end()
            return pid

        def fail():
            raise ValueError("on purpose")

        send(1)
        check_exit(child(2, lambda: sys.exit(0)))
        send(3)
        check_exit(child(4, fail), 1)
        send(5)
        check_exit(child(6, lambda: os._exit(0)))
        send(7)
    """
    with server_over(channel, certificates) as server:
        run(program, options_for(server, certificates), fork)
        assert goodbyes(server) == [1, 1, 1, 0]
        assert messages_by_connection(server) == {1: [1, 3, 5, 7], 2: [2], 3: [4], 4: [6]}
        assert disturbances(server) == []


@each_way
def test_a_child_that_exits_at_once_is_not_even_noticed(
    channel: str, fork: str, certificates: Certificates
) -> None:
    """The exit handler that a child inherits has nothing to close: the sessions are its parent's."""
    program = """
        own = Mailer(CONFIG)
        send(1)
        send(2, own)
        pid = FORKS[sys.argv[1]]()
        if pid == 0:
            sys.exit(0)
        check_exit(pid)
        send(3)
        send(4, own)
    """
    with server_over(channel, certificates) as server:
        run(program, options_for(server, certificates), fork)
        assert goodbyes(server) == [1, 1]
        assert messages_by_connection(server) == {1: [1, 3], 2: [2, 4]}
        assert disturbances(server) == []


@both_forks
def test_nothing_that_a_child_does_reaches_the_parents_sessions(
    fork: str, certificates: Certificates
) -> None:
    program = """
        def child(act):
            try:
                eval(act)
            except mailbridge.ConnectionLost:
                assert act == "connection.noop()", "only who uses an inherited session is told"
            except BaseException as error:
                error.add_note(act)
                raise

        send(1)
        held = mailer_for(CONFIG)
        own = Mailer(CONFIG)
        connection = SMTPConnection(CONFIG)
        connection.connect()
        with own.session() as session:
            for number, act in enumerate(sys.argv[2:]):
                in_child(lambda: child(act), FORKS[sys.argv[1]])
                session.send(message(100 + number), envelope=envelope())
                send(200 + number)
                connection.send(envelope(), message(300 + number))
        connection.quit()
    """
    with server_over("tls1.3", certificates) as server:
        run(program, options_for(server, certificates), fork, *ACTS)
        assert goodbyes(server)[:3] == [1, 1, 1]
        found = messages_by_connection(server)
        own, mailers, bare = ([first + number for number in range(len(ACTS))] for first in (100, 200, 300))
        assert (found[1], found[2], found[3]) == ([1, *mailers], bare, own)
        assert disturbances(server) == []


@each_way
def test_a_session_taken_before_the_fork_is_replaced_in_the_child(
    channel: str, fork: str, certificates: Certificates
) -> None:
    """Parent and child go on inside the same `with mailer.session()`, each on a connection of its own."""
    program = """
        def child():
            session.send(message(2), envelope=envelope())
            session.send(message(3), envelope=envelope())
            session.release()
            own.close()

        own = Mailer(CONFIG)
        with own.session() as session:
            session.send(message(1), envelope=envelope())
            in_child(child, FORKS[sys.argv[1]])
            session.send(message(4), envelope=envelope())
    """
    with server_over(channel, certificates) as server:
        run(program, options_for(server, certificates), fork)
        assert goodbyes(server) == [1, 1]
        assert messages_by_connection(server) == {1: [1, 4], 2: [2, 3]}
        assert disturbances(server) == []


@both_forks
def test_a_mailer_that_a_child_holds_is_the_one_that_it_is_given(fork: str, server: ScriptedServer) -> None:
    """So that both together keep to one max_size, and its sessions are closed at the child's exit."""
    program = """
        mailer = mailer_for(CONFIG)
        send(1, mailer)
        pid = FORKS[sys.argv[1]]()
        if pid == 0:
            signal.alarm(SECONDS)
            send(2, mailer)
            send(3)
            sys.exit(0)
        check_exit(pid)
    """
    run(program, options_for(server), fork)
    assert goodbyes(server) == [1, 1]
    assert messages_by_connection(server) == {1: [1], 2: [2, 3]}


@both_forks
def test_a_child_does_not_hold_its_parents_connections_open(fork: str, server: ScriptedServer) -> None:
    """It lets go of them at the fork; where no hooks run, with the first look at their mailer."""
    program = """
        def child():
            if sys.argv[1] == "c":
                assert len(sockets()) == 2
                mailer_for(CONFIG).stats(), own.stats()
            assert not sockets()

        def sockets():
            links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
            return [link for link in links if os.path.exists(link) and "socket:" in os.readlink(link)]

        own = Mailer(CONFIG)
        send(1)
        send(2, own)
        in_child(child, FORKS[sys.argv[1]])
        send(3)
        send(4, own)
    """
    run(program, options_for(server), fork)
    assert messages_by_connection(server) == {1: [1, 3], 2: [2, 4]}


@both_forks
def test_each_generation_has_its_own_sessions(fork: str, server: ScriptedServer) -> None:
    program = """
        fork = FORKS[sys.argv[1]]

        def child():
            send(2)
            in_child(lambda: send(3), fork)
            in_threads([lambda: in_child(lambda: send(4), fork)])
            send(5)

        send(1)
        in_child(child, fork)
        send(6)
    """
    run(program, options_for(server), fork, flags=THREADS_AND_FORK)
    assert messages_by_connection(server) == {1: [1, 6], 2: [2, 5], 3: [3], 4: [4]}


REGISTRY = "registry._registry._lock.get()"
POOL = "mailer_for(CONFIG)._router.upstreams[0].pool.here().lock"
BREAKER = "mailer_for(CONFIG)._router.upstreams[0].login_breaker._experiences.get().changed"
STRPTIME = "__import__('_strptime')._cache_lock"  # the standard library's, and not freed by a fork
LOG_HANDLER = "handler.lock"


@pytest.mark.parametrize(
    ("lock", "fork"),
    [
        *((lock, fork) for lock in (REGISTRY, POOL, BREAKER, STRPTIME) for fork in ("python", "c")),
        (LOG_HANDLER, "python"),  # its locks are logging's own business, which hooks Python's fork only
    ],
)
def test_a_lock_held_while_forking_stops_no_child(lock: str, fork: str, certificates: Certificates) -> None:
    program = """
        from mailbridge import registry

        def hold():
            with eval(sys.argv[2]):
                held.set()
                release.wait(SECONDS)

        def child():
            send(2)
            send(3)
            mailbridge.close_all(drain=1)

        handler = logging.FileHandler(os.devnull)
        logging.getLogger("mailbridge").addHandler(handler)
        logging.getLogger("mailbridge").setLevel(logging.DEBUG)
        send(1)
        held, release = threading.Event(), threading.Event()
        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(SECONDS)
        in_child(child, FORKS[sys.argv[1]])
        assert holder.is_alive(), "the lock was held all the time"
        release.set()
        holder.join(SECONDS)
        send(4)
        logging.getLogger("mailbridge").removeHandler(handler)
        handler.close()
    """
    with server_over("tls1.3", certificates, users={USER: PASSWORD}) as server:
        options = options_for(server, certificates, username=USER, password=PASSWORD, debug=True)
        run(program, options, fork, lock, flags=THREADS_AND_FORK)
        assert messages_by_connection(server) == {1: [1, 4], 2: [2, 3]}


@both_forks
def test_a_child_of_a_process_in_the_middle_of_a_send(fork: str) -> None:
    program = """
        sender = threading.Thread(target=send, args=(1,))
        sender.start()
        while mailer_for(CONFIG).stats().lent == 0:
            time.sleep(0.001)
        in_child(lambda: send(2), FORKS[sys.argv[1]])
        sender.join(SECONDS)
        send(3)
    """
    child_has_sent = threading.Event()

    def reply_when_the_child_has_sent(received: ReceivedMessage) -> None:
        if number_of(received.content) == 2:
            child_has_sent.set()
        assert child_has_sent.wait(SECONDS)

    with ScriptedServer(final_replies=reply_when_the_child_has_sent) as server:
        run(program, options_for(server), fork, flags=THREADS_AND_FORK)
        assert messages_by_connection(server) == {1: [1, 3], 2: [2]}


@both_forks
def test_a_child_does_not_wait_for_a_login_of_its_parent(fork: str) -> None:
    """Until credentials have worked once, one login at a time is tried; but in each process."""
    program = """
        threading.Thread(target=send, args=(1,), daemon=True).start()
        while mailer_for(CONFIG)._router.upstreams[0].login_breaker._experiences.get().is_trying is False:
            time.sleep(0.001)
        in_child(lambda: send(2), FORKS[sys.argv[1]])
    """
    never = Fault("auth", "silence")
    with ScriptedServer(users={USER: PASSWORD}, faults=[never]) as server:
        options = options_for(server, username=USER, password=PASSWORD)
        run(program, options, fork, flags=THREADS_AND_FORK)
        assert messages_by_connection(server) == {1: [], 2: [2]}


def test_children_of_a_process_whose_threads_send_all_the_time(certificates: Certificates) -> None:
    """Whatever lock or session a thread has at the moment of a fork: no child hangs, none is disturbed.

    Not for fork in C: CPython itself may never switch threads again in a child that was forked so
    while others wanted to run.
    """
    program = """
        children = 60
        ended = threading.Event()
        numbers = iter(range(1000, 10**6))

        def keep_sending():
            while not ended.is_set():
                with Mailer(CONFIG) as own:  # opens and closes: TLS contexts, sessions, the breaker
                    send(next(numbers), own)
                send(next(numbers))

        def fork_all():
            for number in range(children):
                in_child(lambda: send(number))
            ended.set()

        sys.setswitchinterval(1e-5)
        in_threads([fork_all, keep_sending, keep_sending])
        print(next(numbers))
    """
    with server_over("tls1.3", certificates, users={USER: PASSWORD}) as server:
        options = options_for(server, certificates, username=USER, password=PASSWORD)
        ended = run(program, options, flags=THREADS_AND_FORK)
        sent = [*range(60), *range(1000, int(ended.stdout))]
        assert committed(server) == dict.fromkeys(sent, 1)
        assert disturbances(server) == []


@both_forks
def test_a_childs_threads_share_its_first_session(fork: str, server: ScriptedServer) -> None:
    """All come at once to the registry, breaker and pool of another process: one opens, the others wait."""
    program = """
        sys.setswitchinterval(1e-6)
        fork = FORKS[sys.argv[1]]
        send(0)
        for child in range(1, 11):
            in_child(lambda: in_threads([lambda n=n: send(10 * child + n) for n in range(8)]), fork)
    """
    run(program, options_for(server, pool={"max_size": 1}), fork, flags=THREADS_AND_FORK)
    found = messages_by_connection(server)
    assert {number: sorted(sent) for number, sent in found.items()} == {1: [0]} | {
        child + 1: [10 * child + n for n in range(8)] for child in range(1, 11)
    }


@pytest.mark.matrix
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, server: ScriptedServer) -> None:
    program = """
        context = multiprocessing.get_context(sys.argv[1])
        send(1)
        process = context.Process(target=send, args=(2,))
        process.start()
        process.join(SECONDS)
        assert process.exitcode == 0
        send(3)
        with context.Pool(2) as pool:
            pool.map(send, [4, 5])
            pool.close()
            pool.join()
        send(6)
        with concurrent.futures.ProcessPoolExecutor(2, context) as executor:
            list(executor.map(send, [7, 8]))
        send(9)
    """
    run(program, options_for(server), method, flags=THREADS_AND_FORK)
    found = messages_by_connection(server)
    assert found.pop(1) == [1, 3, 6, 9]
    assert found.pop(2) == [2]
    assert sorted(number for sent in found.values() for number in sent) == [4, 5, 7, 8]
    assert goodbyes(server)[0] == 1
    assert disturbances(server) == []
