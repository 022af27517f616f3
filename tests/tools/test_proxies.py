"""Each proxy of the testbed does what its fixture promises, seen with the standard library and PySocks alone.

A test of mailbridge that fails while these pass has found something about mailbridge.
"""

from __future__ import annotations

import base64
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
import socks

from tests.servers.certificates import Certificates
from tests.servers.dante import Dante
from tests.servers.dovecot import PASSWORD, USERNAME
from tests.servers.exim import Exim
from tests.servers.haproxy import HAProxy
from tests.servers.microsocks import Microsocks
from tests.servers.nginx import Nginx
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import Postfix
from tests.servers.process import Endpoint, accepts, free_port, wait_until
from tests.servers.squid import Squid
from tests.servers.ssh import SshTunnel
from tests.servers.tinyproxy import Tinyproxy

SECONDS = 10.0
SENDER = "sender@example.test"
INBOX = "inbox@lab.test"
OTHER_ADDRESS = "127.0.0.2"  # where a client comes from that shall not be taken for the proxy
# RFC 5737 keeps these addresses for examples: no connection comes from there.
CLAIMED = ("192.0.2.7", 4711)
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.25 4711 25\r\n"
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_ADDRESSES = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.25") + b"\x12\x67\x00\x19"
V2 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + V2_ADDRESSES
V2_LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"


class SMTPOver(smtplib.SMTP):
    """smtplib over a connection that stands already."""

    def __init__(self, sock: socket.socket) -> None:
        self._given = sock
        super().__init__("localhost", 1, local_hostname="client.test", timeout=SECONDS)
        self.ehlo()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._given


def message() -> tuple[str, bytes]:
    message_id = f"<{uuid.uuid4().hex}@example.test>"
    head = f"Message-ID: {message_id}\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nSubject: x\r\n"
    return message_id, head.encode() + b"\r\nhello\r\n"


def send(client: smtplib.SMTP) -> tuple[str, bytes]:
    """Send a message to INBOX; what it is found again by, and what is to be found."""
    message_id, content = message()
    client.sendmail(SENDER, [INBOX], content)
    return message_id, content


@pytest.fixture
def trusting(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.ca_file))


def dial(
    endpoint: Endpoint, context: ssl.SSLContext | None = None, *, source: tuple[str, int] = ("", 0)
) -> socket.socket:
    sock = socket.create_connection(endpoint.address, SECONDS, source)
    return context.wrap_socket(sock, server_hostname="localhost") if context else sock


def connect(
    proxy: Endpoint, target: str, login: str | None = None, context: ssl.SSLContext | None = None
) -> tuple[bytes, socket.socket]:
    """The head of the answer to CONNECT, and the tunnel."""
    sock = dial(proxy, context)
    token = base64.b64encode((login or "").encode()).decode()
    field = f"Proxy-Authorization: Basic {token}\r\n" if login else ""
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{field}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # not a byte too many: the server speaks next
        byte = sock.recv(1)
        assert byte, head
        head += byte
    return head, sock


def refusal(proxy: Endpoint, target: str, login: str | None = None) -> bytes:
    head, sock = connect(proxy, target, login)
    sock.close()
    return head


class TestSquid:
    def test_starttls_through_it(self, squid: Squid, postfix: Postfix, trusting: ssl.SSLContext) -> None:
        head, sock = connect(squid.open, f"localhost:{postfix.plain.port}")
        assert head.startswith(b"HTTP/1.1 200 ")
        with SMTPOver(sock) as client:
            client.starttls(context=trusting)
            message_id, content = send(client)
        assert postfix.delivered(message_id) == [content]

    def test_tells_a_name_from_an_address(self, squid: Squid, postfix: Postfix) -> None:
        for host in ("localhost", "127.0.0.1", squid.known_name):
            head, sock = connect(squid.open, f"{host}:{postfix.plain.port}")
            sock.close()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert squid.connects()[-1] == f"{host}:{postfix.plain.port}"

    def test_basic(self, squid: Squid, postfix: Postfix) -> None:
        target = f"localhost:{postfix.plain.port}"
        for login in (None, "pu:wrong"):
            head = refusal(squid.basic, target, login)
            assert head.startswith(b"HTTP/1.1 407 ")
            assert b"\r\nProxy-Authenticate: Basic realm=" in head
        head, sock = connect(squid.basic, target, f"{squid.username}:{squid.password}")
        assert head.startswith(b"HTTP/1.1 200 ")
        with SMTPOver(sock) as client:
            assert client.noop()[0] == 250

    def test_https(self, squid: Squid, postfix: Postfix, trusting: ssl.SSLContext) -> None:
        head, sock = connect(squid.https, f"localhost:{postfix.plain.port}", context=trusting)
        assert head.startswith(b"HTTP/1.1 200 ")
        with SMTPOver(sock) as client:
            message_id, content = send(client)
        assert postfix.delivered(message_id) == [content]

    def test_nobody_listens_there(self, squid: Squid) -> None:
        assert refusal(squid.open, f"localhost:{free_port().port}").startswith(b"HTTP/1.1 503 ")

    def test_only_to_loopback(self, squid: Squid) -> None:
        assert refusal(squid.open, "192.0.2.1:25").startswith(b"HTTP/1.1 403 ")


