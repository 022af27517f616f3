"""The examples of Flask-Mail's documentation, with the import changed and nothing else.

Written after its page "Flask-Mail" (0.10), section by section; each ends in what must have happened.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask

from mailbridge.testing import ScriptedServer
from mailbridge_flask import BadHeaderError, Mail, Message, email_dispatched
from tests.flask.apps import parsed


@pytest.fixture
def app(server: ScriptedServer) -> Flask:
    """An application as its users have it: with Flask-Mail's keys and none of ours."""
    app = Flask(__name__)
    app.config.update(
        MAIL_SERVER="127.0.0.1",
        MAIL_PORT=server.port,
        MAIL_USE_TLS=False,
        MAIL_USE_SSL=False,
        MAIL_USERNAME=None,
        MAIL_PASSWORD=None,
        MAIL_DEFAULT_SENDER="default@example.com",
        MAIL_MAX_EMAILS=None,
        MAIL_ASCII_ATTACHMENTS=False,
    )
    return app


def test_the_extension_instance(app: Flask) -> None:
    mail = Mail(app)
    other = Mail()
    other.init_app(app)
    with app.app_context():
        assert mail.mailer is other.mailer


def test_sending_messages(app: Flask, server: ScriptedServer) -> None:
    mail = Mail(app)

    @app.route("/")
    def index() -> str:
        msg = Message(
            subject="Hello",
            sender="from@example.com",
            recipients=["to@example.com"],
        )
        msg.recipients = ["you@example.com"]
        msg.add_recipient("somebodyelse@example.com")
        msg.body = "testing"
        msg.html = "<b>testing</b>"
        mail.send(msg)
        return "sent"

    assert app.test_client().get("/").text == "sent"
    (received,) = server.messages
    assert received.sender == "from@example.com"
    assert received.recipients == ("you@example.com", "somebodyelse@example.com")
    message = parsed(received)
    assert message["To"] == "you@example.com, somebodyelse@example.com"
    assert [part.get_content() for part in message.iter_parts()] == ["testing\n", "<b>testing</b>\n"]


def test_the_default_sender(app: Flask, server: ScriptedServer) -> None:
    mail = Mail(app)
    with app.app_context():
        msg = Message(
            subject="Hello",
            recipients=["to@example.com"],
        )
        assert msg.sender == "default@example.com"
        mail.send(msg)
    assert server.messages[0].sender == "default@example.com"


def test_a_sender_of_two_elements(app: Flask) -> None:
    Mail(app)
    with app.app_context():
        msg = Message(
            subject="Hello",
            sender=("Me", "me@example.com"),
        )
        assert msg.sender == "Me <me@example.com>"


@dataclass
class User:
    name: str
    email: str


def test_bulk_emails(app: Flask, server: ScriptedServer) -> None:
    mail = Mail(app)
    users = [User(f"user {number}", f"user{number}@example.com") for number in range(20)]
    with app.app_context(), mail.connect() as conn:
        for user in users:
            msg = Message(
                subject=f"hello, {user.name}",
                body="...",
                recipients=[user.email],
            )
            conn.send(msg)
    assert [each.recipients for each in server.messages] == [(user.email,) for user in users]
    assert len(server.connections) == 1


def png() -> bytes:
    """One grey pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def test_attachments(server: ScriptedServer, app: Flask, tmp_path: Path) -> None:
    mail = Mail(app)
    (tmp_path / "image.png").write_bytes(png())
    app.root_path = str(tmp_path)
    with app.app_context():
        msg = Message(subject="Hello", recipients=["to@example.com"])
        with app.open_resource("image.png") as fp:
            msg.attach("image.png", "image/png", fp.read())
        mail.send(msg)
    (part,) = parsed(server.messages[0]).iter_attachments()
    assert (part.get_filename(), part.get_content_type()) == ("image.png", "image/png")
    assert part.get_content() == png()


@pytest.mark.parametrize("key", ["TESTING", "MAIL_SUPPRESS_SEND"])
def test_unit_tests_and_suppressing_emails(key: str, app: Flask, server: ScriptedServer) -> None:
    app.config[key] = True
    mail = Mail(app)
    emails = ["to@example.com"]
    with app.app_context(), mail.record_messages() as outbox:
        mail.send_message(
            subject="testing",
            body="test",
            recipients=emails,
        )
        assert len(outbox) == 1
        assert outbox[0].subject == "testing"
        assert outbox[0].sender == "default@example.com"
    assert server.connections == ()


def test_recording_what_a_view_sends_outside_of_a_context(app: Flask) -> None:
    app.testing = True
    mail = Mail(app)

    @app.route("/email-sending-view/")
    def view() -> str:
        mail.send_message(subject="testing", recipients=["to@example.com"])
        return "sent"

    with mail.record_messages() as outbox:
        app.test_client().get("/email-sending-view/")
        assert len(outbox) == 1
        assert outbox[0].subject == "testing"
    assert outbox[0].sender == "default@example.com"


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "Hello\r\nBcc: evil@example.com"},
        {"sender": "from@example.com\r\nBcc: evil@example.com"},
        {"recipients": ["to@example.com\r\nBcc: evil@example.com"]},
    ],
)
def test_header_injection(changes: dict[str, object], app: Flask, server: ScriptedServer) -> None:
    mail = Mail(app)
    arguments: dict[str, object] = {"subject": "Hello", "recipients": ["to@example.com"], **changes}
    with app.app_context(), pytest.raises(BadHeaderError):
        mail.send_message(**arguments)
    assert server.messages == ()


def test_signalling_support(app: Flask) -> None:
    app.testing = True
    mail = Mail(app)
    logged: list[tuple[str, object]] = []

    def log_message(app: Flask, message: Message) -> None:
        logged.append((message.subject, app))

    email_dispatched.connect(log_message)
    try:
        with app.app_context():
            mail.send_message(subject="testing", recipients=["to@example.com"])
    finally:
        email_dispatched.disconnect(log_message)
    assert logged == [("testing", app)]


def test_what_tests_do_with_the_state(app: Flask, server: ScriptedServer) -> None:
    mail = Mail(app)
    with app.app_context():
        app.extensions["mail"].default_sender = ("tester", "tester@example.com")
        assert Message(subject="testing").sender == "tester <tester@example.com>"
        mail.state.ascii_attachments = True
        msg = Message(subject="testing", recipients=["to@example.com"])
        msg.attach("ünicöde.txt", "text/plain", b"this is a test")
        assert 'filename="unicode.txt"' in msg.as_string()
        mail.state.suppress = True
        mail.send(msg)
        app.extensions["mail"].send(msg)
    assert server.messages == ()
