"""A raw client that says exactly what a test wants said, and a certificate for TLS on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailbridge.testing import ScriptedServer
from mailbridge.testing.wire import Channel

PATIENCE = 5.0  # seconds until a read that should have ended fails the test


class RawClient:
    """Bytes to a server and back, without any opinion about SMTP."""

    def __init__(self, server: ScriptedServer) -> None:
        if isinstance(server.address, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(server.address)
        else:
            self.sock = socket.create_connection(server.address, timeout=PATIENCE)
        self.unread = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_line(self) -> bytes:
        while b"\n" not in self.unread:
            piece = self.sock.recv(65536)
            assert piece, f"end of file behind {self.unread!r}"
            self.unread += piece
        line, _, self.unread = self.unread.partition(b"\n")
        return line + b"\n"

    def read_reply(self) -> bytes:
        """All lines of one reply."""
        lines = [self.read_line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.read_line())
        return b"".join(lines)

    def say(self, *lines: bytes) -> bytes:
        """Send lines one after the other, each when the one before is answered; returns the last reply."""
        reply = b""
        for line in lines:
            self.send(line + b"\r\n")
            reply = self.read_reply()
        return reply

    def greet(self) -> RawClient:
        assert self.read_reply().startswith(b"220")
        assert self.say(b"EHLO client.example").startswith(b"250")
        return self

    def read_to_end(self) -> bytes:
        """Everything until end-of-file."""
        found, self.unread = self.unread, b""
        while piece := self.sock.recv(65536):
            found += piece
        return found

    def is_silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes, not even an end, for a while."""
        self.sock.settimeout(seconds)
        try:
            self.unread += self.sock.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)
        return False

    def start_tls(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        """Shake hands. From here on only close_notify is an end-of-file; a mere FIN raises SSLEOFError."""
        self.sock = context.wrap_socket(
            self.sock, server_hostname="localhost", suppress_ragged_eofs=False, session=session
        )

    def close(self) -> None:
        self.sock.close()


Dial = Callable[[ScriptedServer], RawClient]


@pytest.fixture
def dial() -> Iterator[Dial]:
    clients: list[RawClient] = []

    def connect(server: ScriptedServer) -> RawClient:
        clients.append(RawClient(server))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What servers send from here on, piece by piece; how it arrives is up to the network."""
    sent: list[bytes] = []
    send = Channel.send

    def noted(channel: Channel, data: bytes) -> None:
        sent.append(data)
        send(channel, data)

    monkeypatch.setattr(Channel, "send", noted)
    return sent


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long servers wait from here on, in seconds; they do not really wait."""
    asked: list[float] = []

    def noted(channel: Channel, seconds: float) -> None:
        asked.append(seconds)
        pause(channel, 0.0)

    pause = Channel.pause
    monkeypatch.setattr(Channel, "pause", noted)
    return asked


@dataclass(frozen=True)
class Certificate:
    certfile: Path
    keyfile: Path

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certfile))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Self-signed for localhost and 127.0.0.1, and its own authority."""
    folder = tmp_path_factory.mktemp("scripted-server")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certfile, keyfile = folder / "cert.pem", folder / "key.pem"
    certfile.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Certificate(certfile, keyfile)