class TestTinyproxy:
    def test_starttls_through_it(
        self, tinyproxy: Tinyproxy, postfix: Postfix, trusting: ssl.SSLContext
    ) -> None:
        head, sock = connect(tinyproxy.open, f"localhost:{postfix.plain.port}")
        assert head.startswith(b"HTTP/1.0 200 ")
        with SMTPOver(sock) as client:
            client.starttls(context=trusting)
            message_id, content = send(client)
        assert postfix.delivered(message_id) == [content]

    def test_tells_a_name_from_an_address(self, tinyproxy: Tinyproxy, postfix: Postfix) -> None:
        for host in ("localhost", "127.0.0.1", tinyproxy.known_name):
            head, sock = connect(tinyproxy.open, f"{host}:{postfix.plain.port}")
            sock.close()
            assert head.startswith(b"HTTP/1.0 200 ")
            assert tinyproxy.connects()[-1] == f"{host}:{postfix.plain.port}"

    def test_basic(self, tinyproxy: Tinyproxy, postfix: Postfix) -> None:
        target = f"localhost:{postfix.plain.port}"
        assert refusal(tinyproxy.basic, target).startswith(b"HTTP/1.0 407 ")
        assert refusal(tinyproxy.basic, target, "pu:wrong").startswith(b"HTTP/1.0 401 ")
        head, sock = connect(tinyproxy.basic, target, f"{tinyproxy.username}:{tinyproxy.password}")
        assert head.startswith(b"HTTP/1.0 200 ")
        with SMTPOver(sock) as client:
            assert client.noop()[0] == 250

    def test_nobody_listens_there(self, tinyproxy: Tinyproxy) -> None:
        assert refusal(tinyproxy.open, f"localhost:{free_port().port}").startswith(b"HTTP/1.1 500 ")


def tunnel(kind: int, proxy: Endpoint, target: tuple[str, int], **login: str) -> socket.socket:
    """Through SOCKS `kind` (of PySocks), the name resolved by the proxy."""
    sock = socks.socksocket()
    sock.settimeout(SECONDS)
    sock.set_proxy(kind, *proxy.address, rdns=True, **login)
    try:
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


def socks4(proxy: Endpoint, target: Endpoint) -> tuple[bytes, socket.socket]:
    """The answer to SOCKS4 without a name, which PySocks does not tell from 4a, and the tunnel."""
    sock = dial(proxy)
    sock.sendall(b"\x04\x01" + target.port.to_bytes(2, "big") + socket.inet_aton(target.host) + b"me\0")
    return sock.recv(8, socket.MSG_WAITALL), sock


def socks5_refusal(proxy: Endpoint, target: Endpoint) -> bytes:
    """All that comes in answer to SOCKS5 without a login, and to a request for an address behind it."""
    with dial(proxy) as sock:
        sock.sendall(b"\x05\x01\x00")
        answer = sock.recv(2, socket.MSG_WAITALL)
        if answer == b"\x05\x00":
            address = socket.inet_aton(target.host) + target.port.to_bytes(2, "big")
            sock.sendall(b"\x05\x01\x00\x01" + address)
            answer += sock.recv(10, socket.MSG_WAITALL)
        return answer


