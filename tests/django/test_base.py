"""mailbridge_django.base: options in, attributes out, open and close."""

import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured

from mailbridge import ConfigurationError, ConnectFailed, SMTPConfig, Timeouts
from mailbridge.testing import Fault, ScriptedServer
from mailbridge_django import EmailBackend, InvalidMailer
from tests.django.conftest import Use, overridden


def made(**options: Any) -> EmailBackend:
    """A backend as Django makes it before 6.1, and as projects make it by hand."""
    return EmailBackend(**options)


def test_the_settings_of_django_are_heeded() -> None:
    with overridden(
        EMAIL_HOST="smtp.example.com",
        EMAIL_PORT=2525,
        EMAIL_HOST_USER="u",
        EMAIL_HOST_PASSWORD="p",
        EMAIL_USE_TLS=True,
        EMAIL_TIMEOUT=7,
        EMAIL_SSL_CERTFILE="c.pem",
        EMAIL_SSL_KEYFILE="k.pem",
    ):
        backend = made()
    assert backend.config == SMTPConfig(
        host="smtp.example.com",
        port=2525,
        username="u",
        password="p",
        security="starttls",
        timeout=7,
        tls={"cert_file": "c.pem", "key_file": "k.pem"},
    )
    assert (backend.host, backend.port, backend.username, backend.password) == (
        "smtp.example.com",
        2525,
        "u",
        "p",
    )
    assert (backend.use_tls, backend.use_ssl, backend.timeout) == (True, False, 7)
    assert (backend.ssl_certfile, backend.ssl_keyfile) == ("c.pem", "k.pem")
    assert (backend.fail_silently, backend.alias, backend.connection) == (False, None, None)


def test_lmtp_has_a_port_of_its_own() -> None:
    """25, Django's default, is the one that LMTP must not be spoken to (RFC 2033 section 5)."""
    assert (made(protocol="lmtp").config.protocol, made(protocol="lmtp").port) == ("lmtp", 24)
    assert made(protocol="lmtp", port=2424).port == 2424
    with overridden(EMAIL_PORT=2525, MAILBRIDGE={"protocol": "lmtp"}):
        assert made().port == 2525
    with overridden(EMAIL_PORT=25), pytest.raises(ImproperlyConfigured, match="RFC 2033"):
        made(protocol="lmtp")


def test_the_defaults_are_django_s() -> None:
    backend = made()
    assert (backend.host, backend.port, backend.config.security) == ("localhost", 25, "none")
    assert (backend.username, backend.password, backend.timeout) == ("", "", None)
    assert not backend.config.has_credentials


def test_a_keyword_beats_the_package_which_beats_django_s_setting() -> None:
    with overridden(
        EMAIL_HOST="django.example",
        EMAIL_PORT=1,
        EMAIL_TIMEOUT=1,
        MAILBRIDGE={"host": "package.example", "port": 2},
    ):
        config = made(port=3).config
    assert (config.host, config.port, config.timeouts.command) == ("package.example", 3, 1)


def test_none_does_not_override() -> None:
    with overridden(EMAIL_HOST_USER="u", EMAIL_HOST_PASSWORD="p"):
        backend = made(username=None, password=None, use_tls=None, timeout=None)
    assert (backend.username, backend.password) == ("u", "p")


