"""Sending: what goes out, what is told, what is suppressed, and what is refused before a byte is sent."""

import pickle
import smtplib
from typing import Any

import pytest
from flask import Flask

import mailbridge
from mailbridge import ConfigurationError, ConnectFailed, InvalidAddress, InvalidMessage, RecipientsRefused
from mailbridge.testing import Fault, ScriptedServer
from mailbridge_flask import BadHeaderError, IncompleteMessage, Mail, Message
from tests.flask.apps import RECIPIENT, SENDER, app_for, parsed

pytestmark = pytest.mark.usefixtures("context")


def message(**changes: Any) -> Message:
    return Message(**{"subject": "testing", "recipients": [RECIPIENT], "body": "test", **changes})


# ---- sent


def test_a_message_arrives(mail: Mail, server: ScriptedServer) -> None:
    made = message(html="<b>test</b>")
    result = mail.send(made)
    (received,) = server.messages
    assert (received.sender, received.recipients) == (SENDER, (RECIPIENT,))
    assert parsed(received)["Subject"] == "testing"
    assert parsed(received)["Message-ID"] == made.msgId
    assert result is not None
    assert result.accepted == (RECIPIENT,)
    assert made.mailbridge_result is result
    assert isinstance(made.date, float)
    assert parsed(received)["Date"].datetime.timestamp() == int(made.date)


def test_everybody_gets_it_once_and_in_order_and_bcc_stays_hidden(mail: Mail, server: ScriptedServer) -> None:
    recipients = ["c@example.com", ("A, a", "a@example.com"), "c@example.com", "A <a@example.com>"]
    mail.send(message(recipients=recipients, cc=["b@example.com", "c@example.com"], bcc=["d@example.com"]))
    (received,) = server.messages
    assert received.recipients == ("c@example.com", "a@example.com", "b@example.com", "d@example.com")
    assert b"d@example.com" not in received.content
    assert parsed(received)["Cc"] == "b@example.com, c@example.com"


def test_send_message_takes_the_arguments_of_a_message(mail: Mail, server: ScriptedServer) -> None:
    result = mail.send_message("testing", [RECIPIENT], body="test")
    assert result is not None
    assert mail.state.send_message("testing", [RECIPIENT], body="test") is not None
    assert [parsed(each)["Subject"] for each in server.messages] == ["testing", "testing"]


def test_what_was_sent_can_be_pickled_with_its_result(mail: Mail) -> None:
    made = message()
    result = mail.send(made)
    assert pickle.loads(pickle.dumps(made)).mailbridge_result == result


def test_a_message_that_is_sent_again_keeps_its_id(mail: Mail, server: ScriptedServer) -> None:
    made = message()
    mail.send(made)
    mail.send(made)
    first, second = server.messages
    assert parsed(first)["Message-ID"] == parsed(second)["Message-ID"]


def test_sends_share_a_connection(mail: Mail, server: ScriptedServer) -> None:
    for _ in range(50):
        mail.send(message())
    assert (len(server.messages), len(server.connections)) == (50, 1)


def test_the_sender_is_written_down_when_it_is_known(app: Flask, mail: Mail) -> None:
    made = message()
    mail.send(made)
    assert made.own_sender == SENDER


def test_default_sender_as_a_pair(mail: Mail, server: ScriptedServer) -> None:
    mail.state.default_sender = ("Shop, Corner", "shop@example.com")
    mail.send(message())
    assert parsed(server.messages[0])["From"] == '"Shop, Corner" <shop@example.com>'
    assert server.messages[0].sender == "shop@example.com"


class Alike:
    """A message of another library, with what Flask-Mail's has."""

    def __init__(self) -> None:
        self.subject, self.body, self.sender = "alike", "text", ""
        self.alts: dict[str, str] = {}
        self.recipients = [RECIPIENT]
        self.cc = self.bcc = self.attachments = self.mail_options = self.rcpt_options = ()
        self.reply_to = self.date = self.charset = self.extra_headers = None
        self.msgId = "<1@example.com>"