class TestDante:
    @pytest.mark.parametrize(
        ("kind", "host"),
        [(socks.SOCKS4, "127.0.0.1"), (socks.SOCKS5, "127.0.0.1"), (socks.SOCKS5, "a name")],
    )
    def test_starttls_through_it(
        self, dante: Dante, postfix: Postfix, trusting: ssl.SSLContext, kind: int, host: str
    ) -> None:
        host = dante.known_name if host == "a name" else host
        with SMTPOver(tunnel(kind, dante.endpoint, (host, postfix.plain.port))) as client:
            client.starttls(context=trusting)
            message_id, content = send(client)
        assert postfix.delivered(message_id) == [content]
        assert wait_until(lambda: str(postfix.plain) in dante.connects(), SECONDS)

    def test_knows_no_socks4a(self, dante: Dante, postfix: Postfix) -> None:
        with pytest.raises(socks.ProxyError):
            tunnel(socks.SOCKS4, dante.endpoint, ("localhost", postfix.plain.port))

    def test_nobody_listens_there(self, dante: Dante) -> None:
        answer, sock = socks4(dante.endpoint, free_port())
        sock.close()
        assert answer[:2] == b"\x00\x5b"
        assert socks5_refusal(dante.endpoint, free_port())[:4] == b"\x05\x00\x05\x05"

    def test_only_to_loopback(self, dante: Dante) -> None:
        assert socks5_refusal(dante.endpoint, Endpoint(25, "192.0.2.1"))[:4] == b"\x05\x00\x05\x02"


class TestMicrosocks:
    @pytest.mark.parametrize("service", ["open", "password"])
    def test_starttls_through_it(
        self, microsocks: Microsocks, postfix: Postfix, trusting: ssl.SSLContext, service: str
    ) -> None:
        login = {"username": microsocks.username, "password": microsocks.secret}
        proxy = getattr(microsocks, service)
        target = (microsocks.known_name, postfix.plain.port)
        sock = tunnel(socks.SOCKS5, proxy, target, **(login if service == "password" else {}))
        with SMTPOver(sock) as client:
            client.starttls(context=trusting)
            message_id, content = send(client)
        assert postfix.delivered(message_id) == [content]

    def test_tells_a_name_from_an_address(self, microsocks: Microsocks, postfix: Postfix) -> None:
        for host in ("127.0.0.1", microsocks.known_name):
            tunnel(socks.SOCKS5, microsocks.open, (host, postfix.plain.port)).close()
            assert microsocks.connects()[-1] == f"{host}:{postfix.plain.port}"

    def test_login(self, microsocks: Microsocks, postfix: Postfix) -> None:
        assert socks5_refusal(microsocks.password, postfix.plain) == b"\x05\xff"
        with pytest.raises(socks.ProxyError):
            tunnel(socks.SOCKS5, microsocks.password, postfix.plain.address, username="su", password="wrong")

    def test_nobody_listens_there(self, microsocks: Microsocks) -> None:
        assert socks5_refusal(microsocks.open, free_port())[:4] == b"\x05\x00\x05\x05"


class TestSshTunnel:
    @pytest.mark.parametrize("kind", [socks.SOCKS4, socks.SOCKS5])
    @pytest.mark.parametrize("host", ["127.0.0.1", "a name"])
    def test_starttls_through_it(
        self, ssh_tunnel: SshTunnel, postfix: Postfix, trusting: ssl.SSLContext, kind: int, host: str
    ) -> None:
        """SOCKS4 with a name is 4a."""
        target = (ssh_tunnel.known_name if host == "a name" else host, postfix.plain.port)
        with SMTPOver(tunnel(kind, ssh_tunnel.endpoint, target)) as client:
            client.starttls(context=trusting)
            message_id, content = send(client)
        assert postfix.delivered(message_id) == [content]
        assert ssh_tunnel.connects()[-1] == f"{target[0]}:{target[1]}"

    def test_hangs_up_instead_of_refusing(self, ssh_tunnel: SshTunnel) -> None:
        target = free_port()
        answer, sock = socks4(ssh_tunnel.endpoint, target)
        sock.close()
        assert answer == b""
        assert socks5_refusal(ssh_tunnel.endpoint, target) == b"\x05\x00"
        assert ssh_tunnel.connects()[-1] == str(target)


