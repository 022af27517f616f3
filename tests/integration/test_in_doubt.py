"""The answer to the final dot that never comes: the outcome is unknown, and nothing goes a second time."""

from __future__ import annotations

import smtplib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mailbridge import ConnectionLost, MailbridgeError, Mailer, RecipientsRefused, SendResult
from tests.integration.conftest import StartMailer
from tests.integration.mails import INBOX, Mail, new_mail
from tests.servers.exim import Exim
from tests.servers.fixtures import StartRelay
from tests.servers.postfix import REFUSED, SMALL_RECIPIENTS, Postfix
from tests.servers.process import wait_until

EAGER_RETRY = {"attempts": 5, "first_delay": 0.0}
ANSWER_OF_POSTFIX = b"queued as"
ANSWER_OF_EXIM = b"250 OK id="
RELAY_DELAY = 0.2  # seconds in which the relay has the answer and the client has not


def fails_in_doubt(mailer: Mailer, mail: Mail, **options: Any) -> MailbridgeError:
    with pytest.raises(MailbridgeError) as raised:
        mail.send(mailer, **options)
    error = raised.value
    assert type(error) is ConnectionLost
    assert isinstance(error, smtplib.SMTPServerDisconnected)
    assert isinstance(error, ConnectionError)
    assert (error.outcome_unknown, error.is_transient, error.stage) == (True, False, "final")
    assert error.attempts == ()
    assert "Whether the server took the message is unknown" in str(error)
    assert mailer.stats().size == 0
    return error


@pytest.mark.parametrize("service", ["plain", "minimal"])
@pytest.mark.parametrize("size", [10, 300_000], ids=["small", "large"])
def test_on_a_new_session(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay, service: str, size: int
) -> None:
    between = relay(getattr(postfix, service).address, cut_before=ANSWER_OF_POSTFIX)
    client, mail = mailer(between, retry=EAGER_RETRY), new_mail((b"x" * 70 + b"\r\n") * (size // 72 + 1))
    fails_in_doubt(client, mail)
    assert postfix.delivered(mail.message_id) == [mail.content]
    assert len(between.connections) == 1


def test_on_a_reused_session_there_is_no_replay(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay
) -> None:
    between = relay(postfix.plain.address, cut_before=ANSWER_OF_POSTFIX)
    client, mail = mailer(between, retry=EAGER_RETRY), new_mail()
    with pytest.raises(RecipientsRefused):
        new_mail(to=[REFUSED]).send(client)
    assert client.stats().idle == 1
    fails_in_doubt(client, mail)
    assert postfix.accepted_message_ids().count(mail.message_id) == 1
    assert len(between.connections) == 1


def test_with_exim(exim: Exim, mailer: StartMailer, relay: StartRelay) -> None:
    between = relay(exim.plain.address, cut_before=ANSWER_OF_EXIM)
    mail = new_mail()
    fails_in_doubt(mailer(between, retry=EAGER_RETRY), mail)
    assert exim.delivered(mail.message_id) == [mail.content]


def test_the_session_after_it_is_a_new_one_and_works(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay
) -> None:
    """The answer is under way when the line is cut, so that later answers pass."""
    between = relay(postfix.plain.address, delay=RELAY_DELAY)
    client, lost, following = mailer(between, retry=EAGER_RETRY), new_mail(), new_mail()
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(fails_in_doubt, client, lost)
        # EHLO, the flight, the content
        assert wait_until(lambda: between.round_trips == 3, 10, every=0.001)
        between.cut()
        sending.result(10)
    assert not following.send(client).connection_reused
    for mail in (lost, following):
        assert postfix.delivered(mail.message_id) == [mail.content]
    assert len(between.connections) == 2


def test_each_message_of_a_batch_has_its_own_outcome(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay
) -> None:
    between = relay(postfix.plain.address, cut_before=ANSWER_OF_POSTFIX)
    mails = [new_mail(to=[REFUSED]), new_mail(), new_mail(to=[REFUSED]), new_mail()]
    outcomes = mailer(between).send_many([(mail.content, mail.envelope) for mail in mails])
    assert [type(outcome) for outcome in outcomes] == [RecipientsRefused, ConnectionLost] * 2
    assert [getattr(outcome, "outcome_unknown", None) for outcome in outcomes] == [False, True] * 2
    accepted = postfix.accepted_message_ids()
    assert [accepted.count(mail.message_id) for mail in mails] == [0, 1, 0, 1]


def test_with_more_recipients_than_fit_one_transaction(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay
) -> None:
    """The first ones have it, the others never do: a second whole send would reach the first ones twice."""
    between = relay(postfix.small.address, cut_before=ANSWER_OF_POSTFIX)
    mail = new_mail(to=[f"r{number}@lab.test" for number in range(SMALL_RECIPIENTS + 10)])
    fails_in_doubt(mailer(between, retry=EAGER_RETRY), mail)
    copies = postfix.copies(mail.message_id)
    assert len(copies) == SMALL_RECIPIENTS
    assert len({copy.recipients for copy in copies}) == SMALL_RECIPIENTS


def test_what_is_cut_before_the_content_is_not_in_doubt(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay
) -> None:
    """354 never arrives: the server has the recipients and no message."""
    between = relay(postfix.plain.address, cut_before=b"354 End data")
    client, mail = mailer(between, retry={"attempts": 3, "first_delay": 0.0}), new_mail()
    with pytest.raises(ConnectionLost) as raised:
        mail.send(client)
    assert (raised.value.outcome_unknown, raised.value.is_transient) == (False, True)
    assert [type(error) for error in raised.value.attempts] == [ConnectionLost] * 2
    assert len(between.connections) == 3  # a retry that was asked for, and safe
    assert mail.message_id not in postfix.accepted_message_ids()


def test_a_retry_that_was_asked_for_delivers_once(
    postfix: Postfix, mailer: StartMailer, relay: StartRelay
) -> None:
    between = relay(postfix.plain.address)
    pauses: list[float] = []
    client = mailer(between, retry={"attempts": 3, "first_delay": 2.0, "jitter": 0.0})
    client._sleep = pauses.append  # no test sleeps to be right
    refused = new_mail(to=["later@lab.test"])
    with pytest.raises(RecipientsRefused) as raised:
        refused.send(client)
    assert (len(raised.value.attempts), pauses) == (2, [2.0, 4.0])
    mail = new_mail(to=[INBOX])
    outcome = mail.send(client)
    assert isinstance(outcome, SendResult)
    assert (outcome.attempts, outcome.connection_reused) == (1, True)
    assert postfix.accepted_message_ids().count(mail.message_id) == 1