def test_a_url_leaves_nothing_to_django_s_settings() -> None:
    with overridden(
        EMAIL_HOST="django.example",
        EMAIL_PORT=1,
        EMAIL_HOST_USER="u",
        EMAIL_HOST_PASSWORD="p",
        EMAIL_USE_TLS=True,
        MAILBRIDGE={"url": "smtps://smtp.example.com/"},
    ):
        backend = made()
    assert backend.config == SMTPConfig(host="smtp.example.com", security="tls", port=465)
    assert (backend.host, backend.port, backend.use_tls, backend.use_ssl) == (
        "smtp.example.com",
        465,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("settings_given", "keywords", "security", "port"),
    [
        ({"EMAIL_USE_TLS": True}, {}, "starttls", 25),  # EMAIL_PORT is 25 in Django, whatever the flags
        ({"EMAIL_USE_SSL": True, "EMAIL_PORT": 465}, {}, "tls", 465),
        ({"EMAIL_PORT": 465}, {}, "tls", 465),
        ({}, {"port": "465"}, "tls", 465),
        ({"MAILBRIDGE": {"security": "tls"}}, {}, "tls", 465),
        ({"MAILBRIDGE": {"security": "tls"}, "EMAIL_PORT": 25}, {}, "tls", 25),
        ({"MAILBRIDGE": {"security": "tls"}, "EMAIL_USE_TLS": True}, {}, "tls", 465),
        ({"MAILBRIDGE": {"security": "tls"}}, {"use_tls": False, "use_ssl": False}, "tls", 465),
        ({"MAILBRIDGE": {"security": "none"}}, {"use_tls": True}, "starttls", 25),
        ({"MAILBRIDGE": {"url": "smtp://h:26/?security=none"}}, {"use_tls": True}, "starttls", 26),
        ({"EMAIL_USE_TLS": True}, {"use_tls": False}, "none", 25),
        ({"EMAIL_USE_TLS": True}, {"url": "smtp://h/?security=none"}, "none", 25),
        ({"EMAIL_USE_TLS": True}, {"security": "opportunistic"}, "opportunistic", 587),
    ],
)
def test_which_security_comes_of_it(
    settings_given: dict[str, Any], keywords: dict[str, Any], security: str, port: int
) -> None:
    with overridden(**settings_given):
        config = made(**keywords).config
    assert (config.security, config.port) == (security, port)


def test_both_flags_are_refused_as_in_django() -> None:
    with pytest.raises(ValueError, match="mutually exclusive") as caught, overridden(EMAIL_USE_TLS=True):
        made(use_ssl=True)
    assert isinstance(caught.value, (ImproperlyConfigured, InvalidMailer))
    assert isinstance(caught.value, ConfigurationError)


def test_credentials_may_be_callables() -> None:
    backend = made(username="u", password=lambda: "fresh")
    assert callable(backend.password)
    assert backend.config.has_credentials


def test_no_secret_shows() -> None:
    backend = made(url="smtp://u:hunter2@smtp.example.com/")
    assert backend.password == "hunter2"
    assert "hunter2" not in f"{backend!r} {vars(backend)}"
    assert repr(backend) == "<EmailBackend alias=None server='smtp.example.com:587'>"


@pytest.mark.parametrize(
    "options",
    [
        {"host": "h", "username": "u", "password": "hunter2", "port": -1},
        {"url": "smtp://u:hunter2@h/?port=x"},
        {"host": "h", "password": "hunter2", "username": "u", "use_tls": True, "use_ssl": True},
    ],
)
def test_no_frame_of_a_traceback_holds_a_secret(options: dict[str, Any]) -> None:
    """Debug pages show the local variables of every frame, those of chained errors too."""
    with pytest.raises(ConfigurationError) as caught:
        EmailBackend(**options)
    frames = list(frames_of(caught.value))
    assert len(frames) > 1
    for frame in frames:
        assert "hunter2" not in repr(frame.f_locals), frame


def frames_of(error: BaseException | None) -> Iterator[FrameType]:
    """The frames below the caller's that a debug page shows, those of chained errors too."""
    caller = sys._getframe(1)
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code is not caller.f_code:
                yield trace.tb_frame
            trace = trace.tb_next
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_what_is_set_later_counts() -> None:
    backend = made(host="a.example", timeouts={"total": 60}, username="u", password="p")
    before = backend.config
    backend.timeout = 15
    wanted = Timeouts(connect=15, greeting=15, command=15, data=15, final=15)
    assert backend.config.timeouts == wanted
    backend.host, backend.port, backend.use_tls, backend.password = "b.example", 26, True, "q"
    assert backend.config == SMTPConfig(
        host="b.example", port=26, security="starttls", username="u", password="q", timeouts=wanted
    )
    assert before.host == "a.example"


def test_a_time_limit_set_later_beats_that_of_a_url() -> None:
    backend = made(url="smtp://h/?security=none&timeout=60")
    backend.timeout = 15
    assert backend.config.timeouts.command == 15


def test_what_is_set_later_may_be_wrong() -> None:
    backend = made(host="a.example")
    backend.timeout = -1
    with pytest.raises(ConfigurationError, match=r"timeouts\.connect"):
        _ = backend.config