def test_a_message_like_flask_mails_is_sent_too(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    alike: Any = Alike()
    result = app.extensions["mail"].send(alike)
    assert parsed(server.messages[0])["Subject"] == "alike"
    assert alike.mailbridge_result is result
    assert alike.date is not None


# ---- refused


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"recipients": []}, IncompleteMessage),
        ({"subject": "a\r\nBcc: evil@example.com"}, BadHeaderError),
        ({"recipients": ["a@example.com\r\nRCPT TO:<evil@example.com>"]}, BadHeaderError),
        ({"recipients": ["a@example.com", "nobody"]}, InvalidAddress),
        ({"bcc": ["a@example.com(x)evil.example"]}, InvalidAddress),
        ({"recipients": [("A\0", "a@example.com")]}, InvalidMessage),
        ({"sender": "a@example.com> SIZE=1"}, InvalidAddress),
        ({"mail_options": ["RET=SOME"]}, InvalidMessage),
        ({"mail_options": ["BY=5;R"]}, InvalidMessage),
        ({"rcpt_options": ["NOTIFY=NEVER,SUCCESS"]}, InvalidMessage),
        ({"envelope_options": {"dns": {"ret": "HDRS"}}}, InvalidMessage),
    ],
)
@pytest.mark.parametrize("suppressed", [False, True])
def test_what_can_not_be_sent_is_refused_also_where_nothing_is_sent(
    changes: dict[str, Any],
    error: type[Exception],
    suppressed: bool,
    app: Flask,
    mail: Mail,
    server: ScriptedServer,
) -> None:
    app.config["TESTING"] = suppressed
    with pytest.raises(error):
        mail.send(message(**changes))
    assert server.connections == ()


def test_without_any_sender_it_is_refused(mail: Mail) -> None:
    mail.state.default_sender = None
    with pytest.raises(IncompleteMessage, match="MAILBRIDGE_DEFAULT_SENDER"):
        mail.send(message())


def test_an_incomplete_message_is_an_assertion_error_as_in_flask_mail(mail: Mail) -> None:
    with pytest.raises(AssertionError, match="No recipients have been added"):
        mail.send(message(recipients=[]))


def test_a_server_that_refuses_is_told_of(app: Flask, mail: Mail) -> None:
    with ScriptedServer(rcpt_replies={RECIPIENT: "550 5.1.1 No such user"}) as server:
        app.config["MAILBRIDGE_PORT"] = server.port
        mail.init_app(app)
        made = message()
        with pytest.raises(RecipientsRefused, match="No such user"):
            mail.send(made)
        assert made.mailbridge_result is None
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            mail.send(made)
        result = mail.send(message(recipients=[RECIPIENT, "b@example.com"]))
    assert result is not None
    assert (result.accepted, list(result.rejected)) == (("b@example.com",), [RECIPIENT])


