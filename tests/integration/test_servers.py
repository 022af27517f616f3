"""Several real servers: what Postfix certainly does not have goes to Exim, once, and nothing else does."""

from __future__ import annotations

import pytest

from mailbridge import ConnectionLost, Mailer, NobodyListens, SendResult, SMTPConfig
from tests.integration.conftest import SECONDS
from tests.integration.mails import Mail, new_mail
from tests.servers.exim import Exim
from tests.servers.fixtures import StartRelay
from tests.servers.postfix import Postfix
from tests.servers.relay import Relay


def mailer_over(relay: Relay, exim: Exim) -> Mailer:
    """Postfix, behind a relay that can be cut, and Exim for what it does not take."""
    host, port = relay.address
    return Mailer(
        SMTPConfig(
            security="none",
            timeout=SECONDS,
            local_hostname="client.test",
            servers=[
                {"host": host, "port": port},
                {"host": exim.plain.host, "port": exim.plain.port, "priority": 2},
            ],
        )
    )


def copies(mail: Mail, postfix: Postfix, exim: Exim) -> tuple[list[bytes], list[bytes]]:
    return postfix.delivered(mail.message_id), exim.delivered(mail.message_id)


def test_a_batch_goes_on_at_exim_when_postfix_is_cut_off(
    postfix: Postfix, exim: Exim, relay: StartRelay
) -> None:
    between = relay(postfix.plain.address)
    before, after = [new_mail() for _ in range(3)], [new_mail() for _ in range(3)]
    with mailer_over(between, exim) as mailer, mailer.session() as session:
        for mail in before:
            session.send(mail.content, envelope=mail.envelope)
        between.refuse()
        between.cut(reset=True)
        results = [session.send(mail.content, envelope=mail.envelope) for mail in after]
    for mail in before:
        assert copies(mail, postfix, exim) == ([mail.content], [])
    for mail in after:
        assert copies(mail, postfix, exim) == ([], [mail.content])
    for result in results:
        assert isinstance(result.failed_servers[f"127.0.0.1:{between.address[1]}"], NobodyListens)


def test_what_postfix_took_without_our_hearing_of_it_does_not_go_to_exim(
    postfix: Postfix, exim: Exim, relay: StartRelay
) -> None:
    """Its answer to the dot is cut off on the way."""
    between = relay(postfix.plain.address, cut_before=b"queued as")
    mail = new_mail()
    with mailer_over(between, exim) as mailer:
        with pytest.raises(ConnectionLost) as caught:
            mail.send(mailer)
        assert caught.value.outcome_unknown
        assert copies(mail, postfix, exim) == ([mail.content], [])


def test_a_mail_that_is_cut_off_before_its_end_goes_to_exim(
    postfix: Postfix, exim: Exim, relay: StartRelay
) -> None:
    between = relay(postfix.plain.address, cut_before=b"354 ")
    mail = new_mail()
    with mailer_over(between, exim) as mailer:
        result = mail.send(mailer)
        assert isinstance(result, SendResult)
        assert (len(result.failed_servers), result.connection_reused) == (1, False)
        assert copies(mail, postfix, exim) == ([], [mail.content])
