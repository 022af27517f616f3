"""The login breaker: one failed login for many waiting messages, and a way back."""

import threading

import pytest

from mailbridge import AuthenticationFailed, DeadlineExceeded, Reply, TokenUnavailable
from mailbridge.deadline import NEVER, Deadline
from mailbridge.delivery.breakers import COOLDOWN, LoginBreaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusal(code: int = 535) -> AuthenticationFailed:
    return AuthenticationFailed(
        "The server refused the credentials", mechanism="PLAIN", reply=Reply(code, ("no",))
    )


def fail(breaker: LoginBreaker, code: int = 535) -> None:
    with pytest.raises(AuthenticationFailed), breaker.attempt(NEVER):
        raise refusal(code)


def test_a_refusal_is_remembered_and_told_again_without_a_login() -> None:
    clock = Clock()
    breaker = LoginBreaker(clock=clock)
    fail(breaker)
    clock.now = 10
    with pytest.raises(AuthenticationFailed, match=r"Not tried again.*in 50 s") as caught:
        breaker.check()
    assert (caught.value.smtp_code, caught.value.mechanism) == (535, "PLAIN")
    with pytest.raises(AuthenticationFailed), breaker.attempt(NEVER):
        pytest.fail("tried although the breaker is open")


def test_a_token_that_could_not_be_had_is_no_refusal() -> None:
    """Its hint says what to do, and the token source has a pause of its own, which is shorter."""
    breaker = LoginBreaker(clock=Clock())
    with pytest.raises(TokenUnavailable), breaker.attempt(NEVER):
        raise TokenUnavailable("No access token: invalid_grant", stage="token")
    breaker.check()
    with breaker.attempt(NEVER):
        pass


def test_each_caller_gets_an_error_of_its_own() -> None:
    breaker = LoginBreaker(clock=Clock())
    fail(breaker)
    errors = []
    for _ in range(2):
        with pytest.raises(AuthenticationFailed) as caught:
            breaker.check()
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_after_the_cooldown_one_more_is_tried() -> None:
    clock = Clock()
    breaker = LoginBreaker(clock=clock)
    fail(breaker)
    clock.now = COOLDOWN
    with breaker.attempt(NEVER):
        pass
    breaker.check()


def test_a_transient_refusal_opens_nothing() -> None:
    breaker = LoginBreaker(clock=Clock())
    fail(breaker, 454)
    breaker.check()


def test_other_failures_say_nothing_of_the_credentials() -> None:
    breaker = LoginBreaker(clock=Clock())
    with pytest.raises(ConnectionResetError), breaker.attempt(NEVER):
        raise ConnectionResetError
    breaker.check()


def test_fifty_waiting_logins_make_one_failed_one() -> None:
    breaker = LoginBreaker(clock=Clock())
    tries: list[int] = []
    outcomes: list[str] = []
    all_wait = threading.Barrier(50)

    def log_in() -> None:
        all_wait.wait(10)
        try:
            with breaker.attempt(NEVER):
                tries.append(1)
                raise refusal()
        except AuthenticationFailed as error:
            outcomes.append(str(error.smtp_code))

    run_together([log_in] * 50)
    assert len(tries) == 1
    assert outcomes == ["535"] * 50


def test_proven_credentials_log_in_side_by_side() -> None:
    breaker = LoginBreaker(clock=Clock())
    with breaker.attempt(NEVER):
        pass
    both_inside = threading.Barrier(2)

    def log_in() -> None:
        with breaker.attempt(NEVER):
            both_inside.wait(10)

    run_together([log_in, log_in])
    assert not both_inside.broken


def test_waiting_for_another_login_ends_with_the_deadline() -> None:
    clock = Clock()
    breaker = LoginBreaker(clock=clock)
    with breaker.attempt(NEVER):
        errors: list[BaseException] = []

        def log_in() -> None:
            try:
                with breaker.attempt(Deadline(clock.now, clock)):
                    pytest.fail("two logins at once with unproven credentials")
            except DeadlineExceeded as error:
                errors.append(error)

        run_together([log_in])
    assert [error.stage for error in errors if isinstance(error, DeadlineExceeded)] == ["auth"]


def test_a_reset_leaves_nobody_waiting() -> None:
    """`verify()` resets it when the credentials turn out to work; others may wait for a login just then."""
    breaker = LoginBreaker(clock=Clock())
    waits = threading.Event()
    done: list[int] = []

    def is_asked_when_it_waits() -> float:
        waits.set()
        return 0.0

    def log_in() -> None:
        with breaker.attempt(Deadline(1000.0, is_asked_when_it_waits)):
            done.append(1)

    def first() -> None:
        with breaker.attempt(NEVER):
            other.start()
            assert waits.wait(10)
            breaker.reset()

    other = threading.Thread(target=log_in, daemon=True)
    run_together([first])
    other.join(10)
    assert done == [1]


def test_reset_forgets() -> None:
    breaker = LoginBreaker(clock=Clock())
    fail(breaker)
    breaker.reset()
    breaker.check()


def run_together(works: list) -> None:  # type: ignore[type-arg]  # callables without arguments
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
