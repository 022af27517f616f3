"""Many threads over few sessions: each message once, and never more connections than the pool may have."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailbridge import PoolTimeout, SendResult
from tests.integration.conftest import StartMailer
from tests.integration.mails import Mail, new_mail
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.fixtures import StartRelay
from tests.servers.postfix import REFUSED, Postfix

THREADS, EACH, SIZE = 20, 20, 5


@pytest.mark.parametrize("security", ["none", "starttls"])
def test_twenty_threads_over_five_sessions(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay, security: str
) -> None:
    between = relay(postfix.plain.address)
    client = mailer(between, security=security, pool={"max_size": SIZE, "max_messages": 1000})
    together = threading.Barrier(THREADS)
    mails = [[new_mail(to=["r@elsewhere.test"]) for _ in range(EACH)] for _ in range(THREADS)]

    def send(own: list[Mail]) -> list[SendResult]:
        together.wait(10)
        return [mail.send(client) for mail in own]

    with ThreadPoolExecutor(THREADS) as threads:
        results = [result for own in threads.map(send, mails, timeout=50) for result in own]
    sent = [mail.message_id for own in mails for mail in own]
    assert [result.message_id for result in results] == sent
    accepted = Counter(postfix.accepted_message_ids())
    assert {message_id: accepted[message_id] for message_id in sent} == dict.fromkeys(sent, 1)
    # Worn or broken sessions aside there is no reason to open more than these, ever.
    assert len(between.connections) <= SIZE
    assert len({result.connection_id for result in results}) == len(between.connections)
    stats = client.stats()
    assert (stats.lent, stats.waiting, stats.idle) == (0, 0, len(between.connections))


def test_with_refusals_and_cuts_in_between(postfix: Postfix, mailer: StartMailer, relay: StartRelay) -> None:
    """What was reported as sent was accepted once; what was reported as not sent, never."""
    between = relay(postfix.plain.address)
    client = mailer(between, pool={"max_size": SIZE})
    mails = [new_mail(to=[REFUSED if number % 7 == 0 else "r@elsewhere.test"]) for number in range(200)]

    one_at_a_time = threading.Lock()  # the relay takes its orders from one thread

    def send(numbered: tuple[int, Mail]) -> bool | None:
        number, mail = numbered
        if number % 50 == 25:
            with one_at_a_time:
                between.cut(reset=number % 100 == 25)
        try:
            return bool(mail.send(client).accepted)
        except ConnectionError as error:
            return None if error.outcome_unknown else False  # type: ignore[attr-defined]  # a MailbridgeError
        except OSError:
            return False

    with ThreadPoolExecutor(10) as threads:
        told = list(threads.map(send, enumerate(mails), timeout=50))
    accepted = Counter(postfix.accepted_message_ids())
    for mail, is_sent in zip(mails, told, strict=True):
        count = accepted[mail.message_id]
        assert count == is_sent if is_sent is not None else count <= 1
    assert told.count(True) > 100


def test_those_who_wait_too_long_are_told(postfix: Postfix, mailer: StartMailer) -> None:
    client = mailer(postfix.plain, pool={"max_size": 1, "acquire_timeout": 0.2})
    mail = new_mail()
    with client.session() as session:
        session.send(mail.content, envelope=mail.envelope)
        with pytest.raises(PoolTimeout) as raised:
            new_mail().send(client)
    assert isinstance(raised.value, TimeoutError)
    assert (raised.value.outcome_unknown, raised.value.is_transient) == (False, True)
    assert new_mail().send(client).connection_reused


def test_threads_that_log_in_share_sessions(postfix: Postfix, mailer: StartMailer, relay: StartRelay) -> None:
    between = relay(postfix.submission.address)
    client = mailer(between, security="starttls", username=USERNAME, password=PASSWORD)
    with ThreadPoolExecutor(10) as threads:
        futures = [threads.submit(new_mail().send, client) for _ in range(50)]
        assert all(future.result(30).accepted for future in futures)
    assert len(between.connections) <= SIZE
