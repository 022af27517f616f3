"""Ways to a server: UNIX sockets, source addresses, families, and addresses that are kept from callers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailbridge import (
    AuthenticationFailed,
    ConnectFailed,
    Envelope,
    Mailer,
    NameNotResolved,
    SMTPConfig,
    SMTPConnection,
)
from tests.integration.conftest import Configure, StartMailer
from tests.integration.mails import new_mail
from tests.servers.fixtures import StartRelay, ask_for
from tests.servers.postfix import Postfix
from tests.servers.process import (
    UNPRIVILEGED,
    Endpoint,
    Program,
    accepts,
    find_program,
    free_ports,
    wait_until,
)

HOST = "mail.example.test"  # nobody's; tests say where it leads


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


def start_sink(where: str, folder: Path) -> Program:
    """smtp-sink on an address that the testbed's own does not take; it keeps nothing."""
    program = ask_for(lambda: find_program("smtp-sink", "smtp-sink", package="postfix"))
    # It changes its user itself, once it has bound: others may not enter the test's folder.
    user = ["-u", UNPRIVILEGED] if os.geteuid() == 0 else []
    return Program([program, *user, where, "10"], output=folder / "output")


@pytest.fixture
def unix_socket(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "smtp"
    sink = start_sink(f"unix:{path}", tmp_path)
    assert wait_until(lambda: path.exists() and can_connect(path), 10)
    yield path
    sink.stop()


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0


@pytest.fixture
def both_families(tmp_path: Path) -> Iterator[Endpoint]:
    """An smtp-sink on one port of 127.0.0.1 and of ::1."""
    port = free_ports(1)[0].port
    sinks = []
    for number, address in enumerate(("127.0.0.1", "[::1]")):
        (folder := tmp_path / str(number)).mkdir()
        sinks.append(start_sink(f"inet:{address}:{port}", folder))
    for address in ("127.0.0.1", "::1"):
        assert wait_until(lambda address=address: accepts(Endpoint(port, address)), 10)  # type: ignore[misc]
    yield Endpoint(port)
    for sink in sinks:
        sink.stop()


@pytest.fixture
def resolves_to(monkeypatch: pytest.MonkeyPatch) -> Any:
    """resolves_to(address, ...): what HOST resolves to, in this order."""
    real = socket.getaddrinfo

    def start(*addresses: str) -> None:
        def look_up(host: Any, port: Any, family: int = 0, *more: Any) -> Any:
            if host != HOST:
                return real(host, port, family, *more)
            rows = [row for address in addresses for row in real(address, port, 0, *more)]
            return [row for row in rows if family in (0, row[0])]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return start


class TestUnixSocket:
    def test_mail_goes_through_it(self, unix_socket: Path) -> None:
        with Mailer(SMTPConfig(host=f"unix:{unix_socket}", timeout=10)) as client:
            for reused in (False, True):
                result = new_mail().send(client)
                assert (bool(result.accepted), result.connection_reused) == (True, reused)
                assert result.server == f"unix:{unix_socket}"

    def test_a_login_is_safe_there(self, unix_socket: Path) -> None:
        """It is the sink that does not like it."""
        with (
            Mailer(SMTPConfig(host=f"unix:{unix_socket}", username="u", password="p", timeout=10)) as client,
            pytest.raises(AuthenticationFailed, match="The server refused the credentials"),
        ):
            new_mail().send(client)

    def test_verify(self, unix_socket: Path) -> None:
        report = Mailer(SMTPConfig(host=f"unix:{unix_socket}", timeout=10)).verify(mail_from="a@b.test")
        assert report.ok, str(report)
        assert report["tcp"].detail == f"connected to unix:{unix_socket}"

    def test_nobody_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectFailed, match="No such file") as raised:
            new_mail().send(Mailer(SMTPConfig(host=f"unix:{tmp_path}/none", timeout=10)))
        assert "Check the path of the UNIX socket" in raised.value.hint

    def test_it_is_internal(self, unix_socket: Path) -> None:
        config = SMTPConfig(host=f"unix:{unix_socket}", allow_internal_networks=False)
        with pytest.raises(ConnectFailed, match="allow_internal_networks is False"):
            new_mail().send(Mailer(config))


class TestGivenSocket:
    def test_a_connected_socket_is_used(self, postfix: Postfix, configure: Configure) -> None:
        sock = socket.create_connection(postfix.plain.address, timeout=5)
        connection, mail = SMTPConnection(configure(postfix.plain), sock=sock), new_mail()
        connection.connect()
        assert connection.send(mail.envelope, mail.content).accepted
        connection.quit()
        assert postfix.delivered(mail.message_id) == [mail.content]

    def test_what_is_secured_already_needs_no_starttls(self, postfix: Postfix, configure: Configure) -> None:
        sock = socket.create_connection(postfix.plain.address, timeout=5)
        config = configure(postfix.plain, security="starttls")
        connection = SMTPConnection(config, sock=sock, secured=True)
        connection.connect()
        assert (connection.secure, connection.tls) == (True, None)
        connection.quit()


