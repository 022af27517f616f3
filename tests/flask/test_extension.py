"""`Mail`: applications, contexts, requests, threads; and recording what one application sends."""

import gc
import os
import threading
import weakref
from typing import Any

import pytest
from flask import Flask, current_app

import mailbridge
import mailbridge_flask
from mailbridge import ConfigurationError
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail, MailState, Message
from tests.flask.apps import RECIPIENT, app_for, parsed


def message(subject: str = "testing", **changes: Any) -> Message:
    return Message(**{"subject": subject, "recipients": [RECIPIENT], "body": "test", **changes})


# ---- initialising


def test_state_is_kept_with_the_application(app: Flask) -> None:
    mail = Mail()
    state = mail.init_app(app)
    assert isinstance(state, MailState)
    assert app.extensions["mailbridge"] is app.extensions["mail"] is state
    assert "app" not in vars(mail)


def test_nothing_connects_at_init(server: ScriptedServer) -> None:
    app = app_for(server)
    Mail(app)
    with app.app_context():
        assert Mail(app).mailer.stats().size == 0
    assert server.connections == ()


def test_it_may_be_initialised_again_to_read_the_configuration_anew(app: Flask, mail: Mail) -> None:
    app.config["MAILBRIDGE_PORT"] = 2525
    mail.init_app(app)
    with app.app_context():
        assert mail.mailer.config.port == 2525


def test_the_configuration_is_read_at_init_and_not_later(app: Flask, mail: Mail) -> None:
    port = app.config["MAILBRIDGE_PORT"]
    app.config["MAILBRIDGE_PORT"] = 2525
    with app.app_context():
        assert mail.mailer.config.port == port


def test_an_object_named_for_no_mailer_is_refused_at_init(app: Flask) -> None:
    app.config["MAILBRIDGE_MAILERS"] = {"bulk": {}}
    with pytest.raises(ConfigurationError, match="Did you mean 'bulk'"):
        Mail(app, name="bulks")
    assert "mailbridge" not in app.extensions


def test_current_app_stands_for_the_application(app: Flask) -> None:
    mail = Mail()
    with app.app_context():
        mail.init_app(current_app)
        assert mail.state.app is app
        assert mail.state_of(current_app).app is app


def test_another_extension_that_sends_mail_is_an_error_that_names_it(app: Flask) -> None:
    app.extensions["mail"] = object()
    with pytest.raises(ConfigurationError, match="belongs to builtins"):
        Mail(app)


@pytest.mark.parametrize("name", ["sned", "suppress", "send_mail", "app"])
def test_a_typo_is_an_attribute_error(name: str, mail: Mail) -> None:
    with pytest.raises(AttributeError):
        getattr(mail, name)


def test_all_names_are_there() -> None:
    for name in mailbridge_flask.__all__:
        assert getattr(mailbridge_flask, name) is not None


def test_it_keeps_no_application_alive() -> None:
    mail = Mail()
    app = app_for()
    mail.init_app(app)
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None
    assert "of 0 applications" in repr(mail)


# ---- which application


def test_without_a_context_the_error_says_what_to_do(mail: Mail) -> None:
    for attempt in (
        lambda: mail.send(message()),
        lambda: mail.connect(),
        lambda: mail.mailer,
        lambda: mail.state,
    ):
        with pytest.raises(RuntimeError, match="app_context"):
            attempt()


def test_an_application_that_was_not_initialised_is_an_error(mail: Mail) -> None:
    other = app_for()
    with pytest.raises(RuntimeError, match=r"init_app\(\) was not called"):
        mail.send(message(), app=other)
    with other.app_context(), pytest.raises(RuntimeError, match="testapp"):
        mail.send(message())


