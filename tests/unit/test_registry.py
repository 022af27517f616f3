"""One mailer per equal configuration; bounded; forgotten in a child; closed at exit."""

import subprocess
import sys
from textwrap import dedent

from mailbridge import SMTPConfig
from mailbridge.registry import Registry
from mailbridge.testing import ScriptedServer

MESSAGE = b"Subject: x\r\n\r\nx\r\n"


def config(number: int = 0, **options: object) -> SMTPConfig:
    return SMTPConfig.from_mapping({"host": "127.0.0.1", "port": 1 + number, "security": "none", **options})


def test_equal_configurations_share_a_mailer() -> None:
    registry = Registry()
    assert registry.mailer_for(config()) is registry.mailer_for(config())
    assert registry.mailer_for(config()) is not registry.mailer_for(config(1))
    assert len(registry) == 2


def test_the_least_recently_used_go_first() -> None:
    registry = Registry(limit=3)
    first, second, third = (registry.mailer_for(config(n)) for n in range(3))
    assert registry.mailer_for(config(0)) is first
    registry.mailer_for(config(3))
    assert len(registry) == 3
    assert registry.mailer_for(config(0)) is first
    assert registry.mailer_for(config(2)) is third
    assert registry.mailer_for(config(1)) is not second


def test_who_still_holds_a_retired_mailer_can_send_and_leaves_no_session() -> None:
    from mailbridge import Envelope

    with ScriptedServer() as server:
        registry = Registry(limit=1)
        old = registry.mailer_for(config(server.port - 1))
        old.send(MESSAGE, envelope=Envelope("a@x.example", "b@y.example"))
        registry.mailer_for(config())
        assert old.stats().idle == 0
        old.send(MESSAGE, envelope=Envelope("a@x.example", "b@y.example"))
        assert old.stats().size == 0
        assert len(server.messages) == 2
        registry.close_all()


def test_close_all_closes_and_the_next_one_is_new() -> None:
    registry = Registry()
    mailer = registry.mailer_for(config())
    registry.close_all()
    assert mailer.closed
    assert not registry.mailer_for(config()).closed


def test_a_mailer_that_was_closed_by_hand_is_replaced() -> None:
    registry = Registry()
    mailer = registry.mailer_for(config())
    mailer.close()
    assert not registry.mailer_for(config()).closed


def test_sessions_are_closed_at_exit_with_quit() -> None:
    with ScriptedServer() as server:
        code = f"""
            import mailbridge
            config = mailbridge.SMTPConfig(host="127.0.0.1", port={server.port}, security="none")
            mailbridge.mailer_for(config).connect()
        """
        subprocess.run([sys.executable, "-W", "error", "-c", dedent(code)], check=True, timeout=30)
        server.wait_for(lambda: bool(server.connections) and server.connections[0].closed_by is not None, 10)
        assert server.connections[0].commands[-1] == b"QUIT"
