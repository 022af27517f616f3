"""A forked child says nothing on its parent's sessions, and no lock of the parent's stops it.

Each test is a program of its own with a time limit. Its things are real sockets, so that the parent can
see from the other end whether a byte was written. Python's fork runs the hooks of `os.register_at_fork`;
fork in C, as uWSGI calls it, runs none.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 30  # for a program that takes well below one

PRELUDE = '''
import atexit, ctypes, multiprocessing, os, signal, socket, sys, threading, traceback
from mailbridge.errors import PoolClosed
from mailbridge.config.groups import PoolOptions
from mailbridge.pool import Pool

FORKS = {"python": os.fork, "c": ctypes.CDLL(None).fork}
SECONDS = 20
signal.alarm(SECONDS)


class Session:
    """One end of a socket pair. `far` is the server's end, which only the process that opened it reads."""

    def __init__(self):
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.opened_by = os.getpid()
        self.looks = self.closes = self.abandons = 0

    def unusable_reason(self):
        self.looks += 1  # a look reads: in a child it would take the parent's bytes
        return None

    def close(self):
        self.closes += 1
        if self.near.fileno() >= 0:
            self.near.send(b"QUIT")
            self.near.close()

    def abandon(self):
        self.abandons += 1
        self.near.close()

    def heard(self):
        """What the server's end got: bytes, b"" for end of file, None for silence."""
        try:
            return self.far.recv(100)
        except BlockingIOError:
            return None


opened = []


def open_session(deadline):
    opened.append(Session())
    return opened[-1]


pool = Pool(open_session, PoolOptions(max_size=3, acquire_timeout=5.0), name="smtp.example.com:587")


def in_child(act, fork=os.fork):
    """Runs act in a forked child and checks that it went well there."""
    pid = fork()
    if pid == 0:
        signal.alarm(SECONDS)  # a child does not inherit it
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert pid > 0
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def one_idle_one_lent():
    lent, idle = pool.acquire(), pool.acquire()
    pool.release(idle, reusable=True)
    return lent, idle


def check_parent(lent, idle):
    """The parent goes on with the sessions it had, and their servers heard nothing."""
    for session in (lent.connection, idle.connection):
        assert session.heard() is None
        assert (session.closes, session.abandons) == (0, 0)
        session.near.send(b"NOOP")
        assert session.heard() == b"NOOP"
    assert (pool.stats().lent, pool.stats().idle) == (1, 1)
    again = pool.acquire()
    assert again.connection is idle.connection
    pool.release(again, reusable=True)
    pool.release(lent, reusable=True)
    assert len(opened) == 2