class TestOpen:
    def test_it_tells_whether_it_was_open(self, use: Use, server: ScriptedServer, mode: str) -> None:
        use(server)
        backend = mail.mailers.default if mode == "MAILERS" else made()
        assert backend.connection is None
        assert backend.open() is True
        assert backend.connection is not None
        assert backend.open() is False
        backend.close()
        backend.close()
        assert backend.connection is None
        assert [one.is_closed for one in server.connections] == [False]

    def test_the_session_is_used_by_the_next_send(self, server: ScriptedServer) -> None:
        with overridden(MAILBRIDGE={"host": server.host, "port": server.port}), made() as backend:
            assert backend.connection is not None
            backend.send_messages([mail.EmailMessage("s", "b", "a@x.example", ["b@y.example"])])
        assert backend.connection is None
        assert len(server.connections) == 1

    def test_no_server_is_an_error_that_says_so(self, server: ScriptedServer) -> None:
        server.refuse()
        with pytest.raises(ConnectFailed, match="refused"):
            made(host=server.host, port=server.port).open()
        with pytest.raises(ConnectionError), made(host=server.host, port=server.port):
            pytest.fail("it was opened")

    def test_fail_silently_gives_none(self, server: ScriptedServer) -> None:
        server.refuse()
        backend = made(host=server.host, port=server.port, fail_silently=True)
        assert backend.open() is None
        assert backend.connection is None

    def test_fail_silently_does_not_hide_a_configuration_that_cannot_work(self) -> None:
        backend = made(host="h", fail_silently=True)
        backend.timeout = -1
        with pytest.raises(ConfigurationError):
            backend.open()

    def test_a_health_check_sets_the_time_limit_after_construction(self) -> None:
        with ScriptedServer(faults=[Fault("greeting", "silence")]) as silent:
            backend = made(host=silent.host, port=silent.port)
            backend.timeout = 0.2
            with pytest.raises(TimeoutError):
                backend.open()

    def test_opened_backends_share_the_pool(self, server: ScriptedServer) -> None:
        """Eight threads hold an opened backend each; the pool has five places; all get through."""
        all_are_open = threading.Barrier(8, timeout=20)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                with made(
                    host=server.host, port=server.port, pool={"max_size": 5, "acquire_timeout": 15}
                ) as backend:
                    all_are_open.wait()
                    message = mail.EmailMessage(f"{number}", "b", "a@x.example", ["b@y.example"])
                    assert backend.send_messages([message]) == 1
                    all_are_open.wait()
            except BaseException as error:
                errors.append(error)
                all_are_open.abort()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert errors == []
        assert len(server.messages) == 8
        assert len(server.connections) <= 5


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("a@x.example", "a@x.example"),
        ("Ann Example <a@x.example>", "a@x.example"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
    ],
)
def test_prep_address(address: str, bare: str) -> None:
    assert made().prep_address(address) == bare
    assert made().prep_address(address, force_ascii=False) == bare


@pytest.mark.parametrize(
    "address", ["a@x.example\r\nRCPT TO:<evil@y.example>", "a@x.example, b@y.example", "", "<>"]
)
def test_prep_address_refuses(address: str) -> None:
    with pytest.raises(ValueError, match="Invalid address"):
        made().prep_address(address)


def test_prep_address_with_a_local_part_beyond_ascii() -> None:
    assert made().prep_address("jörg@x.example", force_ascii=False) == "jörg@x.example"
    with pytest.raises(ValueError, match=r"Invalid address.*non-ASCII"):
        made().prep_address("jörg@x.example")


@pytest.mark.parametrize(
    "django", [{}, {"EMAIL_HOST": "old.example", "EMAIL_PORT": 26, "EMAIL_USE_TLS": True}]
)
def test_a_service_stands_in_for_the_host_of_django(django: dict[str, Any]) -> None:
    with overridden(MAILBRIDGE={"service": "gmail"}, **django, EMAIL_HOST_USER="u", EMAIL_HOST_PASSWORD="p"):
        backend = made()
        assert backend.config == SMTPConfig(service="gmail", username="u", password="p")
        assert (backend.host, backend.port, backend.use_ssl) == ("smtp.gmail.com", 465, True)
        assert made(host="mine.example", port=587).config.server == "mine.example:587"
        assert made(service="ses-eu-west-1").config.host == "email-smtp.eu-west-1.amazonaws.com"
        assert made(port=587).config.security == "starttls"


def test_a_service_whose_user_name_is_known_needs_the_key_alone() -> None:
    with overridden(MAILBRIDGE={"service": "sendgrid", "password": "key"}):
        backend = made()
        assert backend.config == SMTPConfig(service="sendgrid", password="key")
        assert not backend.lacks_half_of_credentials
    with overridden(MAILBRIDGE={"service": "gmail"}):
        assert not made().config.has_credentials