def test_a_failure_wipes_out_an_earlier_result(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    made = message()
    mail.send(made)
    made.recipients = []
    with pytest.raises(IncompleteMessage):
        mail.send(made)
    assert made.mailbridge_result is None


@pytest.mark.parametrize("catch", [smtplib.SMTPException, OSError, ConnectionError, ConnectFailed])
def test_what_people_catch_today_still_catches(catch: type[Exception]) -> None:
    with app_for().app_context() as context:
        mail = Mail(context.app)
        with pytest.raises(catch):
            mail.send(message())


def test_a_deadline_bounds_a_send(app: Flask, mail: Mail) -> None:
    with ScriptedServer(faults=[Fault("greeting", "silence")]) as server:
        app.config["MAILBRIDGE_PORT"] = server.port
        mail.init_app(app)
        with pytest.raises(TimeoutError):
            mail.send(message(), deadline=0.05)
        assert server.messages == ()


# ---- suppressed


@pytest.mark.parametrize(
    ("config", "suppressed"),
    [
        ({}, False),
        ({"TESTING": True}, True),
        ({"MAILBRIDGE_SUPPRESS_SEND": True}, True),
        ({"MAIL_SUPPRESS_SEND": True}, True),
        ({"MAIL_SUPPRESS_SEND": "true"}, True),
        ({"TESTING": True, "MAILBRIDGE_SUPPRESS_SEND": False}, False),
        ({"TESTING": True, "MAIL_SUPPRESS_SEND": False}, False),
        ({"MAIL_SUPPRESS_SEND": True, "MAILBRIDGE_SUPPRESS_SEND": False}, False),
        ({"TESTING": True, "MAILBRIDGE_SUPPRESS_SEND": None, "MAIL_SUPPRESS_SEND": None}, True),
    ],
)
def test_suppression_is_asked_for_at_each_send(
    config: dict[str, Any], suppressed: bool, app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    app.config.update(config)  # after init_app
    made = message()
    result = mail.send(made)
    assert (result is None) is suppressed
    assert (made.mailbridge_result is None) is suppressed
    assert len(server.messages) == (not suppressed)
    app.config.update({"TESTING": False, "MAIL_SUPPRESS_SEND": None, "MAILBRIDGE_SUPPRESS_SEND": None})
    assert mail.send(message()) is not None


def test_it_can_be_set_on_the_state_as_in_flask_mail(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    state = app.extensions["mail"]
    state.suppress = True
    assert mail.send(message()) is None
    state.suppress = False
    app.config["TESTING"] = True
    assert mail.send(message()) is not None
    state.suppress = None
    assert mail.send(message()) is None


def test_a_suppressed_message_has_a_date_and_a_sender(app: Flask, mail: Mail) -> None:
    app.config["TESTING"] = True
    made = message()
    mail.send(made)
    assert made.date is not None
    assert made.own_sender == SENDER


def test_a_value_that_is_no_switch_stops_the_send(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    app.config["MAILBRIDGE_SUPPRESS_SEND"] = "perhaps"
    with pytest.raises(ConfigurationError, match="MAILBRIDGE_SUPPRESS_SEND"):
        mail.send(message())
    assert server.messages == ()


# ---- several mailers


def test_each_mailer_has_its_own_server_and_sender(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    with ScriptedServer() as bulk_server:
        app.config["MAILBRIDGE_MAILERS"] = {
            "bulk": {
                "url": f"smtp://127.0.0.1:{bulk_server.port}/?security=none",
                "default_sender": "news@example.com",
            },
            "same": {"host": "127.0.0.1", "port": server.port, "security": "none"},
        }
        mail.init_app(app)
        bulk = Mail(app, name="bulk")
        bulk.send(message(subject="by name"))
        mail.send(message(subject="by using"), using="bulk")
        mail.send(message(subject="default"))
        bulk.send(message(subject="same"), using="same")
        with mail.connect(using="bulk") as connection:
            connection.send(message(subject="connected"))
        mailbridge.close_all()
        subjects = [parsed(each)["Subject"] for each in bulk_server.messages]
        assert subjects == ["by name", "by using", "connected"]
        assert {each.sender for each in bulk_server.messages} == {"news@example.com"}
    assert [parsed(each)["Subject"] for each in server.messages] == ["default", "same"]
    assert {each.sender for each in server.messages} == {SENDER}


def test_an_unknown_mailer_is_an_error_that_names_the_nearest(app: Flask, mail: Mail) -> None:
    app.config["MAILBRIDGE_MAILERS"] = {"bulk": {}}
    mail.init_app(app)
    with pytest.raises(ConfigurationError, match="Did you mean 'bulk'"):
        mail.send(message(), using="bulks")
    with pytest.raises(ConfigurationError, match="There are: bulk, default"):
        mail.connect(using="zzz")


def test_it_shows_servers_and_no_passwords(app: Flask, mail: Mail) -> None:
    app.config.update(MAILBRIDGE_USERNAME="u", MAILBRIDGE_PASSWORD="sesame")
    state = mail.init_app(app)
    assert f"default: 127.0.0.1:{app.config['MAILBRIDGE_PORT']}" in repr(state)
    assert "sesame" not in repr(state) + repr(vars(state)) + repr(mail)
    assert state.mailer_names == ("default",)