'''


def run(program: str, *arguments: str) -> None:
    # Warnings are errors here too, but for the one that Python 3.12 has for every fork beside a thread.
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c"]
    done = subprocess.run(
        [*command, PRELUDE + textwrap.dedent(program), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


both_forks = pytest.mark.parametrize("fork", ["python", "c"])


@both_forks
def test_a_child_opens_its_own_sessions(fork: str) -> None:
    run(
        """
        def child():
            assert repr(pool) == "<Pool smtp.example.com:587 lent=0 idle=0 opening=0 waiting=0 max=3>"
            assert [(s.closes, s.abandons) for s in opened] == [(0, 1), (0, 1)]
            with pool.acquire() as lease:
                assert lease.connection.opened_by == os.getpid()
            assert pool.acquire().connection is lease.connection
            stats = pool.stats()
            assert (stats.opened_total, stats.reused_total, stats.size) == (1, 1, 1)

        lent, idle = one_idle_one_lent()
        in_child(child, FORKS[sys.argv[1]])
        check_parent(lent, idle)
        print("done")
        """,
        fork,
    )


@both_forks
@pytest.mark.parametrize(
    "call",
    [
        "pool.acquire()",
        "pool.close()",
        "pool.close(drain=5)",
        "pool.discard_idle()",
        "pool.stats()",
        "pool.forget()",
    ],
)
def test_whatever_a_child_calls_first_the_parents_sessions_live(fork: str, call: str) -> None:
    run(
        """
        def child():
            exec(sys.argv[2])
            assert [(s.closes, s.abandons) for s in opened[:2]] == [(0, 1), (0, 1)]
            assert all(s.near.fileno() == -1 for s in opened[:2]), "let go of in the child"

        lent, idle = one_idle_one_lent()
        in_child(child, FORKS[sys.argv[1]])
        check_parent(lent, idle)
        print("done")
        """,
        fork,
        call,
    )


@both_forks
@pytest.mark.parametrize("reusable", ["True", "False"])
def test_a_lease_from_before_the_fork_is_let_go_of_in_the_child(fork: str, reusable: str) -> None:
    run(
        """
        def child():
            pool.release(lent, reusable=eval(sys.argv[2]))
            pool.release(lent, reusable=eval(sys.argv[2]))
            assert (lent.connection.looks, lent.connection.closes, lent.connection.abandons) == (0, 0, 1)
            assert pool.stats().size == 0

        lent, idle = one_idle_one_lent()
        in_child(child, FORKS[sys.argv[1]])
        check_parent(lent, idle)
        print("done")
        """,
        fork,
        reusable,
    )


@both_forks
def test_a_lease_from_before_the_fork_is_not_used_again_in_the_child(fork: str) -> None:
    run(
        """
        def child():
            assert not lent.use_again()

        lent, idle = one_idle_one_lent()
        in_child(child, FORKS[sys.argv[1]])
        assert lent.use_again()
        check_parent(lent, idle)
        print("done")
        """,
        fork,
    )


@both_forks
def test_a_lock_that_another_thread_holds_while_forking_stops_nobody(fork: str) -> None:
    run(
        """
        def hold():
            with lent.ledger.lock:
                held.set()
                release.wait(SECONDS)

        def child():
            pool.release(lent, reusable=True)
            assert pool.stats().size == 0
            with pool.acquire() as lease:
                assert lease.connection is not idle.connection
            pool.discard_idle()
            repr(pool)
            pool.forget()
            pool.close(drain=1)
            assert pool.closed

        lent, idle = one_idle_one_lent()
        held, release = threading.Event(), threading.Event()
        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        assert held.wait(SECONDS)
        in_child(child, FORKS[sys.argv[1]])
        assert holder.is_alive(), "the lock was held all the time"
        release.set()
        holder.join(SECONDS)
        check_parent(lent, idle)
        print("done")
        """,
        fork,
    )


@both_forks
def test_a_child_that_exits_at_once_runs_inherited_exit_handlers_without_a_byte(fork: str) -> None:
    run(
        """
        lent, idle = one_idle_one_lent()
        atexit.register(pool.close, 1.0)
        pid = FORKS[sys.argv[1]]()
        if pid == 0:
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        check_parent(lent, idle)
        pool.close()
        assert idle.connection.heard() == lent.connection.heard() == b"QUIT"
        print("done")
        """,
        fork,
    )


@both_forks
def test_a_queue_is_not_inherited(fork: str) -> None:
    run(
        """
        def wait():
            lease = pool.acquire()
            got.append(lease.connection)

        def child():
            assert pool.stats().waiting == 0
            assert len([pool.acquire() for _ in range(3)]) == 3

        leases = [pool.acquire() for _ in range(3)]
        got = []
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        while pool.stats().waiting == 0:
            pass
        in_child(child, FORKS[sys.argv[1]])
        pool.release(leases[1], reusable=True)
        waiter.join(SECONDS)
        assert got == [leases[1].connection]
        assert got[0].heard() is None
        print("done")
        """,
        fork,
    )


@both_forks
def test_a_pool_closed_before_the_fork_stays_closed(fork: str) -> None:
    run(
        """
        def child():
            assert pool.closed
            try:
                pool.acquire()
            except PoolClosed:
                return
            raise AssertionError("lent by a closed pool")

        pool.close()
        in_child(child, FORKS[sys.argv[1]])
        print("done")
        """,
        fork,
    )


@both_forks
def test_a_grandchild_forgets_both(fork: str) -> None:
    run(
        """
        def grandchild():
            assert pool.stats().size == 0
            with pool.acquire() as lease:
                assert lease.connection.opened_by == os.getpid()
            assert [s.closes for s in opened[:-1]] == [0, 0, 0]

        def child():
            lease = pool.acquire()
            in_child(grandchild, FORKS[sys.argv[1]])
            assert lease.connection.heard() is None
            pool.release(lease, reusable=True)
            assert pool.stats().idle == 1

        lent, idle = one_idle_one_lent()
        in_child(child, FORKS[sys.argv[1]])
        check_parent(lent, idle)
        print("done")
        """,
        fork,
    )


def test_threads_of_a_child_that_come_first_at_once_get_the_same_books() -> None:
    run(
        """
        def child():
            sys.setswitchinterval(1e-6)
            start = threading.Barrier(8)
            leases = []

            def use():
                start.wait(SECONDS)
                with pool.acquire() as lease:
                    leases.append(lease)

            threads = [threading.Thread(target=use) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SECONDS)
            assert len({id(lease.ledger) for lease in leases}) == 1
            assert len(leases) == 8
            assert [s.abandons for s in opened[:2]] == [1, 1]
            assert len(opened) - 2 == pool.stats().size <= 3

        lent, idle = one_idle_one_lent()
        for _ in range(20):
            in_child(child)
        check_parent(lent, idle)
        print("done")
        """
    )


def test_multiprocessing() -> None:
    run(
        """
        def child():
            with pool.acquire() as lease:
                assert lease.connection.opened_by == os.getpid()
            pool.close()

        lent, idle = one_idle_one_lent()
        atexit.register(pool.close)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(SECONDS)
        assert process.exitcode == 0
        check_parent(lent, idle)
        print("done")
        """
    )


def test_a_hook_may_forget_before_the_pool_is_used() -> None:
    run(
        """
        os.register_at_fork(after_in_child=pool.forget)

        def child():
            assert [s.abandons for s in opened] == [1, 1]
            assert pool.stats().size == 0

        lent, idle = one_idle_one_lent()
        in_child(child)
        check_parent(lent, idle)
        print("done")
        """
    )


def test_no_thread_is_started() -> None:
    run(
        """
        for _ in range(100):
            with pool.acquire():
                pass
        assert threading.enumerate() == [threading.main_thread()]
        pool.close()
        print("done")
        """
    )
