"""How often a send waits for the server, counted on the wire by a relay: changes of direction, not time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mailbridge import Mailer, SendResult
from tests.integration.conftest import StartMailer
from tests.integration.mails import addresses, new_mail
from tests.servers.dovecot import PASSWORD, USERNAME, Dovecot
from tests.servers.exim import Exim
from tests.servers.fixtures import StartRelay
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import REFUSED, Postfix
from tests.servers.process import Endpoint
from tests.servers.relay import Relay

LOGIN = {"username": USERNAME, "password": PASSWORD}
TCP_AND_GREETING = 2  # the relay does not see the one and does not count the other: the server speaks first
OnRelay = Callable[..., tuple[Mailer, Relay]]


@pytest.fixture
def on_relay(mailer: StartMailer, relay: StartRelay) -> OnRelay:
    """on_relay(server, **options): a mailer and the relay through which it speaks to the server."""

    def start(server: Endpoint, **options: Any) -> tuple[Mailer, Relay]:
        between = relay(server.address)
        return mailer(between, **options), between

    return start


def warm_send(mailer: Mailer, relay: Relay, recipients: int) -> tuple[SendResult, int]:
    """The second send on a session, and what it cost on the wire."""
    new_mail(to=["first@elsewhere.test"]).send(mailer)
    before = relay.round_trips
    result = new_mail(to=addresses(recipients)).send(mailer)
    assert result.connection_reused
    assert len(result.accepted) == recipients
    assert len(relay.connections) == 1
    return result, relay.round_trips - before


class TestWarm:
    @pytest.mark.parametrize("recipients", [1, 50])
    @pytest.mark.parametrize("security", ["none", "starttls"])
    def test_two_with_postfix(
        self, postfix: Postfix, on_relay: OnRelay, recipients: int, security: str
    ) -> None:
        result, on_the_wire = warm_send(*on_relay(postfix.plain, security=security), recipients)
        assert on_the_wire == result.round_trips == 2

    @pytest.mark.parametrize("recipients", [1, 20])
    def test_two_with_exim(self, exim: Exim, on_relay: OnRelay, recipients: int) -> None:
        result, on_the_wire = warm_send(*on_relay(exim.plain), recipients)
        assert on_the_wire == result.round_trips == 2

    @pytest.mark.parametrize("recipients", [1, 50])
    def test_two_with_dovecot(self, dovecot: Dovecot, on_relay: OnRelay, recipients: int) -> None:
        result, on_the_wire = warm_send(
            *on_relay(dovecot.submission, security="starttls", **LOGIN), recipients
        )
        assert on_the_wire == result.round_trips == 2

    @pytest.mark.parametrize("recipients", [1, 7])
    def test_three_and_one_for_each_recipient_without_pipelining(
        self, postfix: Postfix, on_relay: OnRelay, recipients: int
    ) -> None:
        result, on_the_wire = warm_send(*on_relay(postfix.minimal), recipients)
        assert on_the_wire == result.round_trips == 3 + recipients

    def test_three_and_one_for_each_recipient_with_opensmtpd(
        self, opensmtpd: OpenSmtpd, on_relay: OnRelay
    ) -> None:
        result, on_the_wire = warm_send(*on_relay(opensmtpd.plain), 7)
        assert on_the_wire == result.round_trips == 3 + 7

    @pytest.mark.parametrize("option", [{"pipelining": "off"}, {"disable": ["pipelining"]}])
    def test_pipelining_can_be_switched_off(
        self, postfix: Postfix, on_relay: OnRelay, option: dict[str, Any]
    ) -> None:
        result, on_the_wire = warm_send(*on_relay(postfix.plain, **option), 7)
        assert on_the_wire == result.round_trips == 3 + 7

    def test_two_after_a_refusal_with_its_reset(self, postfix: Postfix, on_relay: OnRelay) -> None:
        mailer, relay = on_relay(postfix.plain)
        [refused] = mailer.send_many([(new_mail().content, new_mail(to=[REFUSED]).envelope)])
        assert isinstance(refused, Exception)
        before = relay.round_trips
        assert new_mail().send(mailer).round_trips == 2
        assert relay.round_trips - before == 2

    @pytest.mark.parametrize(("disable", "trips"), [((), 2), (("CHUNKING",), 3)])
    def test_all_or_none_waits_for_the_recipients_first(
        self, postfix: Postfix, on_relay: OnRelay, disable: tuple[str, ...], trips: int
    ) -> None:
        """With BDAT that costs nothing: the content needs no leave, as with DATA, but comes second anyway."""
        options = {"partial": "all-or-none", "disable": disable}
        result, on_the_wire = warm_send(*on_relay(postfix.plain, **options), 50)
        assert on_the_wire == result.round_trips == trips

    def test_a_flight_larger_than_the_window_is_few_flights(
        self, postfix: Postfix, on_relay: OnRelay
    ) -> None:
        recipients = [f"{'x' * 40}{number}@elsewhere.test" for number in range(900)]
        mailer, relay = on_relay(postfix.plain)
        result = new_mail(to=recipients).send(mailer)
        assert len(result.accepted) == 900
        # 66 kB of commands through a window of 8 KiB: nowhere near 903.
        assert relay.round_trips < 100


class TestFromConnectToSent:
    def test_in_the_clear(self, postfix: Postfix, on_relay: OnRelay) -> None:
        mailer, relay = on_relay(postfix.plain)
        result = new_mail(to=addresses(50)).send(mailer)
        assert not result.connection_reused
        assert relay.round_trips == 3  # EHLO, the flight, the content
        assert result.round_trips == relay.round_trips + TCP_AND_GREETING

    def test_with_starttls_and_a_login(self, postfix: Postfix, on_relay: OnRelay) -> None:
        mailer, relay = on_relay(postfix.submission, security="starttls", auth="PLAIN", **LOGIN)
        result = new_mail(to=addresses(50)).send(mailer)
        # EHLO, STARTTLS, the handshake, EHLO, AUTH, the flight, the content
        assert result.round_trips == 7 + TCP_AND_GREETING
        # Session tickets that pass before EHLO look like an answer to the end of the handshake.
        assert relay.round_trips in (7, 8)

    def test_with_tls_at_once_and_a_login(self, postfix: Postfix, on_relay: OnRelay) -> None:
        mailer, relay = on_relay(postfix.smtps, security="tls", auth="PLAIN", **LOGIN)
        result = new_mail(to=addresses(50)).send(mailer)
        # The handshake, EHLO, AUTH, the flight, the content
        assert result.round_trips == 5 + TCP_AND_GREETING
        assert relay.round_trips == 6  # the greeting is seen here, behind the client's end of the handshake


class TestMany:
    def test_two_for_each_on_one_connection(self, postfix: Postfix, on_relay: OnRelay) -> None:
        mailer, relay = on_relay(postfix.plain)
        mails = [new_mail(to=addresses(5)) for _ in range(10)]
        results = mailer.send_many([(mail.content, mail.envelope) for mail in mails])
        assert [result.round_trips for result in results if isinstance(result, SendResult)] == [5] + [2] * 9
        assert relay.round_trips == 1 + 2 * 10
        assert len(relay.connections) == 1
        assert {mail.message_id for mail in mails} <= set(postfix.accepted_message_ids())

    def test_fifty_sends_make_one_connection(self, postfix: Postfix, on_relay: OnRelay) -> None:
        mailer, relay = on_relay(postfix.plain)
        results = [new_mail(to=addresses(1)).send(mailer) for _ in range(50)]
        assert len({result.connection_id for result in results}) == 1
        assert len(relay.connections) == 1
        assert relay.round_trips == 1 + 2 * 50
