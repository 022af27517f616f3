"""What real servers refuse, who gets the message all the same, and that the session goes on."""

from __future__ import annotations

import logging
import smtplib

import pytest

from mailbridge import (
    Mailer,
    MessageRefused,
    MessageTooLarge,
    RecipientsRefused,
    Refused,
    SenderRefused,
    SendResult,
)
from tests.integration.conftest import StartMailer
from tests.integration.mails import INBOX, Mail, addresses, new_mail
from tests.servers.dovecot import PASSWORD, USERNAME, Dovecot
from tests.servers.exim import RECIPIENT_LIMIT, Exim
from tests.servers.fixtures import StartRelay, StartSmtpSink
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import (
    GREYLISTED,
    OVER_QUOTA,
    RECIPIENT_ANSWERS,
    REFUSED,
    SMALL_LIMIT,
    SMALL_RECIPIENTS,
    Postfix,
)
from tests.servers.process import Endpoint

OTHER = "other@lab.test"


@pytest.fixture
def postfix_mailer(postfix: Postfix, mailer: StartMailer) -> Mailer:
    return mailer(postfix.plain)


def receivers(postfix: Postfix, mail: Mail) -> list[str]:
    """Each stored copy by its recipient: one that got it twice stands here twice."""
    return sorted(copy.recipients[0] for copy in postfix.copies(mail.message_id))


def goes_on(mailer: Mailer, postfix: Postfix) -> bool:
    """The next message takes the same session and arrives, and only where it should."""
    mail = new_mail()
    result = mail.send(mailer)
    return (result.connection_reused, mailer.stats().opened_total) == (True, 1) and receivers(
        postfix, mail
    ) == [INBOX]


class TestAllRefused:
    @pytest.mark.parametrize(("address", "answer"), RECIPIENT_ANSWERS.items())
    def test_one_recipient(self, postfix: Postfix, postfix_mailer: Mailer, address: str, answer: str) -> None:
        mail = new_mail(to=[address])
        with pytest.raises(RecipientsRefused) as raised:
            mail.send(postfix_mailer)
        error, code = raised.value, int(answer[:3])
        assert isinstance(error, smtplib.SMTPRecipientsRefused)
        assert error.rejected[address].code == error.recipients[address][0] == code
        assert answer[4:9] in str(error)
        assert address in str(error)
        assert error.stage == "rcpt_to"
        assert error.is_transient == (code < 500)
        assert not error.outcome_unknown
        assert mail.message_id not in postfix.accepted_message_ids()
        assert goes_on(postfix_mailer, postfix)

    def test_several_recipients_each_with_its_answer(self, postfix: Postfix, postfix_mailer: Mailer) -> None:
        with pytest.raises(RecipientsRefused) as raised:
            new_mail(to=RECIPIENT_ANSWERS).send(postfix_mailer)
        assert {address: reply.code for address, reply in raised.value.rejected.items()} == {
            REFUSED: 550,
            OVER_QUOTA: 452,
            GREYLISTED: 450,
        }
        assert raised.value.is_transient
        assert goes_on(postfix_mailer, postfix)

    @pytest.mark.parametrize("service", ["plain", "minimal"])
    def test_again_and_again_on_one_session(
        self, postfix: Postfix, mailer: StartMailer, service: str
    ) -> None:
        client = mailer(getattr(postfix, service))
        for _ in range(5):
            with pytest.raises(RecipientsRefused):
                new_mail(to=[REFUSED]).send(client)
            assert new_mail().send(client).accepted == (INBOX,)
        assert client.stats().opened_total == 1

    def test_exim_refuses(self, exim: Exim, mailer: StartMailer) -> None:
        client, mail = mailer(exim.plain), new_mail(to=["gone@lab.test", "later@lab.test"])
        with pytest.raises(RecipientsRefused) as raised:
            mail.send(client)
        assert [reply.code for reply in raised.value.rejected.values()] == [550, 451]
        assert new_mail().send(client).connection_reused
        assert mail.message_id not in exim.accepted_message_ids()


