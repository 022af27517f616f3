"""The fixtures, as somebody's tests use them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailbridge import MailbridgeError, Mailer, Message, SMTPConfig
from mailbridge.testing import Fault, RecordingMailer, ScriptedServer
from mailbridge.testing.plugin import StartServer

MESSAGE = Message("Order 2041", "shop@example.com", ["maja@example.org"], text="Hi")


def test_a_server_that_takes_everything(smtp_server: ScriptedServer) -> None:
    with Mailer.from_url(smtp_server.url) as mailer:
        results = [mailer.send(MESSAGE), mailer.send(MESSAGE)]
        # EHLO, and two for each message: the TCP handshake and the greeting are seen by the client alone.
        smtp_server.assert_round_trips(at_most=5)
        assert sum(result.round_trips for result in results) == smtp_server.round_trips + 2
    smtp_server.assert_messages(2)
    smtp_server.assert_connections(1)
    assert smtp_server.messages[0].recipients == ("maja@example.org",)


def test_assertions_tell_what_was_said(smtp_server: ScriptedServer) -> None:
    with Mailer.from_url(smtp_server.url) as mailer:
        mailer.send(MESSAGE)
        with pytest.raises(AssertionError, match=r"3 round trips, at most 2 were expected.*\n.*MAIL FROM"):
            smtp_server.assert_round_trips(at_most=2)
    with pytest.raises(AssertionError, match=r"not 2 connections.*\n.*MAIL FROM"):
        smtp_server.assert_connections(2)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_tls_with_a_certificate_made_on_the_spot(scripted_smtp_server: StartServer, tls: str) -> None:
    server = scripted_smtp_server(tls=tls, users={"shop": "secret"})
    with Mailer(SMTPConfig(username="shop", password="secret", **server.options)) as mailer:
        mailer.send(MESSAGE)
    assert server.connections[0].used_tls
    assert server.the_message(to="maja@example.org")["Subject"] == "Order 2041"


def test_a_certificate_of_one_s_own_is_the_one_to_trust(
    scripted_smtp_server: StartServer, tmp_path: Path
) -> None:
    made = scripted_smtp_server(tls="starttls")
    own = scripted_smtp_server(tls="starttls", certfile=made.ca_file, keyfile=tmp_path / "key.pem")
    assert own.ca_file == made.ca_file
    with Mailer(SMTPConfig(**own.options)) as mailer:
        mailer.send(MESSAGE)


def test_faults(scripted_smtp_server: StartServer) -> None:
    server = scripted_smtp_server(faults=[Fault("data", "close")])
    with Mailer.from_url(server.url) as mailer, pytest.raises(MailbridgeError):
        mailer.send(MESSAGE)
    server.assert_messages(0)
    assert server.fired


def test_several_servers(scripted_smtp_server: StartServer) -> None:
    one, other = scripted_smtp_server(tls="starttls"), scripted_smtp_server(tls="starttls")
    assert one.port != other.port
    assert one.ca_file == other.ca_file


def test_nothing_is_sent(recording_mailer: RecordingMailer) -> None:
    import mailbridge

    mailbridge.mailer_for(mailbridge.SMTPConfig(host="nowhere.invalid")).send(MESSAGE)
    recording_mailer.assert_messages(1)