class TestSourceAddress:
    def test_is_what_the_server_sees(self, postfix: Postfix, mailer: StartMailer) -> None:
        mail = new_mail()
        result = mail.send(mailer(postfix.plain, source_address="127.0.0.7"))
        assert f"{result.queue_id}: client=unknown[127.0.0.7]" in postfix.log()

    def test_that_is_not_ours(self, postfix: Postfix, mailer: StartMailer) -> None:
        with pytest.raises(ConnectFailed) as raised:
            new_mail().send(mailer(postfix.plain, source_address="192.0.2.1"))
        assert "source_address" in raised.value.hint
        assert not raised.value.outcome_unknown


@needs_ipv6
class TestFamilies:
    @pytest.mark.parametrize(
        ("family", "address"), [("ipv4", "127.0.0.1"), ("ipv6", "[::1]"), ("any", "[::1]")]
    )
    def test_the_family_is_chosen(
        self,
        both_families: Endpoint,
        configure: Configure,
        resolves_to: Any,
        family: str,
        address: str,
    ) -> None:
        resolves_to("::1", "127.0.0.1")
        connection = SMTPConnection(configure(both_families, host=HOST, family=family, local_hostname=None))
        connection.connect()
        assert connection.reached is not None
        assert connection.reached.dialed is not None
        assert connection.reached.dialed.address == f"{address}:{both_families.port}"
        mail = new_mail()
        assert connection.send(mail.envelope, mail.content).accepted
        connection.quit()

    def test_an_ipv6_address_as_host(self, both_families: Endpoint, configure: Configure) -> None:
        for host in ("::1", "[::1]"):
            config = configure(both_families, host=host)
            with Mailer(config) as client:
                assert new_mail().send(client).server == f"[::1]:{config.port}"

    def test_a_source_address_chooses_too(
        self, both_families: Endpoint, configure: Configure, resolves_to: Any
    ) -> None:
        resolves_to("::1", "127.0.0.1")
        config = configure(both_families, host=HOST, source_address="127.0.0.1")
        connection = SMTPConnection(config)
        connection.connect()
        assert connection.reached is not None
        assert connection.reached.dialed is not None
        assert connection.reached.dialed.address.startswith("127.0.0.1:")
        connection.quit()

    def test_no_address_of_that_family(self, postfix: Postfix, mailer: StartMailer, resolves_to: Any) -> None:
        resolves_to("127.0.0.1")
        with pytest.raises(NameNotResolved, match="has no IPv6 address"):
            new_mail().send(mailer(postfix.plain, host=HOST, family="ipv6"))

    def test_a_refused_address_is_passed_over(
        self, postfix: Postfix, mailer: StartMailer, resolves_to: Any
    ) -> None:
        """Postfix listens on 127.0.0.1 only, as many a server on "localhost" does."""
        resolves_to("::1", "127.0.0.1")
        client, mail = mailer(postfix.plain, host=HOST), new_mail()
        assert mail.send(client).accepted
        assert postfix.delivered(mail.message_id) == [mail.content]
        detail = client.verify()["tcp"].detail
        port = postfix.plain.port
        assert detail == f"connected to 127.0.0.1:{port}, after [::1]:{port} refused"


class TestInternalNetworks:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1", HOST])
    def test_loopback_is_refused_before_a_connection(
        self, postfix: Postfix, mailer: StartMailer, relay: StartRelay, resolves_to: Any, host: str
    ) -> None:
        resolves_to("127.0.0.1", "127.8.8.8")
        between = relay(postfix.plain.address)
        with pytest.raises(ConnectFailed, match=r"is internal .* allow_internal_networks is False") as raised:
            new_mail().send(mailer(between, host=host, allow_internal_networks=False))
        assert raised.value.stage == "tcp"
        assert between.connections == []


def test_the_envelope_is_all_that_counts(postfix: Postfix, mailer: StartMailer) -> None:
    """Whatever the header fields say."""
    mail = new_mail(fields=b"From: other@example.test\r\nTo: other@lab.test\r\nBcc: third@lab.test\r\n")
    mailer(postfix.plain).send(mail.content, envelope=Envelope("a@example.test", ["only@lab.test"]))
    [copy] = postfix.copies(mail.message_id)
    assert (copy.sender, copy.recipients) == ("a@example.test", ("only@lab.test",))
