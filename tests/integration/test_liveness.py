"""Sessions that real servers end while they wait in the pool: no message is lost, none goes twice."""

from __future__ import annotations

import logging

import pytest

from mailbridge import Mailer
from tests.integration.conftest import StartMailer
from tests.integration.mails import Mail, new_mail
from tests.servers.exim import Exim
from tests.servers.fixtures import StartRelay, StartSmtpSink
from tests.servers.postfix import Postfix
from tests.servers.process import wait_until
from tests.servers.relay import Relay

LONG = 20.0  # no wait for a server takes longer


def times_out(relay: Relay) -> bool:
    """Wait until the server has said good-bye on every session, of its own accord."""
    before = [each.server_bytes for each in relay.connections]

    def has_spoken() -> bool:
        now = [each.server_bytes for each in relay.connections]
        return all(after > earlier for after, earlier in zip(now, before, strict=True))

    # What the relay has counted it passes on before it answers the next few questions.
    return wait_until(has_spoken, LONG, every=0.05) and all(relay.connections for _ in range(5))


def sent_once(mailer: Mailer, postfix: Postfix, mail: Mail, *, on_session: int) -> bool:
    """`mail` goes and arrives once, on the n-th session that the pool has opened."""
    result = mail.send(mailer)
    return (
        postfix.delivered(mail.message_id) == [mail.content]
        and result.attempts == 1
        and mailer.stats().opened_total == on_session
    )


class TestServerTimesOut:
    """Postfix says 421 and hangs up after two seconds; both lie there to be read."""

    @pytest.mark.parametrize("security", ["none", "starttls"])
    def test_the_session_is_discarded_at_checkout(
        self,
        postfix: Postfix,
        mailer: StartMailer,
        relay: StartRelay,
        caplog: pytest.LogCaptureFixture,
        security: str,
    ) -> None:
        caplog.set_level(logging.DEBUG, "mailbridge")
        between = relay(postfix.idle.address)
        client = mailer(between, security=security)
        assert sent_once(client, postfix, new_mail(), on_session=1)
        assert times_out(between)
        before = between.connections[0].client_bytes
        assert sent_once(client, postfix, new_mail(), on_session=2)
        assert client.stats().closed_total["unusable"] == 1
        if security == "none":  # under TLS its end is answered
            assert between.connections[0].client_bytes == before  # not a byte, QUIT included, to the dead one
        assert "421 4.4.2" in caplog.text
        assert sent_once(client, postfix, new_mail(), on_session=2)

    def test_many_idle_sessions(self, postfix: Postfix, mailer: StartMailer, relay: StartRelay) -> None:
        between = relay(postfix.idle.address)
        client = mailer(between)
        sessions = [client.session() for _ in range(3)]
        with sessions[0] as first, sessions[1] as second, sessions[2] as third:
            for session in (first, second, third):
                mail = new_mail()
                session.send(mail.content, envelope=mail.envelope)
        assert client.stats().idle == 3
        assert times_out(between)
        assert sent_once(client, postfix, new_mail(), on_session=4)
        assert client.stats().idle == 1


class TestConnectionCut:
    @pytest.mark.parametrize("reset", [False, True], ids=["end of file", "reset"])
    @pytest.mark.parametrize("security", ["none", "starttls"])
    def test_while_idle(
        self, postfix: Postfix, mailer: StartMailer, relay: StartRelay, security: str, reset: bool
    ) -> None:
        between = relay(postfix.plain.address)
        client = mailer(between, security=security)
        assert sent_once(client, postfix, new_mail(), on_session=1)
        between.cut(reset=reset)
        assert sent_once(client, postfix, new_mail(), on_session=2)
        assert len(between.connections) == 2

    def test_within_a_batch(self, postfix: Postfix, mailer: StartMailer, relay: StartRelay) -> None:
        """The leased session is not looked at again: the message itself finds out, and is replayed."""
        between = relay(postfix.plain.address)
        client, mails = mailer(between), [new_mail() for _ in range(4)]
        with client.session() as session:
            for number, mail in enumerate(mails):
                if number in (1, 3):
                    between.cut()
                result = session.send(mail.content, envelope=mail.envelope)
                assert (result.attempts, result.connection_reused) == (1, number == 2)
        assert len(between.connections) == 3
        for mail in mails:
            assert postfix.delivered(mail.message_id) == [mail.content]

    def test_of_one_of_several_sessions(self, exim: Exim, mailer: StartMailer, relay: StartRelay) -> None:
        between = relay(exim.plain.address)
        client = mailer(between)
        new_mail().send(client)
        between.cut(reset=True)
        mail = new_mail()
        mail.send(client)
        assert exim.delivered(mail.message_id) == [mail.content]

    def test_and_the_server_gone(self, postfix: Postfix, mailer: StartMailer, relay: StartRelay) -> None:
        """The replay finds nobody: that is the error, and nothing was sent."""
        between = relay(postfix.plain.address)
        client, mail = mailer(between), new_mail()
        new_mail().send(client)
        between.refuse()
        between.cut()
        with pytest.raises(ConnectionError, match="Connection refused") as raised:
            mail.send(client)
        assert not raised.value.outcome_unknown  # type: ignore[attr-defined]  # a MailbridgeError
        assert mail.message_id not in postfix.accepted_message_ids()


class TestPoolPolicy:
    def test_a_worn_session_is_replaced(self, postfix: Postfix, mailer: StartMailer) -> None:
        client = mailer(postfix.plain, pool={"max_messages": 3})
        ids = [new_mail().send(client).connection_id for _ in range(7)]
        assert [ids.count(each) for each in dict.fromkeys(ids)] == [3, 3, 1]

    def test_without_a_pool_each_mail_has_its_connection(
        self, postfix: Postfix, mailer: StartMailer, relay: StartRelay
    ) -> None:
        between = relay(postfix.plain.address)
        client = mailer(between, pool=False)
        for _ in range(3):
            new_mail().send(client)
        assert len(between.connections) == 3
        assert wait_until(lambda: not any(each.is_open for each in between.connections), LONG)

    def test_closing_says_quit(self, smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
        sink = smtp_sink()
        client = mailer(sink)
        new_mail().send(client)
        client.close()
        assert wait_until(lambda: "smtp-sink: QUIT" in sink.log(), 5)