class TestHAProxy:
    @pytest.mark.parametrize("name", ["v1", "v2", "v2_tls", "v1_smtps", "v2_smtps"])
    def test_postfix_behind_it(
        self, haproxy: HAProxy, postfix: Postfix, trusting: ssl.SSLContext, name: str
    ) -> None:
        context = trusting if name in ("v2_tls", "v1_smtps", "v2_smtps") else None
        sock = dial(getattr(haproxy, name), context, source=(OTHER_ADDRESS, 0))
        client_address = sock.getsockname()
        with SMTPOver(sock) as client:
            if context is None:
                client.starttls(context=trusting)
            if name != "v2_tls":  # Postfix sees no TLS there, and offers no login without
                client.login(USERNAME, PASSWORD)
            message_id, content = send(client)
        assert client_address in postfix.clients()
        assert postfix.delivered(message_id) == [content]

    @pytest.mark.parametrize("name", ["exim_v1", "exim_v2", "exim_v2_tls"])
    def test_exim_behind_it(self, haproxy: HAProxy, exim: Exim, trusting: ssl.SSLContext, name: str) -> None:
        sock = dial(
            getattr(haproxy, name), trusting if name == "exim_v2_tls" else None, source=(OTHER_ADDRESS, 0)
        )
        client_address = sock.getsockname()
        with SMTPOver(sock) as client:
            if name != "exim_v2_tls":
                client.starttls(context=trusting)
            client.login(USERNAME, PASSWORD)
            message_id, content = send(client)
        assert client_address in exim.clients()
        assert exim.delivered(message_id) == [content]

    @pytest.mark.parametrize("name", ["opensmtpd_v2", "opensmtpd_v2_tls"])
    def test_opensmtpd_behind_it(
        self, haproxy: HAProxy, opensmtpd: OpenSmtpd, trusting: ssl.SSLContext, name: str
    ) -> None:
        count = len(opensmtpd.messages())
        context = trusting if name == "opensmtpd_v2_tls" else None
        # Its log has no port: each test its own address.
        source = "127.0.0.3" if context else "127.0.0.4"
        with SMTPOver(dial(getattr(haproxy, name), context, source=(source, 0))) as client:
            message_id, _ = send(client)
        assert source in opensmtpd.clients()
        assert opensmtpd.messages(at_least=count + 1)[-1].message_id == message_id

    def test_ends_what_is_idle(self, haproxy: HAProxy) -> None:
        with dial(haproxy.idle) as sock:
            assert sock.recv(1000).startswith(b"220 ")
            assert sock.recv(1000) == b""  # no 421: a proxy knows no SMTP

    def test_round_robin(self, haproxy: HAProxy) -> None:
        offered = []
        for _ in range(4):
            with SMTPOver(dial(haproxy.round_robin)) as client:
                offered.append("pipelining" in client.esmtp_features)
        assert offered in ([True, False] * 2, [False, True] * 2)


class TestNginx:
    @pytest.mark.parametrize("name", ["v1", "v1_smtps"])
    def test_postfix_behind_it(
        self, nginx: Nginx, postfix: Postfix, trusting: ssl.SSLContext, name: str
    ) -> None:
        context = trusting if name == "v1_smtps" else None
        sock = dial(getattr(nginx, name), context, source=(OTHER_ADDRESS, 0))
        client_address = sock.getsockname()
        with SMTPOver(sock) as client:
            if context is None:
                client.starttls(context=trusting)
            client.login(USERNAME, PASSWORD)
            message_id, content = send(client)
        assert client_address in postfix.clients()
        assert postfix.delivered(message_id) == [content]

    def test_exim_behind_it(self, nginx: Nginx, exim: Exim) -> None:
        sock = dial(nginx.exim_v1, source=(OTHER_ADDRESS, 0))
        client_address = sock.getsockname()
        with SMTPOver(sock) as client:
            message_id, content = send(client)
        assert client_address in exim.clients()
        assert exim.delivered(message_id) == [content]

    def test_tls_in_front(self, nginx: Nginx, postfix: Postfix, trusting: ssl.SSLContext) -> None:
        with SMTPOver(dial(nginx.tls, trusting)) as client:
            message_id, content = send(client)
        assert postfix.delivered(message_id) == [content]