class TestSomeRefused:
    def test_the_others_get_it(
        self, postfix: Postfix, postfix_mailer: Mailer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "mailbridge")
        mail = new_mail(to=[REFUSED, INBOX, OVER_QUOTA, OTHER, GREYLISTED])
        result = mail.send(postfix_mailer)
        assert result.accepted == (INBOX, OTHER)
        assert {address: reply.code for address, reply in result.rejected.items()} == {
            REFUSED: 550,
            OVER_QUOTA: 452,
            GREYLISTED: 450,
        }
        assert receivers(postfix, mail) == [INBOX, OTHER]
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert REFUSED in record.getMessage()
        assert goes_on(postfix_mailer, postfix)

    @pytest.mark.parametrize("service", ["plain", "minimal"])
    def test_nobody_gets_it_with_all_or_none(
        self, postfix: Postfix, mailer: StartMailer, service: str
    ) -> None:
        client = mailer(getattr(postfix, service), partial="all-or-none")
        already = len(postfix.accepted_message_ids())
        with pytest.raises(RecipientsRefused) as raised:
            new_mail(to=[INBOX, REFUSED, OTHER]).send(client)
        assert list(raised.value.rejected) == [REFUSED]
        assert len(postfix.accepted_message_ids()) == already  # no empty message either
        assert goes_on(client, postfix)

    def test_all_or_none_with_nobody_refused(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail = new_mail(to=[INBOX, OTHER])
        assert mail.send(mailer(postfix.plain, partial="all-or-none")).accepted == (INBOX, OTHER)
        assert receivers(postfix, mail) == [INBOX, OTHER]

    def test_opensmtpd_and_dovecot_take_them_one_by_one(
        self, opensmtpd: OpenSmtpd, dovecot: Dovecot, mailer: StartMailer
    ) -> None:
        login = {"security": "starttls", "username": USERNAME, "password": PASSWORD}
        for client in (mailer(opensmtpd.plain), mailer(dovecot.submission, **login)):
            assert new_mail(to=addresses(3)).send(client).accepted == tuple(addresses(3))


class TestTheMessageRefused:
    def test_too_large(self, postfix: Postfix, mailer: StartMailer) -> None:
        """Postfix names its limit, so that it need not be asked."""
        client = mailer(postfix.small)
        mail = new_mail((b"x" * 76 + b"\r\n") * (SMALL_LIMIT // 78 + 1))
        with pytest.raises(MessageTooLarge) as raised:
            mail.send(client)
        assert isinstance(raised.value, smtplib.SMTPSenderRefused)
        assert (raised.value.smtp_code, raised.value.sender) == (552, mail.envelope.sender)
        assert raised.value.limit == SMALL_LIMIT
        assert goes_on(client, postfix)
        assert mail.message_id not in postfix.accepted_message_ids()

    def test_too_large_where_size_is_not_looked_at(self, postfix: Postfix, mailer: StartMailer) -> None:
        """Then it shows at the end of the content: the answer to the dot is a no, not a doubt."""
        client = mailer(postfix.small, disable=["size"])
        mail = new_mail((b"x" * 76 + b"\r\n") * (SMALL_LIMIT // 78 + 1))
        with pytest.raises(MessageRefused) as raised:
            mail.send(client)
        assert isinstance(raised.value, smtplib.SMTPDataError)
        assert (raised.value.smtp_code, raised.value.outcome_unknown) == (552, False)
        assert goes_on(client, postfix)
        assert mail.message_id not in postfix.accepted_message_ids()

    def test_far_too_large(self, postfix: Postfix, mailer: StartMailer) -> None:
        client = mailer(postfix.small, disable=["size"])
        with pytest.raises(MessageRefused) as raised:
            new_mail((b"x" * 76 + b"\r\n") * 100_000).send(client)
        assert (raised.value.smtp_code, raised.value.outcome_unknown) == (552, False)


def test_a_refusal_stops_no_other_message(postfix: Postfix, postfix_mailer: Mailer) -> None:
    mails = [new_mail(to=[INBOX if number % 2 else REFUSED]) for number in range(10)]
    outcomes = postfix_mailer.send_many([(mail.content, mail.envelope) for mail in mails])
    assert [type(outcome) for outcome in outcomes] == [RecipientsRefused, SendResult] * 5
    for mail, outcome in zip(mails, outcomes, strict=True):
        assert len(postfix.copies(mail.message_id)) == isinstance(outcome, SendResult)
    assert postfix_mailer.stats().opened_total == 1


def test_a_refusal_stops_all_where_that_is_asked_for(postfix_mailer: Mailer) -> None:
    mails = [new_mail(), new_mail(to=[REFUSED]), new_mail()]
    outcomes = postfix_mailer.send_many([(mail.content, mail.envelope) for mail in mails], on_error="stop")
    assert [type(outcome) for outcome in outcomes] == [SendResult, RecipientsRefused]


class TestTooManyRecipients:
    """More than the server takes in one transaction: the rest goes in further ones, nobody twice."""

    def test_postfix_takes_fifty(self, postfix: Postfix, mailer: StartMailer, relay: StartRelay) -> None:
        between = relay(postfix.small.address)
        recipients = addresses(SMALL_RECIPIENTS + 10, "lab.test")
        mail = new_mail(to=recipients)
        result = mail.send(mailer(between))
        assert sorted(result.accepted) == sorted(recipients)
        assert result.rejected == {}
        assert receivers(postfix, mail) == sorted(recipients)
        assert postfix.accepted_message_ids().count(mail.message_id) == 2
        assert between.round_trips == 1 + 2 * 2
        assert result.round_trips == 2 + 1 + 2 * 2

    def test_exim_takes_twenty(self, exim: Exim, mailer: StartMailer) -> None:
        recipients = addresses(3 * RECIPIENT_LIMIT, "lab.test")
        mail = new_mail(to=recipients)
        result = mail.send(mailer(exim.plain))
        assert (sorted(result.accepted), result.rejected) == (sorted(recipients), {})
        assert exim.accepted_message_ids().count(mail.message_id) == 3
        copies = [message for message in exim.messages() if message.message_id == mail.message_id]
        assert sorted(address for copy in copies for address in copy.recipients) == sorted(recipients)

    def test_with_some_of_them_refused(self, postfix: Postfix, mailer: StartMailer) -> None:
        good = addresses(SMALL_RECIPIENTS + 10, "lab.test")
        mail = new_mail(to=[REFUSED, *good[:30], OVER_QUOTA, *good[30:], GREYLISTED])
        result = mail.send(mailer(postfix.small))
        assert sorted(result.accepted) == sorted(good)
        assert {address: reply.code for address, reply in result.rejected.items()} == {
            REFUSED: 550,
            OVER_QUOTA: 452,
            GREYLISTED: 450,
        }
        assert receivers(postfix, mail) == sorted(good)

    def test_all_or_none_does_not_split(self, postfix: Postfix, mailer: StartMailer) -> None:
        client, mail = mailer(postfix.small, partial="all-or-none"), new_mail(to=addresses(60, "lab.test"))
        with pytest.raises(RecipientsRefused):
            mail.send(client)
        assert mail.message_id not in postfix.accepted_message_ids()
        assert goes_on(client, postfix)


@pytest.mark.parametrize(
    ("command", "stage", "error"),
    [
        ("MAIL", "mail_from", SenderRefused),
        ("RCPT", "rcpt_to", RecipientsRefused),
        ("DATA", "data", MessageRefused),
        (".", "final", MessageRefused),
    ],
)
@pytest.mark.parametrize(("option", "code"), [("-f", 500), ("-r", 450)])
def test_each_step_refused_by_a_server_that_does_so(
    smtp_sink: StartSmtpSink,
    mailer: StartMailer,
    option: str,
    code: int,
    command: str,
    stage: str,
    error: type[Refused],
) -> None:
    sink = smtp_sink(option, command)
    client = mailer(Endpoint(sink.port))
    for _ in range(2):
        with pytest.raises(error) as raised:
            new_mail().send(client)
        assert raised.value.reply is not None
        assert (raised.value.reply.code, raised.value.stage) == (code, stage)
        assert raised.value.is_transient == (code == 450)
        assert not raised.value.outcome_unknown
    assert client.stats().opened_total == 1
    assert "smtp-sink: RSET" in sink.log()
