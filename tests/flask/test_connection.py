"""`with mail.connect()`: one leased connection for several messages, given back whatever happens."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
from flask import Flask

import mailbridge
from mailbridge import ConnectFailed, InvalidMessage, RecipientsRefused
from mailbridge.testing import Fault, ScriptedServer
from mailbridge_flask import BadHeaderError, Connection, Mail, Message
from tests.flask.apps import RECIPIENT, app_for, parsed

pytestmark = pytest.mark.usefixtures("context")


def message(**changes: Any) -> Message:
    return Message(**{"subject": "testing", "recipients": [RECIPIENT], "body": "test", **changes})


def test_many_messages_go_over_one_connection(mail: Mail, server: ScriptedServer) -> None:
    with mail.connect() as connection:
        for number in range(50):
            connection.send(message(subject=str(number)))
        assert connection.num_emails == 50
    assert [parsed(each)["Subject"] for each in server.messages] == [str(number) for number in range(50)]
    assert len(server.connections) == 1


def test_send_message_and_a_message_that_sends_itself(mail: Mail, server: ScriptedServer) -> None:
    with mail.connect() as connection:
        assert connection.send_message("one", [RECIPIENT]) is not None
        made = message(subject="two")
        result = made.send(connection)
        assert made.mailbridge_result is result
    assert [parsed(each)["Subject"] for each in server.messages] == ["one", "two"]


def test_the_lease_is_given_back_and_used_again(mail: Mail, server: ScriptedServer) -> None:
    for _ in range(3):
        with mail.connect() as connection:
            connection.send(message())
        assert mail.mailer.stats().lent == 0
        mail.send(message())
    assert len(server.connections) == 1


def test_the_lease_is_given_back_after_an_error(mail: Mail) -> None:
    with pytest.raises(ZeroDivisionError), mail.connect() as connection:
        _send_and_fail(connection)
    assert mail.mailer.stats().lent == 0


def _send_and_fail(connection: Connection) -> None:
    connection.send(message())
    raise ZeroDivisionError


def test_a_server_that_is_away_is_noticed_at_once() -> None:
    app = app_for()
    mail = Mail(app)
    with app.app_context(), pytest.raises(ConnectFailed), mail.connect():
        pytest.fail("the block must not begin")


def test_an_error_leaves_the_connection_usable(app: Flask, mail: Mail) -> None:
    with ScriptedServer(rcpt_replies={"no@example.com": "550 5.1.1 No such user"}) as server:
        app.config["MAILBRIDGE_PORT"] = server.port
        mail.init_app(app)
        with mail.connect() as connection:
            with pytest.raises(RecipientsRefused):
                connection.send(message(recipients=["no@example.com"]))
            with pytest.raises(BadHeaderError):
                connection.send(message(subject="a\nb"))
            assert connection.num_emails == 0
            connection.send(message())
        mailbridge.close_all()
        assert (len(server.messages), len(server.connections)) == (1, 1)


def test_a_lost_connection_is_replaced(app: Flask, mail: Mail) -> None:
    with ScriptedServer(faults=[Fault("idle", "close")]) as server:
        app.config["MAILBRIDGE_PORT"] = server.port
        mail.init_app(app)
        with mail.connect() as connection:
            for _ in range(3):
                connection.send(message())
        mailbridge.close_all()
        assert (len(server.messages), len(server.connections)) == (3, 2)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_connection_carries_mail_max_emails_messages_at_most(
    limit: int, app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    app.config["MAIL_MAX_EMAILS"] = limit
    mail.init_app(app)
    with mail.connect() as connection:
        for _ in range(7):
            connection.send(message())
    carried = Counter(each.connection for each in server.messages)
    assert carried.total() == 7
    assert max(carried.values()) == limit
    assert all(carried[each.number] for each in server.connections)  # none was opened for nothing


def test_envelope_from_is_the_sender_for_bounces(mail: Mail, server: ScriptedServer) -> None:
    with mail.connect() as connection:
        connection.send(message(), envelope_from=("Bounces", "bounces@example.com"))
        connection.send(message(), "again@example.com")
    assert [each.sender for each in server.messages] == ["bounces@example.com", "again@example.com"]
    assert parsed(server.messages[0])["From"] == "sender@example.com"


def test_nothing_connects_where_sending_is_suppressed(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    app.config["TESTING"] = True
    with mail.record_messages() as outbox, mail.connect() as connection:
        assert connection.send(message()) is None
        assert connection.num_emails == 1
        app.config["TESTING"] = False
        assert connection.send(message()) is not None
    assert (len(outbox), len(server.messages)) == (2, 1)


def test_without_a_pool_nothing_is_opened_for_nothing(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    app.config["MAILBRIDGE_POOL"] = False
    mail.init_app(app)
    with mail.connect() as connection:
        connection.send(message())
    assert len(server.connections) == 1


def test_a_connection_that_is_not_open_sends_nothing(mail: Mail, server: ScriptedServer) -> None:
    connection = mail.connect()
    with pytest.raises(RuntimeError, match=r"with mail\.connect\(\)"):
        connection.send(message())
    with connection:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        connection.send(message())
    assert server.messages == ()


@pytest.mark.parametrize("way", ["mail", "connection"])
def test_a_priority_is_handed_on(way: str, mail: Mail, server: ScriptedServer) -> None:
    sender: Any = mail.connect() if way == "connection" else nullcontext(mail)
    with sender as each:
        with pytest.raises(InvalidMessage, match="must be one of high, normal, low"):
            each.send(message(), priority="urgent")
        assert each.send(message(), priority="high")