def test_an_application_can_be_named_instead_of_a_context(
    app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    mail.send(message(), app=app)
    with mail.connect(app=app) as connection:
        connection.send(message())
    assert len(server.messages) == 2


def test_two_applications_use_their_own_servers(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    with ScriptedServer() as other_server:
        other = app_for(other_server, MAILBRIDGE_DEFAULT_SENDER="other@example.com")
        mail.init_app(other)
        with app.app_context():
            mail.send(message("app"))
            with other.app_context():
                mail.send(message("other"))
            mail.send(message("app again"))
            mail.send(message("other by name"), app=other)
        mailbridge.close_all()
        assert [parsed(each)["Subject"] for each in other_server.messages] == ["other", "other by name"]
        assert {each.sender for each in other_server.messages} == {"other@example.com"}
        assert len(other_server.connections) == 1
    assert [parsed(each)["Subject"] for each in server.messages] == ["app", "app again"]
    assert len(server.connections) == 1


def test_an_object_made_for_one_application_serves_another_in_its_context(
    app: Flask, server: ScriptedServer
) -> None:
    mail = Mail(app_for())
    mail.init_app(app)
    with app.app_context():
        mail.send(message())
    assert len(server.messages) == 1


def test_a_message_is_made_in_one_context_and_sent_in_another(
    app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    with app.app_context():
        made = message()
    with app.test_request_context():
        mail.send(made)
    assert len(server.messages) == 1


# ---- requests, threads, forks


def test_requests_share_a_connection_and_no_end_of_one_closes_it(
    app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    @app.post("/one")
    def one() -> str:
        mail.send(message())
        return "sent"

    @app.post("/several")
    def several() -> str:
        with mail.connect() as connection:
            connection.send(message())
            connection.send(message())
        return "sent"

    client = app.test_client()
    for path in ("/one", "/several", "/one"):
        assert client.post(path).text == "sent"
    assert (len(server.messages), len(server.connections)) == (4, 1)
    assert server.connections[0].closed_by is None


def test_threads_share_the_pool(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    app.config["MAILBRIDGE_POOL"] = {"max_size": 2}
    mail.init_app(app)

    def work() -> None:
        with app.app_context():
            for _ in range(5):
                mail.send(message())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(server.messages) == 40
    assert len(server.connections) <= 2


def test_a_forked_worker_has_connections_of_its_own(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    mail.send(message("parent"), app=app)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mail.send(message("child"), app=app)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    mail.send(message("parent again"), app=app)
    assert [(parsed(each)["Subject"], each.connection) for each in server.messages] == [
        ("parent", 1),
        ("child", 2),
        ("parent again", 1),
    ]


# ---- recording


def test_it_records_what_is_sent_and_what_is_suppressed(
    app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    with app.app_context(), mail.record_messages() as outbox:
        first, second = message("one"), message("two")
        mail.send(first)
        app.config["TESTING"] = True
        mail.send(second)
        assert outbox == [first, second]
    with app.app_context():
        mail.send(message("three"))
    assert outbox == [first, second]
    assert len(server.messages) == 1


def test_it_records_this_applications_messages_only(app: Flask, mail: Mail, server: ScriptedServer) -> None:
    other = app_for(server)
    mail.init_app(other)
    with (
        mail.record_messages(app=app) as named,
        app.extensions["mail"].record_messages() as stated,
        app.app_context(),
        mail.record_messages() as active,
    ):
        mail.send(message("one"))
        mail.send(message("two"), app=other)
    assert [[each.subject for each in outbox] for outbox in (named, active, stated)] == [["one"]] * 3


def test_outside_of_a_context_it_records_all_that_it_was_initialised_for(
    app: Flask, mail: Mail, server: ScriptedServer
) -> None:
    stranger = app_for(server)
    Mail(stranger)
    with mail.record_messages() as outbox:
        mail.send(message("one"), app=app)
        mail.send(message("two"), app=stranger)
    assert [each.subject for each in outbox] == ["one"]


def test_it_records_nothing_that_failed(mail: Mail) -> None:
    app = app_for()
    mail.init_app(app)
    with mail.record_messages() as outbox, pytest.raises(OSError, match="refused"):
        mail.send(message(), app=app)
    assert outbox == []


def test_other_mailers_of_the_application_are_recorded_too(app: Flask, mail: Mail) -> None:
    app.config.update(TESTING=True, MAILBRIDGE_MAILERS={"bulk": {}})
    bulk = Mail(app, name="bulk")
    with app.app_context(), mail.record_messages() as outbox:
        bulk.send(message("bulk"))
    assert [each.subject for each in outbox] == ["bulk"]