def after_header(endpoint: Endpoint, header: bytes, context: ssl.SSLContext | None = None) -> SMTPOver:
    sock = dial(endpoint)
    sock.sendall(header)
    return SMTPOver(context.wrap_socket(sock, server_hostname="localhost") if context else sock)


def header_less(endpoint: Endpoint) -> socket.socket:
    """A connection that begins with something else."""
    sock = dial(endpoint)
    sock.sendall(b"NOOP instead of it\r\n")
    return sock


class TestServersThatDemandAHeader:
    @pytest.mark.parametrize("header", [V1, V2])
    @pytest.mark.parametrize("service", ["behind_proxy", "behind_proxy_smtps"])
    def test_postfix(self, postfix: Postfix, trusting: ssl.SSLContext, service: str, header: bytes) -> None:
        count = postfix.clients().count(CLAIMED)
        context = trusting if service == "behind_proxy_smtps" else None
        with after_header(getattr(postfix, service), header, context) as client:
            if context is None:
                client.starttls(context=trusting)
            client.login(USERNAME, PASSWORD)
            message_id, content = send(client)
        assert postfix.clients().count(CLAIMED) == count + 1
        assert postfix.delivered(message_id) == [content]

    def test_postfix_takes_the_connection_for_the_client(self, postfix: Postfix) -> None:
        with after_header(postfix.behind_proxy, V2_LOCAL) as client:
            assert client.sock is not None
            assert client.sock.getsockname() in postfix.clients()

    @pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", V2_LOCAL])
    def test_exim_takes_the_connection_for_the_client(self, exim: Exim, header: bytes) -> None:
        with after_header(exim.behind_proxy, header) as client:
            assert client.sock is not None
            assert client.sock.getsockname() in exim.clients()

    @pytest.mark.parametrize("header", [V1, V2])
    @pytest.mark.parametrize("service", ["behind_proxy", "behind_proxy_tls"])
    def test_exim(self, exim: Exim, trusting: ssl.SSLContext, service: str, header: bytes) -> None:
        count = exim.clients().count(CLAIMED)
        context = trusting if service == "behind_proxy_tls" else None
        with after_header(getattr(exim, service), header, context) as client:
            if context is None:
                client.starttls(context=trusting)
            client.login(USERNAME, PASSWORD)
            message_id, content = send(client)
        assert exim.clients().count(CLAIMED) == count + 1
        assert exim.delivered(message_id) == [content]

    def test_opensmtpd(self, opensmtpd: OpenSmtpd) -> None:
        with after_header(opensmtpd.behind_proxy, V2) as client:
            assert CLAIMED[0] in opensmtpd.clients()
            assert client.noop()[0] == 250

    def test_no_greeting_of_postfix_without(self, postfix: Postfix) -> None:
        with header_less(postfix.behind_proxy) as sock:
            assert sock.recv(1000).startswith(b"421 ")

    def test_no_command_for_exim_without(self, exim: Exim) -> None:
        with SMTPOver(header_less(exim.behind_proxy)) as client:
            assert client.docmd("NOOP")[0] == 503

    def test_not_a_word_of_opensmtpd_without(self, opensmtpd: OpenSmtpd) -> None:
        with header_less(opensmtpd.behind_proxy) as sock, suppress(ConnectionResetError):
            assert sock.recv(1000) == b""


@pytest.mark.usefixtures("squid", "tinyproxy", "dante", "microsocks", "ssh_tunnel")
def test_proxies_end_with_a_process_that_is_killed() -> None:
    """Some are more than one process. Those of the child: that they can be had, the fixtures say."""
    code = """
from tests.servers.lab import Lab
lab = Lab()
squid, tinyproxy, dante, microsocks = lab.squid(), lab.tinyproxy(), lab.dante(), lab.microsocks()
endpoints = squid.https, tinyproxy.open, dante.endpoint, microsocks.open, lab.ssh_tunnel().endpoint
print(lab.folder, *(endpoint.port for endpoint in endpoints), flush=True)
input()
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        folder, *ports = child.stdout.readline().split()
        endpoints = [Endpoint(int(port)) for port in ports]
        assert all(accepts(endpoint) for endpoint in endpoints)
        child.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(accepts(endpoint) for endpoint in endpoints), SECONDS)
    shutil.rmtree(folder)
